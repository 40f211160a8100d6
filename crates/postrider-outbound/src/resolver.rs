//! Names to addresses, bounded in time and number. Does not judge addresses: `connect` does, each time.

use crate::config::Config;
use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::Name,
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// Most addresses that a name may have: each one is vetted, and a name with more is no web server's.
pub const ADDRESSES: usize = 16;
/// Longest use of an answer, whatever its TTL: a name that moves is followed within this time.
const POSITIVE_AGE: Duration = Duration::from_secs(30);
/// Longest use of a negative answer: a name that was just created is found by the next retry.
const NEGATIVE_AGE: Duration = Duration::from_secs(5);
/// Answers kept; a name has two (A and AAAA).
const CACHED_ANSWERS: u64 = 4096;

/// Turns a host name into addresses.
#[async_trait]
pub trait Resolve: Send + Sync + fmt::Debug {
    /// All addresses of `name`, which is a fully qualified name without its trailing dot. Never empty. A caller bounds
    /// the time.
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveFailure>;
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolveFailure {
    /// There is no such name, or it has no address.
    #[error("the name does not exist or has no address")]
    NotFound,
    /// No answer in time.
    #[error("no DNS server answered in time")]
    Timeout,
    /// The DNS servers answered with an error, or with nonsense.
    #[error("the DNS servers answered with an error")]
    Failed,
    /// More than [`ADDRESSES`] addresses.
    #[error("the name has more than {ADDRESSES} addresses")]
    TooMany,
    /// There is no DNS server to ask.
    #[error("this server has no DNS server configured; set `outbound.dns_servers`")]
    NoServers,
}

/// DNS as the system is configured, or with servers of the configuration. No search domains, no hosts file.
#[derive(Debug)]
pub struct SystemResolver {
    dns: Option<TokioResolver>,
    /// `localhost` resolves without DNS in development.
    dev: bool,
}

impl SystemResolver {
    /// Reads the system's DNS configuration unless `config` names servers. Without any server it fails, except in
    /// development, where names then do not resolve.
    pub fn new(config: &Config) -> Result<Self, NoDnsServers> {
        let servers =
            if config.dns_servers.is_empty() { system_servers() } else { name_servers(&config.dns_servers) };
        let dns = if servers.is_empty() { None } else { build(servers, config.dns_timeout()) };
        if dns.is_none() && !config.dev {
            return Err(NoDnsServers);
        }
        Ok(Self { dns, dev: config.dev })
    }
}

/// The system names no DNS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the system's configuration names no DNS server; set `outbound.dns_servers`, for example to [\"9.9.9.9:53\"]"
)]
pub struct NoDnsServers;

fn system_servers() -> Vec<NameServerConfig> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => config.name_servers,
        Err(error) => {
            tracing::warn!(%error, "the system's DNS configuration cannot be read");
            Vec::new()
        }
    }
}

/// One entry per address, with every port given for it.
fn name_servers(addresses: &[SocketAddr]) -> Vec<NameServerConfig> {
    let mut by_ip: BTreeMap<IpAddr, Vec<ConnectionConfig>> = BTreeMap::new();
    for address in addresses {
        let connections = by_ip.entry(address.ip()).or_default();
        for mut connection in [ConnectionConfig::udp(), ConnectionConfig::tcp()] {
            connection.port = address.port();
            connections.push(connection);
        }
    }
    by_ip.into_iter().map(|(ip, connections)| NameServerConfig::new(ip, true, connections)).collect()
}

fn build(servers: Vec<NameServerConfig>, timeout: Duration) -> Option<TokioResolver> {
    let config = ResolverConfig::from_name_servers(servers);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    set(builder.options_mut(), timeout);
    builder.build().inspect_err(|error| tracing::error!(%error, "the DNS resolver cannot be built")).ok()
}

fn set(options: &mut ResolverOpts, timeout: Duration) {
    // One query and one repetition fit into the time of a lookup.
    options.timeout = timeout / 2;
    options.attempts = 1;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(POSITIVE_AGE);
    options.negative_max_ttl = Some(NEGATIVE_AGE);
    options.preserve_intermediates = false;
    // A truncated or lost UDP answer is asked for again over TCP.
    options.try_tcp_on_error = true;
}

/// With its trailing dot, so that no search domain is ever appended.
fn fully_qualified(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveFailure> {
        if self.dev && (name == "localhost" || name.ends_with(".localhost")) {
            return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        }
        let dns = self.dns.as_ref().ok_or(ResolveFailure::NoServers)?;
        let name = fully_qualified(name).ok_or(ResolveFailure::NotFound)?;
        let answer = dns.lookup_ip(name).await.map_err(|error| failure(&error))?;
        let addresses: Vec<IpAddr> = answer.iter().take(ADDRESSES + 1).collect();
        match addresses.len() {
            0 => Err(ResolveFailure::NotFound),
            1..=ADDRESSES => Ok(addresses),
            _ => Err(ResolveFailure::TooMany),
        }
    }
}

fn failure(error: &NetError) -> ResolveFailure {
    if error.is_nx_domain() || error.is_no_records_found() {
        ResolveFailure::NotFound
    } else if matches!(error, NetError::Timeout) {
        ResolveFailure::Timeout
    } else {
        tracing::debug!(%error, "a DNS lookup failed");
        ResolveFailure::Failed
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;

//! A connection to a URL: judge the URL, resolve, vet every address, dial the vetted ones, check the peer, TLS. The only
//! place of the project that dials. Nothing here outlives the attempt: each connection resolves and vets anew.

use crate::{
    address::{AddressPolicy, Denial, Verdict, classify},
    config::Config,
    failure::{Failure, Progress, Step},
    resolver::{ADDRESSES, Resolve, ResolveFailure},
    stream::Stream,
    tls,
};
use postrider_model::{
    outcome::Outcome,
    url::{EndpointUrl, Host, Scheme, UrlRules},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;

/// Addresses tried for one connection.
const TRIES: usize = 3;
/// The head start of each address before the next one is tried too (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// What every connection needs.
#[derive(Debug)]
pub(crate) struct Dialer {
    rules: UrlRules,
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    tls: TlsConnectorDebug,
    dns_timeout: Duration,
    connect_timeout: Duration,
    tls_timeout: Duration,
}

/// The connector itself has no `Debug`.
struct TlsConnectorDebug(TlsConnector);

impl std::fmt::Debug for TlsConnectorDebug {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("TlsConnector")
    }
}

impl Dialer {
    pub(crate) fn new(config: &Config, resolver: Arc<dyn Resolve>) -> Result<Self, tls::TlsSetupError> {
        Ok(Self {
            rules: config.url_rules(),
            policy: config.address_policy(),
            resolver,
            tls: TlsConnectorDebug(tls::connector(config)?),
            dns_timeout: config.dns_timeout(),
            connect_timeout: config.connect_timeout(),
            tls_timeout: config.tls_timeout(),
        })
    }

    pub(crate) fn is_dev(&self) -> bool {
        self.rules.dev
    }

    /// A vetted connection, encrypted if the URL says so.
    pub(crate) async fn dial(&self, url: &EndpointUrl, progress: &mut Progress) -> Result<Stream, Failure> {
        progress.step = Step::Resolving;
        judge(url, &self.rules)?;
        let addresses = self.addresses(url, progress).await?;
        vet(&addresses, &self.policy, url)?;

        progress.step = Step::Connecting;
        let started = Instant::now();
        let tcp = match timeout(self.connect_timeout, connect_any(&addresses)).await {
            Ok(connected) => connected.map_err(|error| connect_failure(&error, url))?,
            Err(_) => return Err(timed_out(url, "accept a connection", self.connect_timeout)),
        };
        check_peer(&tcp, &addresses, &self.policy)?;
        // Head and body leave in one write; Nagle's algorithm would only delay the tail of a large body.
        tcp.set_nodelay(true).map_err(|error| connect_failure(&error, url))?;
        progress.phases.connect = Some(started.elapsed());

        match url.scheme() {
            Scheme::Http => Ok(Stream::plain(tcp)),
            Scheme::Https => self.encrypt(tcp, url, progress).await,
        }
    }

    async fn addresses(
        &self,
        url: &EndpointUrl,
        progress: &mut Progress,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let port = url.port();
        let name = match url.host() {
            Host::V4(ip) => return Ok(vec![SocketAddr::new(IpAddr::V4(*ip), port)]),
            Host::V6(ip) => return Ok(vec![SocketAddr::new(IpAddr::V6(*ip), port)]),
            Host::Domain(name) => name,
        };
        let started = Instant::now();
        let resolved = timeout(self.dns_timeout, self.resolver.resolve(name)).await;
        progress.phases.dns = Some(started.elapsed());
        match resolved {
            Err(_) | Ok(Err(ResolveFailure::Timeout)) => {
                Err(Failure::new(Outcome::Timeout, format!("no DNS server answered in time for {name}")))
            }
            Ok(Err(failure)) => {
                Err(Failure::new(Outcome::Dns, format!("the host name {name} does not resolve: {failure}")))
            }
            Ok(Ok(ips)) if ips.is_empty() => Err(Failure::new(
                Outcome::Dns,
                format!("the host name {name} does not resolve: {}", ResolveFailure::NotFound),
            )),
            Ok(Ok(ips)) if ips.len() > ADDRESSES => Err(Failure::new(
                Outcome::Dns,
                format!("the host name {name} does not resolve: {}", ResolveFailure::TooMany),
            )),
            Ok(Ok(ips)) => Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        }
    }

    async fn encrypt(
        &self,
        tcp: TcpStream,
        url: &EndpointUrl,
        progress: &mut Progress,
    ) -> Result<Stream, Failure> {
        progress.step = Step::Handshaking;
        let host = host_text(url);
        let Some(name) = tls::server_name(url.host()) else {
            return Err(Failure::new(
                Outcome::Tls,
                format!("{host} is no name that a certificate can be for"),
            ));
        };
        let started = Instant::now();
        match timeout(self.tls_timeout, self.tls.0.connect(name, tcp)).await {
            Ok(Ok(stream)) => {
                progress.phases.tls = Some(started.elapsed());
                Ok(Stream::tls(stream))
            }
            Ok(Err(error)) => Err(tls::failure(&error, &host)),
            Err(_) => Err(timed_out(url, "complete the TLS handshake", self.tls_timeout)),
        }
    }
}

/// The stored URL against the rules of now: an operator may have closed what was open when it was written.
fn judge(url: &EndpointUrl, rules: &UrlRules) -> Result<(), Failure> {
    match EndpointUrl::parse(url.as_str(), rules) {
        // The second parse is the check that both readings of the text agree.
        Ok(again) if again == *url => Ok(()),
        Ok(_) => Err(Failure::new(
            Outcome::ConfigInvalid,
            "the stored URL is not in its normal form: save it again",
        )),
        Err(refusal) => Err(Failure::new(
            Outcome::Blocked,
            format!("the URL {} is no longer allowed on this server (rule {})", url.origin(), refusal.code),
        )),
    }
}

/// All addresses or none: a name with one refused address is refused, so that the order of records cannot matter.
fn vet(addresses: &[SocketAddr], policy: &AddressPolicy, url: &EndpointUrl) -> Result<(), Failure> {
    for address in addresses {
        if let Verdict::Denied(denial) = classify(address.ip(), address.port(), policy) {
            tracing::debug!(origin = url.origin(), %address, ?denial, "an address is refused");
            return Err(blocked(denial, url));
        }
    }
    Ok(())
}

fn blocked(denial: Denial, url: &EndpointUrl) -> Failure {
    let way_out = if denial.can_be_allowed() { "; an operator can open it with outbound.allow" } else { "" };
    let verb = if matches!(url.host(), Host::Domain(_)) { "resolves to" } else { "is" };
    Failure::new(Outcome::Blocked, format!("{} {verb} {}{way_out}", host_text(url), denial.describe()))
}

/// The addresses in turn, each with a head start; the first connection wins and the others are dropped.
async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let order = alternate(addresses);
    if let [only] = order[..] {
        return connect(only).await;
    }
    let mut waiting = order.into_iter();
    let mut running = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let next = waiting.next();
        let more = next.is_some();
        if let Some(address) = next {
            running.spawn(connect(address));
        }
        tokio::select! {
            Some(joined) = running.join_next() => match joined {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(error) => last = io::Error::other(error),
            },
            () = sleep(HEAD_START), if more => {}
            else => return Err(last),
        }
    }
}

/// At most [`TRIES`] addresses, the families in turn, in the resolver's order (RFC 8305, section 4).
fn alternate(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let mut one = addresses.iter().filter(|address| address.is_ipv4() == first_is_v4);
    let mut other = addresses.iter().filter(|address| address.is_ipv4() != first_is_v4);
    let mut order = Vec::with_capacity(TRIES);
    while order.len() < TRIES {
        let before = order.len();
        order.extend(one.next());
        order.extend(other.next());
        if order.len() == before {
            break;
        }
    }
    order.truncate(TRIES);
    order
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that dials, with an address that was just vetted"
)]
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// The other end must be what was vetted, and not this process.
fn check_peer(tcp: &TcpStream, vetted: &[SocketAddr], policy: &AddressPolicy) -> Result<(), Failure> {
    let ends = tcp.peer_addr().and_then(|peer| Ok((peer, tcp.local_addr()?)));
    match ends {
        Ok((peer, local)) => check_ends(peer, local, vetted, policy),
        Err(_) => Err(Failure::new(Outcome::Connect, "the connection broke as soon as it was open")),
    }
}

fn check_ends(
    peer: SocketAddr,
    local: SocketAddr,
    vetted: &[SocketAddr],
    policy: &AddressPolicy,
) -> Result<(), Failure> {
    let known = vetted.iter().any(|address| address.ip() == peer.ip() && address.port() == peer.port());
    if !known || classify(peer.ip(), peer.port(), policy) != Verdict::Allowed {
        tracing::error!(%peer, "a connection leads to an address that was not vetted");
        return Err(Failure::new(
            Outcome::Internal,
            "the connection leads to an address that was not checked",
        ));
    }
    // Both ends on one address: this machine, whatever its public address is.
    let to_ourselves = peer.ip() == local.ip()
        && policy
            .own_listeners
            .iter()
            .any(|listener| listener.ip().is_unspecified() && listener.port() == peer.port());
    if to_ourselves {
        return Err(Failure::new(
            Outcome::Blocked,
            format!("the URL leads to {}", Denial::OwnListener.describe()),
        ));
    }
    Ok(())
}

fn connect_failure(error: &io::Error, url: &EndpointUrl) -> Failure {
    let place = place(url);
    let detail = match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{place} refused the connection: nothing listens there"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => {
            format!("{place} reset the connection while it was opened")
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("there is no network route to {place}")
        }
        io::ErrorKind::TimedOut => format!("{place} did not answer the connection request"),
        _ => {
            tracing::warn!(origin = url.origin(), %error, "a connection cannot be opened");
            format!("no connection to {place} could be opened")
        }
    };
    Failure::new(Outcome::Connect, detail)
}

fn timed_out(url: &EndpointUrl, what: &str, limit: Duration) -> Failure {
    Failure::new(Outcome::Timeout, format!("{} did not {what} within {}", place(url), seconds(limit)))
}

/// A duration as a person reads it: `5 s`, `1.5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let tenths = (duration.as_millis() + 50) / 100;
    if tenths.is_multiple_of(10) {
        format!("{} s", tenths / 10)
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}

/// Host and port, for a sentence.
pub(crate) fn place(url: &EndpointUrl) -> String {
    match url.host() {
        Host::V6(ip) => format!("[{ip}]:{}", url.port()),
        _ => format!("{}:{}", host_text(url), url.port()),
    }
}

/// The host alone, for a sentence.
pub(crate) fn host_text(url: &EndpointUrl) -> String {
    match url.host() {
        Host::Domain(name) => name.clone(),
        Host::V4(ip) => ip.to_string(),
        Host::V6(ip) => ip.to_string(),
    }
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;

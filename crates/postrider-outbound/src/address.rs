//! Which addresses may be dialled: a pure table and the operator's rules. Knows neither names nor sockets.
//!
//! IPv4 is open but for the special-purpose blocks of IANA's registry. IPv6 is closed but for global unicast, so that an
//! encoding of IPv4 inside IPv6 that nobody thought of is refused without being named.

use crate::cidr::{AddressRule, Block};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What decides about an address beside the tables.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    /// `--dev`: loopback may be dialled, and nothing else that is private.
    pub dev: bool,
    /// Opens what the tables refuse, but never [`NEVER`], loopback or own listeners.
    pub allow: Vec<AddressRule>,
    /// Refuses what the tables allow; stronger than `allow`.
    pub deny: Vec<AddressRule>,
    /// Where this process listens: delivering to ourselves would be a loop.
    pub own_listeners: Vec<SocketAddr>,
}

/// The answer to whether an address may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may not, and why.
    Denied(Denial),
}

/// Why an address may not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// `127.0.0.0/8`, `::1`, and `0.0.0.0/8`, which is loopback on Linux.
    Loopback,
    /// Private, shared, unique-local: an allow rule can open it.
    Private,
    /// Link-local or a cloud's metadata service: nothing opens it.
    Metadata,
    /// Reserved, documentation, multicast, unallocated, or an encoding of IPv4.
    Reserved,
    /// This server itself.
    OwnListener,
    /// A deny rule of the operator.
    Rule,
}

impl Denial {
    /// What the address is, to follow "which is".
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::Metadata => "a link-local or cloud metadata address",
            Self::Reserved => "a reserved address",
            Self::OwnListener => "this server itself",
            Self::Rule => "an address that a deny rule of this server names",
        }
    }

    /// Whether an allow rule would have opened the address.
    pub const fn can_be_allowed(self) -> bool {
        matches!(self, Self::Private | Self::Reserved)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Block {
    Block::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn v6(groups: [u16; 4], prefix: u8) -> Block {
    let [a, b, c, d] = groups;
    Block::new(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), prefix)
}

const fn v6_host(groups: [u16; 4], last: u16) -> Block {
    let [a, b, c, d] = groups;
    Block::new(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)), 128)
}

/// `0.0.0.0/8` reaches loopback on Linux.
const LOOPBACK: [Block; 3] = [v4(127, 0, 0, 0, 8), v4(0, 0, 0, 0, 8), v6_host([0; 4], 1)];

/// Never dialled, whatever the operator allows: link-local and metadata services of clouds.
const NEVER: [Block; 8] = [
    v4(169, 254, 0, 0, 16),         // link-local: the metadata service of most clouds
    v4(168, 63, 129, 16, 32),       // Azure WireServer, in public space
    v4(100, 100, 100, 200, 32),     // Alibaba metadata
    v4(192, 0, 0, 192, 32),         // Oracle metadata
    v6([0xfe80, 0, 0, 0], 10),      // link-local
    v6([0xfd00, 0x0ec2, 0, 0], 32), // AWS metadata
    v6_host([0xfd20, 0x00ce, 0, 0], 0x0254), // GCP metadata
    v6_host([0xfd00, 0x0042, 0, 0], 0x0042), // Scaleway metadata
];

/// IPv6 that carries an IPv4 address which these tables would otherwise not see, so nothing opens it: mapped,
/// compatible, SIIT, ISATAP and NAT64 (all below `::/8`), 6to4, Teredo.
const EMBEDDING: [Block; 3] = [v6([0; 4], 8), v6([0x2002, 0, 0, 0], 16), v6([0x2001, 0, 0, 0], 32)];

/// What an operator's network may use inside.
const PRIVATE: [Block; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10), // carrier-grade NAT
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
    v6([0xfc00, 0, 0, 0], 7),
];

/// The rest of IANA's IPv4 special-purpose registry.
const RESERVED_V4: [Block; 11] = [
    v4(192, 0, 0, 0, 24),    // IETF protocol assignments
    v4(192, 0, 2, 0, 24),    // TEST-NET-1
    v4(192, 31, 196, 0, 24), // AS112-v4
    v4(192, 52, 193, 0, 24), // AMT
    v4(192, 88, 99, 0, 24),  // 6to4 relay, deprecated
    v4(192, 175, 48, 0, 24), // AS112
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // TEST-NET-2
    v4(203, 0, 113, 0, 24),  // TEST-NET-3
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, broadcast
];

/// Global unicast: the only part of IPv6 that is open,
const GLOBAL_V6: Block = v6([0x2000, 0, 0, 0], 3);
/// minus these.
const RESERVED_V6: [Block; 5] = [
    v6([0x2001, 0, 0, 0], 23), // IETF assignments: Teredo, benchmarks, ORCHID, DRIP, anycast
    v6([0x2001, 0x0db8, 0, 0], 32), // documentation
    v6([0x3fff, 0, 0, 0], 20), // documentation
    v6([0x2002, 0, 0, 0], 16), // 6to4
    v6([0x2620, 0x004f, 0x8000, 0], 48), // AS112
];

/// Whether `ip` may be dialled on `port`. The rules from the strongest to the weakest.
pub fn classify(ip: IpAddr, port: u16, policy: &AddressPolicy) -> Verdict {
    let loopback = within(&LOOPBACK, ip);
    if policy.own_listeners.iter().any(|listener| reaches(ip, port, *listener, loopback)) {
        return Verdict::Denied(Denial::OwnListener);
    }
    if policy.deny.iter().any(|rule| rule.matches(ip, port)) {
        return Verdict::Denied(Denial::Rule);
    }
    if loopback {
        let dialled = match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        return if policy.dev && dialled { Verdict::Allowed } else { Verdict::Denied(Denial::Loopback) };
    }
    if within(&NEVER, ip) {
        return Verdict::Denied(Denial::Metadata);
    }
    if within(&EMBEDDING, ip) {
        return Verdict::Denied(Denial::Reserved);
    }
    let denial = if within(&PRIVATE, ip) {
        Denial::Private
    } else if match ip {
        IpAddr::V4(_) => within(&RESERVED_V4, ip),
        IpAddr::V6(_) => !GLOBAL_V6.contains(ip) || within(&RESERVED_V6, ip),
    } {
        Denial::Reserved
    } else {
        return Verdict::Allowed;
    };
    if policy.allow.iter().any(|rule| rule.matches(ip, port)) {
        Verdict::Allowed
    } else {
        Verdict::Denied(denial)
    }
}

fn within(blocks: &[Block], ip: IpAddr) -> bool {
    blocks.iter().any(|block| block.contains(ip))
}

/// A listener on all addresses is reached through loopback; its other addresses are known only once a connection
/// stands (see `connect`).
fn reaches(ip: IpAddr, port: u16, listener: SocketAddr, loopback: bool) -> bool {
    listener.port() == port && (listener.ip() == ip || (listener.ip().is_unspecified() && loopback))
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;

//! Address rules as an operator writes them: `10.0.0.0/8`, `10.1.2.3`, `10.1.2.3/32:8443`, `[2001:db8::/32]:443`.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// A block of addresses, with one port or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRule {
    block: Block,
    port: Option<u16>,
}

/// A block of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    base: IpAddr,
    prefix: u8,
}

/// Why a rule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address rule: write an address or a block such as `10.0.0.0/8`, with a port as `10.1.2.3/32:8443` or `[fd12::/16]:8443`"
)]
pub struct RuleError(String);

impl Block {
    /// A block of a table in this crate. Bits of `base` beyond `prefix` are ignored.
    pub(crate) const fn new(base: IpAddr, prefix: u8) -> Self {
        Self { base, prefix }
    }

    /// Whether the address lies in the block. Families never match each other: a mapped address is an IPv6 address.
    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        match (self.base, ip) {
            (IpAddr::V4(base), IpAddr::V4(ip)) => {
                same_prefix(u128::from(base.to_bits()) << 96, u128::from(ip.to_bits()) << 96, self.prefix)
            }
            (IpAddr::V6(base), IpAddr::V6(ip)) => same_prefix(base.to_bits(), ip.to_bits(), self.prefix),
            _ => false,
        }
    }
}

fn same_prefix(one: u128, other: u128, prefix: u8) -> bool {
    // A shift by the full width is a prefix of nothing: every address matches.
    (one ^ other)
        .checked_shr(128_u32.saturating_sub(u32::from(prefix)))
        .is_none_or(|difference| difference == 0)
}

impl AddressRule {
    /// Whether the rule speaks about this destination.
    pub fn matches(&self, ip: IpAddr, port: u16) -> bool {
        self.block.contains(ip) && self.port.is_none_or(|own| own == port)
    }
}

impl FromStr for AddressRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse(text).ok_or_else(|| RuleError(text.chars().take(64).collect()))
    }
}

fn parse(text: &str) -> Option<AddressRule> {
    let (block, port) = if let Some(rest) = text.strip_prefix('[') {
        let (block, port) = rest.split_once(']')?;
        (block, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else if text.matches(':').count() == 1 {
        let (block, port) = text.split_once(':')?;
        (block, Some(port))
    } else {
        (text, None)
    };
    let (base, prefix) = match block.split_once('/') {
        Some((base, prefix)) => (base.parse::<IpAddr>().ok()?, Some(prefix.parse::<u8>().ok()?)),
        None => (block.parse::<IpAddr>().ok()?, None),
    };
    let widest = if base.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(widest);
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => None,
    };
    (prefix <= widest).then_some(AddressRule { block: Block { base, prefix }, port })
}

impl TryFrom<String> for AddressRule {
    type Error = RuleError;

    fn try_from(text: String) -> Result<Self, RuleError> {
        text.parse()
    }
}

impl From<AddressRule> for String {
    fn from(rule: AddressRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for AddressRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Block { base, prefix } = self.block;
        match (self.port, base) {
            (None, _) => write!(formatter, "{base}/{prefix}"),
            (Some(port), IpAddr::V4(_)) => write!(formatter, "{base}/{prefix}:{port}"),
            (Some(port), IpAddr::V6(_)) => write!(formatter, "[{base}/{prefix}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> AddressRule {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_holds_its_first_and_last_address_and_no_neighbour() {
        let block = rule("172.16.0.0/12");
        assert!(block.matches(ip("172.16.0.0"), 1) && block.matches(ip("172.31.255.255"), 65535));
        assert!(!block.matches(ip("172.15.255.255"), 1) && !block.matches(ip("172.32.0.0"), 1));
        assert!(rule("0.0.0.0/0").matches(ip("255.255.255.255"), 1));
        assert!(!rule("0.0.0.0/0").matches(ip("::1"), 1), "families are kept apart");
        assert!(rule("::/0").matches(ip("ffff::1"), 1));
        assert!(rule("fd00:ec2::/32").matches(ip("fd00:ec2::254"), 1));
    }

    #[test]
    fn a_port_narrows_a_rule() {
        for text in ["10.1.2.3/32:8443", "10.1.2.3:8443"] {
            assert!(
                rule(text).matches(ip("10.1.2.3"), 8443) && !rule(text).matches(ip("10.1.2.3"), 443),
                "{text}"
            );
        }
        let block = rule("[fd12::/16]:8443");
        assert!(block.matches(ip("fd12::5"), 8443) && !block.matches(ip("fd12::5"), 443));
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in ["10.0.0.0/8", "10.1.2.3/32:8443", "fd12::/16", "[fd12::/16]:8443"] {
            assert_eq!(rule(text).to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in [
            "",
            "ten",
            "10.0.0.0/33",
            "10.0.0.0/8:0",
            "10.0.0.0/8:70000",
            "::/129",
            "[::/0",
            "[::/0]x",
            "10.0.0/8",
        ] {
            let refusal = text.parse::<AddressRule>().unwrap_err().to_string();
            assert!(refusal.contains("10.0.0.0/8"), "{text}: {refusal}");
        }
    }
}

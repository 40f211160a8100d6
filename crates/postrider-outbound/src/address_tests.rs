//! The address table against its boundaries, encodings and the operator's rules.

use super::*;
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn open(text: &str) -> bool {
    classify(ip(text), 443, &AddressPolicy::default()) == Verdict::Allowed
}

/// U06: first and last address of every IPv4 block are refused, their neighbours outside are not.
#[test]
fn every_special_ipv4_block_is_refused_to_its_edges() {
    // first, last, whether the address before the first is open, whether the one after the last is
    let blocks = [
        ("0.0.0.0", "0.255.255.255", false, true),
        ("10.0.0.0", "10.255.255.255", true, true),
        ("100.64.0.0", "100.127.255.255", true, true),
        ("127.0.0.0", "127.255.255.255", true, true),
        ("168.63.129.16", "168.63.129.16", true, true),
        ("169.254.0.0", "169.254.255.255", true, true),
        ("172.16.0.0", "172.31.255.255", true, true),
        ("192.0.0.0", "192.0.0.255", true, true),
        ("192.0.2.0", "192.0.2.255", true, true),
        ("192.31.196.0", "192.31.196.255", true, true),
        ("192.52.193.0", "192.52.193.255", true, true),
        ("192.88.99.0", "192.88.99.255", true, true),
        ("192.168.0.0", "192.168.255.255", true, true),
        ("192.175.48.0", "192.175.48.255", true, true),
        ("198.18.0.0", "198.19.255.255", true, true),
        ("198.51.100.0", "198.51.100.255", true, true),
        ("203.0.113.0", "203.0.113.255", true, true),
        ("224.0.0.0", "255.255.255.255", true, false),
    ];
    let neighbour = |text: &str, step: i64| {
        let IpAddr::V4(ip) = ip(text) else { panic!("IPv4 only") };
        u32::try_from(i64::from(ip.to_bits()) + step).ok().map(|bits| Ipv4Addr::from_bits(bits).to_string())
    };
    for (first, last, before, after) in blocks {
        assert!(!open(first), "{first}");
        assert!(!open(last), "{last}");
        if let Some(outside) = neighbour(first, -1) {
            assert_eq!(open(&outside), before, "{outside}");
        }
        if let Some(outside) = neighbour(last, 1) {
            assert_eq!(open(&outside), after, "{outside}");
        }
        for (inner, step) in [(first, 1), (last, -1)] {
            let inside = neighbour(inner, step).unwrap();
            if first != last {
                assert!(!open(&inside), "{inside}");
            }
        }
    }
    for outside in ["168.63.129.17", "198.20.0.0", "100.128.0.0", "1.1.1.1", "8.8.8.8", "223.255.255.255"] {
        assert!(open(outside), "{outside}");
    }
}

/// U06: the same for IPv6.
#[test]
fn only_global_ipv6_without_its_special_blocks_is_open() {
    for outside in [
        "2000::",
        "2001:200::1",
        "2001:db7:ffff:ffff::1",
        "2001:db9::",
        "2003::",
        "2606:4700::1111",
        "2620:4f:7fff::1",
        "2620:4f:8001::",
        "3ffe:ffff::",
        "3fff:1000::1",
        "3fff:ffff::1",
    ] {
        assert!(open(outside), "{outside}");
    }
    for inside in [
        "1fff:ffff::1",
        "2001::",
        "2001:1ff:ffff::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:30::1",
        "2001:db8::",
        "2001:db8:ffff::1",
        "2002::",
        "2002:ffff::1",
        "2620:4f:8000::",
        "2620:4f:8000:ffff::1",
        "3fff::",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "fc00::",
        "fdff::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ffff::1",
        "100::1",
        "100:0:0:1::1",
    ] {
        assert!(!open(inside), "{inside}");
    }
}

/// U07, U08, SSRF-4, SSRF-5: an IPv4 address inside an IPv6 one is refused, public or not.
#[test]
fn encodings_of_ipv4_and_metadata_addresses_are_refused() {
    for text in [
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:169.254.169.254",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "::5efe:7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2001::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
    ] {
        assert!(!open(text), "{text}");
        let all = AddressPolicy { allow: vec!["::/0".parse().unwrap()], ..AddressPolicy::default() };
        assert_ne!(classify(ip(text), 443, &all), Verdict::Allowed, "{text} with everything allowed");
    }
}

/// U31: an allow rule opens its block and its port, nothing else.
#[test]
fn an_allow_rule_opens_private_space_on_its_port_only() {
    let policy =
        AddressPolicy { allow: vec!["10.1.2.3/32:8443".parse().unwrap()], ..AddressPolicy::default() };
    assert_eq!(classify(ip("10.1.2.3"), 8443, &policy), Verdict::Allowed);
    assert_eq!(classify(ip("10.1.2.3"), 443, &policy), Verdict::Denied(Denial::Private));
    assert_eq!(classify(ip("10.1.2.4"), 8443, &policy), Verdict::Denied(Denial::Private));
}

/// U32, SSRF-7: allowing everything does not open loopback, link-local, metadata or ourselves.
#[test]
fn allowing_everything_still_refuses_loopback_metadata_and_ourselves() {
    let policy = AddressPolicy {
        allow: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        own_listeners: vec!["10.0.0.9:8071".parse().unwrap(), "[2606:4700::9]:8071".parse().unwrap()],
        ..AddressPolicy::default()
    };
    for text in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "::1",
        "169.254.169.254",
        "169.254.170.2",
        "168.63.129.16",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "192.0.0.192",
    ] {
        assert_ne!(classify(ip(text), 443, &policy), Verdict::Allowed, "{text}");
    }
    assert_eq!(classify(ip("10.0.0.9"), 8071, &policy), Verdict::Denied(Denial::OwnListener));
    assert_eq!(classify(ip("2606:4700::9"), 8071, &policy), Verdict::Denied(Denial::OwnListener));
    assert_eq!(classify(ip("10.0.0.9"), 8072, &policy), Verdict::Allowed);
    assert_eq!(classify(ip("fd12::1"), 8072, &policy), Verdict::Allowed);
}

/// U30: a deny rule closes a public block, also against an allow rule.
#[test]
fn a_deny_rule_wins_over_an_allow_rule() {
    let policy = AddressPolicy {
        allow: vec!["10.0.0.0/8".parse().unwrap()],
        deny: vec!["1.1.1.0/24".parse().unwrap(), "10.9.0.0/16".parse().unwrap()],
        ..AddressPolicy::default()
    };
    assert_eq!(classify(ip("1.1.1.1"), 443, &policy), Verdict::Denied(Denial::Rule));
    assert_eq!(classify(ip("10.9.1.1"), 443, &policy), Verdict::Denied(Denial::Rule));
    assert_eq!(classify(ip("10.8.1.1"), 443, &policy), Verdict::Allowed);
}

/// `--dev` opens loopback and no other private address; U26: but not our own listener.
#[test]
fn dev_opens_loopback_and_nothing_else() {
    let policy = AddressPolicy {
        dev: true,
        own_listeners: vec!["0.0.0.0:8071".parse().unwrap()],
        ..AddressPolicy::default()
    };
    for text in ["127.0.0.1", "127.255.255.254", "::1"] {
        assert_eq!(classify(ip(text), 9999, &policy), Verdict::Allowed, "{text}");
    }
    for text in ["0.0.0.0", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::ffff:127.0.0.1", "fd12::1", "::"]
    {
        assert_ne!(classify(ip(text), 9999, &policy), Verdict::Allowed, "{text}");
    }
    assert_eq!(classify(ip("127.0.0.1"), 8071, &policy), Verdict::Denied(Denial::OwnListener));
}

proptest! {
    /// U07: whatever nobody thought of outside global unicast is refused.
    #[test]
    fn every_ipv6_address_outside_global_unicast_is_refused(bits in any::<u128>(), port in any::<u16>()) {
        let address = Ipv6Addr::from_bits(bits);
        prop_assume!(address.segments()[0] & 0xe000 != 0x2000);
        prop_assert_ne!(classify(IpAddr::V6(address), port, &AddressPolicy::default()), Verdict::Allowed);
    }

    /// U32 for any address of the never-opened blocks.
    #[test]
    fn no_allow_rule_opens_a_link_local_address(low in any::<u16>(), port in any::<u16>()) {
        let policy = AddressPolicy { allow: vec!["0.0.0.0/0".parse().unwrap()], ..AddressPolicy::default() };
        let address = Ipv4Addr::from_bits(0xa9fe_0000 | u32::from(low));
        prop_assert_ne!(classify(IpAddr::V4(address), port, &policy), Verdict::Allowed);
    }
}

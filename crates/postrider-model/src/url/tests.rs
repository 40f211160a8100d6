//! Tests of the URL rules; U01 to U25 are the rows of the table of bad URLs.

use super::*;
use proptest::prelude::*;

fn rules() -> UrlRules {
    UrlRules::default()
}

fn dev() -> UrlRules {
    UrlRules { dev: true, ..UrlRules::default() }
}

#[track_caller]
fn refused(raw: &str, rules: &UrlRules, code: &str) {
    match EndpointUrl::parse(raw, rules) {
        Ok(url) => panic!("{raw:?} was accepted as {}", url.as_str()),
        Err(refusal) => assert_eq!(refusal.code, code, "{raw:?}: {refusal}"),
    }
}

#[track_caller]
fn accepted(raw: &str, rules: &UrlRules) -> EndpointUrl {
    EndpointUrl::parse(raw, rules).unwrap_or_else(|refusal| panic!("{raw:?}: {refusal}"))
}

/// The part of a URL test that only differs in the host.
#[track_caller]
fn hosts_refused(hosts: &[&str], rules: &UrlRules, code: &str) {
    for host in hosts {
        refused(&format!("https://{host}/"), rules, code);
    }
}

#[test]
fn a_url_is_stored_as_the_whatwg_parser_writes_it() {
    for (raw, stored) in [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM:443/A?b=C", "https://example.com/A?b=C"),
        ("https://example.com:8443?x", "https://example.com:8443/?x"),
        ("https://example.com./hook", "https://example.com/hook"),
        ("https://example.com.:8443/hook", "https://example.com:8443/hook"),
        ("https://sub_domain.example.com/", "https://sub_domain.example.com/"),
        ("https://xn--bcher-kva.example.com/", "https://xn--bcher-kva.example.com/"),
        ("https://example.com/a'b?c='", "https://example.com/a'b?c=%27"),
    ] {
        assert_eq!(accepted(raw, &rules()).as_str(), stored);
    }
}

#[test]
fn the_parts_of_a_url_are_those_of_the_request() {
    let url = accepted("https://Example.com:8443/a/b?c=d", &rules());
    assert_eq!(url.scheme(), Scheme::Https);
    assert_eq!(url.host(), &Host::Domain("example.com".into()));
    assert_eq!(url.port(), 8443);
    assert_eq!(url.authority(), "example.com:8443");
    assert_eq!(url.path_and_query(), "/a/b?c=d");
    assert_eq!(url.origin(), "https://example.com:8443");
    assert_eq!(format!("{url:?}"), "https://example.com:8443/…");
    let url = accepted("http://[::1]:80/", &dev());
    assert_eq!((url.authority(), url.port()), ("[::1]", 80));
}

/// U01
#[test]
fn other_schemes_are_refused() {
    for raw in [
        "ftp://example.com/",
        "gopher://example.com/",
        "file:///etc/passwd",
        "dict://example.com:11211/",
        "jar:https://example.com!/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "ldap://example.com/",
        "unix:/run/x.sock",
        "HTTP+UNIX://%2Frun%2Fx.sock/",
        "localhost:8080/",
        "wss://example.com/",
    ] {
        refused(raw, &dev(), "scheme");
    }
    for raw in ["", ":", "example.com", "/path", "//example.com/", "://example.com"] {
        refused(raw, &rules(), "malformed");
    }
}

/// U02, the part that needs no credential
#[test]
fn plain_http_needs_the_operators_consent() {
    refused("http://example.com/", &rules(), "https_required");
    let allow_http = UrlRules { allow_http: true, ..rules() };
    assert_eq!(accepted("http://example.com/", &allow_http).scheme(), Scheme::Http);
    assert_eq!(accepted("http://example.com/", &dev()).port(), 80);
}

/// U03
#[test]
fn userinfo_is_refused_with_a_way_out() {
    for raw in [
        "https://user:pw@example.com/",
        "https://@example.com/",
        "https://:@example.com/",
        "https://example.com@evil.example.org/",
        "https://user@127.0.0.1/",
    ] {
        refused(raw, &rules(), "userinfo");
        refused(raw, &dev(), "userinfo");
    }
    let refusal = EndpointUrl::parse("https://user:hunter2@example.com/", &rules()).unwrap_err();
    assert!(refusal.reason.contains("`Authorization` header") && !refusal.reason.contains("hunter2"));
    assert!(EndpointUrl::parse("https://example.com/@user", &rules()).is_ok());
}

/// U04
#[test]
fn ip_literals_are_refused_unless_the_operator_allows_them() {
    let hosts = ["127.0.0.1", "10.0.0.5", "[::1]", "0.0.0.0", "[::]", "1.1.1.1", "169.254.169.254"];
    hosts_refused(&hosts, &rules(), "ip_literal_forbidden");
    let allowed = UrlRules { allow_ip_literals: true, ..rules() };
    // Accepted as text; the address policy still judges the address when it is dialled.
    assert_eq!(accepted("https://1.1.1.1/", &allowed).host(), &Host::V4([1, 1, 1, 1].into()));
    assert_eq!(accepted("https://[2606:4700::1111]/", &allowed).authority(), "[2606:4700::1111]");
}

/// U05, and the spellings that the canonical rule of the host form names
#[test]
fn unusual_spellings_of_addresses_are_refused_before_they_are_understood() {
    let hosts = [
        "0x7f000001",
        "0177.0.0.1",
        "2130706433",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "017700000001",
        "0251.254.169.254",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "[::FFFF:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "0",
        "0x0",
    ];
    hosts_refused(&hosts, &rules(), "noncanonical_host");
    hosts_refused(&hosts, &UrlRules { allow_ip_literals: true, dev: true, ..rules() }, "noncanonical_host");
    hosts_refused(&["127.0.0.256", "1.2.3.4.5", "example.0x7f", "[::1", "[1.2.3.4]"], &rules(), "malformed");
}

/// U14
#[test]
fn private_names_are_refused() {
    let hosts = [
        "backend",
        "localhost",
        "localhost.",
        "kubernetes.default.svc",
        "db.internal",
        "x.local",
        "metadata.google.internal",
        "metadata",
        "instance-data",
        "x.localhost",
        "a.home.arpa",
        "1.0.0.127.in-addr.arpa",
        "x.onion",
        "LOCALHOST",
        "db.svc.cluster.local",
        "router.lan",
        "a.test",
        "a.example",
        "home.arpa",
    ];
    hosts_refused(&hosts, &rules(), "host_forbidden");
    assert!(EndpointUrl::parse("https://notlocal.example.com/", &rules()).is_ok());
    assert!(EndpointUrl::parse("https://mylocal.dev/", &rules()).is_ok());
}

#[test]
fn the_operator_can_exempt_private_names_one_by_one() {
    let allowed = UrlRules { allow_hosts: vec!["Backend".into(), "*.svc.cluster.local".into()], ..rules() };
    accepted("https://backend:8443/", &allowed);
    accepted("https://a.b.svc.cluster.local/", &allowed);
    hosts_refused(&["frontend", "svc.cluster.local", "xsvc.cluster.local"], &allowed, "host_forbidden");
}

/// U17
#[test]
fn ports_of_other_protocols_are_refused() {
    for port in [0, 1, 22, 25, 53, 444, 1023, 2375, 6000, 6379, 6667, 27018, 80] {
        refused(&format!("https://example.com:{port}/"), &rules(), "port_forbidden");
    }
    refused("https://example.com:65536/", &rules(), "malformed");
    for port in [443, 1024, 3000, 8080, 8443, 65535] {
        assert_eq!(accepted(&format!("https://example.com:{port}/"), &rules()).port(), port);
    }
    refused("http://example.com:22/", &dev(), "port_forbidden");
    refused("http://127.0.0.1:0/", &dev(), "port_forbidden");
    for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
        assert_eq!(accepted(&format!("http://{host}:6379/"), &dev()).port(), 6379);
    }
}

#[test]
fn dev_opens_loopback_and_nothing_else_that_is_private() {
    hosts_refused(
        &["10.0.0.5", "169.254.169.254", "0.0.0.0", "[::]", "192.168.1.1", "1.1.1.1", "[::ffff:7f00:1]"],
        &dev(),
        "ip_literal_forbidden",
    );
    hosts_refused(&["backend", "db.internal", "x.localhost"], &dev(), "host_forbidden");
    assert_eq!(accepted("http://localhost.:8080/x", &dev()).as_str(), "http://localhost:8080/x");
}

#[test]
/// U18
fn slashes_that_parsers_read_differently_are_refused() {
    for raw in [
        r"https://127.1.1.1:80\@example.com/",
        r"https:\\example.com",
        "https:/example.com",
        "https:example.com",
        "https:///example.com",
        "https://",
        "https://?x",
        "https:////example.com",
    ] {
        refused(raw, &rules(), "malformed");
    }
}

#[test]
/// U19
fn encoded_and_control_characters_in_the_host_are_refused() {
    hosts_refused(
        &[
            "example.com%00.evil.org",
            "example%2ecom",
            "example.com%0d%0aX:1",
            "ex\tample.com",
            "ex\nample.com",
            "a b.com",
        ],
        &rules(),
        "malformed",
    );
    for raw in [
        "https://example.com/ ",
        " https://example.com/",
        "https://example.com/a\u{7f}",
        "https://example.com/a\0b",
        "https://example.com/{id}",
    ] {
        refused(raw, &rules(), "malformed");
    }
    hosts_refused(
        &[
            "ex!ample.com",
            "a$.com",
            "a,b.com",
            "a..com",
            ".com",
            "example.com..",
            "a-.com",
            "-a.com",
            "~.com",
        ],
        &rules(),
        "malformed",
    );
}

#[test]
/// U20
fn hosts_outside_ascii_are_refused_and_their_ascii_form_is_proposed() {
    for (raw, proposed) in [
        ("https://bücher.example.com/", "xn--bcher-kva.example.com"),
        ("https://\u{435}xample.com", "xn--xample-2of.com"),
        ("https://ok。example.com", "ok.example.com"),
    ] {
        refused(raw, &rules(), "non_ascii");
        let reason = EndpointUrl::parse(raw, &rules()).unwrap_err().reason;
        assert!(reason.contains(proposed), "{reason}");
    }
    refused("https://①②⑦.⓪.⓪.①/", &rules(), "non_ascii");
    refused("https://example.com/ü", &rules(), "non_ascii");
    refused("https://ex\u{ad}ample.com/", &rules(), "non_ascii");
}

#[test]
/// U21, U23
fn bracketed_names_and_zones_are_refused() {
    hosts_refused(
        &["[ok.example.com]", "[[::1]]", "[fe80::1%25eth0]", "[::1%lo]", "[]", "[::1]x"],
        &dev(),
        "malformed",
    );
}

#[test]
/// U22
fn broken_a_labels_are_refused() {
    hosts_refused(&["xn--example-.org", "example.org.xn--", "xn--a.com"], &rules(), "malformed");
}

#[test]
/// U24
fn fragments_and_lengths_are_refused_and_paths_normalised() {
    refused("https://example.com/a#frag", &rules(), "fragment");
    refused("https://example.com/#", &rules(), "fragment");
    assert_eq!(accepted("https://example.com/../../x", &rules()).path_and_query(), "/x");
    assert_eq!(
        accepted("https://example.com/a/./b/%2e%2e/c?q=%zz&%", &rules()).path_and_query(),
        "/a/c?q=%zz&%"
    );
    let base = "https://example.com/";
    let longest = format!("{base}{}", "a".repeat(limits::URL_BYTES - base.len()));
    assert_eq!(accepted(&longest, &rules()).as_str(), longest);
    refused(&format!("{longest}a"), &rules(), "too_long");
    refused(&format!("{base}?{}", "'".repeat(1500)), &rules(), "too_long");
    let host = |last: usize| format!("{}{}.com", format!("{}.", "a".repeat(49)).repeat(4), "b".repeat(last));
    assert_eq!((host(49).len(), host(50).len()), (253, 254));
    accepted(&format!("https://{}/", host(49)), &rules());
    refused(&format!("https://{}/", host(50)), &rules(), "too_long");
    accepted(&format!("https://{}.com/", "a".repeat(63)), &rules());
    refused(&format!("https://{}.com/", "a".repeat(64)), &rules(), "too_long");
}

#[test]
fn a_stored_url_reads_back_unjudged_and_is_judged_by_the_rules_of_then() {
    let stored = accepted("http://127.0.0.1:6379/x", &dev());
    let read = EndpointUrl::from_stored(stored.as_str()).unwrap();
    assert_eq!(read, stored);
    assert_eq!(read.judge(&rules()).unwrap_err().code, "https_required");
    assert_eq!(
        read.judge(&UrlRules { allow_http: true, ..rules() }).unwrap_err().code,
        "ip_literal_forbidden"
    );
    for text in ["", "ftp://example.com/", "https://u:p@example.com/", "https://example.com/#f", "not a url"]
    {
        assert_eq!(EndpointUrl::from_stored(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(raw in ".{0,200}", tail in "[ -~]{0,80}") {
        for rules in [rules(), dev()] {
            let _ = EndpointUrl::parse(&raw, &rules);
            let _ = EndpointUrl::parse(&format!("https://{tail}"), &rules);
            let _ = EndpointUrl::from_stored(&raw);
        }
    }

    /// U25: what is accepted reads the same the second time, and as the `url` crate reads it.
    #[test]
    fn what_is_accepted_reads_the_same_to_everybody(
        host in "(([a-zA-Z0-9_-]{1,8}\\.){1,3}(com|ORG|net)\\.?|127\\.0\\.0\\.[0-9]{1,3}|\\[::[0-9a-f]{0,4}\\]|localhost)",
        port in "(|:|:[0-9]{1,6})",
        path in "(/[!-~]{0,20}){0,3}(\\?[!-~]{0,20})?",
    ) {
        let raw = format!("https://{host}{port}{path}");
        let rules = UrlRules { allow_ip_literals: true, ..dev() };
        if let Ok(url) = EndpointUrl::parse(&raw, &rules) {
            prop_assert_eq!(&EndpointUrl::parse(url.as_str(), &rules).unwrap(), &url);
            prop_assert_eq!(EndpointUrl::from_stored(url.as_str()), Some(url.clone()));
            let other = Url::parse(url.as_str()).unwrap();
            prop_assert_eq!(other.as_str(), url.as_str());
            prop_assert_eq!(other.host_str().unwrap(), url.host().to_string());
            prop_assert_eq!(other.port_or_known_default().unwrap(), url.port());
            prop_assert_eq!(&other[Position::BeforePath..], url.path_and_query());
            prop_assert_eq!(format!("{}{}", url.origin(), url.path_and_query()), url.as_str());
            prop_assert!(url.path_and_query().starts_with('/'));
            prop_assert!(url.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

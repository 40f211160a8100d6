//! Tests of the header rules; H01 to H08 are the rows of the table of bad headers.

use super::*;
use proptest::prelude::*;

fn header(name: &str, value: &str) -> CustomHeader {
    CustomHeader { name: name.into(), value: value.into(), sensitive: false }
}

fn code(entries: Vec<CustomHeader>) -> Option<&'static str> {
    CustomHeaders::new(entries).err().map(|refusal| refusal.code)
}

/// H01
#[test]
fn values_that_could_break_out_of_their_line_are_refused() {
    for value in [
        "a\r\nX: y",
        "a\nb",
        "a\rb",
        "a\0b",
        "\u{7f}",
        "\u{1b}[31m",
        "\u{80}",
        "é",
        "\u{10a}",
        "\u{10d}",
        "日本",
    ] {
        let refusal = check("x-a", value).unwrap_err();
        assert_eq!(refusal.code, "header_value", "{value:?}");
        assert!(!refusal.to_string().contains(value), "the value is not repeated");
    }
    assert_eq!(check("x-a", "a\tb !\"#~"), Ok(()));
}

/// H02
#[test]
fn names_that_are_no_tokens_are_refused() {
    for name in [
        "X Foo",
        "X:Foo",
        "",
        "x\r\nhost",
        "x\n",
        "näme",
        ":path",
        "x-\u{0}",
        "x(y)",
        "x\"",
        &"a".repeat(129),
    ] {
        assert_eq!(check(name, "v").unwrap_err().code, "header_name", "{name:?}");
    }
    assert_eq!(check(&"a".repeat(128), "v"), Ok(()));
    assert_eq!(check("x\r\nhost", "v").unwrap_err().name, "x\\r\\nhost");
}

/// H03: the names of Svix's list and of ours.
#[test]
fn refused_names_are_refused_in_any_case() {
    let svix = "user-agent keep-alive proxy-authenticate proxy-authorization te trailers transfer-encoding upgrade age \
        cache-control clear-site-data expires pragma warning content-length content-type content-encoding \
        content-language content-location x-amz-a x-amzn-a x-google x-google-a x-googles x-goog-a x-gfe x-gfe-a \
        x-azure-a x-fd-a x-svix-a svix-a";
    let ours = "host connection keep-alive proxy-connection te trailer content-range content-disposition expect range via \
        forwarded max-forwards http2-settings alt-used early-data accept accept-encoding cookie set-cookie cookie2 \
        signature-input content-digest repr-digest want-content-digest digest traceparent tracestate idempotency-key \
        x-http-method x-http-method-override x-method-override x-original-url x-rewrite-url x-real-ip x-client-ip \
        true-client-ip x-cluster-client-ip cf-connecting-ip metadata metadata-flavor x-metadata-token webhook-a ce-a \
        x-forwarded-for x-aws-a x-ms-a x-envoy-a cf-ray fastly-a sec-fetch-site access-control-request-method";
    for name in svix.split_whitespace().chain(ours.split_whitespace()) {
        let mixed: String = name
            .chars()
            .enumerate()
            .map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c })
            .collect();
        for name in [name, &name.to_ascii_uppercase(), &mixed] {
            assert_eq!(check(name, "v").map_err(|refusal| refusal.code), Err("header_forbidden"), "{name}");
        }
    }
}

/// H06, H07, H08
#[test]
fn no_custom_header_takes_the_place_of_one_of_ours() {
    for (name, value) in [
        ("webhook-signature", "v1,x"),
        ("svix-id", "msg_1"),
        ("Webhook-Id", "msg_1"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("Expect", "100-continue"),
        ("Upgrade", "h2c"),
        ("Metadata-Flavor", "Google"),
        ("X-aws-ec2-metadata-token-ttl-seconds", "60"),
    ] {
        assert_eq!(check(name, value).unwrap_err().code, "header_forbidden", "{name}");
    }
}

#[test]
fn names_that_receivers_ask_for_are_allowed() {
    for name in [
        "Authorization",
        "X-Auth-Token",
        "x-api-key",
        "WWW-Authenticate",
        "Origin",
        "Referer",
        "Date",
        "From",
        "Signature",
        "Accept-Language",
        "X-Hub-Signature",
        "CF-Access-Client-Id",
        "cf-access-client-secret",
        "X-Request-Source",
        "apikey",
    ] {
        assert_eq!(check(name, "v"), Ok(()), "{name}");
    }
}

/// H04
#[test]
fn numbers_and_sizes_are_bounded_and_names_are_unique_in_any_case() {
    assert_eq!(code(vec![header("X-A", "1"), header("x-a", "2")]), Some("header_duplicate"));
    let many = |count: usize| (0..count).map(|index| header(&format!("x-{index}"), "v")).collect();
    assert_eq!((code(many(32)), code(many(33))), (None, Some("headers_too_many")));
    let long = |bytes: usize| vec![header("x-a", &"v".repeat(bytes))];
    assert_eq!((code(long(4096)), code(long(4097))), (None, Some("header_value")));
    // Four headers of a two-byte name and a 4,094-byte value are 16,384 bytes.
    let mut total: Vec<_> = (0..4).map(|index| header(&format!("x{index}"), &"v".repeat(4094))).collect();
    assert_eq!(code(total.clone()), None);
    total[3].name.push('y');
    assert_eq!(code(total), Some("headers_too_large"));
}

/// H05
#[test]
fn blanks_around_a_value_are_refused_and_an_empty_value_is_not() {
    for value in [" a", "a ", "\ta", "a\t", " ", "\t"] {
        assert_eq!(check("x-a", value).unwrap_err().code, "header_value", "{value:?}");
    }
    assert_eq!(check("x-a", ""), Ok(()));
    assert_eq!(check("x-a", "a b"), Ok(()));
}

#[test]
fn spelling_and_order_are_kept_and_credentials_become_sensitive() {
    let headers = CustomHeaders::new(vec![
        header("X-Zebra", "1"),
        header("AUTHORIZATION", "Bearer t"),
        header("a", ""),
    ])
    .unwrap();
    let names: Vec<_> = headers.iter().map(|header| (header.name.as_str(), header.sensitive)).collect();
    assert_eq!(names, [("X-Zebra", false), ("AUTHORIZATION", true), ("a", false)]);
    assert_eq!(headers.get("authorization").unwrap().value.expose_secret(), "Bearer t");
    assert!(headers.get("b").is_none());
    assert!(!format!("{headers:?}").contains("Bearer"));
}

#[test]
fn the_sensitive_names_are_exactly_these() {
    for name in [
        "x-auth-token",
        "X-API-Key",
        "www-authenticate",
        "Authorization",
        "proxy-authenticate",
        "Proxy-Authorization",
        "Cookie",
    ] {
        assert!(is_sensitive_name(name), "{name}");
    }
    for name in ["x-token", "authorization2", "x-api-keys", ""] {
        assert!(!is_sensitive_name(name), "{name}");
    }
}

proptest! {
    #[test]
    fn what_passes_is_one_line_on_the_wire(name in ".{0,140}", value in "\\PC{0,40}|[ -~]{0,40}") {
        if check(&name, &value).is_ok() {
            prop_assert!(!name.is_empty() && name.bytes().all(is_token));
            prop_assert!(value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(value.trim(), value.as_str());
        }
    }
}

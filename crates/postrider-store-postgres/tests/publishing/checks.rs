//! `postrider.publish` refuses what the HTTP API refuses and takes what it takes: both are asked the same. The API's
//! checks are the model's functions, and the bounds of `crates/postrider-api/src/v1/message_in.rs`.

use crate::{Publisher, begin};
use postrider_model::{
    application::Uid,
    event_type::EventTypeName,
    limits,
    message::{Channel, Tag},
    payload::{self, PayloadRefusal},
};
use postrider_store_postgres::testing::Place;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A value is refused, or everything is fine: the same on both sides.
async fn same(publisher: &Publisher, arguments: &str, value: &str, expected: Result<(), &str>) {
    let text = format!("SELECT postrider.publish('cust', {arguments})");
    let got = publisher.one(&text, &[&value]).await;
    let got = got.as_ref().map(|_| ()).map_err(String::as_str);
    assert_eq!(got, expected, "{arguments}: {:?}", value.chars().take(200).collect::<String>());
}

fn expect<T>(parsed: Option<T>, refused: &'static str) -> Result<(), &'static str> {
    parsed.map(|_| ()).ok_or(refused)
}

async fn prepared(place: &Place) -> Publisher {
    let (_store, scope, publisher) = begin(place).await;
    let admin = place.client().await.unwrap();
    let name = "UPDATE application SET uid = 'cust' WHERE id = $1";
    admin.execute(name, &[&&scope.application.ksuid().as_bytes()[..]]).await.unwrap();
    publisher
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        "a",
        "a.b",
        "a b",
        " a",
        "a ",
        "a\n",
        "\na",
        "ü",
        "a/b",
        "a\\b",
        "a:b",
        "a+b",
        "a#b",
        "a,b",
        "A-b_c.9",
        "..",
        "-",
        "app_",
        "msg_",
        "msg_1",
        "MSG_1",
        "ep_x",
        "é",
        "a\u{301}",
        "a'b",
        "a\"b",
        "a\tb",
        "a\u{7f}",
        "[a]",
        "^",
        "$",
        "a$",
        "K",
        "ſ",
        "\u{200b}",
        "%",
        "a\r\nX: y",
        "𝟘",
    ]
    .map(str::to_owned)
    .into();
    for length in [127, 128, 129, 255, 256, 257] {
        names.push("a".repeat(length));
        names.push("é".repeat(length));
    }
    let mut random = StdRng::seed_from_u64(7);
    let letters: Vec<char> = "ab9_-.:+/\\# é\n\u{1}~!@".chars().collect();
    for _ in 0..60 {
        let length = random.random_range(0..5);
        names.push((0..length).map(|_| letters[random.random_range(0..letters.len())]).collect());
    }
    names
}

/// H09, P06
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_labels_are_those_of_the_api() {
    let place = Place::new().await.unwrap();
    let publisher = prepared(&place).await;
    let mut event_ids = std::collections::BTreeSet::new();
    for name in names() {
        let expected = expect(EventTypeName::parse(&name), "22023 event_type");
        same(&publisher, "$1::text, '{}'::text", &name, expected).await;
        if event_ids.insert(name.clone()) {
            let expected = expect(Uid::parse(&name, "msg_"), "22023 event_id");
            same(&publisher, "'a', '{}'::text, event_id => $1", &name, expected).await;
        }
        let expected = expect(Channel::parse(&name), "22023 channels[1]");
        same(&publisher, "'a', '{}'::text, channels => ARRAY['x', $1]", &name, expected).await;
        let expected = expect(Tag::parse(&name), "22023 tags[0]");
        same(&publisher, "'a', '{}'::text, tags => ARRAY[$1]", &name, expected).await;
        let visible = (1..=256).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        let expected = if visible { Ok(()) } else { Err("22023 idempotency_key") };
        same(&publisher, "'a', '{}'::text, idempotency_key => $1", &name, expected).await;
    }
}

/// Texts that are a JSON object, and texts that are nearly one.
const TEXTS: &[&str] = &[
    "{}",
    " \n\t\r{ } \n",
    r#"{"a":1e400,"b":-0.0,"c":12345678901234567890.10,"d":1E+999999999}"#,
    r#"{"z":1,"a":2,"a":3,"":4}"#,
    r#"{"a":"\ud800","b":"\u0000","c":"\/","d":"\udfff\ud800"}"#,
    r#"{"a":"]]]]}}}}[[[[{{{{\"\\"}"#,
    "{\"a\":\"🦀 ü \u{2028}\"}",
    r#"{"a":[[],{},[null,true,false]]}"#,
    "null",
    "[]",
    "1",
    "\"{}\"",
    "true",
    " [{}] ",
    "",
    " ",
    "{",
    "}",
    "{}{}",
    r#"{"a":1}{"b":2}"#,
    "{} x",
    "\u{feff}{}",
    "{\"a\":NaN}",
    "{\"a\":01}",
    "{\"a\":1.}",
    "{'a':1}",
    "{\"a\":1,}",
    "{\"a\" 1}",
    "{\"a\":\"\n\"}",
    "{\"a\":\"\u{0}\"}",
    r#"{"a":"\x41"}"#,
    r#"{"a":"\u12"}"#,
    "{a:1}",
    "{\"a\":+1}",
    "nul",
    "{\"a\":\"",
    "{\"a\":\"\\",
    "// x\n{}",
    "{\"a\":Infinity}",
    "{\"a\":-}",
    "{\"a\":.5}",
    "{\"a\":1e}",
    "{\"a\":1a}",
    "{\"a\":truefalse}",
    "{\"a\":\u{b}1}",
    "{\"a\":\u{a0}1}",
    "{\"a\":\"\u{7f}\"}",
    "{\"a\":\"\t\"}",
    "{,}",
    "{\"a\":[1,]}",
    "{\"a\":[,1]}",
    "{\"a\"}",
    "[}",
    "{]",
];

/// Everything that is tried as a payload.
fn payloads() -> Vec<Vec<u8>> {
    let mut payloads: Vec<Vec<u8>> = TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect();
    payloads.extend([
        b"{\"a\":\"\xff\"}".to_vec(),
        b"\xff".to_vec(),
        b"{\"a\":\"\xed\xa0\x80\"}".to_vec(),
        b"{\"a\":\"\xc0\xaf\"}".to_vec(),
        b"{\"\xf5\":1}".to_vec(),
        b"{\"a\":\"\xf4\x90\x80\x80\"}".to_vec(),
        b"{\"a\":\"\xe2\x82\"}".to_vec(),
    ]);
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{{\"a\":{}1{}}}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    for depth in [1, 126, 127, 128, 129, 200, 20_000, 200_000] {
        payloads.push(nested("[", "]", depth));
        payloads.push(nested("{\"b\":", "}", depth));
        payloads.push(nested("[\"[\",{\"\\\"]\":", "}]", depth / 2));
    }
    payloads.push(format!("{{\"a\":[{}1]}}", "[],{},\"[\\\\\",".repeat(40_000)).into_bytes());
    for bytes in [limits::PAYLOAD_BYTES - 1, limits::PAYLOAD_BYTES, limits::PAYLOAD_BYTES + 1] {
        payloads.push(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)).into_bytes());
    }
    let mut random = StdRng::seed_from_u64(11);
    let pieces = [
        "[", "]", "{", "}", "\"", ":", ",", "\\", "n", "null", "1", ".", " ", "0", "-", "e", "true",
        "\"a\":", "\"b\"",
    ];
    for _ in 0..300 {
        let length = random.random_range(0..7);
        let inner: String = (0..length).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
        payloads.push(format!("{{\"a\":{inner}}}").into_bytes());
    }
    payloads
}

/// P01 to P05
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_are_those_of_the_api() {
    let place = Place::new().await.unwrap();
    let publisher = prepared(&place).await;
    for payload in payloads() {
        let expected = match payload::check(&payload) {
            Ok(()) => Ok(()),
            Err(PayloadRefusal::TooLarge) => Err("54000 payload"),
            Err(_) => Err("22023 payload"),
        };
        let text = "SELECT postrider.publish('cust', 'a', $1::bytea)";
        let got = publisher.one(text, &[&payload]).await;
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned();
        assert_eq!(got.as_ref().map(|_| ()).map_err(String::as_str), expected, "{shown}");
        // The same as text, which cannot hold every byte.
        if let Ok(text) = String::from_utf8(payload)
            && !text.contains('\0')
        {
            same(&publisher, "'a', $1::text", &text, expected).await;
        }
    }
}

/// What the API says of lists, times, numbers and media types.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_has_the_bounds_of_the_api() {
    let place = Place::new().await.unwrap();
    let publisher = prepared(&place).await;
    for (call, expected) in [
        ("publish('cust', 'a', '{}', channels => '{}')", Err("22023 channels")),
        ("publish('cust', 'a', '{}', channels => ARRAY[NULL])", Err("22023 channels[0]")),
        ("publish('cust', 'a', '{}', channels => array_fill('a'::text, ARRAY[10]))", Ok(())),
        ("publish('cust', 'a', '{}', channels => array_fill('a'::text, ARRAY[11]))", Err("22023 channels")),
        ("publish('cust', 'a', '{}', tags => '{}')", Ok(())),
        ("publish('cust', 'a', '{}', tags => array_fill('a'::text, ARRAY[5]))", Ok(())),
        ("publish('cust', 'a', '{}', tags => array_fill('a'::text, ARRAY[6]))", Err("22023 tags")),
        ("publish('cust', 'a', '{}', payload_retention_hours => 0)", Err("22023 payload_retention_hours")),
        ("publish('cust', 'a', '{}', payload_retention_hours => -1)", Err("22023 payload_retention_hours")),
        ("publish('cust', 'a', '{}', payload_retention_hours => 1)", Ok(())),
        ("publish('cust', 'a', '{}', payload_retention_hours => 2160)", Ok(())),
        ("publish('cust', 'a', '{}', payload_retention_hours => 2161)", Err("22023 payload_retention_hours")),
        ("publish('cust', 'a', '{}', deliver_at => now() + '30 s')", Err("22023 deliver_at")),
        ("publish('cust', 'a', '{}', deliver_at => now() - interval '1 h')", Err("22023 deliver_at")),
        ("publish('cust', 'a', '{}', deliver_at => now() + '61 s')", Ok(())),
        ("publish('cust', 'a', '{}', deliver_at => now() + '24 h')", Ok(())),
        ("publish('cust', 'a', '{}', deliver_at => now() + '24 h 1 min')", Err("22023 deliver_at")),
        ("publish('cust', 'a', '{}', deliver_at => 'infinity')", Err("22023 deliver_at")),
        ("publish('cust', 'a', '{}', deliver_at => '-infinity')", Err("22023 deliver_at")),
        ("publish('cust', 'a', NULL::text)", Err("22004 payload")),
        ("publish('cust', NULL, '{}')", Err("22004 event_type")),
        ("publish(NULL, 'a', '{}')", Err("P0002 application")),
        ("publish('nobody', 'a', '{}')", Err("P0002 application")),
        ("publish('app_000000000000000000000000000', 'a', '{}')", Err("P0002 application")),
        ("publish('app_zzzzzzzzzzzzzzzzzzzzzzzzzzz', 'a', '{}')", Err("P0002 application")),
        ("publish('cust', 'a', '{\"a\": 1}'::json)", Ok(())),
        ("publish('cust', 'a', '[1]'::json)", Err("22023 payload")),
        ("publish('cust', 'a', '[1]'::jsonb)", Err("22023 payload")),
        ("publish_raw('cust', 'a', 'a,b')", Ok(())),
        ("publish_raw('cust', 'a', 'a,b', 'text/csv')", Ok(())),
        ("publish_raw('cust', 'a', 'a,b', 'application/vnd.x+json ;v=1')", Ok(())),
        ("publish_raw('cust', 'a', 'a,b', 'text/plain; charset=\"utf-8\"')", Ok(())),
        ("publish_raw('cust', 'a', repeat('a', 1048576))", Ok(())),
        ("publish_raw('cust', 'a', repeat('a', 1048577))", Err("54000 payload")),
        ("publish_raw('cust', 'a', 'x', '')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', 'json')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', 'a/')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', '/b')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', 'a/b/c')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', 'a b/c')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', E'a/b\\r\\nX: y')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', E'a/b\\n')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', 'a/é')", Err("22023 content_type")),
        ("publish_raw('cust', 'a', 'x', repeat('a/', 200))", Err("22023 content_type")),
    ] {
        let got = publisher.one(&format!("SELECT postrider.{call}"), &[]).await;
        assert_eq!(got.as_ref().map(|_| ()).map_err(String::as_str), expected, "{call}");
    }
}

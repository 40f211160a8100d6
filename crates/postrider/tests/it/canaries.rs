//! K06: one credential of every kind, each with a mark of its own, through success, failure, 401 and echo; afterwards no
//! file, log line, answer or metric holds one, in any spelling.

use crate::process::{Process, run};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use postrider_testing::{Backend, Client, Receiver, Reply};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

const HEADER: &str = "CANARY-header k+/=%&\"é1";
const BEARER: &str = "Bearer CANARY-bearer-2/+";
const MARKED: &str = "CANARY-marked-3/+%";
const CLIENT_SECRET: &str = "CANARY-oauth p%+:/4";
const ACCESS_TOKEN: &str = "CANARY-access/token+5";
const JWT_SECRET: &str = "CANARY-jwt-secret-of-enough-bytes-6";
const METRICS_TOKEN: &str = "CANARY-metrics-7";
const REFUSED: &str = "CANARY-refused-8";
const HMAC_BYTES: &[u8; 24] = b"CANARY-hmac-key-bytes--9";
/// The key of the specification's own test vectors.
const ED25519: &str =
    "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";

/// A secret, and where it may be found all the same.
struct Canary {
    name: &'static str,
    bytes: Vec<u8>,
}

fn canaries(api_key: &str) -> Vec<Canary> {
    let text = |name, text: &str| Canary { name, bytes: text.as_bytes().to_vec() };
    let seed = BASE64_STANDARD.decode(ED25519).unwrap()[..32].to_vec();
    vec![
        // The header's value begins and ends with what every encoding spells its own way.
        text("sensitive header", &HEADER[..HEADER.len() - 3]),
        text("authorization header", BEARER.trim_start_matches("Bearer ")),
        text("header that was marked", MARKED),
        text("client secret", CLIENT_SECRET),
        text("access token", ACCESS_TOKEN),
        text("JWT secret", JWT_SECRET),
        text("metrics token", METRICS_TOKEN),
        text("value that was refused", REFUSED),
        Canary { name: "HMAC signing secret", bytes: HMAC_BYTES.to_vec() },
        Canary { name: "Ed25519 signing secret", bytes: seed },
        text("API key", api_key.rsplit('_').next().unwrap()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn percent(bytes: &[u8], space: &str) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            b' ' => text.push_str(space),
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

/// How the bytes look wherever they stand in something that was encoded as a whole.
fn spellings(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![bytes.to_vec(), hex(bytes).into_bytes(), hex(bytes).to_uppercase().into_bytes()];
    found.push(percent(bytes, "+").into_bytes());
    found.push(percent(bytes, "%20").into_bytes());
    let escaped = serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap();
    found.push(escaped.trim_matches('"').as_bytes().to_vec());
    for shift in 0..3 {
        let shifted = [&vec![0; shift][..], bytes].concat();
        // Characters that share bits with neighbours are cut off at both ends.
        let whole = shifted.len() * 8 / 6;
        let skipped = (shift * 8).div_ceil(6);
        for text in [BASE64_STANDARD_NO_PAD.encode(&shifted), BASE64_URL_SAFE_NO_PAD.encode(&shifted)] {
            found.push(text.as_bytes()[skipped..whole].to_vec());
        }
    }
    found
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Everything that somebody could read, with its name.
struct Scan(Vec<(String, Vec<u8>)>);

impl Scan {
    fn files(&mut self, folder: &Path) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            // `--dev` keeps its key and keyring here, for this user alone; everything else must be free of them.
            let own = ["dev.json", "dev-keyring.toml"].iter().any(|name| path.ends_with(name));
            if path.is_dir() {
                self.files(&path);
            } else if path.is_file() && !own {
                self.0.push((path.display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }

    async fn answer(&mut self, client: &Client, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = client.call(method, path, body).await;
        let head = format!("{:?}", answer.headers).into_bytes();
        self.0.push((format!("head of {}", answer.call), head));
        self.0.push((format!("answer to {} ({})", answer.call, answer.status), answer.bytes.to_vec()));
        answer.body
    }

    fn check(&self, canaries: &[Canary]) {
        for Canary { name, bytes } in canaries {
            for spelling in spellings(bytes) {
                for (place, content) in &self.0 {
                    let shown = String::from_utf8_lossy(&spelling).into_owned();
                    assert!(!holds(content, &spelling), "{place} holds the {name} as {shown}");
                }
            }
        }
    }
}

/// Gives and echoes: tokens at `/token`, a refusal with the secret in it at `/refused`, elsewhere 401 or what came.
fn hostile(request: &postrider_testing::Received) -> Reply {
    let token = json!({ "access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 3600 });
    let refusal = json!({ "error": "invalid_client", "error_description": CLIENT_SECRET });
    match request.path.as_str() {
        "/token" => Reply::json(200, &token),
        "/refused" => Reply::json(401, &refusal),
        "/unauthorized" => Reply::Echo(401),
        "/fails" => Reply::Echo(500),
        _ => Reply::Echo(200),
    }
}

async fn oauth(scan: &mut Scan, client: &Client, endpoint: &str, tokens: String) {
    let settings = json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretBasic", "clientId": "postrider",
        "clientSecret": CLIENT_SECRET, "tokenUrl": tokens,
    });
    scan.answer(client, "PUT", &format!("/api/v1/app/a/endpoint/{endpoint}/oauth"), Some(settings)).await;
}

/// One endpoint for each way in which an attempt can go.
async fn furnish(scan: &mut Scan, client: &Client, receiver: &Receiver) -> Vec<&'static str> {
    scan.answer(client, "POST", "/api/v1/app", Some(json!({ "name": "a", "uid": "a" }))).await;
    let hmac = format!("whsec_{}", BASE64_STANDARD.encode(HMAC_BYTES));
    let pair = format!("whsk_{ED25519}");
    let endpoints =
        [("echoes", Some(&hmac)), ("fails", Some(&pair)), ("unauthorized", None), ("refused", None)];
    for (uid, secret) in endpoints {
        let body = json!({ "uid": uid, "url": receiver.url_with(&format!("/{uid}")), "secret": secret });
        let created = scan.answer(client, "POST", "/api/v1/app/a/endpoint", Some(body)).await;
        assert_eq!(created["uid"], uid, "{created}");
        let mut headers = json!({ "X-Api-Key": HEADER.trim_end_matches("é1"), "X-Marked": MARKED });
        if uid == "echoes" || uid == "fails" {
            headers["Authorization"] = BEARER.into();
        }
        let body = json!({ "headers": headers, "sensitive": ["X-Marked"] });
        let path = format!("/api/v1/app/a/endpoint/{uid}/headers");
        scan.answer(client, "PUT", &path, Some(body)).await;
    }
    oauth(scan, client, "unauthorized", receiver.url_with("/token")).await;
    oauth(scan, client, "refused", receiver.url_with("/refused")).await;
    endpoints.map(|(uid, _)| uid).to_vec()
}

/// Input that is refused is not repeated either.
async fn refuse(scan: &mut Scan, client: &Client) {
    let path = "/api/v1/app/a/endpoint/echoes/headers";
    let split = json!({ "headers": { "X-Api-Key": format!("{REFUSED}\r\nX: y") } });
    scan.answer(client, "PUT", path, Some(split)).await;
    let cut = client
        .raw("PUT", path, Some(format!("{{\"headers\": {{\"X-Api-Key\": \"{REFUSED}").into_bytes()))
        .await;
    scan.0.push(("answer to a body that is cut off".to_owned(), cut.bytes.to_vec()));
    let odd = json!({ "grantType": "clientCredentials", "clientSecret": { "value": REFUSED }, "tokenUrl": REFUSED });
    scan.answer(client, "PUT", "/api/v1/app/a/endpoint/echoes/oauth", Some(odd)).await;
    let key = json!({ "gracePeriodSeconds": 0, "key": format!("whsec_{REFUSED}") });
    scan.answer(client, "POST", "/api/v1/app/a/endpoint/echoes/secret/rotate", Some(key)).await;
    let url = json!({ "url": format!("https://user:{REFUSED}@example.com/") });
    scan.answer(client, "PATCH", "/api/v1/app/a/endpoint/echoes", Some(url)).await;
    client.with_token(REFUSED).get("/api/v1/app").await.expect(401);
}

async fn read_all(scan: &mut Scan, client: &Client, endpoints: &[&str]) -> String {
    let mut history = String::new();
    for uid in endpoints {
        for path in ["", "/headers", "/oauth", "/oauth-config", "/stats", "/msg?with_content=true"] {
            scan.answer(client, "GET", &format!("/api/v1/app/a/endpoint/{uid}{path}"), None).await;
        }
        let path = format!("/api/v1/app/a/attempt/endpoint/{uid}?with_msg=true");
        history += &scan.answer(client, "GET", &path, None).await.to_string();
    }
    for path in [
        "/api/v1/app",
        "/api/v1/app/a/endpoint",
        "/api/v1/app/a/msg",
        "/api/v1/openapi.json",
        "/docs",
        "/api/v1/health",
    ] {
        scan.answer(client, "GET", path, None).await;
    }
    scan.answer(&client.with_token(METRICS_TOKEN), "GET", "/metrics", None).await;
    history
}

/// Runs every scenario against a server that logs all it can.
#[tokio::test]
async fn no_credential_is_found_in_files_logs_answers_or_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!(
        "[log]\nlevel = \"debug\"\n[api]\njwt_secret = \"{JWT_SECRET}\"\nmetrics_token = \"{METRICS_TOKEN}\"\n"
    );
    let file: PathBuf = folder.path().join("postrider.toml");
    fs::write(&file, settings).unwrap();
    let mut process = Process::dev(folder.path());
    let said = run(folder.path(), &["api-key", "create", "--name", "ci", "--data-dir", "data"], &[]);
    let api_key = said.output.lines().next().unwrap().to_owned();
    let client = process.client().with_token(&api_key);
    let receiver = Receiver::start([Reply::by(hostile)]).await;
    let mut scan = Scan(Vec::new());

    let endpoints = furnish(&mut scan, &client, &receiver).await;
    refuse(&mut scan, &client).await;
    let message = json!({ "eventType": "invoice.paid", "payload": { "id": 1 } });
    scan.answer(&client, "POST", "/api/v1/app/a/msg", Some(message.clone())).await;
    for uid in &endpoints {
        let path = format!("/api/v1/app/a/endpoint/{uid}/msg/test-attempt");
        scan.answer(&client, "POST", &path, Some(message.clone())).await;
    }
    // Of the published message, too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let history = read_all(&mut scan, &client, &endpoints).await;
    assert!(history.contains("[redacted]"), "an echo shows where something was: {history}");
    for outcome in ["succeeded", "http_error", "unauthorized", "token_rejected"] {
        assert!(history.contains(&format!("\"outcome\":\"{outcome}\"")), "{outcome} is missing in {history}");
    }
    let sent = format!("{:?}", receiver.requests());
    for canary in ["CANARY-bearer", "CANARY-marked", "CANARY-access"] {
        assert!(sent.contains(canary), "{canary} was never sent, so that its absence says nothing");
    }

    scan.files(&folder.path().join("data"));
    let config = run(folder.path(), &["config"], &[]);
    scan.0.push(("postrider config".to_owned(), (config.output + &config.errors).into_bytes()));
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    scan.files(&folder.path().join("data"));
    let log = process.log();
    assert!(log.contains("\"DEBUG\""), "the log is not as talkative as it can be: {log}");
    scan.0.push(("the log".to_owned(), log.into_bytes()));
    scan.0.extend(Backend::chosen().stored(folder.path()));
    let stored = |name: &str| [".db-wal", "table secret"].iter().any(|end| name.ends_with(end));
    assert!(scan.0.iter().any(|(name, _)| stored(name)), "what is stored is scanned");
    scan.check(&canaries(&api_key));
}

/// The scan is worth what it finds.
#[test]
fn a_canary_is_found_in_every_spelling() {
    let secret = "p%+:ü\"/secret";
    let found = |text: &[u8]| spellings(secret.as_bytes()).iter().any(|spelling| holds(text, spelling));
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{secret}:after");
        assert!(found(text.as_bytes()));
        assert!(found(BASE64_STANDARD.encode(&text).as_bytes()), "{before}");
        assert!(found(BASE64_URL_SAFE_NO_PAD.encode(&text).as_bytes()), "{before}");
        assert!(found(hex(text.as_bytes()).as_bytes()));
        assert!(found(percent(text.as_bytes(), "+").as_bytes()));
        assert!(found(json!({ "text": text }).to_string().as_bytes()));
    }
    assert!(!found(b"nothing of it"));
}

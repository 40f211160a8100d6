//! Custom headers, signing secrets and OAuth2 settings: what goes in and what comes out.

use crate::harness::Api;
use serde_json::json;

#[tokio::test]
async fn headers_keep_their_spelling_and_hide_sensitive_values() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    let set = json!({"headers": {"X-Mixed-Case": "1", "Authorization": "Bearer canary", "X-Mine": "canary"}, "sensitive": ["x-mine"]});
    assert!(api.put(&format!("{path}/headers"), set).await.is(204).bytes.is_empty());
    let read = api.get(&format!("{path}/headers")).await;
    let expected = json!({"headers": {"X-Mixed-Case": "1"}, "sensitive": ["Authorization", "X-Mine"]});
    assert_eq!(read.is(200).body, expected);
    api.patch(
        &format!("{path}/headers"),
        json!({"headers": {"X-Mixed-Case": null, "X-New": "2"}, "deleteHeaders": ["x-mine"]}),
    )
    .await
    .is(204);
    let read = api.get(&format!("{path}/headers")).await;
    assert_eq!(read.body, json!({"headers": {"X-New": "2"}, "sensitive": ["Authorization"]}));
    for headers in [
        json!({"Host": "x"}),
        json!({"svix-id": "x"}),
        json!({"X-A": "a\nb"}),
        json!({"a b": "x"}),
        json!({"X-A": 1}),
    ] {
        let refused = api.put(&format!("{path}/headers"), json!({"headers": headers})).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"][1], "headers");
    }
}

/// H11.
#[tokio::test]
async fn a_patch_of_one_header_value_is_checked_like_a_new_header() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    api.put(&format!("{path}/headers"), json!({"headers": {"X-A": "good", "X-B": "kept"}})).await.is(204);
    for value in ["two\r\nlines", " blank before", "\u{7f}", "ü", &"a".repeat(4097)] {
        let refused = api.patch(&format!("{path}/headers"), json!({"headers": {"x-a": value}})).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"][1], "headers", "{value:?}");
    }
    let read = api.get(&format!("{path}/headers")).await;
    assert_eq!(read.body["headers"], json!({"X-A": "good", "X-B": "kept"}), "nothing was changed");
}

/// K07.
#[tokio::test]
async fn sensitive_headers_do_not_move_to_another_origin() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com/a").await;
    let secret = json!({"headers": {"X-Api-Key": "canary"}});
    api.put(&format!("{path}/headers"), secret).await.is(204);
    for url in ["https://evil.example.com/a", "https://example.com:8443/a"] {
        for refused in
            [api.patch(&path, json!({"url": url})).await, api.put(&path, json!({"url": url})).await]
        {
            let problem = &refused.is(422).body["detail"][0];
            assert_eq!(
                (&problem["type"], &problem["loc"]),
                (&json!("secret_reentry_required"), &json!(["body", "url"]))
            );
        }
    }
    api.patch(&path, json!({"url": "https://example.com/b"})).await.is(200);
    api.patch(&format!("{path}/headers"), json!({"headers": {}, "deleteHeaders": ["x-api-key"]}))
        .await
        .is(204);
    api.patch(&path, json!({"url": "https://other.example.com/b"})).await.is(200);
}

#[tokio::test]
async fn an_authorization_header_and_oauth_exclude_each_other() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    let oauth = json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretBasic", "clientId": "me",
        "clientSecret": "canary", "tokenUrl": "https://idp.example.com/token"
    });
    let headers = json!({"headers": {"authorization": "x"}});
    api.put(&format!("{path}/headers"), headers.clone()).await.is(204);
    api.put(&format!("{path}/oauth"), oauth.clone()).await.is(422);
    api.put(&format!("{path}/headers"), json!({"headers": {}})).await.is(204);
    api.put(&format!("{path}/oauth"), oauth).await.is(204);
    api.put(&format!("{path}/headers"), headers.clone()).await.is(422);
    api.patch(&format!("{path}/headers"), headers).await.is(422);
}

/// O16.
#[tokio::test]
async fn oauth_settings_are_shown_without_their_secret_and_bound_to_their_server() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    let oauth = format!("{path}/oauth");
    api.get(&oauth).await.is(404);
    assert_eq!(
        api.get(&format!("{path}/oauth-config")).await.is(200).body,
        json!({"enabled": false, "config": null})
    );
    let mut settings = json!({
        "grantType": "clientCredentials", "authMethod": "clientSecretPost", "clientId": "me",
        "tokenUrl": "https://idp.example.com/token", "scopes": ["a", "b"], "extraParams": {"audience": "x"}
    });
    api.put(&oauth, settings.clone()).await.is(422);
    settings["clientSecret"] = json!("canary-secret");
    api.put(&oauth, settings.clone()).await.is(204);
    let read = api.get(&oauth).await;
    assert_eq!(
        read.is(200).body,
        json!({
            "grantType": "clientCredentials", "authMethod": "clientSecretPost", "clientId": "me",
            "tokenUrl": "https://idp.example.com/token", "scopes": ["a", "b"], "extraParams": {"audience": "x"},
            "extraHeaders": null
        })
    );
    assert_eq!(api.get(&format!("{path}/oauth-config")).await.body["enabled"], true);
    assert_eq!(api.get(&path).await.body["hasOauth"], true);
    settings.as_object_mut().unwrap().remove("clientSecret");
    settings["tokenUrl"] = json!("https://idp.example.com/v2/token");
    api.put(&oauth, settings.clone()).await.is(204);
    for (member, value) in [("tokenUrl", "https://evil.example.com/token"), ("clientId", "you")] {
        let mut changed = settings.clone();
        changed[member] = json!(value);
        let refused = api.put(&oauth, changed).await;
        assert_eq!(refused.is(422).body["detail"][0]["type"], "secret_reentry_required");
    }
    for (member, value) in [
        ("grantType", "refreshToken"),
        ("authMethod", "clientSecretJwt"),
        ("grantType", "password"),
        ("tokenUrl", "http://idp.example.com/token"),
    ] {
        let mut changed = settings.clone();
        changed[member] = json!(value);
        let refused = api.put(&oauth, changed).await;
        assert_eq!(refused.is(422).body["detail"][0]["loc"], json!(["body", member]));
    }
    api.delete(&oauth).await.is(204);
    api.get(&oauth).await.is(404);
    assert_eq!(api.get(&path).await.body["hasOauth"], false);
}

#[tokio::test]
async fn signing_secrets_are_generated_given_and_rotated() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    let secret = api.get(&format!("{path}/secret")).await;
    let first = secret.is(200).text("key");
    assert!(first.starts_with("whsec_") && secret.headers["cache-control"] == "no-store");
    let rotated = api
        .send("POST", &format!("{path}/secret/rotate"), &[("idempotency-key", "r1")], Some(json!({})))
        .await;
    let second = rotated.is(200).text("key");
    assert_ne!(second, first);
    let again = api.send("POST", &format!("{path}/secret/rotate"), &[("idempotency-key", "r1")], None).await;
    assert_eq!(again.is(200).text("key"), second);
    let private =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    let public = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
    let asymmetric =
        api.post(&format!("{path}/secret/rotate"), json!({"key": private, "gracePeriodSeconds": 0})).await;
    assert_eq!(asymmetric.is(200).text("key"), public);
    assert_eq!(api.get(&format!("{path}/secret")).await.text("key"), public);
    for body in [
        json!({"key": "hwsec_abc"}),
        json!({"gracePeriodSeconds": 604_801}),
        json!({"gracePeriodSeconds": -1}),
    ] {
        let refused = api.post(&format!("{path}/secret/rotate"), body).await;
        refused.is(422);
    }
}

#[tokio::test]
async fn the_eleventh_rotation_within_the_overlap_is_refused() {
    let api = Api::start().await;
    let path = api.endpoint("https://example.com").await;
    for _ in 0..10 {
        api.post(&format!("{path}/secret/rotate"), json!({"key": null})).await.is(200);
    }
    let refused = api.post(&format!("{path}/secret/rotate"), json!({})).await;
    assert_eq!(refused.is(400).body["code"], "limit_reached");
}

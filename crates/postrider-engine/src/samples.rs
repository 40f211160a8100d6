//! Things that the unit tests of this crate need: one delivery, one endpoint, its credentials.

use bytes::Bytes;
use postrider_model::{
    delivery::{DeliveryId, Trigger},
    endpoint::Endpoint,
    environment::EnvironmentId,
    headers::{CustomHeader, CustomHeaders},
    id::{Id, Ksuid},
    signature::SigningSecret,
    time::Timestamp,
    url::{EndpointUrl, UrlRules},
};
use postrider_store::{
    deliveries::{ClaimedDelivery, Lease},
    endpoints::AppScope,
    snapshot::{Credentials, SigningKey},
};

pub(crate) const URL: &str = "https://example.com/hooks/secret-path?tenant=7";
pub(crate) const PAYLOAD: &[u8] = b"{\"b\": 1,  \"a\": 1.0}";

pub(crate) fn claimed() -> ClaimedDelivery {
    let delivery = DeliveryId {
        message: Id::new(Ksuid::from_bytes([7; 20])),
        endpoint: Id::new(Ksuid::from_bytes([8; 20])),
        generation: 0,
    };
    ClaimedDelivery {
        lease: Lease { delivery, epoch: 1 },
        scope: AppScope {
            environment: EnvironmentId::parse("org_1").expect("an environment"),
            application: Id::new(Ksuid::from_bytes([9; 20])),
        },
        number: 1,
        trigger: Trigger::Scheduled,
        payload: Bytes::from_static(PAYLOAD),
        content_type: None,
        accepted_at: at(),
        due_at: at(),
        deaths: 0,
    }
}

pub(crate) fn at() -> Timestamp {
    Timestamp::parse("2026-01-01T00:00:00.5Z").expect("a date")
}

pub(crate) fn endpoint(url: &str) -> Endpoint {
    let url = EndpointUrl::parse(url, &UrlRules { dev: true, ..UrlRules::default() }).expect("a URL");
    Endpoint {
        id: claimed().lease.delivery.endpoint,
        application: claimed().scope.application,
        uid: None,
        url,
        description: String::new(),
        throttle_rate: None,
        filter: postrider_model::filter::Filter::default(),
        disabled: None,
        metadata: postrider_model::application::Metadata::default(),
        retry: None,
        legacy_version: 1,
        version: 1,
        created_at: at(),
        updated_at: at(),
    }
}

pub(crate) fn credentials(headers: &[(&str, &str, bool)]) -> Credentials {
    let headers = headers.iter().map(|(name, value, sensitive)| CustomHeader {
        name: (*name).to_owned(),
        value: (*value).into(),
        sensitive: *sensitive,
    });
    Credentials {
        signing: vec![SigningKey { secret: SigningSecret::hmac([1; 24]), until: None }],
        headers: CustomHeaders::from_stored(headers.collect()),
        oauth: None,
    }
}

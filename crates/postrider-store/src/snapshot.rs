//! Endpoint configuration in memory: one snapshot per application, what messages are matched and sent with.

use postrider_model::{
    delivery::DeliveryId, endpoint::Endpoint, event_type::EventTypeName, headers::CustomHeaders,
    id::EndpointId, message::Channel, oauth::OAuthCredential, signature::SigningSecret, time::Timestamp,
};
use std::{collections::BTreeSet, sync::Arc};

/// The endpoints of an application as of one version of its configuration.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows with every change below the application; `accept` commits only against the version it matched with.
    pub version: u64,
    /// The endpoints, by id.
    pub endpoints: Vec<Arc<SendSettings>>,
}

/// An endpoint as it is sent to.
#[derive(Debug)]
pub struct SendSettings {
    /// Its configuration.
    pub endpoint: Endpoint,
    /// Its credentials, or why they cannot be opened (for the attempt's detail; never a secret).
    pub credentials: Result<Credentials, String>,
    /// Messages per second: its own limit, or that of its application; `None` for no limit.
    pub throttle_rate: Option<u16>,
}

/// The opened credentials of an endpoint.
#[derive(Debug)]
pub struct Credentials {
    /// The current signing secret and those in overlap.
    pub signing: Vec<SigningKey>,
    /// Custom headers.
    pub headers: CustomHeaders,
    /// OAuth2.
    pub oauth: Option<OAuthCredential>,
}

/// A signing secret and how long it signs.
pub struct SigningKey {
    /// The secret.
    pub secret: SigningSecret,
    /// `None` for the current one.
    pub until: Option<Timestamp>,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SigningKey").field("until", &self.until).finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The enabled endpoints that a message of this type and these channels goes to.
    pub fn matching<'a>(
        &'a self,
        event_type: &'a EventTypeName,
        channels: &'a BTreeSet<Channel>,
    ) -> impl Iterator<Item = &'a Arc<SendSettings>> {
        self.endpoints.iter().filter(move |settings| {
            settings.endpoint.disabled.is_none() && settings.endpoint.filter.matches(event_type, channels)
        })
    }

    /// The endpoint of this id.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<SendSettings>> {
        self.endpoints
            .binary_search_by_key(&id, |settings| settings.endpoint.id)
            .ok()
            .map(|at| &self.endpoints[at])
    }
}

/// The first delivery of a message to an endpoint.
pub fn first_delivery(message: postrider_model::id::MessageId, endpoint: EndpointId) -> DeliveryId {
    DeliveryId { message, endpoint, generation: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{
        endpoint::{Disabled, DisabledReason},
        id::Ksuid,
        url::{EndpointUrl, UrlRules},
    };

    fn settings(number: u8, disabled: bool, event_types: &[&str]) -> Arc<SendSettings> {
        let at = Timestamp::default();
        let mut bytes = [0; 20];
        bytes[19] = number;
        let endpoint = Endpoint {
            id: EndpointId::new(Ksuid::from_bytes(bytes)),
            application: postrider_model::id::ApplicationId::floor(at),
            uid: None,
            url: EndpointUrl::parse("https://example.com/", &UrlRules::default()).unwrap(),
            description: String::new(),
            throttle_rate: None,
            filter: postrider_model::filter::Filter {
                event_types: event_types.iter().filter_map(|name| EventTypeName::parse(name)).collect(),
                ..Default::default()
            },
            disabled: disabled.then_some(Disabled { reason: DisabledReason::Requested, at }),
            metadata: postrider_model::application::Metadata::new(),
            retry: postrider_model::retry::RetryOverride::default(),
            legacy_version: 1,
            version: 1,
            created_at: at,
            updated_at: at,
        };
        Arc::new(SendSettings {
            endpoint,
            credentials: Err("not needed here".to_owned()),
            throttle_rate: None,
        })
    }

    #[test]
    fn a_message_matches_enabled_endpoints_whose_filter_lets_it_through() {
        let snapshot = Snapshot {
            version: 1,
            endpoints: vec![
                settings(1, false, &[]),
                settings(2, true, &[]),
                settings(3, false, &["a"]),
                settings(4, false, &["b"]),
            ],
        };
        let name = EventTypeName::parse("a").unwrap();
        let none = BTreeSet::new();
        let matched: Vec<_> = snapshot.matching(&name, &none).map(|item| item.endpoint.id).collect();
        assert_eq!(matched, [snapshot.endpoints[0].endpoint.id, snapshot.endpoints[2].endpoint.id]);
    }

    #[test]
    fn an_endpoint_is_found_by_its_id() {
        let snapshot =
            Snapshot { version: 1, endpoints: (1..20).map(|number| settings(number, false, &[])).collect() };
        for item in &snapshot.endpoints {
            let found = snapshot.endpoint(item.endpoint.id).expect("it is there");
            assert_eq!(found.endpoint.id, item.endpoint.id);
        }
        assert!(snapshot.endpoint(settings(99, false, &[]).endpoint.id).is_none());
    }
}

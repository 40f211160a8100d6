//! Which endpoints get a message. One pure function, used when a message is accepted and by prechecks.

use crate::{event_type::EventTypeName, message::Channel};
use std::collections::BTreeSet;

/// What an endpoint wants to get. Empty sets mean "everything".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Only these event types.
    pub event_types: BTreeSet<EventTypeName>,
    /// Only messages that share one of these channels.
    pub channels: BTreeSet<Channel>,
}

impl Filter {
    /// An endpoint with channels never gets a message without any.
    pub fn matches(&self, event_type: &EventTypeName, channels: &BTreeSet<Channel>) -> bool {
        (self.event_types.is_empty() || self.event_types.contains(event_type))
            && (self.channels.is_empty() || !self.channels.is_disjoint(channels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(event_types: &[&str], channels: &[&str]) -> Filter {
        Filter {
            event_types: event_types.iter().filter_map(|name| EventTypeName::parse(name)).collect(),
            channels: set(channels),
        }
    }

    fn set(channels: &[&str]) -> BTreeSet<Channel> {
        channels.iter().filter_map(|name| Channel::parse(name)).collect()
    }

    #[test]
    fn an_endpoint_gets_what_its_filter_names() {
        let paid = EventTypeName::parse("invoice.paid").unwrap();
        for (event_types, channels, of_message, expected) in [
            (&[][..], &[][..], &[][..], true),
            (&[], &[], &["eu"], true),
            (&["invoice.paid"], &[], &[], true),
            (&["invoice.sent"], &[], &[], false),
            (&["invoice.sent", "invoice.paid"], &["eu"], &["eu", "us"], true),
            (&[], &["eu"], &["us"], false),
            (&[], &["eu"], &[], false),
            (&["invoice.sent"], &["eu"], &["eu"], false),
        ] {
            assert_eq!(
                filter(event_types, channels).matches(&paid, &set(of_message)),
                expected,
                "{event_types:?} {channels:?} {of_message:?}"
            );
        }
    }
}

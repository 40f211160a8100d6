//! What applications published inside of transactions of their own: what waits, and what became of it. Nothing on a store
//! that has no outbox.

use postrider_model::time::Timestamp;
use postrider_store::health;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

/// The last answer of the store, and when it gave it.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<Option<(health::Outbox, Timestamp)>>);

impl Outbox {
    /// Shows this from now on.
    pub(super) fn set(&self, outbox: Option<health::Outbox>, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outbox.map(|outbox| (outbox, now));
    }
}

impl Collector for Outbox {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((outbox, now)) = shown.as_ref() else { return Ok(()) };
        let gauge = |count: u64| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let help = "Messages published in transactions that committed and that no node has routed yet";
        let waiting = encoder.encode_descriptor("postrider_outbox_waiting", help, None, MetricType::Gauge)?;
        gauge(outbox.waiting).encode(waiting)?;
        let help = "Since when the first of them waits, from its call of publish on";
        let (name, unit) = ("postrider_outbox_oldest", Some(&Unit::Seconds));
        let oldest = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        ConstGauge::new(outbox.oldest.map_or(0.0, |since| now.since(since).as_secs_f64())).encode(oldest)?;
        let help = "Messages published in transactions that wait for the operator, by reason";
        let mut family =
            encoder.encode_descriptor("postrider_outbox_set_aside", help, None, MetricType::Gauge)?;
        for (reason, count) in &outbox.set_aside {
            gauge(*count).encode(family.encode_family(&[("reason", *reason)])?)?;
        }
        let help = "What this node did with messages published in transactions, by result";
        let mut family =
            encoder.encode_descriptor("postrider_outbox_handled", help, None, MetricType::Counter)?;
        for (result, count) in &outbox.handled {
            ConstCounter::new(*count).encode(family.encode_family(&[("result", *result)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::{encoding::text, registry::Registry};
    use std::{sync::Arc, time::Duration};

    #[test]
    fn what_waits_and_what_was_done_is_shown_where_there_is_an_outbox() {
        let (mut registry, outbox) = (Registry::default(), Arc::new(Outbox::default()));
        registry.register_collector(Box::new(Arc::clone(&outbox)));
        let page = || {
            let mut page = String::new();
            text::encode(&mut page, &registry).unwrap();
            page
        };
        let now = Timestamp::from_micros(1_795_000_000_000_000);
        outbox.set(None, now);
        assert!(!page().contains("outbox"));
        let state = health::Outbox {
            waiting: 3,
            oldest: Some(now.minus(Duration::from_millis(2500))),
            set_aside: vec![("on_hold", 1), ("unroutable", 2)],
            handled: vec![("routed", 9)],
        };
        outbox.set(Some(state), now);
        let page = page();
        for line in [
            "postrider_outbox_waiting 3",
            "postrider_outbox_oldest_seconds 2.5",
            "postrider_outbox_set_aside{reason=\"unroutable\"} 2",
            "postrider_outbox_handled_total{result=\"routed\"} 9",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }
}

//! What the API lets in and refuses, read from it at each scrape.

use postrider_api::admission::Admission;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// The gates, as soon as there are any.
#[derive(Debug, Default)]
pub(super) struct Gates(OnceLock<Arc<Admission>>);

impl Gates {
    /// The first ones count.
    pub(super) fn watch(&self, admission: Arc<Admission>) {
        let _ = self.0.set(admission);
    }
}

impl Collector for Gates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(admission) = self.0.get() else { return Ok(()) };
        let figures = admission.figures();
        for (name, help, unit, value) in [
            (
                "postrider_publish_turns",
                "Publish requests that may be worked on at one time, so that deliveries keep up",
                None,
                figures.turns,
            ),
            ("postrider_publishes_running", "Publish requests that are worked on", None, figures.publishing),
            (
                "postrider_publishes_waiting",
                "Publish requests that wait for memory or for their turn",
                None,
                figures.waiting,
            ),
            (
                "postrider_publish_body",
                "Bodies of publish requests that are in memory or reserved",
                Some(&Unit::Bytes),
                figures.body_bytes,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)?;
        }
        let (name, help) = ("postrider_requests_refused", "Requests that were told to come back, by reason");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in figures.refused {
            let labels = [("reason", reason.name())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_api::admission::LimitsConfig;
    use prometheus_client::{encoding::text, registry::Registry};

    #[test]
    fn what_waits_and_what_was_refused_is_shown() {
        let mut registry = Registry::default();
        let gates = Arc::new(Gates::default());
        registry.register_collector(Box::new(Arc::clone(&gates)));
        gates.watch(Arc::new(Admission::new(&LimitsConfig::default())));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        for line in [
            "postrider_publish_turns 128",
            "postrider_publishes_running 0",
            "postrider_publishes_waiting 0",
            "postrider_publish_body_bytes 0",
            "postrider_requests_refused_total{reason=\"application\"} 0",
            "postrider_requests_refused_total{reason=\"backlog\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing in\n{page}");
        }
    }
}

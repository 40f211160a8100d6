//! DNS in the hand of a test: names lead where it says, also to somewhere else the next time.

use async_trait::async_trait;
use postrider_outbound::resolver::{Resolve, ResolveFailure};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// A resolver with a list of answers for each name; the last one repeats.
#[derive(Debug, Default)]
pub struct StubDns {
    answers: Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>,
}

impl StubDns {
    /// The next answers for a name, one for each time it is asked for.
    #[must_use]
    pub fn with(self, name: &str, answers: &[&[&str]]) -> Self {
        let answers =
            answers.iter().map(|addresses| addresses.iter().map(|text| text.parse().unwrap()).collect());
        self.answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), answers.collect());
        self
    }
}

#[async_trait]
impl Resolve for StubDns {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveFailure> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = answers.get_mut(name).ok_or(ResolveFailure::NotFound)?;
        let next = if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() };
        next.ok_or(ResolveFailure::NotFound)
    }
}

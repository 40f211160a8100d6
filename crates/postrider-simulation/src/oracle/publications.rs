//! What was promised to publishers.

use bytes::Bytes;
use postrider_model::id::MessageId;
use std::{collections::BTreeMap, time::Duration};

/// Everything that publishers tried, and what was answered.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    all: Vec<Publication>,
    by_body: BTreeMap<Bytes, usize>,
}

/// One thing to publish, until it is acknowledged or given up.
#[derive(Debug)]
pub(crate) struct Publication {
    application: usize,
    /// When it was tried first.
    pub(crate) tried_at: Duration,
    /// The message that it became, as the publisher or a receiver came to know.
    message: Option<MessageId>,
    /// Endpoints that certainly are to get it; known once it is acknowledged.
    pub(crate) owed: Option<Vec<usize>>,
    /// Its payload was deleted: nothing is owed any more.
    pub(crate) expunged: bool,
}

impl Publications {
    /// Something new to publish: its number and its body.
    pub(crate) fn add(&mut self, application: usize, at: Duration) -> (usize, Bytes) {
        let number = self.all.len();
        let padding = " ".repeat(number * 7 % 50);
        let body = Bytes::from(format!(r#"{{"publication":{number},{padding}"application":{application}}}"#));
        self.by_body.insert(body.clone(), number);
        let (message, owed) = (None, None);
        self.all.push(Publication { application, tried_at: at, message, owed, expunged: false });
        (number, body)
    }

    /// The publication of a number.
    pub(crate) fn get(&self, number: usize) -> Option<&Publication> {
        self.all.get(number)
    }

    /// It became this message. I9: a repeated request never makes another.
    pub(crate) fn became(&mut self, number: usize, message: MessageId) -> Result<(), String> {
        let Some(publication) = self.all.get_mut(number) else {
            return Err("nobody published this".to_owned());
        };
        match publication.message {
            Some(other) if other != message => {
                Err(format!("I9: publication {number} became {other} and {message}"))
            }
            _ => {
                publication.message = Some(message);
                Ok(())
            }
        }
    }

    /// It was acknowledged, and these endpoints are to get it.
    pub(crate) fn acknowledged(&mut self, number: usize, owed: Vec<usize>) {
        if let Some(publication) = self.all.get_mut(number) {
            publication.owed.get_or_insert(owed);
        }
    }

    /// The payload of this message was deleted, or may have been.
    pub(crate) fn expunged(&mut self, message: MessageId) {
        if let Some(publication) = self.all.iter_mut().find(|one| one.message == Some(message)) {
            publication.expunged = true;
        }
    }

    /// Messages that were acknowledged, with the endpoints that they are owed to.
    pub(crate) fn owed(&self) -> impl Iterator<Item = (MessageId, &[usize])> {
        self.all.iter().filter_map(|one| Some((one.message?, one.owed.as_deref()?)))
    }

    /// Acknowledged messages whose payload is not deleted.
    pub(crate) fn messages(&self) -> Vec<(usize, MessageId)> {
        let known = self.all.iter().filter(|one| one.owed.is_some() && !one.expunged);
        known.filter_map(|one| Some((one.application, one.message?))).collect()
    }

    /// The body is one that was published, for this application, and always under this id.
    pub(super) fn is_of(
        &mut self,
        body: &Bytes,
        message: MessageId,
        application: usize,
    ) -> Result<(), String> {
        let number = *self
            .by_body
            .get(body)
            .ok_or_else(|| format!("I3: {message} has a body that nobody published"))?;
        if self.all.get(number).is_none_or(|one| one.application != application) {
            return Err(format!("I3: {message} goes to an endpoint of another application"));
        }
        self.became(number, message)
    }
}

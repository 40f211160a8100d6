//! A connection's client, which knows whether a pooler stands in between.
//!
//! Behind a pooler in transaction mode each transaction may run in another session of the server: nothing that is said to
//! a session may be relied upon afterwards. There, settings are told to each transaction (`SET LOCAL`), a statement of
//! its own becomes a transaction, and statements are never named: they are sent with their text and with the types of
//! their values, which the server was asked for once.

use super::{EVERYTHING, Use};
use futures_util::future;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use tokio_postgres::{
    Error, Row, SimpleQueryMessage,
    types::{ToSql, Type},
};

/// A statement that can be sent again and again.
#[derive(Clone)]
pub(crate) enum Statement {
    /// The session knows it.
    Named(tokio_postgres::Statement),
    /// Sent whole each time.
    Whole(Arc<Whole>),
}

/// A text with the types of its values.
pub(crate) struct Whole {
    text: String,
    types: Vec<Type>,
}

/// See the head of this file.
pub(crate) struct Client {
    inner: tokio_postgres::Client,
    /// What each transaction is told behind a pooler; `None` when the session is this client's own.
    each: Option<String>,
    /// A transaction was begun here, as far as what was sent tells.
    begun: AtomicBool,
    seen: Mutex<Seen>,
}

/// Whose rows statements see: see `migrations/0005_row_level_security.sql`.
struct Seen {
    wanted: String,
    /// What the session was told.
    told: String,
}

impl Client {
    /// Of a session of its own, which was told its settings, or behind a pooler.
    pub(super) fn new(inner: tokio_postgres::Client, purpose: Use, pooled: bool) -> Self {
        let each = pooled.then(|| purpose.settings("SET LOCAL"));
        let seen = Mutex::new(Seen { wanted: EVERYTHING.to_owned(), told: EVERYTHING.to_owned() });
        Self { inner, each, begun: AtomicBool::new(false), seen }
    }

    /// See [`Connection::see`](super::Connection::see).
    pub(super) fn see(&self, environments: &str) {
        let mut seen = self.seen();
        if seen.wanted != environments {
            environments.clone_into(&mut seen.wanted);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each transaction is told behind a pooler, with whose rows it sees.
    fn each(&self) -> Option<String> {
        let each = self.each.as_ref()?;
        Some(format!("{each}{}; ", see_statement("SET LOCAL", &self.seen().wanted)))
    }

    /// Whose rows statements see, if the session does not know: it is to be told right now.
    fn tell(&self) -> Option<String> {
        let mut guard = self.seen();
        let seen = &mut *guard;
        if seen.told == seen.wanted {
            return None;
        }
        seen.told.clone_from(&seen.wanted);
        Some(see_statement("SET", &seen.wanted))
    }

    /// Tells it before the statement, in one round trip.
    async fn telling<T>(
        &self,
        tell: String,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (told, answer) = future::join(self.inner.batch_execute(&tell), asked).await;
        told?;
        answer
    }

    /// Is it of no use any more?
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Asks for a statement; its text alone says what it is. Behind a pooler nobody may keep its name.
    pub(super) async fn prepare(&self, text: &str) -> Result<Statement, Error> {
        let Some(each) = &self.each else { return Ok(Statement::Named(self.inner.prepare(text).await?)) };
        let before = if self.begun.load(Ordering::Relaxed) { "" } else { each };
        let name = format!("postrider_{:032x}", rand::random::<u128>());
        // One message, so one transaction: nothing of it stays in the session, also when it fails.
        let ask = format!(
            "{before}PREPARE {name} AS {text};
             SELECT array_to_string(parameter_types::oid[], ',') FROM pg_prepared_statements WHERE name = '{name}';
             DEALLOCATE {name}"
        );
        let answer = self.inner.simple_query(&ask).await?;
        let types = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let type_of = |oid: &str| oid.parse().ok().and_then(Type::from_oid).unwrap_or(Type::UNKNOWN);
        let types = types.unwrap_or_default().split(',').filter(|oid| !oid.is_empty()).map(type_of).collect();
        Ok(Statement::Whole(Arc::new(Whole { text: text.to_owned(), types })))
    }

    /// Statements without values and rows, one after the other.
    pub(crate) async fn batch_execute(&self, text: &str) -> Result<(), Error> {
        if let Some(each) = &self.each() {
            return Box::pin(self.batch_with(text, each)).await;
        }
        match self.tell() {
            None => self.inner.batch_execute(text).await,
            Some(tell) => Box::pin(self.telling(tell, self.inner.batch_execute(text))).await,
        }
    }

    /// The same behind a pooler.
    async fn batch_with(&self, text: &str, each: &str) -> Result<(), Error> {
        let begun = self.begun.load(Ordering::Relaxed);
        let begins = text.starts_with("BEGIN");
        let ends = text.ends_with("COMMIT") || text == "ROLLBACK";
        self.begun.store((begun || begins) && !ends, Ordering::Relaxed);
        if begins {
            self.inner.batch_execute(&begin_with(text, each)).await
        } else if begun || ends {
            self.inner.batch_execute(text).await
        } else {
            // Several statements in one message are one transaction.
            self.inner.batch_execute(&format!("{each}{text}")).await
        }
    }

    /// As it is: what must not stand in a transaction.
    pub(crate) async fn execute_alone(&self, text: &str) -> Result<(), Error> {
        self.inner.batch_execute(text).await
    }

    /// Rows of a statement.
    pub(crate) async fn query(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        match statement {
            Statement::Named(statement) => match self.tell() {
                None => self.inner.query(statement, values).await,
                Some(tell) => Box::pin(self.telling(tell, self.inner.query(statement, values))).await,
            },
            // In boxes: few go this way, and all would carry its size.
            Statement::Whole(whole) => {
                let typed = typed(whole, values);
                Box::pin(self.alone(self.inner.query_typed(&whole.text, &typed))).await
            }
        }
    }

    /// How many rows a statement changed.
    pub(crate) async fn execute(
        &self,
        statement: &Statement,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        match statement {
            Statement::Named(statement) => match self.tell() {
                None => self.inner.execute(statement, values).await,
                Some(tell) => Box::pin(self.telling(tell, self.inner.execute(statement, values))).await,
            },
            Statement::Whole(whole) => {
                let typed = typed(whole, values);
                Box::pin(self.alone(self.inner.execute_typed(&whole.text, &typed))).await
            }
        }
    }

    /// Outside of a transaction a statement gets one of its own, in the same round trip.
    async fn alone<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let Some(each) = self.each().filter(|_| !self.begun.load(Ordering::Relaxed)) else {
            return asked.await;
        };
        let begin = begin_with("BEGIN", &each);
        let (begun, answer, ended) =
            future::join3(self.inner.batch_execute(&begin), asked, self.inner.batch_execute("COMMIT")).await;
        begun?;
        let answer = answer?;
        ended?;
        Ok(answer)
    }

    #[cfg(test)]
    pub(crate) async fn simple_query(&self, text: &str) -> Result<Vec<SimpleQueryMessage>, Error> {
        self.inner.simple_query(text).await
    }
}

/// Ids hold nothing that could end the text.
fn see_statement(set: &str, environments: &str) -> String {
    format!("{set} postrider.environments = '{environments}'")
}

/// The settings follow the word that begins, before anything else that the text says.
fn begin_with(text: &str, each: &str) -> String {
    match text.split_once(';') {
        Some((begin, rest)) => format!("{begin}; {each}{rest}"),
        None => format!("{text}; {}", each.trim_end_matches([';', ' '])),
    }
}

fn typed<'a>(whole: &Whole, values: &[&'a (dyn ToSql + Sync)]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let types = whole.types.iter().cloned().chain(std::iter::repeat(Type::UNKNOWN));
    values.iter().copied().zip(types).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_right_after_the_beginning() {
        assert_eq!(begin_with("BEGIN", "SET LOCAL a = 1; "), "BEGIN; SET LOCAL a = 1");
        assert_eq!(
            begin_with("BEGIN; SET LOCAL lock_timeout = 5", "SET LOCAL a = 1; "),
            "BEGIN; SET LOCAL a = 1;  SET LOCAL lock_timeout = 5"
        );
    }
}

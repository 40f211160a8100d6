//! An application that publishes: a database role of its own that may do nothing else.

use postrider_store::endpoints::AppScope;
use postrider_store_postgres::testing::Place;
use std::{future::Future, time::Duration};
use tokio::time::Instant;
use tokio_postgres::{Client, Config, GenericClient, NoTls, types::ToSql};

/// Who publishes.
pub(crate) struct Publisher {
    pub(crate) client: Client,
    pub(crate) role: String,
    config: Config,
}

impl Publisher {
    /// A new role that may publish to the environment.
    pub(crate) async fn new(place: &Place, scope: &AppScope) -> Self {
        let role = format!("postrider_test_{:016x}", rand::random::<u64>());
        let admin = place.client().await.unwrap();
        admin.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
        let allow = "SELECT postrider.allow($1, $2)";
        admin.execute(allow, &[&role, &scope.environment.as_str()]).await.unwrap();
        let mut config: Config = place.url().parse().unwrap();
        config.user(&role);
        Self { client: connect(&config).await, role, config }
    }

    /// The same role over another connection.
    pub(crate) async fn another(&self) -> Self {
        Self { client: connect(&self.config).await, role: self.role.clone(), config: self.config.clone() }
    }

    /// Publishes over this client or transaction.
    pub(crate) async fn publish(
        client: &impl GenericClient,
        scope: &AppScope,
        payload: &str,
    ) -> Result<String, tokio_postgres::Error> {
        let text = "SELECT postrider.publish($1, 'a', $2::text)";
        Ok(client.query_one(text, &[&scope.application.to_string(), &payload]).await?.get(0))
    }

    /// The text that a query gives, or the SQLSTATE and the field of its refusal.
    pub(crate) async fn one(&self, text: &str, values: &[&(dyn ToSql + Sync)]) -> Result<String, String> {
        self.client.query_one(text, values).await.map(|row| row.get(0)).map_err(|error| refusal(&error))
    }

    /// Publishes with this event id.
    pub(crate) async fn with_event_id(&self, scope: &AppScope, event_id: &str) -> Result<String, String> {
        let text = "SELECT postrider.publish($1, 'a', '{}', event_id => $2)";
        self.one(text, &[&scope.application.to_string(), &event_id]).await
    }

    /// Publishes some messages in a transaction that commits or rolls back. `None`: nothing happened; an error: the
    /// connection was lost at the commit.
    pub(crate) async fn batch(
        &mut self,
        scope: &AppScope,
        count: u32,
        commit: bool,
    ) -> Option<Result<Vec<String>, Vec<String>>> {
        let transaction = self.client.transaction().await.ok()?;
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(Self::publish(&transaction, scope, "{}").await.ok()?);
        }
        if !commit {
            transaction.rollback().await.ok()?;
            return Some(Ok(Vec::new()));
        }
        Some(if transaction.commit().await.is_ok() { Ok(ids) } else { Err(ids) })
    }
}

/// SQLSTATE and field.
pub(crate) fn refusal(error: &tokio_postgres::Error) -> String {
    let Some(database) = error.as_db_error() else { return error.to_string() };
    let field = database.column().unwrap_or_else(|| database.message());
    format!("{} {field}", database.code().code())
}

async fn connect(config: &Config) -> Client {
    // While connections are cut at random, so may be this one.
    for _ in 0..20 {
        if let Ok((client, connection)) = config.connect(NoTls).await {
            tokio::spawn(connection);
            return client;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no connection");
}

/// Waits until something is found.
pub(crate) async fn within<T, F: Future<Output = Option<T>>>(
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "{what} within {seconds} s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

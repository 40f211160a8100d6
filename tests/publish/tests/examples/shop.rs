//! The shop of the examples: its table beside Postrider's, its role, its customer.

use postrider_model::environment::EnvironmentId;
use postrider_store::{
    Store as _,
    applications::{ApplicationFields, Applications as _},
};
use postrider_store_postgres::{PostgresStore, testing::Place};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_postgres::Client;

/// A node, and a shop on its database.
pub(crate) struct Shop {
    /// Whom the shop's code connects as.
    pub(crate) url: String,
    admin: Client,
    store: Arc<PostgresStore>,
    _place: Place,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let place = Place::new().await.unwrap();
        let store = place.open("node").await.unwrap();
        let environment = EnvironmentId::parse("org_shop").unwrap();
        let fields = ApplicationFields { name: "a customer".to_owned(), ..ApplicationFields::default() };
        store.create_application(&environment, fields, None).await.unwrap();
        let admin = place.client().await.unwrap();
        let role = format!("{}_shop", place.url().rsplit('/').next().unwrap());
        // A commit can fail late: at a constraint that is looked at then.
        admin
            .batch_execute(&format!(
                "UPDATE application SET uid = 'customer-17';
                 CREATE ROLE {role} LOGIN PASSWORD 'shop';
                 SELECT postrider.allow('{role}', 'org_shop');
                 CREATE TABLE public.invoices (id integer PRIMARY KEY, total integer);
                 CREATE TABLE public.fraud (invoice integer);
                 GRANT ALL ON public.invoices, public.fraud TO {role};
                 CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                    IF EXISTS (SELECT FROM public.fraud WHERE invoice = NEW.id) THEN RAISE 'refused: fraud'; END IF;
                    RETURN NULL; END$$;
                 CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON public.invoices DEFERRABLE INITIALLY DEFERRED
                    FOR EACH ROW EXECUTE FUNCTION public.refuse();
                 INSERT INTO public.fraud VALUES (44), (45)"
            ))
            .await
            .unwrap();
        let (scheme, rest) = place.url().split_once("://").unwrap();
        let url = format!("{scheme}://{role}:shop@{}", rest.rsplit_once('@').unwrap().1);
        Self { url, admin, store, _place: place }
    }

    /// From now on invoices can be committed.
    pub(crate) async fn trust(&self) {
        self.admin.batch_execute("DELETE FROM public.fraud").await.unwrap();
    }

    async fn count(&self, what: &str) -> i64 {
        self.admin.query_one(&format!("SELECT count(*) FROM {what}"), &[]).await.unwrap().get(0)
    }

    /// Neither the invoice nor a message is there, nor comes.
    pub(crate) async fn has_nothing(&self) {
        let waits = "SELECT count(*) FROM outbox";
        let waiting: i64 = self.admin.query_one(waits, &[]).await.unwrap().get(0);
        assert_eq!((waiting, self.count("message").await, self.count("public.invoices").await), (0, 0, 0));
    }

    /// The invoice is there, and the message with this id and event id, routed.
    pub(crate) async fn has(self, id: &str, event_id: &str) {
        let text = "SELECT event_id FROM message WHERE 'msg_' || ksuid_text(id) = $1";
        let begun = Instant::now();
        let row = loop {
            if let Some(row) = self.admin.query_opt(text, &[&id]).await.unwrap() {
                break row;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{id} is not routed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(row.get::<_, &str>(0), event_id);
        assert_eq!((self.count("message").await, self.count("public.invoices").await), (1, 1));
        self.store.close().await;
    }
}

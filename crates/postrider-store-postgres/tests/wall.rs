//! The second wall between environments: a statement that forgot to name its environment sees nothing of another one.
//! All tests of this crate run behind it: their nodes connect as the owner of the tables, for whom it stands too.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod world;

use postrider_model::{
    access::{Caller, Scope},
    application::Ref,
    environment::EnvironmentId,
    headers::CustomHeaders,
    signature::SigningSecret,
};
use postrider_store::{
    Store as _,
    access::{Access as _, NewApiKey},
    applications::{ApplicationFields, Applications as _},
    deliveries::Deliveries as _,
    endpoints::{AppScope, Endpoints as _, NewEndpoint},
    event_types::{EventTypeFields, EventTypes as _},
    idempotency::IdempotencyKey,
    messages::{Audience, Messages as _, NewMessage},
};
use postrider_store_postgres::{PostgresStore, testing::Place};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{Client, NoTls};
use world::{claim, fields, message, success};

/// What holds something of an environment's, and so is behind the wall.
const BEHIND: [&str; 16] = [
    "api_key",
    "application",
    "attempt",
    "data_key",
    "delivery",
    "endpoint",
    "environment",
    "event_id",
    "event_type",
    "idempotency",
    "message",
    "outbox",
    "pending",
    "publish_key",
    "publisher",
    "secret",
];
/// What is about no environment: nodes and their work, the schema, the keyring's check values, and two lists of ids of
/// messages with when something is due.
const BEFORE: [&str; 11] = [
    "duty",
    "hold",
    "import",
    "in_flight",
    "instance",
    "keyring_meta",
    "node",
    "payload_expiry",
    "probe",
    "schema_version",
    "shard",
];

/// Something of everything in one environment.
async fn fill(store: &PostgresStore, environment: &str) -> AppScope {
    let environment = EnvironmentId::parse(environment).unwrap();
    let key = |name: &str| Some(IdempotencyKey::new("POST", "/", name));
    let named = ApplicationFields { name: "n".to_owned(), ..ApplicationFields::default() };
    let application = store.create_application(&environment, named, key("a")).await.unwrap().item.id;
    let scope = AppScope { environment: environment.clone(), application };
    let secret = SigningSecret::hmac([7; 24]);
    let new = NewEndpoint { fields: fields(false), secret, headers: CustomHeaders::default() };
    store.create_endpoint(&scope, new, None).await.unwrap();
    let type_name = message(&scope, Audience::Matching).event_type;
    store.create_event_type(&environment, type_name, EventTypeFields::default(), None).await.unwrap();
    let caller = Caller { environment: environment.clone(), scope: Scope::Environment };
    let new = NewApiKey { caller, name: "k".to_owned(), expires_at: None };
    store.create_api_key(new).await.unwrap();
    for name in ["one", "two"] {
        let new = NewMessage {
            event_id: postrider_model::application::Uid::parse(name, "msg_"),
            idempotency: key(name),
            ..message(&scope, Audience::Matching)
        };
        store.accept(vec![new]).await.remove(0).unwrap();
        if name == "one" {
            let claimed = claim(store).await.pop().unwrap();
            store.record(vec![success(store, &claimed)]).await.remove(0).unwrap();
        }
    }
    scope
}

/// What `postrider.publish` leaves, set aside so that no node takes it.
async fn publish(admin: &Client, environment: &str) {
    let allow = "SELECT postrider.allow(current_user::text, $1)";
    admin.execute(allow, &[&environment]).await.unwrap();
    let text = "WITH named AS (INSERT INTO publish_key (environment, digest, message, expires_at) VALUES ($1, '', '', 9000000000000000))
        INSERT INTO outbox (id, environment, application, event_type, created_at, payload, set_aside)
        SELECT postrider.ksuid_next(1795000000000000), environment, id, 'a', 1, '', 'kept here'
        FROM application WHERE environment = $1";
    admin.execute(text, &[&environment]).await.unwrap();
}

/// A connection as the server makes it: as the owner of the tables.
async fn owner(place: &Place) -> Client {
    let (client, connection) = tokio_postgres::connect(place.node_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path = postrider").await.unwrap();
    client
}

/// Rows of each table, with nothing said about which.
async fn rows(client: &Client) -> BTreeMap<&'static str, i64> {
    let mut rows = BTreeMap::new();
    for table in BEHIND {
        let row = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap();
        rows.insert(table, row.get(0));
    }
    rows
}

/// New rows of work and history: who says nothing writes none, and new deliveries are of applications that are seen. The
/// caller is about `org_a`.
async fn new_work_needs_an_environment(owner: &Client) {
    const DELIVERY: &str =
        "INSERT INTO pending SELECT '\\x01', '\\x02', $1, $2::bytea, 1, false, 0, 0, 0, 1, 1";
    let application = "SELECT id FROM application WHERE environment = $1";
    let mut ids = Vec::new();
    for environment in ["org_b", "org_a"] {
        owner.batch_execute(&format!("SET postrider.environments = '{environment}'")).await.unwrap();
        ids.push(owner.query_one(application, &[&environment]).await.unwrap().get::<_, Vec<u8>>(0));
    }
    let refused = owner.execute(DELIVERY, &[&7, &ids[0]]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501", "of an application of another environment");
    assert_eq!(owner.execute(DELIVERY, &[&7, &ids[1]]).await.unwrap(), 1);
    assert_eq!(owner.execute("DELETE FROM pending WHERE generation = 7", &[]).await.unwrap(), 1);
    for unset in ["RESET postrider.environments", "SET postrider.environments = ''"] {
        owner.batch_execute(unset).await.unwrap();
        for text in [
            "INSERT INTO pending VALUES ('a', 'a', 0, 'a', 1, false, 0, 0, 0, 1, 1)",
            "INSERT INTO message VALUES ('a', 'a', NULL, 'a', NULL, NULL, NULL, NULL, 1, 1, '')",
            "INSERT INTO event_id VALUES ('a', 'a', 'a')",
            "INSERT INTO delivery VALUES ('a', 'a', 0, 1, 0, 0, 0, NULL)",
        ] {
            let refused = owner.execute(text, &[]).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "42501", "{text}");
        }
    }
}

/// I08, T15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_forgot_its_environment_sees_nothing_of_another_one() {
    let place = Place::new().await.unwrap();
    let store = place.open("node").await.unwrap();
    fill(&store, "org_a").await;
    let admin = place.client().await.unwrap();
    publish(&admin, "org_a").await;
    store.close().await;
    let only_a = rows(&admin).await;
    assert!(only_a.values().all(|count| *count > 0), "something of everything: {only_a:?}");
    let store = place.open("node").await.unwrap();
    fill(&store, "org_b").await;
    publish(&admin, "org_b").await;
    store.close().await;

    let owner = owner(&place).await;
    let nothing: BTreeMap<_, _> = BEHIND.map(|table| (table, 0)).into();
    assert_eq!(rows(&owner).await, nothing, "who does not say what it is about sees nothing");
    owner.batch_execute("SET postrider.environments = 'org_c,org_d'").await.unwrap();
    assert_eq!(rows(&owner).await, nothing);
    owner.batch_execute("SET postrider.environments = 'org_a'").await.unwrap();
    assert_eq!(rows(&owner).await, only_a);
    for (text, changed) in [
        ("UPDATE application SET name = 'mine'", 1),
        ("UPDATE message SET payload = NULL", only_a["message"]),
        ("DELETE FROM pending", only_a["pending"]),
        ("DELETE FROM secret", only_a["secret"]),
        ("DELETE FROM api_key", only_a["api_key"]),
    ] {
        assert_eq!(i64::try_from(owner.execute(text, &[]).await.unwrap()).unwrap(), changed, "{text}");
    }
    // A row of another environment can neither be made nor be moved there.
    for text in [
        "INSERT INTO event_type SELECT 'org_b', 'x', description, archived, deprecated, schemas, feature_flags, group_name,
            created_at, updated_at FROM event_type",
        "UPDATE event_type SET environment = 'org_b'",
        "INSERT INTO environment VALUES ('org_z', 1)",
    ] {
        let refused = owner.execute(text, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{text}");
    }
    new_work_needs_an_environment(&owner).await;
    owner.batch_execute("SET postrider.environments = 'org_b,org_c'").await.unwrap();
    let only_b = rows(&owner).await;
    assert_eq!(
        only_b, only_a,
        "a batch's list of environments; what was done to the other one did nothing here"
    );
    owner.batch_execute("SET postrider.environments = '*'").await.unwrap();
    let all = rows(&owner).await;
    assert!(all["message"] == only_a["message"] + only_b["message"], "{all:?}");
    assert_eq!(
        (all["pending"], all["secret"], all["api_key"]),
        (only_b["pending"], only_b["secret"], only_b["api_key"])
    );
}

/// Each table is on one side of the wall, on purpose; and what names an environment or hangs on an application is behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_of_an_environment_is_behind_the_wall() {
    let place = Place::new().await.unwrap();
    let admin = place.client().await.unwrap();
    let tables = admin
        .query(
            "SELECT relname::text, relrowsecurity, relforcerowsecurity,
                (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid),
                EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = pg_class.oid AND NOT attisdropped
                    AND attname IN ('environment', 'application', 'endpoint'))
             FROM pg_class WHERE relnamespace = 'postrider'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition",
            &[],
        )
        .await
        .unwrap();
    let (mut behind, mut before) = (BTreeSet::new(), BTreeSet::new());
    for row in tables {
        let (name, enabled, forced, policies): (String, bool, bool, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let scoped: bool = row.get(4);
        assert!(!scoped || enabled, "{name} names whose it is, and anybody sees it");
        assert!(!enabled || (forced && policies == 1), "{name}: {forced}, {policies}");
        if enabled {
            behind.insert(name)
        } else {
            before.insert(name)
        };
    }
    assert_eq!(behind, BEHIND.map(str::to_owned).into());
    assert_eq!(before, BEFORE.map(str::to_owned).into());
    let owner = owner(&place).await;
    let is_superuser = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user";
    assert!(
        !owner.query_one(is_superuser, &[]).await.unwrap().get::<_, bool>(0),
        "else nothing here is tested"
    );
}

/// The store itself names the environment before it asks: an application's id is of no use in another environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_environments_and_what_follows_sees_each_of_its_own() {
    let place = Place::new().await.unwrap();
    let store = place.open("node").await.unwrap();
    let (a, b) = (fill(&store, "org_a").await, fill(&store, "org_b").await);
    let crossed = AppScope { environment: a.environment.clone(), application: b.application };
    let batch = [&a, &b, &crossed, &a].map(|scope| message(scope, Audience::Matching));
    let results = store.accept(batch.into()).await;
    let fine: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(fine, [true, true, false, true]);
    let ids: Vec<_> = results.into_iter().flatten().map(|accepted| accepted.message.id).collect();
    for (scope, id, there) in
        [(&a, ids[0], true), (&b, ids[0], false), (&b, ids[1], true), (&a, ids[1], false), (&a, ids[2], true)]
    {
        let found = store.message(scope, &Ref::Id(id)).await.unwrap();
        assert_eq!(found.is_some(), there, "{id}");
    }
    assert_eq!(store.message(&crossed, &Ref::Id(ids[1])).await.unwrap(), None, "the wall's own doing");
    assert_eq!(store.environments().await.unwrap().len(), 2);
    store.close().await;
}

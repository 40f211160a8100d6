//! What the role of a publisher can do: publish to its environments, and nothing else.

use crate::{Publisher, begin, publisher::refusal};
use postrider_model::environment::EnvironmentId;
use postrider_store::{
    applications::{ApplicationFields, Applications as _},
    endpoints::AppScope,
};
use postrider_store_postgres::testing::Place;

/// T15
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_can_do_nothing_but_publish() {
    let place = Place::new().await.unwrap();
    let (_store, scope, publisher) = begin(&place).await;
    let admin = place.client().await.unwrap();
    let tables = "SELECT relname::text, relkind = 'S' FROM pg_class
                  WHERE relnamespace = 'postrider'::regnamespace AND relkind IN ('r', 'p', 'S', 'v')";
    let tables = admin.query(tables, &[]).await.unwrap();
    assert!(tables.len() > 20, "{}", tables.len());
    for table in tables {
        let (name, is_sequence): (String, bool) = (table.get(0), table.get(1));
        let mut tries = vec![format!("SELECT 1 FROM postrider.{name}")];
        if is_sequence {
            tries.push(format!("SELECT nextval('postrider.{name}')"));
        } else {
            tries.push(format!("DELETE FROM postrider.{name}"));
            tries.push(format!("INSERT INTO postrider.{name} DEFAULT VALUES"));
            tries.push(format!("TRUNCATE postrider.{name}"));
        }
        for text in tries {
            let refused = publisher.client.batch_execute(&text).await.unwrap_err();
            assert_eq!(
                refused.code().map(tokio_postgres::error::SqlState::code),
                Some("42501"),
                "{text}: {refused}"
            );
        }
    }
    let functions =
        "SELECT proname::text, oid::regprocedure::text, has_function_privilege($1, oid, 'EXECUTE'),
                        prosecdef, coalesce(proconfig::text LIKE '%search_path=%', false)
                     FROM pg_proc WHERE pronamespace = 'postrider'::regnamespace";
    let mut callable = 0;
    for row in admin.query(functions, &[&publisher.role]).await.unwrap() {
        let (name, shown): (String, String) = (row.get(0), row.get(1));
        let allowed = ["publish", "publish_raw", "nudge"].contains(&name.as_str());
        // What policies ask, with names in full.
        let asked = ["sees", "sees_all", "sees_any"].contains(&name.as_str());
        // Of a trigger, which nobody can call.
        let at_commit = name == "check_event_id";
        assert_eq!(row.get::<_, bool>(2), allowed || asked, "{shown}");
        assert!(!row.get::<_, bool>(3) || allowed || at_commit, "{shown} runs with its owner's rights");
        assert!(row.get::<_, bool>(4) || asked, "{shown} takes names from the caller's search path");
        callable += usize::from(allowed);
    }
    assert_eq!(callable, 6);
    for text in [
        "CREATE TABLE postrider.mine (a int)",
        "CREATE FUNCTION postrider.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SELECT postrider.allow(current_user::text, 'org_a')",
        "SELECT postrider.disallow(current_user::text, 'org_a')",
        "SELECT postrider.ksuid_next(1)",
    ] {
        let refused = publisher.client.batch_execute(text).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{text}");
    }
    assert!(Publisher::publish(&publisher.client, &scope, "{}").await.is_ok());
}

/// Temporary objects of the caller's, and settings, change nothing of what the functions do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_cannot_put_things_of_its_own_in_the_way() {
    let place = Place::new().await.unwrap();
    let (_store, scope, publisher) = begin(&place).await;
    publisher
        .client
        .batch_execute(
            "CREATE TEMP TABLE publisher AS SELECT current_user::text AS role, 'org_other'::text AS environment;
             CREATE TEMP TABLE application (id bytea, environment text, uid text, deleted_at bigint);
             CREATE TEMP TABLE event_id (application bytea, event_id text);
             CREATE FUNCTION pg_temp.publishing_to(text) RETURNS text LANGUAGE sql AS $$SELECT 'org_other'$$;
             SET search_path = pg_temp, public, postrider;
             SET standard_conforming_strings = off; SET postrider.environments = 'org_other'",
        )
        .await
        .unwrap();
    assert!(Publisher::publish(&publisher.client, &scope, "{}").await.is_ok());
    let named = "SELECT postrider.publish($1, 'a', '{}', environment => 'org_other')";
    assert_eq!(
        publisher.one(named, &[&scope.application.to_string()]).await.unwrap_err(),
        "42501 environment"
    );
    let tag = "SELECT postrider.publish($1, 'a', '{}', tags => ARRAY['a\nb'])";
    assert_eq!(publisher.one(tag, &[&scope.application.to_string()]).await.unwrap_err(), "22023 tags[0]");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_publishes_to_the_environments_that_it_was_allowed() {
    let place = Place::new().await.unwrap();
    let (store, scope, publisher) = begin(&place).await;
    let environment = EnvironmentId::parse("org_b").unwrap();
    let fields = ApplicationFields { name: "b".to_owned(), ..ApplicationFields::default() };
    let id = store.create_application(&environment, fields, None).await.unwrap().item.id;
    let foreign = AppScope { environment, application: id };
    let foreign_id = foreign.application.to_string();
    let own_id = scope.application.to_string();

    // An application of another environment looks like none at all.
    let refused = Publisher::publish(&publisher.client, &foreign, "{}").await.unwrap_err();
    assert_eq!(refusal(&refused), "P0002 application");
    let to_b = "SELECT postrider.publish($1, 'a', '{}', environment => 'org_b')";
    assert_eq!(publisher.one(to_b, &[&foreign_id]).await.unwrap_err(), "42501 environment");

    let admin = place.client().await.unwrap();
    let allow = "SELECT postrider.allow($1, $2)";
    assert!(admin.execute(allow, &[&publisher.role, &"org_unknown"]).await.is_err());
    assert!(admin.execute(allow, &[&"nobody at all", &"org_b"]).await.is_err());
    admin.execute(allow, &[&publisher.role, &"org_b"]).await.unwrap();
    assert!(publisher.one(to_b, &[&foreign_id]).await.is_ok());
    assert_eq!(publisher.one(to_b, &[&own_id]).await.unwrap_err(), "P0002 application");
    let refused = Publisher::publish(&publisher.client, &scope, "{}").await.unwrap_err();
    assert_eq!(refusal(&refused), "22023 environment", "which of the two must be said");

    // Members of the role may as well, and the role that is set counts, not who logged in.
    let member = Publisher::new(&place, &scope).await;
    let grant = format!("GRANT {} TO {}", publisher.role, member.role);
    admin.batch_execute(&grant).await.unwrap();
    assert!(member.one(to_b, &[&foreign_id]).await.is_ok());
    member.client.batch_execute(&format!("SET ROLE {}", publisher.role)).await.unwrap();
    assert!(member.one(to_b, &[&foreign_id]).await.is_ok());

    let disallow = "SELECT postrider.disallow($1, $2)";
    admin.execute(disallow, &[&publisher.role, &"org_a"]).await.unwrap();
    assert!(publisher.one(to_b, &[&foreign_id]).await.is_ok());
    admin.execute(disallow, &[&publisher.role, &"org_b"]).await.unwrap();
    assert!(publisher.one(to_b, &[&foreign_id]).await.unwrap_err().starts_with("42501"));
    // Somebody who was never allowed anything cannot even name the functions.
    let refused = publisher.client.batch_execute("SELECT postrider.nudge()").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42501");
}

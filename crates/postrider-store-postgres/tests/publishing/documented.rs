//! The examples of `docs/publish-in-a-transaction.md`, as they stand there.

use crate::{Publisher, all_ids, begin, publisher::within};
use postrider_store_postgres::testing::Place;

const PAGE: &str = include_str!("../../../../docs/publish-in-a-transaction.md");

/// The SQL of the page, with who runs it.
fn examples() -> Vec<(&'static str, &'static str)> {
    let blocks = PAGE.split("```sql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.map(|block| block.split_once('\n').unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_documentation_run_as_they_stand() {
    let place = Place::new().await.unwrap();
    let (store, scope, publisher) = begin(&place).await;
    let admin = place.client().await.unwrap();
    let role = &publisher.role;
    admin
        .batch_execute(&format!(
            "UPDATE application SET uid = 'customer-17';
             CREATE TABLE public.invoices (id integer PRIMARY KEY, total integer);
             ALTER TABLE public.invoices OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}"
        ))
        .await
        .unwrap();
    let examples = examples();
    assert!(examples.len() >= 5);
    for (who, text) in examples {
        let text = text.replace("shop_app", role).replace("org_shop", scope.environment.as_str());
        let client = match who {
            "-- the operator" => &admin,
            "-- the application" => &publisher.client,
            other => panic!("who runs {other}?"),
        };
        if let Err(error) = client.batch_execute(&text).await {
            panic!("{error:?} in {text}");
        }
    }
    // Paid, settled, created.
    within("all are routed", 10, || async { (all_ids(&store, &scope).await.len() == 3).then_some(()) }).await;
    let id = Publisher::publish(&publisher.client, &scope, "{}").await.unwrap();
    assert!(id.starts_with("msg_"));
}

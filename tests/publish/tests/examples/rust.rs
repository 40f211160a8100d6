//! The Rust example, with sqlx.

use crate::{example, shop::Shop};
use sqlx::PgPool;

/// What stands in the page, between the marks.
async fn pay(pool: &PgPool) -> sqlx::Result<String> {
    // The example begins.
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO invoices (id, total) VALUES ($1, $2)")
        .bind(45)
        .bind(300)
        .execute(&mut *transaction)
        .await?;
    let (message_id,): (String,) =
        sqlx::query_as("SELECT postrider.publish($1, $2, $3::text, event_id => $4)")
            .bind("customer-17")
            .bind("invoice.paid")
            .bind(r#"{"invoice": 45}"#)
            .bind("paid-45")
            .fetch_one(&mut *transaction)
            .await?;
    transaction.commit().await?;
    // The example ends.
    Ok(message_id)
}

#[test]
fn what_runs_here_is_what_stands_in_the_page() {
    let source = include_str!("rust.rs");
    let runs = source.split("// The example begins.\n").nth(1).unwrap();
    let runs = runs.split("// The example ends.").next().unwrap();
    let words = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(words(runs), words(example("rust")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_example_publishes_if_and_only_if_it_commits() {
    let shop = Shop::open().await;
    let pool = PgPool::connect(&shop.url).await.unwrap();
    let refused = pay(&pool).await.unwrap_err().to_string();
    assert!(refused.contains("refused: fraud"), "{refused}");
    shop.has_nothing().await;
    shop.trust().await;
    let id = pay(&pool).await.unwrap();
    pool.close().await;
    shop.has(&id, "paid-45").await;
}

//! How PostgreSQL goes about the statements of the hot path: always along an index.

use crate::{
    accept,
    address::Address,
    claim,
    connection::{Connection, Use},
    record,
    testing::Place,
};

/// The generic plan of a statement with so many values.
async fn plan(connection: &Connection, text: &str, values: usize) -> String {
    let nothing = vec!["NULL"; values].join(", ");
    connection.client().batch_execute(&format!("PREPARE planned AS {text}")).await.unwrap();
    let explain = format!("EXPLAIN EXECUTE planned ({nothing})");
    let messages = connection.client().simple_query(&explain).await.unwrap();
    connection.client().batch_execute("DEALLOCATE planned").await.unwrap();
    let line = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

async fn fill(connection: &Connection) {
    let fill = "INSERT INTO pending SELECT decode(lpad(to_hex(n), 40, '0'), 'hex'),
            decode(lpad(to_hex(n % 7), 40, '0'), 'hex'), 0, decode(repeat('00', 20), 'hex'), (n % 7)::smallint,
            n % 5 = 0, 0, 0, 0, n, n + 1 FROM generate_series(1, 20000) AS n";
    connection.run(fill).await.unwrap();
    connection.run("ANALYZE").await.unwrap();
}

async fn connect(place: &Place, purpose: Use) -> Connection {
    Connection::first(&Address::parse(&place.config("node").url()).unwrap(), purpose).await.unwrap()
}

/// PG-2: plans that were made while the tables were empty are as good as later ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_look_things_up_one_by_one_whatever_the_statistics_say() {
    let place = Place::new().await.unwrap();
    let connection = connect(&place, Use::Commits).await;
    connection.run("ANALYZE").await.unwrap();
    for filled in [false, true] {
        if filled {
            fill(&connection).await;
        }
        for (text, values, columns) in [
            (record::BEFORE, 3, &["message =", "endpoint ="][..]),
            (accept::VERSIONS, 1, &["id ="]),
            (accept::KEYS, 3, &["environment =", "digest ="]),
            (accept::EVENT_IDS, 2, &["application =", "event_id ="]),
        ] {
            let plan = plan(&connection, text, values).await;
            assert!(!plan.contains("Seq Scan") && !plan.contains("Join Filter"), "{plan}");
            let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
            assert!(columns.iter().all(|column| condition.contains(column)), "{plan}");
        }
    }
}

/// PG-2, and 100,000 due deliveries of one endpoint keep no other waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_reads_each_lane_along_the_index_of_what_is_due() {
    let place = Place::new().await.unwrap();
    let connection = connect(&place, Use::Reading).await;
    connection.run("SET plan_cache_mode = force_generic_plan").await.unwrap();
    fill(&connection).await;
    for (text, values) in [(claim::DUE, 6), (claim::NEXT_DUE, 4)] {
        let plan = plan(&connection, text, values).await;
        assert!(!plan.contains("Seq Scan on pending"), "{plan}");
        let condition = plan.split("pending_due on pending").nth(1).unwrap_or_default();
        let condition = condition.lines().nth(1).unwrap_or_default();
        for column in ["shard =", "endpoint =", "retry =", "due_at"] {
            assert!(condition.contains("Index Cond") && condition.contains(column), "{column}:\n{plan}");
        }
        // What is due first is found first: nothing is sorted below the limit.
        let limited = plan.split("Limit").nth(1).unwrap_or_default();
        let below = limited.split("pending_due").next().unwrap_or_default();
        assert!(!below.contains("Sort"), "{plan}");
    }
}

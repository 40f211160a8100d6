//! Indexes that are built beside the work, on tables that may be long: `CREATE INDEX CONCURRENTLY` stops nobody, but
//! cannot be part of a migration, and leaves an invalid index behind when it is cut off. Such a one is built anew.

use crate::{connection::Connection, failure::Failure, values::at};

/// An index that is to be there sooner or later; queries do without it meanwhile.
pub(crate) struct Index {
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// What follows the table's name.
    pub(crate) on: &'static str,
}

/// All of them. None yet: the first release needed none beside its tables.
pub(crate) const INDEXES: &[Index] = &[];

/// How an index stands.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Missing,
    /// A build was cut off.
    Invalid,
    Valid,
}

/// Builds what is missing or was cut off. For one node at a time.
pub(crate) async fn build(connection: &Connection, pooled: bool, indexes: &[Index]) -> Result<(), Failure> {
    for index in indexes {
        let children = partitions(connection, index.table).await?;
        if children.is_empty() {
            build_one(connection, pooled, index.name, index.table, index.on).await?;
            continue;
        }
        // The index of the whole is an empty one, valid once each partition has its part.
        if standing(connection, index.name).await? == Standing::Valid {
            continue;
        }
        if standing(connection, index.name).await? == Standing::Missing {
            let Index { name, table, on } = index;
            connection.run(&format!("CREATE INDEX {name} ON ONLY postrider.{table} {on}")).await?;
        }
        for child in children {
            let name = format!("{}_{child}", index.name);
            if is_attached(connection, index.name, &child).await? {
                continue;
            }
            build_one(connection, pooled, &name, &child, index.on).await?;
            let attach = format!("ALTER INDEX postrider.{} ATTACH PARTITION postrider.{name}", index.name);
            connection.run(&attach).await?;
        }
    }
    Ok(())
}

async fn build_one(
    connection: &Connection,
    pooled: bool,
    name: &str,
    table: &str,
    on: &str,
) -> Result<(), Failure> {
    match standing(connection, name).await? {
        Standing::Valid => return Ok(()),
        Standing::Invalid => {
            tracing::warn!(index = name, "the build of an index was cut off; it is built anew");
            connection.run_alone(&format!("DROP INDEX CONCURRENTLY postrider.{name}"), pooled).await?;
        }
        Standing::Missing => {}
    }
    let build = format!("CREATE INDEX CONCURRENTLY {name} ON postrider.{table} {on}");
    connection.run_alone(&build, pooled).await?;
    tracing::info!(index = name, table, "an index was built");
    Ok(())
}

async fn standing(connection: &Connection, name: &str) -> Result<Standing, Failure> {
    let row = connection
        .first_row(
            "SELECT indisvalid AND indisready FROM pg_index WHERE indexrelid = to_regclass('postrider.' || $1)",
            &[&name],
        )
        .await?;
    Ok(match row.map(|row| at::<bool>(&row, 0)).transpose()? {
        None => Standing::Missing,
        Some(true) => Standing::Valid,
        Some(false) => Standing::Invalid,
    })
}

/// The partitions of a table; none of one that is whole.
async fn partitions(connection: &Connection, table: &str) -> Result<Vec<String>, Failure> {
    let text = "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = to_regclass('postrider.' || $1) ORDER BY relname";
    connection.query(text, &[&table]).await?.iter().map(|row| at(row, 0)).collect()
}

/// Has the partition its part of the index, under whatever name?
async fn is_attached(connection: &Connection, index: &str, table: &str) -> Result<bool, Failure> {
    let text = "SELECT 1 FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
         WHERE inhparent = to_regclass('postrider.' || $1) AND indrelid = to_regclass('postrider.' || $2)";
    Ok(connection.first_row(text, &[&index, &table]).await?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{address::Address, connection::Use, testing::Place};

    const SOME: &[Index] = &[
        Index { name: "probe_beside", table: "probe", on: "(body)" },
        Index { name: "attempt_beside", table: "attempt", on: "(status)" },
    ];

    async fn connect(place: &Place) -> Connection {
        Connection::first(&Address::parse(&place.config("node").url()).unwrap(), Use::Reading).await.unwrap()
    }

    async fn invalid(connection: &Connection) -> i64 {
        let text = "SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indexrelid::regclass::text LIKE '%beside%'";
        at(&connection.first_row(text, &[]).await.unwrap().unwrap(), 0).unwrap()
    }

    /// MIG-2
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_index_whose_build_was_cut_off_is_built_anew() {
        let place = Place::new().await.unwrap();
        let connection = connect(&place).await;
        crate::schema::make_partitions(&connection, postrider_store::Clock::default().now()).await.unwrap();
        // A build waits for transactions that see the table as it was; there it is killed.
        for (hold, cut) in [("probe", 1), ("attempt_rest", 2)] {
            let other = place.client().await.unwrap();
            let holder: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            other
                .batch_execute(&format!("BEGIN; LOCK TABLE postrider.{hold} IN ROW EXCLUSIVE MODE"))
                .await
                .unwrap();
            let builder = connect(&place).await;
            let build = tokio::spawn(async move { build(&builder, false, SOME).await });
            let client = place.client().await.unwrap();
            // Builds wait for a moment for this very look, too.
            let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND $1 = ANY (pg_blocking_pids(pid))
                    AND datname = current_database()";
            let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
            while client.query(kill, &[&holder]).await.unwrap().is_empty() {
                assert!(tokio::time::Instant::now() < until && !build.is_finished(), "it waits");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            assert!(build.await.unwrap().is_err());
            assert_eq!(invalid(&connection).await, cut, "left behind at {hold}");
            // Else the next build may wait for this, and be killed there.
            other.batch_execute("ROLLBACK").await.unwrap();
        }
        build(&connection, false, SOME).await.unwrap();
        assert_eq!(invalid(&connection).await, 0);
        for index in SOME {
            assert_eq!(standing(&connection, index.name).await.unwrap(), Standing::Valid, "{}", index.name);
        }
        // Nothing is left to do.
        build(&connection, false, SOME).await.unwrap();
    }
}

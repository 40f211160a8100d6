//! How SQLite goes about the queries whose cost must not grow with the history: always along an index.

use crate::{attempts, claim, held, retention, schema, set_back, start};
use postrider_model::id::{EndpointId, Ksuid, MessageId};
use postrider_store::attempts::AttemptsOf;
use rusqlite::Connection;

fn plan(query: &str) -> Vec<String> {
    let connection = Connection::open_in_memory().unwrap();
    for (_, migration) in schema::MIGRATIONS {
        connection.execute_batch(migration).unwrap();
    }
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    // The values do not matter, as in the running store, which keeps no statistics.
    let mut steps = statement.raw_query();
    let mut plan = Vec::new();
    while let Some(step) = steps.next().unwrap() {
        plan.push(step.get(3).unwrap());
    }
    plan
}

/// No step goes over a whole table or index, and the first one uses what it must.
fn assert_searches(query: &str, first: &str) {
    let steps = plan(query);
    assert!(steps.iter().all(|step| !step.starts_with("SCAN")), "{query}\n{steps:#?}");
    let uses = steps.iter().find(|step| step.starts_with("SEARCH")).map(String::as_str).unwrap_or_default();
    assert!(uses.contains(first), "{query}\n{steps:#?}");
}

fn assert_sorts_nothing(query: &str) {
    let steps = plan(query);
    assert!(steps.iter().all(|step| !step.contains("TEMP B-TREE")), "{query}\n{steps:#?}");
}

#[test]
fn a_claim_reads_along_the_index_of_what_is_due() {
    for (query, range) in [(claim::DUE, "<?"), (claim::NEXT_DUE, ">?")] {
        // First attempts never pass over retries, nor retries over first attempts.
        let search =
            format!("USING COVERING INDEX delivery_due (endpoint=? AND <expr>=? AND next_attempt_at{range})");
        assert_searches(query, &search);
        assert_sorts_nothing(query);
    }
    assert_searches(claim::COMPLETE, "USING PRIMARY KEY (id=?)");
}

#[test]
fn a_start_looks_once_along_the_index_of_what_waits_and_at_no_delivery() {
    let steps = plan(start::WAITING);
    assert!(steps.iter().any(|step| step == "SCAN delivery USING COVERING INDEX delivery_due"), "{steps:#?}");
    assert_sorts_nothing(start::WAITING);
}

#[test]
fn those_who_walk_along_what_waits_go_on_where_they_were() {
    for query in [held::PENDING, set_back::LATER] {
        assert_searches(query, "INDEX delivery_due (endpoint=? AND <expr>=? AND next_attempt_at>?)");
        assert_sorts_nothing(query);
    }
}

/// RTN-1
#[test]
fn retention_with_nothing_to_delete_looks_at_the_start_of_an_index() {
    assert_searches(&retention::old_payloads(), "candidate USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)");
    assert_searches(&retention::old_attempts(), "candidate USING PRIMARY KEY");
    assert_searches(&retention::old_messages(), "message USING PRIMARY KEY (id>? AND id<?)");
    for query in [retention::old_payloads(), retention::old_attempts(), retention::old_messages()] {
        assert_sorts_nothing(&query);
    }
    let indexes = ["idempotency_expiry", "secret_ending", "endpoint_deleted", "application_deleted"];
    for (query, index) in retention::OLD_OTHERS.into_iter().zip(indexes) {
        let steps = plan(query);
        assert!(steps.iter().any(|step| step.contains(&format!("INDEX {index}"))), "{query}\n{steps:#?}");
        assert!(steps.iter().all(|step| !step.starts_with("SCAN")), "{query}\n{steps:#?}");
    }
}

#[test]
fn lists_of_attempts_read_along_an_index() {
    let endpoint = EndpointId::new(Ksuid::from_bytes([1; 20]));
    let message = MessageId::new(Ksuid::from_bytes([2; 20]));
    for direction in ["ASC", "DESC"] {
        let query = attempts::page_query(AttemptsOf::Endpoint(endpoint), direction);
        assert_searches(&query, "USING INDEX attempt_endpoint (endpoint=? AND id>? AND id<?)");
        assert_sorts_nothing(&query);
        let query = attempts::page_query(AttemptsOf::MessageToEndpoint(message, endpoint), direction);
        assert_searches(&query, "USING PRIMARY KEY (message=? AND endpoint=? AND id>? AND id<?)");
        assert_sorts_nothing(&query);
        // Over all endpoints of one message they are sorted: as many as the message has attempts.
        let query = attempts::page_query(AttemptsOf::Message(message), direction);
        assert_searches(&query, "USING PRIMARY KEY (message=?)");
    }
}

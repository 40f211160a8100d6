//! The suite that every backend passes: one function per behaviour of the contract, through the contract alone.
//!
//! The cast: a file per noun with its behaviours, `restarts` for what must outlive the process, `fixture` for what
//! they are made of, and [`conformance_suite!`](crate::conformance_suite), which makes a test of each in the
//! backend's crate:
//!
//! ```ignore
//! async fn open() -> TestStore { … }          // implements `Harness`; a store of its own for each call
//! postrider_store::conformance_suite!(open);
//! ```
//!
//! A new behaviour is added to the list in the macro too; a test here compares the list with the files.

// Behaviours are tests in all but their place: their names are sentences, and a panic is how they fail.
#![allow(missing_docs, clippy::unwrap_used)]

pub mod access;
pub mod applications;
pub mod attempts;
pub mod claims;
pub mod deliveries;
pub mod endpoints;
pub mod event_types;
mod fixture;
pub mod idempotency;
pub mod messages;
pub mod resends;
pub mod restarts;
pub mod retention;
pub mod tenancy;

use crate::Store;
use std::sync::Arc;

/// A backend under test, with whatever must live as long as it (a temporary folder, a database). Its server-wide
/// retry policy is the default one.
#[async_trait::async_trait]
pub trait Harness: Send {
    /// The open store.
    fn store(&self) -> Arc<dyn Store>;

    /// Opens the same data again as after `kill -9`: what was only in memory is gone, and leases that were out are
    /// lost. The clock of the new store shows at least the time of the old one.
    async fn reopen(&mut self);
}

/// Makes a `#[tokio::test]` of every behaviour. `$open` is the name of an async function in scope that opens a new,
/// empty store and returns a [`Harness`](crate::conformance::Harness).
#[macro_export]
macro_rules! conformance_suite {
    ($open:ident) => {
        $crate::conformance_suite! { @store $open
            access: [
            ]
            applications: [
                a_created_application_is_found_by_id_and_by_uid
                a_uid_is_unique_in_its_environment
                of_many_creations_with_one_uid_one_succeeds
                replacing_an_application_replaces_every_field
                a_deleted_application_is_gone_and_its_uid_is_free
                deleting_an_application_cancels_its_deliveries
                applications_are_listed_by_page_in_both_directions
                applications_are_filtered_by_their_endpoints
            ]
            attempts: [
            ]
            claims: [
                a_claimed_delivery_is_not_claimed_again
                concurrent_claims_share_no_delivery
                a_claim_takes_no_more_than_there_is_room_for
                an_endpoint_has_only_so_many_leases_out
                a_full_endpoint_is_passed_over
                a_claim_is_fair_over_endpoints
                two_long_backlogs_share_a_small_room
                a_disabled_endpoint_holds_its_deliveries_until_it_is_enabled
                a_released_delivery_is_due_as_before
                the_backlog_counts_what_is_pending
                a_claimer_is_told_when_something_became_claimable
                many_deliveries_are_worked_off_completely
            ]
            deliveries: [
                a_success_ends_a_delivery
                a_retry_is_due_after_its_wait_and_not_before
                giving_up_ends_a_delivery_with_the_reason
                a_retry_beyond_the_deadline_expires
                the_age_of_a_message_for_later_counts_from_then
                an_endpoint_that_is_gone_is_disabled_with_the_reason
                a_delivery_that_ran_while_its_endpoint_was_disabled_is_recorded_and_held
                a_deleted_endpoint_cancels_its_deliveries_and_keeps_its_history
                a_lease_is_good_for_one_record
                records_of_a_batch_have_a_result_each
                destinations_are_listed_by_page
                messages_of_an_endpoint_are_filtered_by_how_they_stand
                messages_of_an_endpoint_are_filtered_and_paged
                an_attempt_without_an_answer_is_kept_as_such
            ]
            endpoints: [
            ]
            event_types: [
            ]
            idempotency: [
            ]
            messages: [
                an_accepted_message_reads_back_byte_for_byte
                a_claim_carries_the_published_bytes
                a_message_goes_to_each_enabled_endpoint_whose_filter_matches
                a_message_without_matching_endpoint_is_kept_and_makes_no_work
                an_event_id_is_unique_in_its_application
                of_many_messages_with_one_event_id_one_is_accepted
                one_refused_item_fails_alone
                nothing_accepted_comes_of_no_items
                a_message_for_one_endpoint_passes_its_filter_and_goes_nowhere_else
                a_message_for_later_is_due_then_and_not_before
                a_changed_configuration_counts_for_the_next_message
                an_application_has_at_most_a_thousand_endpoints_and_all_get_the_message
                messages_are_listed_by_page_in_both_directions
                messages_are_filtered_by_all_that_is_asked
                a_filtered_list_pages_over_what_matches
                an_expunged_payload_is_gone_and_its_deliveries_are_cancelled
                ids_grow_in_the_order_of_acceptance
            ]
            resends: [
                a_resend_is_one_manual_attempt_due_now
                what_was_delivered_stays_delivered_whatever_a_resend_comes_to
                a_failed_resend_does_not_end_the_automatic_chain
                a_successful_resend_settles_what_was_pending
                a_delivery_settled_while_it_ran_keeps_its_state
                a_resend_to_a_disabled_endpoint_is_held
                a_resend_reaches_an_endpoint_that_never_got_the_message
                a_resend_that_cannot_be_is_refused
            ]
            retention: [
            ]
            tenancy: [
            ]
        }
        $crate::conformance_suite! { @harness $open
            restarts: [
            ]
        }
    };
    (@store $open:ident $($noun:ident: [$($behaviour:ident)*])*) => {$(
        mod $noun {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let harness = super::$open().await;
                let store = $crate::conformance::Harness::store(&harness);
                $crate::conformance::$noun::$behaviour(&*store).await;
            }
        )*}
    )*};
    (@harness $open:ident $($noun:ident: [$($behaviour:ident)*])*) => {$(
        mod $noun {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                let mut harness = super::$open().await;
                $crate::conformance::$noun::$behaviour(&mut harness).await;
            }
        )*}
    )*};
}

#[cfg(test)]
mod tests {
    /// Each noun with its file; the macro's list is in this file.
    const FILES: &[(&str, &str)] = &[
        ("access", include_str!("access.rs")),
        ("applications", include_str!("applications.rs")),
        ("attempts", include_str!("attempts.rs")),
        ("claims", include_str!("claims.rs")),
        ("deliveries", include_str!("deliveries.rs")),
        ("endpoints", include_str!("endpoints.rs")),
        ("event_types", include_str!("event_types.rs")),
        ("idempotency", include_str!("idempotency.rs")),
        ("messages", include_str!("messages.rs")),
        ("resends", include_str!("resends.rs")),
        ("restarts", include_str!("restarts.rs")),
        ("retention", include_str!("retention.rs")),
        ("tenancy", include_str!("tenancy.rs")),
    ];

    #[test]
    fn the_list_of_the_macro_names_every_behaviour() {
        let macro_text = include_str!("mod.rs");
        for (noun, text) in FILES {
            let written: Vec<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next())
                .collect();
            let start =
                macro_text.find(&format!("            {noun}: [\n")).expect("the noun is in the list");
            let listed: Vec<_> =
                macro_text[start..].lines().skip(1).map(str::trim).take_while(|line| *line != "]").collect();
            assert_eq!(listed, written, "behaviours of {noun}: listed, written");
        }
    }
}

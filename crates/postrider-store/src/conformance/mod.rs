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

// Behaviours are tests in all but their place: their names are sentences, a panic is how they fail, and the fixture is
// their vocabulary.
#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_imports)]

pub mod access;
pub mod applications;
pub mod attempts;
pub mod claims;
pub mod credentials;
pub mod deferrals;
pub mod deliveries;
pub mod endpoints;
pub mod event_types;
mod fixture;
pub mod health;
pub mod hold;
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
                environments_are_made_once_and_listed_in_order
                many_first_calls_make_one_environment
                a_key_authenticates_as_the_caller_it_was_made_for
                a_key_makes_its_environment
                what_is_no_token_authenticates_nobody
                a_revoked_key_ends_at_once
                a_key_ends_when_it_expires
                keys_are_listed_newest_first_without_their_secrets
            ]
            applications: [
                a_created_application_is_found_by_id_and_by_uid
                a_uid_is_unique_in_its_environment
                of_many_creations_with_one_uid_one_succeeds
                replacing_an_application_replaces_every_field
                a_change_of_an_application_made_from_an_older_version_is_refused
                a_deleted_application_is_gone_and_its_uid_is_free
                deleting_an_application_cancels_its_deliveries
                applications_are_listed_by_page_in_both_directions
                applications_are_filtered_by_their_endpoints
            ]
            attempts: [
                a_recorded_attempt_reads_back
                an_attempt_without_a_status_line_reads_back
                the_newest_attempt_of_message_and_endpoint_is_the_latest
                attempts_are_listed_by_page_in_both_directions
                attempts_are_filtered_by_success_and_status_class
                attempts_are_filtered_by_their_messages_and_by_time
                an_expunged_response_is_gone_and_nothing_else
                endpoint_stats_count_attempts_and_deliveries
            ]
            claims: [
                a_claimed_delivery_is_not_claimed_again
                concurrent_claims_share_no_delivery
                a_claim_takes_no_more_than_there_is_room_for
                an_endpoint_has_only_so_many_leases_out
                a_wide_endpoint_may_have_more_leases_out_than_others
                a_full_endpoint_is_passed_over
                a_claim_keeps_to_the_bytes_it_has_room_for
                a_claim_is_fair_over_endpoints
                two_long_backlogs_share_a_small_room
                an_application_has_its_share_however_many_endpoints_another_has
                first_attempts_and_retries_of_an_endpoint_take_turns
                a_long_backlog_of_both_kinds_is_worked_off_completely
                a_disabled_endpoint_holds_its_deliveries_until_it_is_enabled
                a_released_delivery_is_due_as_before
                the_backlog_counts_what_is_pending
                a_claimer_is_told_when_something_became_claimable
                many_deliveries_are_worked_off_completely
                a_delivery_past_its_deadline_is_not_handed_out
                nothing_starts_once_its_endpoint_is_disabled_or_deleted_or_its_payload_gone
            ]
            credentials: [
                headers_read_back_in_order_with_their_spelling
                replaced_headers_reach_the_next_request
                credentials_survive_a_change_of_other_fields
                every_kind_of_signing_secret_reads_back
                a_rotated_secret_signs_along_for_its_overlap
                at_most_ten_previous_secrets_sign
                oauth_settings_read_back_without_the_secret_and_send_with_it
                an_oauth_secret_that_is_not_given_again_is_kept
                no_debug_form_of_send_settings_shows_a_secret
            ]
            deferrals: [
                a_deferred_endpoint_waits_and_the_others_do_not
                a_deferred_application_waits_with_all_its_endpoints
                a_deferral_counts_for_messages_that_come_later
                the_latest_word_on_a_deferral_counts
                the_later_deferral_of_endpoint_and_application_counts
                a_retry_that_is_due_later_than_a_deferral_waits_for_its_own_time
                a_deferral_leaves_leases_that_are_out_alone
                a_change_of_an_endpoint_ends_its_deferral_and_not_its_applications
                a_resend_ends_the_deferral_of_its_endpoint
                deferred_deliveries_end_with_their_endpoint
                a_claimer_is_told_when_a_deferral_is_taken_back
                many_deferred_endpoints_are_in_nobodys_way
            ]
            deliveries: [
                a_success_ends_a_delivery
                a_retry_is_due_after_its_wait_and_not_before
                giving_up_ends_a_delivery_with_the_reason
                a_retry_beyond_the_deadline_expires
                a_deadline_of_its_own_needs_no_schedule_of_its_own
                the_age_of_a_message_for_later_counts_from_then
                an_endpoint_that_is_gone_is_disabled_with_the_reason
                a_delivery_that_ran_while_its_endpoint_was_disabled_is_recorded_and_held
                a_deleted_endpoint_cancels_its_deliveries_and_keeps_its_history
                a_lease_is_good_for_one_record
                records_of_a_batch_have_a_result_each
                destinations_are_listed_by_page
                messages_of_an_endpoint_are_filtered_by_how_they_stand
                messages_of_an_endpoint_are_filtered_and_paged
                messages_beside_a_deletion_leave_nothing_pending
                messages_beside_the_deletion_of_their_application_are_refused_or_cancelled
            ]
            endpoints: [
                a_created_endpoint_is_found_by_id_and_by_uid
                an_endpoint_without_own_values_has_none
                an_endpoint_below_no_application_cannot_be
                an_endpoint_uid_is_unique_in_its_application_and_free_after_deletion
                replacing_an_endpoint_replaces_every_field
                a_change_made_from_an_older_version_is_refused
                an_endpoint_disabled_by_request_says_so
                a_deleted_endpoint_is_gone_with_all_that_is_set_below_it
                endpoints_are_listed_by_page_in_both_directions
                endpoints_are_searched_by_url_state_and_metadata
            ]
            event_types: [
                a_created_event_type_reads_back
                an_event_type_is_created_once_per_environment
                an_archived_event_type_is_revived_by_creating_it
                putting_an_event_type_creates_or_replaces_it
                an_expunged_event_type_is_gone
                event_types_are_listed_by_name_in_both_directions
                event_types_are_filtered_by_archive_and_flags
            ]
            health: [
                writes_can_be_checked_and_commits_are_counted
            ]
            hold: [
                what_is_on_hold_waits_and_says_so
                what_comes_while_a_hold_lasts_is_delivered
                what_is_released_is_due_when_it_was
                what_is_dropped_is_cancelled_and_what_was_not_due_yet_is_kept
                what_is_retimed_is_spread_over_the_time_in_order
                what_is_past_its_deadline_expires_once_released
                what_is_on_hold_can_still_be_cancelled_or_settled
                a_disabled_endpoint_keeps_what_is_released
                an_attempt_that_runs_while_the_hold_begins_counts
            ]
            idempotency: [
                a_repeated_message_is_accepted_once
                fifty_concurrent_messages_with_one_key_are_one
                one_key_twice_in_one_batch_is_one_message
                environments_do_not_share_keys
                a_key_belongs_to_its_method_and_path
                a_refused_request_leaves_its_key_unused
                a_key_is_new_again_after_its_lifetime
                a_repeated_creation_creates_once
                concurrent_creations_with_one_key_create_one
                a_repeated_rotation_rotates_once
                a_repeated_resend_sends_once
                a_replay_shows_the_thing_as_it_stands
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
                a_change_among_many_messages_counts_for_those_after_it
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
                where_nothing_is_too_old_nothing_is_deleted
                old_messages_go_with_everything_of_theirs
                an_event_id_is_free_once_its_message_is_gone
                nothing_that_is_pending_is_touched
                a_payload_goes_at_its_own_expiry
                old_attempts_go_and_their_message_stays
                what_a_disabled_endpoint_holds_expires_at_its_deadline
                records_of_idempotency_keys_go_after_their_lifetime
                signing_secrets_go_after_their_overlap
                history_of_deleted_applications_goes_too
            ]
            tenancy: [
                strangers_read_nothing_of_an_endpoint
                strangers_change_nothing_of_an_endpoint
                strangers_read_nothing_of_a_message
                strangers_change_nothing_of_a_message
                nobody_publishes_into_an_application_of_another_environment
                an_application_exists_in_its_environment_only
                the_same_names_live_beside_each_other
            ]
        }
        $crate::conformance_suite! { @harness $open
            restarts: [
                what_was_accepted_is_there_and_due_at_once
                configuration_and_credentials_are_there
                what_was_recorded_is_not_sent_again
                a_lease_that_was_not_started_is_due_again_without_a_trace
                an_attempt_that_was_running_is_shown_as_interrupted_and_counts_as_a_death
                a_delivery_that_was_there_at_three_deaths_is_set_aside
                a_death_does_not_revive_what_was_cancelled
                an_attempt_that_was_running_at_an_orderly_end_is_shown_as_interrupted
                an_attempt_that_was_recorded_is_no_death
                a_resend_in_flight_is_found_again
                held_and_cancelled_deliveries_stay_so
                a_hold_lasts_over_a_restart
                idempotency_keys_are_remembered
                a_restart_forgets_deferrals
                a_closed_store_says_that_it_is_not_available
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
        ("credentials", include_str!("credentials.rs")),
        ("deferrals", include_str!("deferrals.rs")),
        ("deliveries", include_str!("deliveries.rs")),
        ("endpoints", include_str!("endpoints.rs")),
        ("event_types", include_str!("event_types.rs")),
        ("health", include_str!("health.rs")),
        ("hold", include_str!("hold.rs")),
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

//! What tests of e3 share: one conformance suite for each seam, that every implementation has to pass, and small
//! pipelines that need no file.
//!
//! Helpers here panic when something is wrong: that is how a test fails.

#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "every function here is an assertion or a step of one: it panics when the test is to fail"
)]

mod conformance;
mod faulty;
mod pipelines;

pub use conformance::{Fixture, RunnerFixture, leases, logs, objects, refs, runner};
pub use faulty::{Faults, FaultyStorage};
pub use pipelines::{Scenario, TaskSketch, holder, task_hash};

/// Makes a test of every check of the storage suite. `$fixture` is an async function that returns a `Fixture`.
#[macro_export]
macro_rules! storage_conformance {
    ($fixture:ident) => {
        $crate::conformance_tests!(
            $fixture,
            objects,
            [
                put_is_idempotent,
                get_reads_ranges,
                missing_objects_are_told,
                adopt_moves_and_copy_leaves,
                stage_makes_files_with_their_modes,
                list_and_delete,
                many_at_once,
                concurrent_puts_of_one_object
            ]
        );
        $crate::conformance_tests!(
            $fixture,
            refs,
            [
                write_read_remove,
                values_may_be_large,
                preconditions_guard_all_changes_together,
                scans_are_sorted_and_paged,
                counters_count_their_workspace_only,
                of_concurrent_swaps_one_wins,
                another_handle_sees_what_was_written,
                a_change_of_a_workspace_wakes_who_waits_for_it
            ]
        );
        $crate::conformance_tests!($fixture, logs, [appended_bytes_are_read_in_order, logs_are_deleted]);
        $crate::conformance_tests!(
            $fixture,
            leases,
            [
                exclusive_leases_exclude,
                shared_leases_share,
                a_dropped_lease_is_free,
                waiting_ends_when_the_lease_is_free
            ]
        );
    };
}

/// Makes a test of every check of the runner suite. `$fixture` is an async function that returns a `RunnerFixture`.
#[macro_export]
macro_rules! runner_conformance {
    ($fixture:ident) => {
        $crate::conformance_tests!(
            $fixture,
            runner,
            [
                success_is_recorded_and_cached,
                deferred_records_are_the_callers_to_write,
                room_is_given_back_at_most_once_and_not_by_a_failure,
                nothing_is_executed_before_its_gate_is_open,
                what_is_cancelled_before_its_gate_is_open_was_never_there,
                force_executes_again,
                a_failure_is_a_result_and_not_cached,
                one_key_is_executed_once_at_a_time,
                cancellation_ends_it_and_leaves_no_verdict,
                a_missing_output_is_made_again
            ]
        );
    };
}

/// Makes tests that call the named checks of one module with a fresh fixture.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:ident, $module:ident, [$($check:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $check() {
                    $crate::$module::$check(&super::$fixture().await).await;
                }
            )*
        }
    };
}

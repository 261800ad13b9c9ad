//! What every backend of the ledger must do, whatever it stores things in.
//!
//! A backend's test file brings a [`Harness`] and calls [`conformance_suite!`], which makes a test of every case.

#![allow(dead_code, reason = "each includer uses its part")]

mod log;
mod preconditions;
mod races;
mod read_model;
mod recovery;
mod snapshot;
mod taken;
mod tidy;

use std::sync::Arc;

use async_trait::async_trait;
use chancery_ledger::{Conflict, Ledger, Outcome, Precondition, Proposal, Standing};

pub(crate) use log::*;
pub(crate) use preconditions::*;
pub(crate) use races::*;
pub(crate) use read_model::*;
pub(crate) use recovery::*;
pub(crate) use snapshot::snapshot;
pub(crate) use taken::*;
pub(crate) use tidy::*;

/// How a backend is made, left and entered again.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// An empty ledger with the origin and key of [`crate::workload`]. Each call gives another.
    async fn create(&self) -> Arc<dyn Ledger>;

    /// The same ledger in the hands of a process that has just started.
    async fn reopen(&self, ledger: Arc<dyn Ledger>) -> Arc<dyn Ledger>;

    /// The same ledger with a read model made anew from its entries.
    async fn rebuild(&self, ledger: Arc<dyn Ledger>) -> Arc<dyn Ledger>;

    /// How many histories are played: fewer where each question is a journey.
    fn histories(&self) -> u64 {
        4
    }
}

/// Makes a test of every case: `conformance_suite!(MyHarness::new())`.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:expr) => {
        conformance_suite! { $harness;
            an_empty_ledger_has_the_empty_root_and_a_checkpoint
            entries_have_consecutive_indexes_and_come_back_to_the_byte
            the_root_is_the_one_that_the_entries_give
            proofs_verify_between_all_sizes
            hashes_are_given_as_far_as_they_are_complete
            checkpoints_are_signed_and_never_go_back
            signatures_are_kept_beside_their_entries
            every_precondition_holds_and_fails_as_it_says
            earlier_proposals_of_a_call_are_seen_by_later_ones
            a_refused_proposal_leaves_nothing_and_does_not_stop_the_others
            a_proposal_without_entries_only_asks
            what_cannot_be_recorded_is_refused_and_nothing_with_it
            time_may_go_backwards
            what_is_final_stays
            a_token_is_spent_once_by_64_at_a_time
            an_identity_is_registered_once_by_64_at_a_time
            a_lineage_is_renewed_once_by_64_at_a_time
            an_idempotency_key_buys_once_by_64_at_a_time
            a_crl_number_is_used_once_by_64_at_a_time
            a_hold_wins_or_loses_against_renewals_but_never_both
            counters_are_given_once_and_above_what_is_recorded
            readers_never_see_half_a_proposal_after_its_answer
            each_of_many_questions_at_once_has_its_own_answer
            asking_for_what_is_not_recorded_yet_stops_nobody_who_records
            certificates_are_found_by_everything_that_names_them
            pages_give_each_result_once_and_in_order
            a_search_that_matches_little_goes_on_in_pages
            identities_are_found_by_their_documents
            templates_tokens_issuers_profiles_and_policies_are_found
            a_lineage_shows_its_living_certificates
            a_lineage_holds_and_releases_what_it_held_itself
            revocations_stand_on_the_list_until_they_expire
            what_ended_long_ago_leaves_the_searches_and_nothing_else
            a_lineage_goes_on_when_its_latest_was_tidied_away
            many_are_tidied_away_at_once_and_in_the_batch_that_issues_them
            what_a_hand_takes_is_added_up_by_environment_within_a_window
            a_change_counts_for_whoever_began_it_alone
            everything_is_the_same_after_reopening_and_rebuilding
            work_goes_on_after_reopening
        }
    };
    ($harness:expr; $($case:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            conformance::$case(&$harness).await;
        }
    )*};
}

/// Commits one proposal, which must be accepted; its first index.
pub(crate) async fn accept(ledger: &dyn Ledger, proposal: Proposal) -> u64 {
    match one(ledger, proposal).await {
        Outcome::Accepted { first_index } => first_index,
        Outcome::Refused(conflict) => panic!("refused: {conflict}"),
    }
}

/// Commits one proposal, which must be refused; how things stand instead.
pub(crate) async fn refuse(ledger: &dyn Ledger, proposal: Proposal) -> (Precondition, Standing) {
    match one(ledger, proposal).await {
        Outcome::Refused(Conflict { precondition, standing }) => (precondition, standing),
        Outcome::Accepted { first_index } => panic!("accepted as {first_index}"),
    }
}

/// Commits one proposal.
pub(crate) async fn one(ledger: &dyn Ledger, proposal: Proposal) -> Outcome {
    let mut outcomes = ledger.commit(vec![proposal]).await.expect("the ledger can write");
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// How a precondition stands now.
pub(crate) async fn standing(ledger: &dyn Ledger, precondition: Precondition) -> Option<Standing> {
    let question = Proposal::new(vec![precondition.clone()], vec![]).expect("it has no entries");
    match one(ledger, question).await {
        Outcome::Accepted { .. } => None,
        Outcome::Refused(conflict) => {
            assert_eq!(conflict.precondition, precondition);
            Some(conflict.standing)
        }
    }
}

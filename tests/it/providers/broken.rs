//! Each of these providers breaks one promise of the contract. The suite detects all of them, under
//! that promise.

mod answers;
mod provider;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::FutureExt;
use persistify::{
    Batch, BatchId, Capabilities, Cause, Change, Committed, Encoding, Error, ErrorKind, Expect,
    Heartbeat, Incarnation, Load, MapBatch, MapName, Memory, Op, Otherwise, Payload, Provider,
    Record, Result, Revision, Wanted, WriterId,
    testing::{conformance as suite, conformance::Outcome},
};
use provider::Broken;

/// The flaw of the provider.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    LowersKeys,
    TrimsNuls,
    LosesExpiry,
    LosesShape,
    RoundsNumbers,
    BytesAsJson,
    BytesFoundAsJson,
    HalvesBytes,
    TrustsHints,
    IgnoresClear,
    TouchSetsTheTime,
    TouchPuts,
    PagesUnsorted,
    IgnoresPageLimit,
    ChangedIncludesTheKnown,
    ChangesUnsorted,
    HalvesCommits,
    LosesTombstones,
    LosesCauses,
    ClearsUntold,
    RepeatsKeys,
    HorizonTooHigh,
    HorizonTooLow,
    HorizonReadLate,
    LosesOneOfMany,
    HalvesConflicts,
    ClearsBeforeConflicts,
    HalvesWhenDropped,
    NoFence,
    AppliesRepeats,
    AnswersRepeatsAnew,
    ForgetsRepeatsOnOthers,
    RemembersFailures,
    FencesOthers,
    IgnoresCaseOfNames,
    CutsNames,
    DecodesNames,
    ListsNoNames,
    ForgetsOnReopening,
    IgnoresAfter,
    OneRevisionForTwo,
    CoarseRevisions,
    LosesRaces,
    IgnoresConditions,
    ConflictWithoutFound,
    ConflictWithoutKey,
    SkipsSilently,
    IgnoresGroups,
    GroupsWithinAMap,
    ExpiredIsPresent,
    AfterClearSeesTheOld,
    UnsureOfConflicts,
    HalvesUnsupported,
    TakesUnsupported,
    UnavailableWhenClosed,
    NoPing,
    HeartbeatsOfTheirOwn,
}

/// Runs the check of a promise on a provider with that flaw. Returns the failure message, if it
/// fails.
async fn complaint(flaw: Flaw, promise: &str) -> Option<String> {
    let broken = Broken::new(flaw);
    let open = async || Ok(broken.reopened());
    let run = async {
        match promise {
            "faithful" => suite::faithful(&open).await,
            "atomic" => suite::atomic(&open).await,
            "idempotent and fenced" => suite::idempotent_and_fenced(&open).await,
            "isolated" => suite::isolated(&open).await,
            "durable" => suite::durable(&open).await,
            "ordered" => suite::ordered(&open).await,
            "honest" => suite::honest(&open).await,
            other => unreachable!("{other}"),
        }
    };
    let result: Result<Outcome, _> = AssertUnwindSafe(run).catch_unwind().await;
    let message = result.err()?;
    Some(*message.downcast::<String>().expect("a message"))
}

async fn all_caught(promise: &str, flaws: &[Flaw]) {
    assert_eq!(complaint(Flaw::None, promise).await, None);
    for flaw in flaws {
        let complaint = complaint(*flaw, promise).await;
        let complaint = complaint.unwrap_or_else(|| panic!("{flaw:?} was not caught"));
        let first = format!("the provider is not {promise}\n    done: ");
        assert!(complaint.starts_with(&first), "{flaw:?}: {complaint}");
        let says = complaint.contains("\nexpected: ") && complaint.contains("\n   found: ");
        assert!(says, "{flaw:?}: {complaint}");
    }
}

#[tokio::test]
async fn an_unfaithful_provider_is_caught() {
    let flaws = [
        Flaw::LowersKeys,
        Flaw::TrimsNuls,
        Flaw::LosesExpiry,
        Flaw::LosesShape,
        Flaw::RoundsNumbers,
        Flaw::BytesAsJson,
        Flaw::BytesFoundAsJson,
        Flaw::TrustsHints,
        Flaw::IgnoresClear,
        Flaw::TouchSetsTheTime,
        Flaw::TouchPuts,
        Flaw::PagesUnsorted,
        Flaw::IgnoresPageLimit,
        Flaw::ChangedIncludesTheKnown,
        Flaw::ChangesUnsorted,
        Flaw::HalvesCommits,
        Flaw::LosesTombstones,
        Flaw::LosesCauses,
        Flaw::ClearsUntold,
        Flaw::RepeatsKeys,
        Flaw::HorizonTooHigh,
        Flaw::HorizonTooLow,
        Flaw::HorizonReadLate,
        Flaw::LosesOneOfMany,
    ];
    all_caught("faithful", &flaws).await;
}

#[tokio::test]
async fn a_provider_that_is_not_atomic_is_caught() {
    let flaws = [
        Flaw::HalvesConflicts,
        Flaw::ClearsBeforeConflicts,
        Flaw::HalvesWhenDropped,
    ];
    all_caught("atomic", &flaws).await;
}

#[tokio::test]
async fn a_provider_that_is_not_idempotent_or_not_fenced_is_caught() {
    let flaws = [
        Flaw::NoFence,
        Flaw::AppliesRepeats,
        Flaw::AnswersRepeatsAnew,
        Flaw::ForgetsRepeatsOnOthers,
        Flaw::RemembersFailures,
        Flaw::FencesOthers,
    ];
    all_caught("idempotent and fenced", &flaws).await;
}

#[tokio::test]
async fn a_provider_that_mixes_maps_up_is_caught() {
    let flaws = [
        Flaw::IgnoresCaseOfNames,
        Flaw::CutsNames,
        Flaw::DecodesNames,
        Flaw::ListsNoNames,
    ];
    all_caught("isolated", &flaws).await;
}

#[tokio::test]
async fn a_provider_that_forgets_is_caught() {
    all_caught("durable", &[Flaw::ForgetsOnReopening]).await;
}

#[tokio::test]
async fn a_provider_whose_revisions_go_back_is_caught() {
    let flaws = [
        Flaw::IgnoresAfter,
        Flaw::OneRevisionForTwo,
        Flaw::CoarseRevisions,
        Flaw::LosesRaces,
    ];
    all_caught("ordered", &flaws).await;
}

#[tokio::test]
async fn a_dishonest_provider_is_caught() {
    let flaws = [
        Flaw::IgnoresConditions,
        Flaw::ConflictWithoutFound,
        Flaw::ConflictWithoutKey,
        Flaw::SkipsSilently,
        Flaw::IgnoresGroups,
        Flaw::GroupsWithinAMap,
        Flaw::ExpiredIsPresent,
        Flaw::AfterClearSeesTheOld,
        Flaw::UnsureOfConflicts,
        Flaw::HalvesUnsupported,
        Flaw::HalvesBytes,
        Flaw::TakesUnsupported,
        Flaw::UnavailableWhenClosed,
        Flaw::NoPing,
        Flaw::HeartbeatsOfTheirOwn,
    ];
    all_caught("honest", &flaws).await;
}

/// The whole suite stops at the first broken promise.
#[tokio::test]
async fn the_whole_suite_names_the_broken_word() {
    let broken = Broken::new(Flaw::NoFence);
    let run = suite::conformance(async || Ok(broken.reopened()));
    let message = AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    let message = message.downcast::<String>().unwrap();
    assert!(
        message.starts_with("the provider is not idempotent and fenced"),
        "{message}"
    );
}

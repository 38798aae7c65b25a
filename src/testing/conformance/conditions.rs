//! Conditions: each of them, on entries in each state.

use std::time::Duration;

mod groups;

use super::{
    same::same_found,
    trial::Trial,
    writer::{Writer, number_payload, put},
};
use crate::{
    batch::{Change, Expect, MapBatch, Otherwise, Skipped},
    error::{Error, ErrorKind},
    name::MapName,
    record::{Record, Revision},
};

pub(super) async fn run(trial: &mut Trial<'_>) {
    table(trial).await;
    other_operations(trial).await;
    skip_some(trial).await;
    if trial.claims().sharded {
        return trial.leave_out("conditions of several keys", "they are on several stores");
    }
    after_a_clear(trial).await;
    several_keys(trial).await;
    groups::run(trial).await;
    if !trial.claims().several_maps {
        return trial.leave_out("conditions in several maps", "several maps are not claimed");
    }
    several_maps(trial).await;
}

/// The state of an entry when its condition is checked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Absent,
    Present,
    ExpiresLater,
    ExpiresJustNow,
    Expired,
}

const STATES: [State; 5] = [
    State::Absent,
    State::Present,
    State::ExpiresLater,
    State::ExpiresJustNow,
    State::Expired,
];

impl State {
    fn live(self) -> bool {
        matches!(self, Self::Present | Self::ExpiresLater)
    }

    fn key(self) -> String {
        format!("{self:?}")
    }
}

/// Puts an entry of each state. The next batch of the writer is one millisecond later; one of
/// the entries has expired by then.
async fn fill(trial: &mut Trial<'_>, map: &MapName, writer: &mut Writer) -> Revision {
    let next = writer.at + Duration::from_millis(2);
    let puts = STATES.into_iter().filter_map(|state| {
        let expires_at = match state {
            State::Absent => return None,
            State::Present => None,
            State::ExpiresLater => Some(next + Duration::from_millis(1)),
            State::ExpiresJustNow => Some(next),
            State::Expired => Some(next - Duration::from_secs(60)),
        };
        Some(Change::put(state.key(), number_payload(1), expires_at))
    });
    let batch = writer.clearing(map, puts.collect());
    let answer = trial.commit(&batch).await;
    trial.revision(&answer)
}

async fn table(trial: &mut Trial<'_>) {
    trial.check("each condition, on entries in each state");
    let map = trial.map("conditions");
    let mut writer = Writer::new();
    for state in STATES {
        for otherwise in [Otherwise::Fail, Otherwise::Skip] {
            for which in 0..5 {
                let revision = fill(trial, &map, &mut writer).await;
                let (expect, holds) = condition(which, state, revision);
                trial.doing(format!("expect {expect:?}, or else {otherwise:?}, of an entry that is {state:?} and of revision {revision}"));
                let change = put(&state.key(), 2).expect(expect, otherwise);
                one(trial, &map, &mut writer, change, holds).await;
            }
        }
    }
}

fn condition(which: usize, state: State, revision: Revision) -> (Expect, bool) {
    let stored = state != State::Absent;
    match which {
        0 => (Expect::Any, true),
        1 => (Expect::Absent, !state.live()),
        2 => (Expect::Present, state.live()),
        3 => (Expect::At(revision), stored),
        _ => (Expect::At(Revision::new(revision.get() - 1)), false),
    }
}

/// Commits a change with a condition, beside others without one.
async fn one(
    trial: &mut Trial<'_>,
    map: &MapName,
    writer: &mut Writer,
    change: Change,
    holds: bool,
) {
    let found = trial.model(map).records.get(&change.key).cloned();
    let changes = if trial.claims().sharded {
        vec![change.clone()]
    } else {
        vec![put("before", 2), change.clone(), Change::delete("after")]
    };
    let batch = writer.batch(map, changes);
    if !holds && change.otherwise == Otherwise::Fail {
        let error = trial.commit_fails(&batch, ErrorKind::Conflict).await;
        let named = error.map() == Some(map.as_str()) && error.keys() == [change.key];
        trial.ensure(named, "an error that names the map and the key", &error);
        let same = same_found(found.as_ref(), error.found());
        return trial.ensure(same, &described(found.as_ref()), (&error, error.found()));
    }
    let answer = trial.commit(&batch).await;
    if holds {
        trial.ensure(answer.skipped.is_empty(), "no skipped changes", &answer);
    } else {
        verify_skipped(trial, &answer.skipped, &[(change, found)], map);
    }
    trial.verify(map).await;
}

fn described(found: Option<&Record>) -> String {
    format!("an error that carries what was found, {found:?}")
}

fn verify_skipped(
    trial: &Trial<'_>,
    skipped: &[Skipped],
    expected: &[(Change, Option<Record>)],
    map: &MapName,
) {
    let listed = |(change, found): &(Change, Option<Record>)| {
        let same = |s: &&Skipped| {
            s.map == *map && s.key == change.key && same_found(found.as_ref(), s.found.as_ref())
        };
        skipped.iter().filter(same).count() == 1
    };
    let all = skipped.len() == expected.len() && expected.iter().all(listed);
    trial.ensure(
        all,
        &format!("these skipped changes: {expected:?}"),
        skipped,
    );
}

async fn other_operations(trial: &mut Trial<'_>) {
    trial.check("conditions of touches and deletes");
    let map = trial.map("touches and deletes");
    let mut writer = Writer::new();
    for state in STATES {
        for otherwise in [Otherwise::Fail, Otherwise::Skip] {
            for change in [
                Change::delete(state.key()),
                Change::touch(state.key(), None),
            ] {
                fill(trial, &map, &mut writer).await;
                trial.doing(format!(
                    "expect an entry that is {state:?} to be present, or else {otherwise:?}: {:?}",
                    change.op
                ));
                let change = change.expect(Expect::Present, otherwise);
                one(trial, &map, &mut writer, change, state.live()).await;
            }
        }
    }
}

async fn after_a_clear(trial: &mut Trial<'_>) {
    trial.check("conditions after a clear look at an empty map");
    let map = trial.map("clear");
    let mut writer = Writer::new();
    let revision = fill(trial, &map, &mut writer).await;
    let key = State::Present.key();
    for expect in [Expect::Present, Expect::At(revision)] {
        trial.doing(format!("clear, and expect {expect:?}"));
        let part = MapBatch::new(
            map.clone(),
            vec![put(&key, 2).expect(expect, Otherwise::Fail)],
        );
        let batch = writer.batch_of(vec![part.clearing(true)]);
        let error = trial.commit_fails(&batch, ErrorKind::Conflict).await;
        trial.ensure(error.found().is_none(), "nothing found", error.found());
    }
    trial.doing("clear, and expect one entry to be absent, skip another that should be present");
    let skipped = put(&State::ExpiresLater.key(), 2).expect(Expect::Present, Otherwise::Skip);
    let changes = vec![
        put(&key, 2).expect(Expect::Absent, Otherwise::Fail),
        skipped.clone(),
    ];
    let answer = trial.commit(&writer.clearing(&map, changes)).await;
    verify_skipped(trial, &answer.skipped, &[(skipped, None)], &map);
    trial.verify(&map).await;
}

async fn skip_some(trial: &mut Trial<'_>) {
    trial.check("changes that are skipped among many that are not");
    let map = trial.map("skip some");
    let mut writer = Writer::new();
    let half = (0..100).step_by(2).map(|n| put(&format!("key {n}"), 1));
    trial.commit(&writer.batch(&map, half.collect())).await;
    let changes: Vec<_> = (0..100)
        .map(|n| put(&format!("key {n}"), 2).expect(Expect::Absent, Otherwise::Skip))
        .collect();
    let stored = trial.model(&map).records;
    let there = changes
        .iter()
        .filter(|change| stored.contains_key(&change.key));
    let expected: Vec<_> = there
        .map(|change| (change.clone(), stored.get(&change.key).cloned()))
        .collect();
    let answer = trial.commit(&writer.batch(&map, changes)).await;
    verify_skipped(trial, &answer.skipped, &expected, &map);
    trial.verify(&map).await;
}

/// Changes of three keys, each with a condition of another kind. The condition of number
/// `bad` fails.
fn conditional(revision: Revision, bad: Option<usize>) -> Vec<Change> {
    let before = Revision::new(revision.get() - 1);
    let conditions = [
        ("absent", Expect::Absent, Expect::Present),
        ("present", Expect::Present, Expect::Absent),
        ("written", Expect::At(revision), Expect::At(before)),
    ];
    let change = |(n, (key, holds, fails))| {
        let expect = if bad == Some(n) { fails } else { holds };
        put(key, 2).expect(expect, Otherwise::Fail)
    };
    conditions.into_iter().enumerate().map(change).collect()
}

async fn fill_conditional(trial: &mut Trial<'_>, map: &MapName, writer: &mut Writer) -> Revision {
    let changes = vec![put("present", 1), put("written", 1)];
    let answer = trial.commit(&writer.clearing(map, changes)).await;
    trial.revision(&answer)
}

async fn several_keys(trial: &mut Trial<'_>) {
    trial.check("several conditions hold together, or the one that does not is named");
    let map = trial.map("several keys");
    let mut writer = Writer::new();
    for bad in [Some(0), Some(1), Some(2), None] {
        let revision = fill_conditional(trial, &map, &mut writer).await;
        trial.doing(format!(
            "three keys, each on a condition; the one that does not hold: {bad:?}"
        ));
        let changes = conditional(revision, bad);
        let batch = writer.batch(&map, changes.clone());
        let Some(bad) = bad else {
            trial.commit(&batch).await;
            return trial.verify(&map).await;
        };
        let error = trial.commit_fails(&batch, ErrorKind::Conflict).await;
        verify_conflict(trial, &error, &map, &changes[bad]);
    }
}

async fn several_maps(trial: &mut Trial<'_>) {
    trial.check("conditions in several maps hold together, or the one that does not is named");
    let maps = ["one", "two"].map(|name| trial.map(name));
    let mut writer = Writer::new();
    for bad in [Some((0, 1)), Some((1, 0)), Some((1, 2)), None] {
        trial.doing(format!(
            "conditions in two maps; map and key of the one that does not hold: {bad:?}"
        ));
        let mut parts = Vec::new();
        for (n, map) in maps.iter().enumerate() {
            let revision = fill_conditional(trial, map, &mut writer).await;
            let bad = bad.and_then(|(map, key)| (map == n).then_some(key));
            parts.push(MapBatch::new(map.clone(), conditional(revision, bad)));
        }
        let batch = writer.batch_of(parts);
        let Some((map, key)) = bad else {
            let answer = trial.commit(&batch).await;
            trial.repeat(&batch, &answer).await;
            return;
        };
        let error = trial.commit_fails(&batch, ErrorKind::Conflict).await;
        let change = &batch.maps[map].changes[key];
        verify_conflict(trial, &error, &maps[map], change);
    }
}

fn verify_conflict(trial: &Trial<'_>, error: &Error, map: &MapName, change: &Change) {
    let named = error.map() == Some(map.as_str()) && error.keys() == [change.key.clone()];
    let expected = format!("an error that names {map:?} and {:?}", change.key);
    trial.ensure(named, &expected, error);
    let found = trial.model(map).records.get(&change.key).cloned();
    let same = same_found(found.as_ref(), error.found());
    trial.ensure(same, &described(found.as_ref()), (error, error.found()));
}

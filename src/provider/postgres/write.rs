//! A batch, in one transaction.
//!
//! As a rule it takes [one round trip](super::at_once). Where more has to be
//! known first it takes two, and one more if there are conditions: the first
//! begins the transaction and [locks](super::locks) what it needs, the second
//! carries all changes and the commit.
//!
//! Of those two, nothing that changes anything is sent before the locks are held
//! and the turn of the batch is known. So a batch that is given up before that
//! never lands; one that is given up later holds the locks for as long as it may
//! still land, and what comes after it waits, and then sees what became of it.

use super::{
    at_once::{self, Tried},
    connections::{Connections, Lease},
    errors::Fault,
    incarnations,
    judge::Judge,
    known::Known,
    left_out::Checks,
    locks::{Locked, begin, set_revision},
    options::Options,
    place,
    sending::{Part, send},
    sorted::Sorted,
    values::revision_to,
    writers,
};
use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    provider::ledger::{self, Admission},
};

/// How often tables are made and then found to be missing again, and how often
/// entries are found to be absent and then to be there.
const MAX_ROUNDS: usize = 4;

/// Applies the batch, whole or not at all.
pub(super) async fn commit(
    connections: &Connections,
    options: &Options,
    known: &Known,
    batch: &Batch,
) -> Result<Committed, Fault> {
    let look = || commit_with_look(connections, options, known, batch);
    match at_once::commit(connections, options, known, batch).await? {
        Tried::Done(answer) => Ok(answer),
        Tried::No => look().await,
        // A look tells whether it was applied, and what was given up changes
        // nothing after the batch that follows it. If even that fails it is
        // still open: whoever tries again hears why.
        Tried::Lost(fault) => look().await.map_err(|_| fault),
    }
}

async fn commit_with_look(
    connections: &Connections,
    options: &Options,
    known: &Known,
    batch: &Batch,
) -> Result<Committed, Fault> {
    for round in 1..=MAX_ROUNDS {
        let (lease, mut locked) = begin(connections, options, batch).await?;
        match admit(&lease, options, batch, &locked).await {
            Ok(None) => {}
            Ok(Some(answer)) => {
                lease.give_back_after(batch);
                known.note(batch, &answer, locked.places);
                return Ok(answer);
            }
            Err(fault) => return Err(lease.abandon(fault).await),
        }
        let missing = locked.missing(batch);
        if missing.is_empty() {
            let answer = match commit_locked(&lease, options, batch, &mut locked).await {
                Ok(answer) => answer,
                // Another program may have added what was not there; then the
                // conditions see it now.
                Err(fault) if fault.is_duplicate() && locked.inserts() && round < MAX_ROUNDS => {
                    lease.abandon(fault).await;
                    continue;
                }
                Err(fault) => return Err(lease.abandon(fault).await),
            };
            lease.give_back_after(batch);
            known.note(batch, &answer, locked.places);
            return Ok(answer);
        }
        lease.end().await?;
        for map in missing {
            place::add_map(connections, options, map).await?;
        }
    }
    Err(meddled().into())
}

fn meddled() -> Error {
    let message =
        "tables that were just made are missing again; someone else is at work in the same schema";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

/// What was answered before, if the batch is a repeat; nothing if it is to be
/// applied.
async fn admit(
    lease: &Lease,
    options: &Options,
    batch: &Batch,
    locked: &Locked<'_>,
) -> Result<Option<Committed>, Fault> {
    let incarnation = locked.incarnation;
    let last = |writer| locked.last_of(batch, writer);
    match (ledger::admit(batch, incarnation, last), locked.last) {
        (Admission::Repeat, Some(last)) => {
            let answer = writers::answer(lease, options, batch.id.writer, last).await?;
            let ended = lease.client()?.batch_execute("ROLLBACK");
            lease.answer(ended).await?;
            Ok(Some(answer.with_incarnation(incarnation)))
        }
        (Admission::Refuse(error), _) => Err(error.into()),
        (Admission::Renew(new, error), _) => {
            incarnations::renew(lease, options, incarnation, new).await?;
            Err(error.into())
        }
        (Admission::Apply | Admission::Repeat, _) => Ok(None),
    }
}

async fn commit_locked<'b>(
    lease: &Lease,
    options: &Options,
    batch: &'b Batch,
    locked: &mut Locked<'b>,
) -> Result<Committed, Fault> {
    let judge = Judge::all(lease, options, batch, locked).await?;
    let revision = judge.next_revision();
    let answer = Committed::at(revision).with_skipped(judge.skipped);
    if !answer.skipped.is_empty() {
        locked.sorted = without_skipped(batch, &answer);
    }
    for (part, sorted) in batch.maps.iter().zip(&mut locked.sorted) {
        if let Some(absent) = judge.absent.get(&part.map) {
            sorted.expect_none(absent);
        }
    }
    apply(lease, options, batch, locked, &answer).await?;
    Ok(answer.with_incarnation(locked.incarnation))
}

/// All changes but those that were left out.
fn without_skipped<'b>(batch: &'b Batch, answer: &Committed) -> Vec<Sorted<'b>> {
    let parts =
        { batch.maps.iter() }.map(|part| Sorted::new(ledger::applied(part, &answer.skipped)));
    parts.collect()
}

/// Writes all changes and commits.
async fn apply(
    lease: &Lease,
    options: &Options,
    batch: &Batch,
    locked: &Locked<'_>,
    answer: &Committed,
) -> Result<(), Fault> {
    let parts = batch.maps.iter().zip(&locked.sorted);
    let parts = parts.filter_map(|(part, sorted)| {
        let place = locked.place(&part.map)?;
        Some(Part {
            map: &part.map,
            clear: part.clear,
            table: place.table(options),
            sorted,
            hints: false,
            checks: place.is_meddled_with.then(|| Checks::new(options)),
        })
    });
    let parts: Vec<_> = parts.collect();
    let revision = revision_to(answer.revision.unwrap_or_default())?.to_string();
    let skipped = writers::note_skipped(options, batch, locked.last, answer)?;
    let end = end(options, batch, locked, answer)?;
    send(lease, &parts, (batch.at, &revision), skipped, &end).await
}

/// What ends the transaction: the counters, the writer, and the commit.
fn end(
    options: &Options,
    batch: &Batch,
    locked: &Locked<'_>,
    answer: &Committed,
) -> Result<String> {
    let note = writers::note(options, batch, locked.last, answer)?;
    let counters = set_revision(options, locked, answer.revision.unwrap_or_default())?;
    Ok(format!("{counters}{note}; COMMIT"))
}

//! Commits: a batch in one transaction.
//!
//! Most commits take a [single round trip](super::single_trip). The others take two: the
//! first begins the transaction and [locks](super::locks) the counters and the writer,
//! the second sends all changes and the commit. Conditions are read in between.
//!
//! No change is sent before the locks are held and the batch is admitted. So a batch that
//! is abandoned before that is never applied. A batch that is abandoned later holds the
//! locks for as long as it may still be applied; the next batch waits for them, and then
//! sees the outcome.

use super::{
    Shared, catalog,
    changes::{Changes, Stamp},
    conditions::Stored,
    errors::Failure,
    incarnations,
    locks::{self, Locked, set_revision},
    options::Options,
    pipeline::{Part, send},
    sessions::Session,
    single_trip::{self, TripOutcome},
    writers,
};
use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    provider::{
        ledger::{self, Admission},
        sql::numbers::from_revision,
    },
};

/// The maximum number of attempts if tables vanish after they were created, or if absent
/// entries appear.
const MAX_ROUNDS: usize = 4;

/// Applies the batch as a whole or not at all.
pub(super) async fn commit(shared: &Shared, batch: &Batch) -> Result<Committed, Failure> {
    match single_trip::commit(shared, batch).await? {
        TripOutcome::Committed(answer) => Ok(answer),
        TripOutcome::NotApplied => commit_with_locks(shared, batch).await,
        // The locks reveal whether the batch was applied: an abandoned batch changes
        // nothing after the one that follows it. If this fails too, the outcome stays
        // unknown, and the error says why.
        TripOutcome::Lost(failure) => {
            let committed = commit_with_locks(shared, batch).await;
            committed.map_err(|_| failure)
        }
    }
}

async fn commit_with_locks(shared: &Shared, batch: &Batch) -> Result<Committed, Failure> {
    for round in 1..=MAX_ROUNDS {
        let (session, locked) = locks::begin(shared, batch).await?;
        let transaction = Transaction {
            shared,
            session: &session,
            options: &shared.options,
            batch,
            locked: &locked,
        };
        match transaction.run().await {
            Ok(Some(answer)) => {
                session.give_back_after(batch);
                shared.last_commits.note(batch, &answer, locked.entries);
                return Ok(answer);
            }
            Ok(None) => session.end("ROLLBACK").await?,
            Err(failure) => {
                let failure = session.abandon(failure).await;
                // Another program may have added the absent row; the next attempt checks
                // the conditions on it.
                if !failure.is_duplicate() || !may_race(batch, &locked) || round == MAX_ROUNDS {
                    return Err(failure);
                }
            }
        }
        for map in locked.missing(batch) {
            catalog::add_map(shared, map).await?;
        }
    }
    Err(missing_again().into())
}

/// Whether the batch inserts rows that a condition found absent, and that another
/// program may have added since.
fn may_race(batch: &Batch, locked: &Locked) -> bool {
    let mut parts = batch.maps.iter();
    parts.any(|part| locked.is_adopted(&part.map) && ledger::conditional(part).next().is_some())
}

fn missing_again() -> Error {
    let message = "tables that were just created are missing; another program changes the same schema; try again";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

/// A transaction that holds its locks.
struct Transaction<'t> {
    shared: &'t Shared,
    session: &'t Session,
    options: &'t Options,
    batch: &'t Batch,
    locked: &'t Locked,
}

impl Transaction<'_> {
    /// The answer to the batch; `None` if a table is missing.
    async fn run(&self) -> Result<Option<Committed>, Failure> {
        let (batch, locked) = (self.batch, self.locked);
        let incarnation = locked.incarnation;
        let admission = ledger::admit(batch, incarnation, |writer| locked.last_of(writer));
        let answer = match (admission, locked.last) {
            (Admission::Repeat, Some(last)) => {
                let writer = batch.id.writer;
                let answer = writers::answer(self.session, self.options, writer, last).await?;
                self.session.finish("ROLLBACK").await?;
                answer
            }
            (Admission::Refuse(error), _) => return Err(error.into()),
            (Admission::Renew(new, error), _) => {
                incarnations::renew(self.session, self.options, incarnation, new).await?;
                return Err(error.into());
            }
            _ => {
                ledger::check_dropped(batch, |map| Ok::<_, Error>(locked.dropped(map)))?;
                if !locked.missing(batch).is_empty() {
                    return Ok(None);
                }
                self.check_encodings()?;
                self.apply().await?
            }
        };
        Ok(Some(answer.with_incarnation(incarnation)))
    }

    /// An adopted table has no column that could mark a value as bytes.
    fn check_encodings(&self) -> Result<()> {
        let parts = self.batch.maps.iter();
        let mut adopted = parts.filter(|part| self.locked.is_adopted(&part.map));
        adopted.try_for_each(ledger::check_json)
    }

    async fn apply(&self) -> Result<Committed, Failure> {
        let (batch, locked) = (self.batch, self.locked);
        let stored = Stored::find(self.session, self.options, batch, locked).await?;
        let skipped = ledger::check_conditions(batch, |map, key| {
            Ok::<_, Error>(stored.get(map, key).cloned())
        });
        let skipped = match skipped {
            Ok(skipped) => skipped,
            Err(conflict) => {
                // Rows of another program keep the revision that is reported now.
                if stored.noted {
                    let raise = set_revision(self.options, locked, stored.revision)?;
                    self.session.finish(&format!("{raise}COMMIT")).await?;
                }
                return Err(conflict.into());
            }
        };
        let revision = batch.revision_after(stored.last(locked));
        let answer = Committed::at(revision).with_skipped(skipped);
        self.write(&stored, &answer).await?;
        Ok(answer)
    }

    /// Writes all changes and commits.
    async fn write(&self, stored: &Stored, answer: &Committed) -> Result<(), Failure> {
        let (options, batch, locked) = (self.options, self.batch, self.locked);
        let changes = batch.maps.iter().map(|part| {
            let mut changes = Changes::new(ledger::applied(part, &answer.skipped));
            if locked.is_adopted(&part.map) {
                changes.expect_absent(|key| stored.is_absent(&part.map, key));
            }
            changes
        });
        let changes: Vec<_> = changes.collect();
        let parts = batch.maps.iter().zip(&changes);
        let parts = parts.filter_map(|(part, changes)| {
            let entry = locked.entry(&part.map)?;
            Some(Part::new(options, entry, part, changes, false))
        });
        let parts: Vec<_> = parts.collect();
        let revision = answer.revision.unwrap_or_default();
        let mut more = writers::note_skipped(options, batch, locked.last, answer)?;
        more.extend(self.shared.prune_by_the_way(batch));
        let counters = set_revision(options, locked, revision)?;
        let note = writers::note(options, batch, locked.last, answer)?;
        let end = format!("{counters}{note}; COMMIT");
        let stamp = Stamp {
            writer: batch.id.writer,
            at: batch.at,
            revision: &from_revision(revision)?.to_string(),
        };
        send(self.session, &parts, stamp, more, &end).await
    }
}

//! Sends all changes of a batch and its commit as one pipeline.

use futures_util::FutureExt;

use super::{
    adopted,
    catalog::Entry,
    changes::{Changes, Stamp},
    errors::{Cause, Failure},
    options::Options,
    own, refusals,
    sessions::Session,
    statement::{Statement, pipelined},
    table::Table,
    tombstones::Tombstones,
    trigger_checks::{self, Checks},
    watermarks::Watermark,
};
use crate::{batch::MapBatch, name::MapName, provider::sql::failure::Subject};

/// The changes to one map.
pub(super) struct Part<'a> {
    options: &'a Options,
    map: &'a MapName,
    clear: bool,
    table: Table,
    /// The tombstones of a table that this provider created.
    tombstones: Option<Tombstones>,
    changes: &'a Changes<'a>,
    /// Whether entries that are likely new are inserted.
    hints: bool,
    /// Checks that triggers ignored no change, if the table has triggers.
    checks: Option<Checks>,
}

impl<'a> Part<'a> {
    /// The changes of a part of a batch, for the map of an entry.
    pub(super) fn new(
        options: &'a Options,
        entry: &Entry,
        part: &'a MapBatch,
        changes: &'a Changes<'a>,
        hints: bool,
    ) -> Self {
        Self {
            options,
            map: &part.map,
            clear: part.clear,
            table: entry.table(options),
            tombstones: entry.tombstones(options),
            changes,
            hints,
            checks: entry.has_triggers.then(|| Checks::new(options)),
        }
    }

    /// The statements that clear the table first, if the part does.
    fn clears(&self, revision: &str) -> Vec<Statement<'a>> {
        if !self.clear {
            return Vec::new();
        }
        let mut statements = adopted::clear(&self.table, revision);
        if let Some(tombstones) = &self.tombstones {
            statements.push(tombstones.clear(revision));
            statements.push(Watermark::Cleared.set(self.options, self.map, revision));
        }
        let checks = self.checks.as_ref();
        statements.extend(checks.map(|checks| checks.cleared(&self.table)));
        statements
    }

    /// The statements that change single entries.
    fn writes(&self, stamp: Stamp<'_>) -> Vec<Statement<'a>> {
        let (table, changes) = (&self.table, self.changes);
        let mut statements = match (&table.adopted, &self.tombstones) {
            (Some(adopted), _) => return adopted.statements(table, changes, stamp),
            (None, Some(tombstones)) => {
                own::statements(table, tombstones, changes, stamp, self.hints)
            }
            (None, None) => Vec::new(),
        };
        let checks = self.checks.as_ref();
        statements.extend(checks.into_iter().flat_map(|c| c.changed(table, changes)));
        statements
    }

    fn refused(&self, cause: tokio_postgres::Error) -> Failure {
        let values = self.table.values;
        let keys = refusals::keys_to_blame(values, self.changes);
        Failure::Database(
            Cause::Values(cause, values),
            Subject::Rows(self.map.clone(), keys),
        )
    }
}

/// Sends all changes, the other statements, and the end of the transaction. The commit is
/// a message of its own, which commits nothing if a statement before it failed.
pub(super) async fn send(
    session: &Session,
    parts: &[Part<'_>],
    stamp: Stamp<'_>,
    more: Vec<Statement<'_>>,
    end: &str,
) -> Result<(), Failure> {
    let mut statements = Vec::new();
    let mut parts_of = Vec::new();
    for part in parts {
        refusals::check_sizes(&part.table, part.changes)?;
        refusals::check_texts(&part.table, part.changes)?;
        refusals::check_keys(&part.table, part.changes)?;
        statements.extend(part.clears(stamp.revision));
        parts_of.resize(statements.len(), (part, true));
        statements.extend(part.writes(stamp));
        parts_of.resize(statements.len(), (part, false));
    }
    statements.extend(more);
    let answers = send_all(session, &statements, end).await;
    let (failed, cause) = match first_failed(answers.map_err(Failure::committing)?) {
        Ok(changed) => return check_rows(&statements, &changed, &parts_of),
        Err(failed) => failed,
    };
    let failure = match parts_of.get(failed) {
        // No later entry can be the cause.
        Some((part, true)) => Failure::from(cause).on_map(part.map),
        Some((part, false)) => part.refused(cause),
        None => Failure::on_commit(Cause::Sql(cause)),
    };
    Err(failure.committing())
}

/// The number of rows that each statement changed; or the first failed one, by index.
fn first_failed(answers: Vec<Answer>) -> Result<Vec<u64>, (usize, tokio_postgres::Error)> {
    let answers = answers.into_iter().enumerate();
    answers
        .map(|(n, answer)| answer.map_err(|cause| (n, cause)))
        .collect()
}

/// A trigger that was created a moment ago is noticed by the rows that it ignored, when the
/// rest is already committed. From then on, changes are checked in the transaction.
fn check_rows(
    statements: &[Statement<'_>],
    changed: &[u64],
    parts_of: &[(&Part<'_>, bool)],
) -> Result<(), Failure> {
    let mut all = statements.iter().zip(changed).zip(parts_of);
    match all.find(|((statement, changed), _)| statement.falls_short(**changed)) {
        Some((_, (part, _))) => Err(trigger_checks::refused(part.map).into()),
        None => Ok(()),
    }
}

type Answer = Result<u64, tokio_postgres::Error>;

async fn send_all(
    session: &Session,
    statements: &[Statement<'_>],
    end: &str,
) -> Result<Vec<Answer>, Failure> {
    let client = session.client()?;
    let changes = statements
        .iter()
        .map(|statement| statement.execute(client).boxed());
    let ended = client.batch_execute(end).map(|ended| ended.map(|()| 0));
    let requests = changes.chain([ended.boxed()]).collect::<Vec<_>>();
    let count = requests.len();
    let answers = session.in_time(count, pipelined(requests)).await?;
    // After a failed statement, a separate commit is a rollback.
    if answers.len() == count && answers.last().is_some_and(Result::is_ok) {
        session.ended();
    }
    Ok(answers)
}

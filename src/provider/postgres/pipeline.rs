//! All changes of a batch and its commit, sent in one go.

use std::time::SystemTime;

use futures_util::FutureExt;

use super::{
    adopted,
    changes::Changes,
    errors::{Cause, Failure},
    own, refusals,
    sessions::Session,
    statement::{Statement, pipelined},
    table::Table,
    trigger_checks::{self, Checks},
};
use crate::{name::MapName, provider::sql::failure::Subject};

/// The changes to one map.
pub(super) struct Part<'a> {
    pub(super) map: &'a MapName,
    pub(super) clear: bool,
    pub(super) table: Table,
    pub(super) changes: &'a Changes<'a>,
    /// Whether entries that are likely new are inserted.
    pub(super) hints: bool,
    /// The checks that triggers ignored no change, where there are triggers.
    pub(super) checks: Option<Checks>,
}

impl<'a> Part<'a> {
    /// The statements that empty the table first, if the part does. The revision is
    /// a piece of SQL. Where that is `NULL`, nothing is changed.
    fn clears(&self, revision: &str) -> Vec<Statement<'a>> {
        if !self.clear {
            return Vec::new();
        }
        let mut statements = adopted::clear(&self.table, revision);
        let checks = self.checks.as_ref();
        statements.extend(checks.map(|checks| checks.cleared(&self.table)));
        statements
    }

    /// The statements that change single entries, in the same way.
    fn writes(&self, at: SystemTime, revision: &str) -> Vec<Statement<'a>> {
        match &self.table.adopted {
            None => {
                let (table, changes) = (&self.table, self.changes);
                let mut statements = own::statements(table, changes, at, revision, self.hints);
                let checks = self.checks.as_ref();
                statements.extend(checks.into_iter().flat_map(|c| c.changed(table, changes)));
                statements
            }
            Some(adopted) => adopted.statements(&self.table, self.changes, at, revision),
        }
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

/// Sends all changes, the other statements, and the end of the transaction: a
/// message of its own, which commits nothing if a statement before it failed.
pub(super) async fn send(
    session: &Session,
    parts: &[Part<'_>],
    (at, revision): (SystemTime, &str),
    more: Vec<Statement<'_>>,
    end: &str,
) -> Result<(), Failure> {
    let mut statements = Vec::new();
    let mut parts_of = Vec::new();
    for part in parts {
        refusals::check_sizes(&part.table, part.changes)?;
        refusals::check_keys(&part.table, part.changes)?;
        statements.extend(part.clears(revision));
        parts_of.resize(statements.len(), (part, true));
        statements.extend(part.writes(at, revision));
        parts_of.resize(statements.len(), (part, false));
    }
    statements.extend(more);
    let answers = send_all(session, &statements, end).await;
    let (failed, cause) = match first_failed(answers.map_err(Failure::committing)?) {
        Ok(changed) => return check_rows(&statements, &changed, &parts_of),
        Err(failed) => failed,
    };
    let failure = match parts_of.get(failed) {
        // No entry that comes after it is to blame.
        Some((part, true)) => Failure::from(cause).on_map(part.map),
        Some((part, false)) => part.refused(cause),
        None => Failure::on_commit(Cause::Sql(cause)),
    };
    Err(failure.committing())
}

/// How many rows each has changed; or the first that failed, by its place.
fn first_failed(answers: Vec<Answer>) -> Result<Vec<u64>, (usize, tokio_postgres::Error)> {
    let answers = answers.into_iter().enumerate();
    answers
        .map(|(n, answer)| answer.map_err(|cause| (n, cause)))
        .collect()
}

/// A trigger that was made a moment ago shows by the rows that it ignored, when the
/// rest is committed already. From then on changes are checked in the transaction.
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
    // After a failed statement, a commit that comes alone is a rollback.
    if answers.len() == count && answers.last().is_some_and(Result::is_ok) {
        session.ended();
    }
    Ok(answers)
}

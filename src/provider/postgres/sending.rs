//! The changes of a batch on their way to the server, and what it means if it
//! does not take them.

use std::time::SystemTime;

use futures_util::FutureExt;

use super::{
    adopted,
    connections::Lease,
    errors::{Blame, Fault},
    left_out::{self, Checks},
    own,
    pipeline::{self, Statement},
    refusals,
    sorted::Sorted,
    table::Table,
};
use crate::name::MapName;

/// The changes to one map.
pub(super) struct Part<'a> {
    pub(super) map: &'a MapName,
    pub(super) clear: bool,
    pub(super) table: Table,
    pub(super) sorted: &'a Sorted<'a>,
    /// Whether the hints as to what is new are taken at their word.
    pub(super) hints: bool,
    /// What shows that nothing was left out, where that has to be looked for.
    pub(super) checks: Option<Checks>,
}

impl<'a> Part<'a> {
    /// What empties the table first, if anything does. The revision is given as
    /// the SQL of it. Where that is `NULL`, nothing is changed.
    fn clears(&self, revision: &str) -> Vec<Statement<'a>> {
        if !self.clear {
            return Vec::new();
        }
        let mut statements = adopted::clear(&self.table, revision);
        let checks = self.checks.as_ref();
        statements.extend(checks.map(|checks| checks.cleared(&self.table)));
        statements
    }

    /// What changes single entries, in the same way.
    fn changes(&self, at: SystemTime, revision: &str) -> Vec<Statement<'a>> {
        match &self.table.adopted {
            None => {
                let (table, sorted) = (&self.table, self.sorted);
                let mut statements = own::statements(table, sorted, at, revision, self.hints);
                let checks = self.checks.as_ref();
                statements.extend(checks.into_iter().flat_map(|c| c.changed(table, sorted)));
                statements
            }
            Some(adopted) => adopted.statements(&self.table, self.sorted, at, revision),
        }
    }

    fn fault(&self, cause: tokio_postgres::Error) -> Fault {
        let values = self.table.values;
        let keys = refusals::keys_to_blame(values, self.sorted);
        Fault::Rows(cause, self.map.clone(), Blame { keys, values })
    }
}

/// Sends all changes, what else there is to write, and what ends the
/// transaction: a message of its own, which commits nothing if anything before
/// it failed.
pub(super) async fn send(
    lease: &Lease,
    parts: &[Part<'_>],
    (at, revision): (SystemTime, &str),
    more: Vec<Statement<'_>>,
    end: &str,
) -> Result<(), Fault> {
    let mut statements = Vec::new();
    let mut parts_of = Vec::new();
    for part in parts {
        refusals::check_sizes(&part.table, part.sorted)?;
        refusals::check_keys(&part.table, part.sorted)?;
        statements.extend(part.clears(revision));
        parts_of.resize(statements.len(), (part, true));
        statements.extend(part.changes(at, revision));
        parts_of.resize(statements.len(), (part, false));
    }
    statements.extend(more);
    let answers = send_all(lease, &statements, end).await;
    let (failed, cause) = match first_failed(answers.map_err(Fault::committing)?) {
        Ok(changed) => return check_rows(&statements, &changed, &parts_of),
        Err(failed) => failed,
    };
    let fault = match parts_of.get(failed) {
        // No entry that comes after it is to blame.
        Some((part, true)) => Fault::Table(cause, part.map.clone()),
        Some((part, false)) => part.fault(cause),
        None => Fault::End(cause),
    };
    Err(fault.committing())
}

/// How many rows each has changed; or the first that failed, by its place.
fn first_failed(answers: Vec<Answer>) -> Result<Vec<u64>, (usize, tokio_postgres::Error)> {
    let answers = answers.into_iter().enumerate();
    answers
        .map(|(n, answer)| answer.map_err(|cause| (n, cause)))
        .collect()
}

/// Whoever began to meddle with the table a moment ago is found out by what it
/// has left out, once all the rest was committed: whatever is tried again from
/// then on is looked for in the transaction.
fn check_rows(
    statements: &[Statement<'_>],
    changed: &[u64],
    parts_of: &[(&Part<'_>, bool)],
) -> Result<(), Fault> {
    let mut all = statements.iter().zip(changed).zip(parts_of);
    match all.find(|((statement, changed), _)| statement.falls_short(**changed)) {
        Some((_, (part, _))) => Err(left_out::refused(part.map).into()),
        None => Ok(()),
    }
}

type Answer = Result<u64, tokio_postgres::Error>;

async fn send_all(
    lease: &Lease,
    statements: &[Statement<'_>],
    end: &str,
) -> Result<Vec<Answer>, Fault> {
    let client = lease.client()?;
    let changes = statements
        .iter()
        .map(|statement| statement.execute(client).boxed());
    let ended = client.batch_execute(end).map(|ended| ended.map(|()| 0));
    let requests = changes.chain([ended.boxed()]).collect::<Vec<_>>();
    lease.in_time(requests.len(), pipeline::all(requests)).await
}

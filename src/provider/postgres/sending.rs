//! The changes of a batch on their way to the server, and what it means if it
//! does not take them.

use std::time::SystemTime;

use futures_util::FutureExt;

use super::{
    adopted,
    connections::Lease,
    errors::{Blame, Fault},
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
}

impl<'a> Part<'a> {
    /// What empties the table first, if anything does. The revision is given as
    /// the SQL of it. Where that is `NULL`, nothing is changed.
    fn clears(&self, revision: &str) -> Vec<Statement<'a>> {
        if self.clear {
            adopted::clear(&self.table, revision)
        } else {
            Vec::new()
        }
    }

    /// What changes single entries, in the same way.
    fn changes(&self, at: SystemTime, revision: &str) -> Vec<Statement<'a>> {
        match &self.table.adopted {
            None => own::statements(&self.table, self.sorted, at, revision, self.hints),
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
    let failed = send_all(lease, &statements, end).await;
    let Some((failed, cause)) = failed.map_err(Fault::committing)? else {
        return Ok(());
    };
    let fault = match parts_of.get(failed) {
        // No entry that comes after it is to blame.
        Some((part, true)) => Fault::Table(cause, part.map.clone()),
        Some((part, false)) => part.fault(cause),
        None => Fault::End(cause),
    };
    Err(fault.committing())
}

/// The first that failed, by its place, if any did.
async fn send_all(
    lease: &Lease,
    statements: &[Statement<'_>],
    end: &str,
) -> Result<Option<(usize, tokio_postgres::Error)>, Fault> {
    let client = lease.client()?;
    let changes = statements
        .iter()
        .map(|statement| statement.execute(client).boxed());
    let ended = client.batch_execute(end).map(|ended| ended.map(|()| 0));
    let requests = changes.chain([ended.boxed()]).collect::<Vec<_>>();
    let answers = lease
        .in_time(requests.len(), pipeline::all(requests))
        .await?;
    let mut failed = answers.into_iter().enumerate();
    Ok(failed.find_map(|(n, answer)| Some((n, answer.err()?))))
}

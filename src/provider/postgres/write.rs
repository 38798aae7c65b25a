//! A batch, in one transaction.
//!
//! It takes two round trips, and one more if there are conditions. The first
//! begins the transaction, locks the counters of the maps in the order of their
//! names, and then the row of the writer. Each of these is a statement of its
//! own, which sees what was committed while the one before it waited. So from
//! there on no one else commits to these maps, or for this writer, until this
//! transaction ends: revisions are given out in the order of the commits,
//! whichever processes they come from. The second round trip carries all
//! changes and the commit.
//!
//! Nothing is sent that changes anything before the locks are held and the
//! turn of the batch is known. So a batch that is given up before that never
//! lands; one that is given up later holds the locks for as long as it may
//! still land, and what comes after it waits, and then sees what became of it.

use std::collections::BTreeSet;

use futures_util::{FutureExt, future::join3};
use tokio_postgres::types::Type;

use super::{
    adopted,
    builder::Options,
    connections::{Connections, Lease},
    errors::{Blame, Fault},
    judge::Judge,
    own,
    pipeline::{self, Statement},
    place::{self, PLACE, Place},
    refusals, schema,
    sorted::Sorted,
    table::Table,
    values::revision_to,
    writers::{self, Last},
};
use crate::{
    batch::{Batch, Committed, MapBatch, Turn},
    error::{Error, ErrorKind, Result},
    name::MapName,
    record::Revision,
};

/// How often tables are made and then found to be missing again.
const MAX_ROUNDS: usize = 4;

/// Applies the batch, whole or not at all.
pub(super) async fn commit(
    connections: &Connections,
    options: &Options,
    batch: &Batch,
) -> Result<Committed, Fault> {
    for _ in 0..MAX_ROUNDS {
        let (lease, locked) = begin(connections, options, batch).await?;
        let missing = locked.missing(batch);
        if missing.is_empty() {
            return match commit_locked(&lease, options, batch, locked).await {
                Ok(answer) => {
                    lease.give_back();
                    Ok(answer)
                }
                Err(fault) => Err(lease.abandon(fault).await),
            };
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

/// What was locked.
pub(super) struct Locked {
    /// In the order of the maps' names.
    pub(super) places: Vec<Place>,
    last: Option<Last>,
}

impl Locked {
    fn missing<'b>(&self, batch: &'b Batch) -> BTreeSet<&'b MapName> {
        let maps = batch.maps.iter().map(|part| &part.map);
        maps.filter(|map| self.place(map).is_none()).collect()
    }

    pub(super) fn place(&self, map: &MapName) -> Option<&Place> {
        self.places.iter().find(|place| place.map == *map)
    }

    /// The highest revision that any of the maps was given.
    pub(super) fn revision(&self) -> Revision {
        let revisions = self.places.iter().map(|place| place.revision);
        revisions.max().unwrap_or_default()
    }
}

/// Begins the transaction and locks what it needs, on a connection that is
/// there: nothing is changed yet, so a stale one is no one's trouble.
async fn begin(
    connections: &Connections,
    options: &Options,
    batch: &Batch,
) -> Result<(Lease, Locked), Fault> {
    loop {
        let lease = connections.lease().await?;
        match lock(&lease, options, batch).await {
            Ok(locked) => return Ok((lease, locked)),
            Err(fault) if lease.was_stale(&fault) => {}
            Err(fault) => return Err(lease.abandon(fault).await),
        }
    }
}

async fn lock(lease: &Lease, options: &Options, batch: &Batch) -> Result<Locked, Fault> {
    let client = lease.client()?;
    let begin = schema::begin(options);
    let counters = format!(
        "SELECT {PLACE} FROM {} WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE",
        options.qualified("persistify_maps")
    );
    let names: Vec<&str> = batch.maps.iter().map(|part| part.map.as_str()).collect();
    let counters = Statement::new(counters).with(names, Type::TEXT_ARRAY);
    let writer = writers::lock(options, batch.id.writer);
    let answers = join3(
        client.batch_execute(&begin),
        counters.rows(client),
        client.query_typed_opt(&writer, &[]),
    );
    let (started, counters, writer) = lease.in_time(3, answers).await?;
    started?;
    let places = counters?
        .iter()
        .map(Place::read)
        .collect::<Result<_, _>>()?;
    let last = writer?.as_ref().map(Last::read).transpose()?;
    Ok(Locked { places, last })
}

async fn commit_locked(
    lease: &Lease,
    options: &Options,
    batch: &Batch,
    locked: Locked,
) -> Result<Committed, Fault> {
    let last = locked.last;
    match (batch.id.turn(last.map(|last| last.sequence)), last) {
        (Turn::Repeat, Some(last)) => {
            let answer = writers::answer(lease, options, batch.id.writer, last).await?;
            let ended = lease.client()?.batch_execute("ROLLBACK");
            lease.answer(ended).await?;
            return Ok(answer);
        }
        (Turn::Superseded, _) => return Err(superseded().into()),
        _ => {}
    }
    let judge = Judge::all(lease, options, batch, &locked).await?;
    let answer = Committed::at(judge.next_revision()).with_skipped(judge.skipped);
    apply(lease, options, batch, &locked, &answer).await?;
    Ok(answer)
}

fn superseded() -> Error {
    Error::new(
        ErrorKind::Superseded,
        "a later batch of this writer was committed already",
    )
}

/// The changes to one map.
struct Part<'a> {
    map: &'a MapName,
    clear: bool,
    table: Table,
    sorted: Sorted<'a>,
}

impl<'a> Part<'a> {
    fn new(options: &Options, place: &Place, part: &'a MapBatch, answer: &Committed) -> Self {
        // Skipped changes come in the order of the changes, so one walk along
        // both finds them.
        let skipped = answer.skipped.iter().filter(|s| s.map == part.map);
        let mut skipped = skipped.peekable();
        let changes = part.changes.iter();
        let changes = changes.filter(|change| skipped.next_if(|s| s.key == change.key).is_none());
        Self {
            map: &part.map,
            clear: part.clear,
            table: place.table(options),
            sorted: Sorted::new(changes),
        }
    }

    fn statements(&'a self, batch: &Batch, revision: i64) -> Vec<Statement<'a>> {
        let mut statements = if self.clear {
            adopted::clear(&self.table)
        } else {
            Vec::new()
        };
        statements.extend(match &self.table.adopted {
            None => own::statements(&self.table, &self.sorted, batch.at, revision),
            Some(adopted) => adopted.statements(&self.table, &self.sorted, batch.at, revision),
        });
        statements
    }
}

/// Writes all changes and commits. The end is one message of its own, which
/// the server gives up at the first statement if anything before it failed:
/// the commit is not even tried then.
async fn apply(
    lease: &Lease,
    options: &Options,
    batch: &Batch,
    locked: &Locked,
    answer: &Committed,
) -> Result<(), Fault> {
    let parts = batch.maps.iter().filter_map(|part| {
        let place = locked.place(&part.map)?;
        Some(Part::new(options, place, part, answer))
    });
    let parts: Vec<_> = parts.collect();
    refusals::check_keys(
        &parts
            .iter()
            .map(|p| (p.map, &p.table, &p.sorted))
            .collect::<Vec<_>>(),
    )?;
    let revision = revision_to(answer.revision.unwrap_or_default())?;
    let mut statements = Vec::new();
    let mut parts_of = Vec::new();
    for part in &parts {
        statements.extend(part.statements(batch, revision));
        parts_of.resize(statements.len(), part);
    }
    statements.extend(writers::note_skipped(options, batch, locked.last, answer)?);
    let end = end(options, batch, locked, answer)?;
    let sent = send(lease, &statements, &end)
        .await
        .map_err(Fault::committing)?;
    let Some((failed, cause)) = sent else {
        return Ok(());
    };
    let fault = match parts_of.get(failed) {
        Some(part) => Fault::Rows(cause, part.map.clone(), blame(part)),
        None => Fault::Sql(cause),
    };
    Err(fault.committing())
}

fn blame(part: &Part<'_>) -> Blame {
    Blame {
        keys: refusals::keys_to_blame(part.table.values, &part.sorted),
        values: part.table.values,
    }
}

/// The first that failed, by its place, if any did.
async fn send(
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

/// What ends the transaction: the counters, the writer, and the commit.
fn end(options: &Options, batch: &Batch, locked: &Locked, answer: &Committed) -> Result<String> {
    let note = writers::note(options, batch, locked.last, answer)?;
    let counters = set_revision(options, locked, answer.revision.unwrap_or_default())?;
    Ok(format!("{counters}{note}; COMMIT"))
}

/// What raises the counters of the maps to that revision.
pub(super) fn set_revision(options: &Options, locked: &Locked, to: Revision) -> Result<String> {
    let ids: Vec<_> = locked
        .places
        .iter()
        .map(|place| place.id.to_string())
        .collect();
    if ids.is_empty() {
        return Ok(String::new());
    }
    let maps = options.qualified("persistify_maps");
    let to = revision_to(to)?;
    let ids = ids.join(", ");
    Ok(format!(
        "UPDATE {maps} SET revision = {to} WHERE id IN ({ids}); "
    ))
}

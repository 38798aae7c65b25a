//! How what other programs wrote to a table of theirs is noticed: each row's
//! digest is noted in the table beside it.

use rusqlite::{CachedStatement, Connection, params};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    errors::Fault,
    rows::{Stored, revision_to},
    schema,
    table::{Adopted, Table},
    wanted,
};
use crate::{error::Result, load::Wanted};

/// Notes in the table beside an adopted one what is known of a row.
pub(super) struct Note<'c> {
    statement: CachedStatement<'c>,
    revision: i64,
}

impl<'c> Note<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        companion: &str,
        revision: i64,
    ) -> rusqlite::Result<Self> {
        let sql = format!(
            "INSERT INTO {companion} (key, revision, expires_at, schema, digest)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (key) DO UPDATE SET
                revision = excluded.revision, expires_at = excluded.expires_at,
                schema = excluded.schema, digest = excluded.digest"
        );
        Ok(Self {
            statement: connection.prepare_cached(&sql)?,
            revision,
        })
    }

    pub(super) fn add(
        &mut self,
        key: &str,
        expires_at: Option<i64>,
        schema: u32,
        digest: [u8; 16],
    ) -> rusqlite::Result<()> {
        let parameters = params![key, self.revision, expires_at, schema, digest];
        self.statement.execute(parameters).map(drop)
    }

    /// A value that is not the one last seen is a fresh entry, without expiry.
    fn if_new(&mut self, stored: &mut Stored) -> rusqlite::Result<bool> {
        let digest = digest_of(&stored.value);
        if stored.digest == Some(digest) {
            return Ok(false);
        }
        self.add(&stored.key, None, 0, digest)?;
        stored.revision = Some(self.revision);
        stored.expires_at = None;
        stored.schema = None;
        stored.digest = Some(digest);
        Ok(true)
    }
}

pub(super) fn digest_of(value: &[u8]) -> [u8; 16] {
    xxh3_128(value).to_be_bytes()
}

/// Gives a row the revision if another program wrote it since it was last
/// seen; says whether it did.
pub(super) fn note_if_new(
    connection: &Connection,
    table: &Table,
    stored: &mut Stored,
    revision: i64,
) -> Result<bool, Fault> {
    let Some(Adopted { companion, .. }) = &table.adopted else {
        return Ok(false);
    };
    Ok(Note::new(connection, companion, revision)?.if_new(stored)?)
}

/// Notes what another program wrote or deleted among the wanted rows; says
/// whether there was anything.
pub(super) fn note_all(
    connection: &Connection,
    table: &Table,
    wanted: &Wanted,
) -> Result<bool, Fault> {
    let Some(Adopted { companion, .. }) = &table.adopted else {
        return Ok(false);
    };
    let revision = schema::revision_now(connection)?;
    let mut note = Note::new(connection, companion, revision_to(revision)?)?;
    // All of them, if the wanted ones are those that turn out to have changed.
    let among = match wanted {
        Wanted::Changed { .. } => &Wanted::All,
        other => other,
    };
    let mut changed = false;
    wanted::for_each(connection, table, among, |mut stored| {
        changed |= note.if_new(&mut stored)?;
        Ok(())
    })?;
    if *among == Wanted::All {
        changed |= forget_deleted(connection, table, companion)?;
    }
    if changed {
        schema::set_revision(connection, revision)?;
    }
    Ok(changed)
}

fn forget_deleted(
    connection: &Connection,
    table: &Table,
    companion: &str,
) -> rusqlite::Result<bool> {
    let sql = format!(
        "DELETE FROM {companion} AS c WHERE NOT EXISTS
            (SELECT 1 FROM {} AS t WHERE {} = c.key)",
        table.name,
        table.key_by_bytes()
    );
    Ok(connection.execute(&sql, [])? > 0)
}

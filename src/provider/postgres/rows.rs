//! Converts rows into records.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    errors::Failure,
    keys,
    sessions::Session,
    statement::Statement,
    table::Table,
    tombstones::cause_of,
    values::{Moment, Raw},
};
use crate::{
    error::{Error, ErrorKind},
    provider::sql::numbers::to_revision,
    record::{Deletion, Payload, Record, Revision},
    writer_id::WriterId,
};

/// The number of columns of every query for records, in this order: key, long key, value,
/// written at, revision, expires at, schema, writer. Only a tombstone has a writer; its
/// schema is the cause of the deletion.
pub(super) const COLUMNS: usize = 8;

/// The columns of a row, in the binary format of Postgres.
pub(super) type Fields<'a> = [Option<&'a [u8]>; COLUMNS];

/// A row of a table.
pub(super) struct Stored {
    /// The content of the key column.
    pub(super) row_key: Option<Box<str>>,
    pub(super) record: Record,
}

/// The columns of a row of a query result.
pub(super) fn fields_of(row: &Row) -> Result<Fields<'_>, Failure> {
    let mut fields = Fields::default();
    for (n, field) in fields.iter_mut().enumerate() {
        *field = row.try_get::<_, Option<Raw<'_>>>(n)?.map(|raw| raw.0);
    }
    Ok(fields)
}

/// Decodes rows of a table.
pub(super) struct Reading<'a> {
    pub(super) table: &'a Table,
    /// The revision for rows of an adopted table without one: another program has just
    /// written them.
    pub(super) horizon: Revision,
}

impl Reading<'_> {
    pub(super) fn record(
        &self,
        fields: &Fields<'_>,
        bytes: impl FnOnce(&[u8]) -> Bytes,
    ) -> Result<Record, Failure> {
        let [
            key,
            long,
            value,
            updated_at,
            revision,
            expires_at,
            schema,
            writer,
        ] = *fields;
        let key = long.or(key).ok_or_else(|| self.corrupt(&self.table.key))?;
        let key = self.text(key)?;
        let revision = self.number(revision)?.map_or(self.horizon, to_revision);
        let moment = |field| Ok::<_, Failure>(self.number(field)?.map(|n| Moment(n).time()));
        let updated_at = moment(updated_at)?;
        let schema = self.number(schema)?.unwrap_or_default();
        if let Some(writer) = writer {
            let deletion = Deletion::new(cause_of(schema), self.writer(writer)?);
            let tombstone = Record::deleted(self.key(key), revision, deletion);
            return Ok(tombstone.with_updated_at(updated_at));
        }
        let payload = match value {
            Some(value) => self.table.values.payload(value, schema, bytes),
            None => Some(Payload::json("null")),
        };
        let payload = payload.ok_or_else(|| self.corrupt("schema"))?;
        Ok(Record::new(self.key(key), Some(payload), revision)
            .with_expires_at(moment(expires_at)?)
            .with_updated_at(updated_at))
    }

    pub(super) fn row(&self, row: &Row) -> Result<Stored, Failure> {
        let fields = fields_of(row)?;
        let record = self.record(&fields, Bytes::copy_from_slice)?;
        let is_long = fields[1].is_some();
        let row_key = fields[0].filter(|_| is_long).map(|key| self.text(key));
        Ok(Stored {
            row_key: row_key.transpose()?.map(Box::from),
            record,
        })
    }

    fn key(&self, stored: &str) -> Arc<str> {
        match self.table.adopted {
            Some(_) => stored.into(),
            None => match keys::unescaped(stored) {
                Cow::Borrowed(key) => key.into(),
                Cow::Owned(key) => key.into(),
            },
        }
    }

    fn text<'f>(&self, field: &'f [u8]) -> Result<&'f str, Failure> {
        std::str::from_utf8(field).map_err(|_| self.corrupt(&self.table.key))
    }

    fn writer(&self, field: &[u8]) -> Result<WriterId, Failure> {
        let number = field.try_into().map(u128::from_be_bytes);
        number
            .map(WriterId::new)
            .map_err(|_| self.corrupt("writer"))
    }

    fn number(&self, field: Option<&[u8]>) -> Result<Option<i64>, Failure> {
        let number = field.map(|bytes| bytes.try_into().map(i64::from_be_bytes));
        number
            .transpose()
            .map_err(|_| self.corrupt("a number or a time"))
    }

    fn corrupt(&self, column: &str) -> Failure {
        let message = format!(
            "a row of the table {} holds something that does not belong there, in {column}; change that row, nothing was overwritten",
            self.table.name
        );
        Error::new(ErrorKind::Corrupt, message)
            .on_map(&self.table.map)
            .into()
    }
}

/// The rows of a query result.
pub(super) async fn rows(
    session: &Session,
    table: &Table,
    statement: &Statement<'_>,
    horizon: Revision,
) -> Result<Vec<Stored>, Failure> {
    let rows = session.rows(statement).await?;
    let reading = Reading { table, horizon };
    rows.iter().map(|row| reading.row(row)).collect()
}

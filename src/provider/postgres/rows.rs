//! One row, as Postgres has it, to and from what the crate has.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    connections::Lease,
    errors::Fault,
    keys,
    pipeline::Statement,
    table::Table,
    values::{Moment, Raw, revision_from},
};
use crate::{
    error::{Error, ErrorKind},
    record::{Payload, Record, Revision},
};

/// How many columns every select of records has, in this order: key, long key,
/// value, written at, revision, expires at, schema.
pub(super) const COLUMNS: usize = 7;

/// The columns of a row, in Postgres's binary form.
pub(super) type Fields<'a> = [Option<&'a [u8]>; COLUMNS];

/// A row of a table.
pub(super) struct Stored {
    /// The key as its column has it.
    pub(super) row_key: Option<Box<str>>,
    pub(super) record: Record,
}

/// The columns of a row that came as the answer to a query.
pub(super) fn fields_of(row: &Row) -> Result<Fields<'_>, Fault> {
    let mut fields = Fields::default();
    for (n, field) in fields.iter_mut().enumerate() {
        *field = row.try_get::<_, Option<Raw<'_>>>(n)?.map(|raw| raw.0);
    }
    Ok(fields)
}

/// Reads rows of a table.
pub(super) struct Reading<'a> {
    pub(super) table: &'a Table,
    /// For rows of which nothing else is known: another program wrote them in
    /// the very moment.
    pub(super) horizon: Revision,
}

impl Reading<'_> {
    pub(super) fn record(
        &self,
        fields: &Fields<'_>,
        bytes: impl FnOnce(&[u8]) -> Bytes,
    ) -> Result<Record, Fault> {
        let [key, long, value, updated_at, revision, expires_at, schema] = *fields;
        let key = long.or(key).ok_or_else(|| self.corrupt(&self.table.key))?;
        let key = self.text(key)?;
        let value = value.map_or(Bytes::from_static(b"null"), |value| {
            bytes(self.table.text(value))
        });
        let schema = self.number(schema)?.unwrap_or_default();
        let schema = u32::try_from(schema).map_err(|_| self.corrupt("schema"))?;
        let payload = Payload::json(value).with_schema(schema);
        let revision = self.number(revision)?.map_or(self.horizon, revision_from);
        let moment = |field| Ok::<_, Fault>(self.number(field)?.map(|n| Moment(n).time()));
        Ok(Record::new(self.key(key), Some(payload), revision)
            .with_expires_at(moment(expires_at)?)
            .with_updated_at(moment(updated_at)?))
    }

    pub(super) fn row(&self, row: &Row) -> Result<Stored, Fault> {
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

    fn text<'f>(&self, field: &'f [u8]) -> Result<&'f str, Fault> {
        std::str::from_utf8(field).map_err(|_| self.corrupt(&self.table.key))
    }

    fn number(&self, field: Option<&[u8]>) -> Result<Option<i64>, Fault> {
        let number = field.map(|bytes| bytes.try_into().map(i64::from_be_bytes));
        number
            .transpose()
            .map_err(|_| self.corrupt("a number or a time"))
    }

    fn corrupt(&self, column: &str) -> Fault {
        let message = format!(
            "a row of the table {} holds something that does not belong there, in {column}; change that row, nothing was overwritten",
            self.table.name
        );
        Fault::Ours(Error::new(ErrorKind::Corrupt, message).on_map(&self.table.map))
    }
}

/// The rows that a query answers with.
pub(super) async fn rows(
    lease: &Lease,
    table: &Table,
    statement: &Statement<'_>,
    horizon: Revision,
) -> Result<Vec<Stored>, Fault> {
    let rows = lease.answer(statement.rows(lease.client()?)).await?;
    let reading = Reading { table, horizon };
    rows.iter().map(|row| reading.row(row)).collect()
}

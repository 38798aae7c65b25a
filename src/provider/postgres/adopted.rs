//! Adopted tables: writing entries to them, and recording what other programs wrote.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::{
    changes::{Changes, Put, Stamp, Touch},
    errors::Failure,
    sessions::Session,
    statement::Statement,
    table::{Adopted, Table},
    times::Time,
};
use crate::load::Wanted;

impl Adopted {
    /// The statements for one batch.
    pub(super) fn statements<'a>(
        &self,
        table: &Table,
        changes: &'a Changes<'a>,
        stamp: Stamp<'_>,
    ) -> Vec<Statement<'a>> {
        let Stamp { at, revision, .. } = stamp;
        let mut statements = Vec::new();
        for puts in changes.chunks(table.values) {
            statements.push(self.put(table, puts, at));
            statements.push(self.note(table, puts, revision));
        }
        if !changes.touches.is_empty() {
            statements.push(self.touch(table, &changes.touches, revision));
        }
        if !changes.deletes.is_empty() {
            let keys = || changes.deletes.iter().map(|delete| delete.key.plain);
            let companion = &self.companion.name;
            let of_keys = format!("WHERE t.{} = ANY($1)", table.key);
            let delete = format!("DELETE FROM {} AS t {of_keys}", table.name);
            // Fails if a row is still there, because a trigger ignored its
            // deletion.
            let check = format!(
                "INSERT INTO {companion} (key, revision, digest)
                 SELECT c.key, c.revision, NULL
                 FROM {} AS t JOIN {companion} AS c ON c.key = {} {of_keys}",
                table.name, self.companion.key_by_bytes
            );
            let forget = format!("DELETE FROM {companion} WHERE key = ANY($1)");
            let all = [delete, check, forget];
            statements.extend(all.map(|sql| Statement::new(sql).array(keys(), Type::TEXT_ARRAY)));
        }
        statements
    }

    /// An upsert rather than a replacement, so that other columns keep their values. If a
    /// condition found no row, it is an insert, which fails if another program has added
    /// the row since.
    fn put<'a>(&self, table: &Table, puts: &'a [Put<'a>], at: SystemTime) -> Statement<'a> {
        let Table {
            name,
            key,
            value,
            updated_at,
            ..
        } = table;
        let mut into = vec![key.as_str(), value];
        let mut put = vec!["u.k".to_owned(), table.values.of_sent("u.v")];
        if self.time != Time::Missing {
            into.push(updated_at);
            put.push(self.time.written("u.a"));
        }
        let set = into[1..].iter().map(|c| format!("{c} = excluded.{c}"));
        let [set, put] = [set.collect::<Vec<_>>(), put].map(|parts| parts.join(", "));
        let into = into.join(", ");
        let or_update = match puts {
            [Put { absent: true, .. }, ..] => String::new(),
            _ => format!("ON CONFLICT ({key}) DO UPDATE SET {set}"),
        };
        Statement::new(format!(
            "INSERT INTO {name} AS t ({into}) SELECT {put}
             FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (k, v, a) {or_update}"
        ))
        .array(puts.iter().map(|put| put.key.plain), Type::TEXT_ARRAY)
        .array(
            puts.iter().map(|put| put.value(table.values)),
            table.values.sent(),
        )
        .array(puts.iter().map(|put| put.at(at)), Type::TIMESTAMPTZ_ARRAY)
    }

    /// Records the values that were put as the table holds them: the column type or a
    /// trigger may have changed them.
    ///
    /// The statement fails if a row is missing or was not written by this transaction,
    /// because a trigger ignored the change or the column cut off trailing blanks of the
    /// key.
    fn note<'a>(&self, table: &Table, puts: &'a [Put<'a>], revision: &str) -> Statement<'a> {
        let sql = self.companion.note(&format!(
            "SELECT u.k, {revision}, u.e, u.s, CASE WHEN age(t.xmin) <= 0 THEN {} END
             FROM unnest($1::text[], $2::timestamptz[], $3::int8[]) AS u (k, e, s)
             LEFT JOIN {} AS t ON t.{} = u.k",
            self.companion.digest, table.name, table.key
        ));
        Statement::new(sql)
            .array(puts.iter().map(|put| put.key.plain), Type::TEXT_ARRAY)
            .array(
                puts.iter().map(|put| put.expires_at),
                Type::TIMESTAMPTZ_ARRAY,
            )
            .array(puts.iter().map(Put::schema), Type::INT8_ARRAY)
    }

    fn touch<'a>(&self, table: &Table, touches: &'a [Touch<'a>], revision: &str) -> Statement<'a> {
        let companion = &self.companion;
        let sql = companion.note(&format!(
            "SELECT {}, {revision}, u.e, coalesce(c.schema, 0), {}
             FROM unnest($1::text[], $2::timestamptz[]) AS u (k, e) JOIN ({}) ON t.{} = u.k",
            companion.key,
            companion.digest,
            companion.joined(),
            table.key
        ));
        Statement::new(sql)
            .array(
                touches.iter().map(|touch| touch.key.plain),
                Type::TEXT_ARRAY,
            )
            .array(
                touches.iter().map(|touch| touch.expires_at),
                Type::TIMESTAMPTZ_ARRAY,
            )
    }

    /// Locks rows until the transaction ends, so that conditions on them still hold at the
    /// commit. A missing row cannot be locked; it has to be inserted.
    pub(super) async fn hold(
        &self,
        session: &Session,
        table: &Table,
        keys: &[String],
    ) -> Result<(), Failure> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} AS t WHERE t.{} = ANY($1)
                ORDER BY {} FOR NO KEY UPDATE) AS held",
            table.name, table.key, self.companion.key_by_bytes
        );
        let held = Statement::new(sql).with(keys, Type::TEXT_ARRAY);
        session.rows(&held).await.map(drop)
    }

    /// Whether the other program wrote anything to these rows that is not noted.
    pub(super) async fn any_new(&self, session: &Session, rows: &Rows) -> Result<bool, Failure> {
        let sql = self.companion.any_new(rows.within.as_deref());
        let found = session.rows(&rows.given_to(sql)).await?;
        let found = found.first().map(|row| row.try_get(0)).transpose()?;
        Ok(found.unwrap_or_default())
    }

    /// Notes what the other program wrote to these rows; returns whether it did.
    pub(super) async fn note_new(
        &self,
        session: &Session,
        rows: &Rows,
        revision: i64,
    ) -> Result<bool, Failure> {
        let sql = self.companion.note_new(rows.within.as_deref(), revision);
        let mut noted = session.execute(&rows.given_to(sql)).await?;
        if rows.within.is_none() {
            let forget = Statement::new(self.companion.forget_deleted());
            noted += session.execute(&forget).await?;
        }
        Ok(noted > 0)
    }
}

/// Some rows of an adopted table: a condition, and its parameter `$1`.
pub(super) struct Rows {
    within: Option<String>,
    given: Given,
}

enum Given {
    Nothing,
    Key(String),
    Keys(Vec<String>),
}

impl Rows {
    /// The rows in which writes of the other program matter to a load.
    pub(super) fn of(table: &Table, adopted: &Adopted, wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Keys(keys) => Self::with_keys(table, table.keys(keys.iter().map(|key| &**key))),
            Wanted::Page { after, limit } => {
                let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
                let after = after.as_deref().map(before_nul);
                Self {
                    within: Some(adopted.companion.is_on_page(after.is_some(), limit)),
                    given: after.map_or(Given::Nothing, |after| Given::Key(after.to_owned())),
                }
            }
            // All of them. A load of changes is answered before.
            Wanted::All | Wanted::Changed { .. } => Self {
                within: None,
                given: Given::Nothing,
            },
        }
    }

    /// The rows of these keys.
    pub(super) fn with_keys(table: &Table, keys: Vec<String>) -> Self {
        Self {
            within: Some(format!("t.{} = ANY($1)", table.key)),
            given: Given::Keys(keys),
        }
    }

    fn given_to(&self, sql: String) -> Statement<'_> {
        let statement = Statement::new(sql);
        match &self.given {
            Given::Nothing => statement,
            Given::Key(key) => statement.text(key),
            Given::Keys(keys) => statement.with(keys, Type::TEXT_ARRAY),
        }
    }
}

/// The beginning of a key, up to a NUL. An adopted table has no key with a NUL, so
/// the keys after this are those after the whole key.
pub(super) fn before_nul(key: &str) -> &str {
    key.split('\0').next().unwrap_or_default()
}

/// Empties a table row by row: after a `TRUNCATE`, a load in progress would find it
/// empty.
pub(super) fn clear<'a>(table: &Table, revision: &str) -> Vec<Statement<'a>> {
    let companion = table
        .adopted
        .as_ref()
        .map(|adopted| &adopted.companion.name);
    let names = [Some(&table.name), companion];
    let names = names.into_iter().flatten();
    names
        .map(|name| Statement::new(format!("DELETE FROM {name} WHERE {revision} IS NOT NULL")))
        .collect()
}

//! Tables of other programs: how entries are written to them, and how what
//! those programs wrote is noticed.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::{
    connections::Lease,
    errors::Fault,
    pipeline::{Columns, Statement},
    sorted::{Put, Sorted, Touch, times},
    table::{Adopted, Table, digest},
    time::Time,
    values::{Moment, ValueText},
};

impl Adopted {
    /// What a condition selects: rows that another program wrote since they
    /// were last seen.
    ///
    /// A row without a key is no entry that could be noted.
    fn is_new(table: &Table) -> String {
        format!(
            "(t.{} IS NOT NULL AND c.digest IS DISTINCT FROM {})",
            table.key,
            digest(table)
        )
    }

    /// What selects the rows that were written after that revision, and those
    /// that another program writes in this very moment.
    pub(super) fn changed(table: &Table, after: i64) -> String {
        format!("WHERE c.revision > {after} OR {}", Self::is_new(table))
    }

    /// The statements for one batch.
    pub(super) fn statements<'a>(
        &self,
        table: &Table,
        changes: &'a Sorted<'a>,
        at: SystemTime,
        revision: &str,
    ) -> Vec<Statement<'a>> {
        let mut statements = Vec::new();
        for puts in changes.chunks() {
            statements.push(self.put(table, puts, at));
            statements.push(self.know(table, puts, revision));
        }
        if !changes.touches.is_empty() {
            statements.push(self.touch(table, &changes.touches, revision));
        }
        if !changes.deletes.is_empty() {
            let keys =
                || -> Vec<&'a str> { changes.deletes.iter().map(|stored| stored.plain).collect() };
            let delete = format!(
                "DELETE FROM {} AS t WHERE t.{} = ANY($1)",
                table.name, table.key
            );
            let forget = format!("DELETE FROM {} WHERE key = ANY($1)", self.companion);
            let all = [delete, self.check_deleted(table), forget]
                .map(|sql| Statement::new(sql).with(keys(), Type::TEXT_ARRAY));
            statements.extend(all);
        }
        statements
    }

    /// What fails if a row is still there after it was deleted, because a trigger
    /// left that out.
    fn check_deleted(&self, table: &Table) -> String {
        format!(
            "INSERT INTO {companion} (key, revision, digest)
             SELECT c.key, c.revision, NULL FROM {} AS t JOIN {companion} AS c ON c.key = {}
             WHERE t.{} = ANY($1)",
            table.name,
            table.key_by_bytes(),
            table.key,
            companion = self.companion,
        )
    }

    /// An upsert, and not a replacement: the other columns keep their values.
    /// Or an insert, of what no one else is to have added meanwhile.
    fn put<'a>(&self, table: &Table, puts: &'a [Put<'a>], at: SystemTime) -> Statement<'a> {
        let Table {
            name,
            key,
            value,
            updated_at,
            ..
        } = table;
        let mut columns = Columns::default();
        let keys: Vec<&str> = puts.iter().map(|put| put.key.plain).collect();
        let keys = columns.array(keys, Type::TEXT_ARRAY);
        let values: Vec<_> = puts
            .iter()
            .map(|put| ValueText(&put.payload.bytes))
            .collect();
        let values = columns.array(values, Type::TEXT_ARRAY);
        let values = table.values.of_text(&values);
        let mut into = vec![key.as_str(), value];
        let mut put = vec![keys, values];
        if self.time != Time::Missing {
            let at = times(&mut columns, puts, Moment::new(at));
            into.push(updated_at);
            put.push(self.time.written(&at));
        }
        let set = into[1..].iter().map(|c| format!("{c} = excluded.{c}"));
        let [set, put] = [set.collect::<Vec<_>>(), put].map(|parts| parts.join(", "));
        let into = into.join(", ");
        let or_update = match puts {
            [Put { absent: true, .. }, ..] => String::new(),
            _ => format!("ON CONFLICT ({key}) DO UPDATE SET {set}"),
        };
        columns.into_statement(|unnested| {
            format!("INSERT INTO {name} AS t ({into}) SELECT {put} FROM {unnested} {or_update}")
        })
    }

    /// Notes what was put, as it stands in the table by then: the column, or a
    /// trigger, may have changed it.
    ///
    /// It fails where there is nothing to note: where the row is missing, or is
    /// not of this transaction, because a trigger left the change out or the
    /// column cut off the blanks at the end of the key.
    fn know<'a>(&self, table: &Table, puts: &'a [Put<'a>], revision: &str) -> Statement<'a> {
        let keys: Vec<&str> = puts.iter().map(|put| put.key.plain).collect();
        let expiries: Vec<_> = puts.iter().map(|put| put.expires_at).collect();
        let schemas: Vec<_> = puts
            .iter()
            .map(|put| i64::from(put.payload.schema))
            .collect();
        let sql = format!(
            "INSERT INTO {} AS c (key, revision, expires_at, schema, digest)
             SELECT u.k, {revision}, u.e, u.s, CASE WHEN age(t.xmin) <= 0 THEN {} END
             FROM unnest($1::text[], $2::timestamptz[], $3::int8[]) AS u (k, e, s)
             LEFT JOIN {} AS t ON t.{key} = u.k {UPSERT}",
            self.companion,
            digest(table),
            table.name,
            key = table.key,
        );
        Statement::new(sql)
            .with(keys, Type::TEXT_ARRAY)
            .with(expiries, Type::TIMESTAMPTZ_ARRAY)
            .with(schemas, Type::INT8_ARRAY)
    }

    fn touch<'a>(&self, table: &Table, touches: &'a [Touch<'a>], revision: &str) -> Statement<'a> {
        let keys: Vec<&str> = touches.iter().map(|touch| touch.key.plain).collect();
        let expiries: Vec<_> = touches.iter().map(|touch| touch.expires_at).collect();
        let digest = digest(table);
        let sql = format!(
            "INSERT INTO {} (key, revision, expires_at, schema, digest)
             SELECT t.{key}::text, {revision}, u.e,
                CASE WHEN c.digest = {digest} THEN c.schema ELSE 0 END, {digest}
             FROM unnest($1::text[], $2::timestamptz[]) AS u (k, e)
             JOIN {} ON t.{key} = u.k {UPSERT}",
            self.companion,
            format_args!("({})", self.joined(table)),
            key = table.key,
        );
        Statement::new(sql)
            .with(keys, Type::TEXT_ARRAY)
            .with(expiries, Type::TIMESTAMPTZ_ARRAY)
    }
}

const UPSERT: &str = "ON CONFLICT (key) DO UPDATE SET
    revision = excluded.revision, expires_at = excluded.expires_at,
    schema = excluded.schema, digest = excluded.digest";

/// Empties a table, whoever's it is. Row by row, and so that those who read it
/// just now go on seeing what they began with.
pub(super) fn clear<'a>(table: &Table, revision: &str) -> Vec<Statement<'a>> {
    let companion = table.adopted.as_ref().map(|adopted| &adopted.companion);
    let names = [Some(&table.name), companion];
    let names = names.into_iter().flatten();
    names
        .map(|name| Statement::new(format!("DELETE FROM {name} WHERE {revision} IS NOT NULL")))
        .collect()
}

/// Keeps those rows as they are until the transaction ends, so that conditions
/// hold for as long. What is not there cannot be kept so: it has to be inserted.
pub(super) async fn hold(lease: &Lease, table: &Table, keys: &[String]) -> Result<(), Fault> {
    if table.adopted.is_none() {
        return Ok(());
    }
    let sql = format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} AS t WHERE t.{} = ANY($1)
            ORDER BY {} FOR NO KEY UPDATE) AS held",
        table.name,
        table.key,
        table.key_by_bytes()
    );
    let held = given(sql, Some(keys));
    lease.answer(held.one(lease.client()?)).await.map(drop)
}

/// Whether another program wrote or deleted anything among those rows since
/// they were last seen; `None` are all rows.
pub(super) async fn is_stale(
    lease: &Lease,
    table: &Table,
    among: Option<&[String]>,
) -> Result<bool, Fault> {
    let Some(adopted) = &table.adopted else {
        return Ok(false);
    };
    let joined = adopted.joined(table);
    let is_new = Adopted::is_new(table);
    let sql = match among {
        Some(_) => format!(
            "SELECT EXISTS (SELECT 1 FROM {joined} WHERE t.{} = ANY($1) AND {is_new})",
            table.key
        ),
        None => format!(
            "SELECT EXISTS (SELECT 1 FROM {joined} WHERE {is_new})
                OR EXISTS (SELECT 1 FROM {} AS c WHERE {})",
            adopted.companion,
            is_deleted(table)
        ),
    };
    let asked = given(sql, among);
    let answer = lease.answer(asked.one(lease.client()?)).await?;
    Ok(answer.try_get(0)?)
}

/// Gives the revision to those of the rows that another program wrote since
/// they were last seen, as fresh entries without expiry; and forgets those it
/// deleted. Says whether there were any.
pub(super) async fn note(
    lease: &Lease,
    table: &Table,
    among: Option<&[String]>,
    revision: i64,
) -> Result<bool, Fault> {
    let Some(adopted) = &table.adopted else {
        return Ok(false);
    };
    let within = match among {
        Some(_) => format!("t.{} = ANY($1) AND ", table.key),
        None => String::new(),
    };
    let sql = format!(
        "INSERT INTO {} (key, revision, digest)
         SELECT t.{}::text, {revision}, {} FROM {} WHERE {within}{}
         ON CONFLICT (key) DO UPDATE SET
            revision = excluded.revision, expires_at = NULL, schema = 0, digest = excluded.digest",
        adopted.companion,
        table.key,
        digest(table),
        adopted.joined(table),
        Adopted::is_new(table),
    );
    let client = lease.client()?;
    let mut noted = lease.answer(given(sql, among).execute(client)).await?;
    if among.is_none() {
        let sql = format!(
            "DELETE FROM {} AS c WHERE {}",
            adopted.companion,
            is_deleted(table)
        );
        noted += lease.answer(Statement::new(sql).execute(client)).await?;
    }
    Ok(noted > 0)
}

fn is_deleted(table: &Table) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM {} AS t WHERE {} = c.key)",
        table.name,
        table.key_by_bytes()
    )
}

fn given(sql: String, among: Option<&[String]>) -> Statement<'_> {
    let statement = Statement::new(sql);
    match among {
        Some(keys) => statement.with(keys, Type::TEXT_ARRAY),
        None => statement,
    }
}

//! How entries are written to a table that was made here.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::{
    changes::{Changes, Put, Touch, times},
    keys::StoredKey,
    statement::{Columns, Statement},
    table::Table,
    values::{Moment, ValueText},
};

/// The statements for one batch.
///
/// With `hints`, what is likely to be new is put so that the statement fails if
/// it is not.
pub(super) fn statements<'a>(
    table: &Table,
    changes: &'a Changes<'a>,
    at: SystemTime,
    revision: &str,
    hints: bool,
) -> Vec<Statement<'a>> {
    let put = |puts: &'a [Put<'a>]| {
        let all_new = hints && puts.iter().all(|put| put.likely_new);
        put(table, puts, at, revision, all_new)
    };
    let mut statements: Vec<_> = changes.chunks().map(put).collect();
    if !changes.touches.is_empty() {
        statements.push(touch(table, &changes.touches, revision));
    }
    if !changes.deletes.is_empty() {
        statements.push(delete(table, &changes.deletes, revision));
    }
    statements
}

/// An upsert of many rows, or an insert: measured, that takes a quarter less
/// time. What is the same for all of them is sent once.
fn put<'a>(
    table: &Table,
    puts: &'a [Put<'a>],
    at: SystemTime,
    revision: &str,
    all_new: bool,
) -> Statement<'a> {
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
    let mut columns = Columns::default();
    let keys: Vec<&str> = puts.iter().map(|put| &*put.key.key).collect();
    let keys = columns.array(keys, Type::TEXT_ARRAY);
    let values: Vec<_> = puts
        .iter()
        .map(|put| ValueText(&put.payload.bytes))
        .collect();
    let values = columns.array(values, Type::TEXT_ARRAY);
    let values = table.values.of_text(&values);
    let at = times(&mut columns, puts, Moment::new(at));
    let expires_at = expiries(&mut columns, puts);
    let schema = schemas(&mut columns, puts);
    let long_key = long_keys(&mut columns, puts);
    let or_update = if all_new {
        String::new()
    } else {
        format!(
            "ON CONFLICT ({key}) DO UPDATE SET
                {value} = excluded.{value}, {updated_at} = excluded.{updated_at},
                revision = excluded.revision, expires_at = excluded.expires_at,
                schema = excluded.schema"
        )
    };
    let put = columns.into_statement(|unnested| {
        format!(
            "INSERT INTO {name} AS t
                ({key}, {value}, {updated_at}, revision, expires_at, schema, long_key)
             SELECT {keys}, {values}, {at}, {revision}, {expires_at}, {schema}, {long_key}
             FROM {unnested} {or_update}"
        )
    });
    put.changing(puts.len())
}

fn expiries<'a>(columns: &mut Columns<'a>, puts: &'a [Put<'a>]) -> String {
    if puts.iter().all(|put| put.expires_at.is_none()) {
        return "NULL::timestamptz".to_owned();
    }
    let expiries: Vec<_> = puts.iter().map(|put| put.expires_at).collect();
    columns.array(expiries, Type::TIMESTAMPTZ_ARRAY)
}

fn schemas<'a>(columns: &mut Columns<'a>, puts: &'a [Put<'a>]) -> String {
    let first = puts.first().map_or(0, |put| put.payload.schema);
    if puts.iter().all(|put| put.payload.schema == first) {
        return first.to_string();
    }
    let schemas: Vec<_> = puts
        .iter()
        .map(|put| i64::from(put.payload.schema))
        .collect();
    columns.array(schemas, Type::INT8_ARRAY)
}

fn long_keys<'a>(columns: &mut Columns<'a>, puts: &'a [Put<'a>]) -> String {
    if puts.iter().all(|put| put.key.long.is_none()) {
        return "NULL::text".to_owned();
    }
    let long: Vec<_> = puts.iter().map(|put| put.key.long.as_deref()).collect();
    columns.array(long, Type::TEXT_ARRAY)
}

fn touch<'a>(table: &Table, touches: &'a [Touch<'a>], revision: &str) -> Statement<'a> {
    let Table { name, key, .. } = table;
    let keys: Vec<&str> = touches.iter().map(|touch| &*touch.key.key).collect();
    let expiries: Vec<_> = touches.iter().map(|touch| touch.expires_at).collect();
    let sql = format!(
        "UPDATE {name} AS t SET expires_at = u.e, revision = {revision}
         FROM unnest($1::text[], $2::timestamptz[]) AS u (k, e) WHERE t.{key} = u.k"
    );
    Statement::new(sql)
        .with(keys, Type::TEXT_ARRAY)
        .with(expiries, Type::TIMESTAMPTZ_ARRAY)
}

/// Nothing is deleted where there is no revision to do it under.
fn delete<'a>(table: &Table, deletes: &'a [StoredKey<'a>], revision: &str) -> Statement<'a> {
    let Table { name, key, .. } = table;
    let keys: Vec<&str> = deletes.iter().map(|stored| &*stored.key).collect();
    let sql = format!("DELETE FROM {name} AS t WHERE t.{key} = ANY($1) AND {revision} IS NOT NULL");
    Statement::new(sql).with(keys, Type::TEXT_ARRAY)
}

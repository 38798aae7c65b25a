//! Writes entries to the provider's own tables.

use tokio_postgres::types::Type;

use super::{
    changes::{Changes, Put, Stamp, Touch},
    statement::Statement,
    table::Table,
    tombstones::Tombstones,
};

/// The statements for one batch.
///
/// With `hints`, entries that are likely new are inserted, which fails if they exist.
pub(super) fn statements<'a>(
    table: &Table,
    tombstones: &Tombstones,
    changes: &'a Changes<'a>,
    stamp: Stamp<'_>,
    hints: bool,
) -> Vec<Statement<'a>> {
    let put = |puts: &'a [Put<'a>]| {
        let all_new = hints && puts.iter().all(|put| put.likely_new);
        put(table, puts, stamp, all_new)
    };
    let mut statements: Vec<_> = changes.chunks(table.values).map(put).collect();
    if !changes.touches.is_empty() {
        statements.push(touch(table, &changes.touches, stamp.revision));
    }
    if !changes.deletes.is_empty() {
        statements.push(tombstones.delete(table, &changes.deletes, stamp));
    }
    statements
}

/// An upsert of many rows, or an insert, which took a quarter less time when measured.
fn put<'a>(table: &Table, puts: &'a [Put<'a>], stamp: Stamp<'_>, all_new: bool) -> Statement<'a> {
    let Stamp { at, revision, .. } = stamp;
    let Table {
        name,
        key,
        value,
        updated_at,
        ..
    } = table;
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
    let sql = format!(
        "INSERT INTO {name} AS t
            ({key}, {value}, {updated_at}, revision, expires_at, schema, long_key)
         SELECT u.k, {}, u.a, {revision}, u.e, u.s, u.l
         FROM unnest($1::text[], $2::{}, $3::timestamptz[], $4::timestamptz[], $5::int8[],
            $6::text[]) AS u (k, v, a, e, s, l) {or_update}",
        table.values.of_sent("u.v"),
        table.values.sent()
    );
    let long_keys: Vec<_> = puts.iter().map(|put| put.key.long.as_deref()).collect();
    Statement::new(sql)
        .array(puts.iter().map(|put| &*put.key.key), Type::TEXT_ARRAY)
        .array(
            puts.iter().map(|put| put.value(table.values)),
            table.values.sent(),
        )
        .array(puts.iter().map(|put| put.at(at)), Type::TIMESTAMPTZ_ARRAY)
        .array(
            puts.iter().map(|put| put.expires_at),
            Type::TIMESTAMPTZ_ARRAY,
        )
        .array(puts.iter().map(Put::schema), Type::INT8_ARRAY)
        .with(long_keys, Type::TEXT_ARRAY)
        .changing(puts.len())
}

fn touch<'a>(table: &Table, touches: &'a [Touch<'a>], revision: &str) -> Statement<'a> {
    let Table { name, key, .. } = table;
    let sql = format!(
        "UPDATE {name} AS t SET expires_at = u.e, revision = {revision}
         FROM unnest($1::text[], $2::timestamptz[]) AS u (k, e) WHERE t.{key} = u.k"
    );
    Statement::new(sql)
        .array(
            touches.iter().map(|touch| &*touch.key.key),
            Type::TEXT_ARRAY,
        )
        .array(
            touches.iter().map(|touch| touch.expires_at),
            Type::TIMESTAMPTZ_ARRAY,
        )
}

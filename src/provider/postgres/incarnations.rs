//! The incarnation of the database, stored beside the format.

use tokio_postgres::Row;

use super::{errors::Failure, options::Options, sessions::Session, statement::Statement};
use crate::{
    error::{Error, ErrorKind},
    incarnation::Incarnation,
    provider::sql::numbers::{from_bits, to_bits},
};

/// The SQL expression for the number of the incarnation; `NULL` if there is none.
pub(super) fn current(options: &Options) -> String {
    let meta = options.qualified("persistify_meta");
    format!("(SELECT value FROM {meta} WHERE name = 'incarnation')")
}

/// The query for the incarnation.
pub(super) fn query(options: &Options) -> Statement<'static> {
    Statement::new(format!("SELECT {}", current(options)))
}

/// The incarnation that [`query`] returned.
pub(super) fn read(rows: &[Row]) -> Result<Option<Incarnation>, Failure> {
    let found = rows.first().map(|row| row.try_get::<_, Option<i64>>(0));
    Ok(found.transpose()?.flatten().map(stored))
}

pub(super) fn stored(number: i64) -> Incarnation {
    Incarnation::new(to_bits(number))
}

/// Assigns an incarnation to a database without one: a new database, or one of an earlier
/// version of this library. If the user may only read, it stays without one.
pub(super) async fn make(session: &Session, options: &Options) -> Result<(), Failure> {
    let sql = format!(
        "INSERT INTO {} (name, value) VALUES ('incarnation', {}) ON CONFLICT (name) DO NOTHING",
        options.qualified("persistify_meta"),
        Incarnation::random().get()
    );
    match session.batch(&sql).await {
        Err(failure) if !failure.is_answer() => Err(failure),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Replaces the incarnation by a new one, and commits.
///
/// # Errors
///
/// `Unavailable` if another process did so at the same time. The next attempt finds its
/// incarnation.
pub(super) async fn renew(
    session: &Session,
    options: &Options,
    old: Option<Incarnation>,
    new: Incarnation,
) -> Result<(), Failure> {
    let (meta, new) = (options.qualified("persistify_meta"), new.get());
    let sql = match old {
        Some(old) => format!(
            "UPDATE {meta} SET value = {new} WHERE name = 'incarnation' AND value = {}",
            from_bits(old.get())
        ),
        None => format!(
            "INSERT INTO {meta} (name, value) VALUES ('incarnation', {new})
             ON CONFLICT (name) DO NOTHING"
        ),
    };
    if session.execute(&Statement::new(sql)).await? == 0 {
        return Err(renewed_already().into());
    }
    session.finish("COMMIT").await
}

fn renewed_already() -> Error {
    let message =
        "another process noticed at the same time that the database has lost commits; try again";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

//! Which life of the database this is: a number beside the format.

use tokio_postgres::{Client, Error as SqlError, Row};

use super::{connections::Lease, errors::Fault, options::Options};
use crate::{
    error::{Error, ErrorKind},
    incarnation::Incarnation,
};

/// An expression with the number of the incarnation; `NULL` if there is none.
pub(super) fn current(options: &Options) -> String {
    let meta = options.qualified("persistify_meta");
    format!("(SELECT value FROM {meta} WHERE name = 'incarnation')")
}

/// Asks for the incarnation.
pub(super) async fn ask(client: &Client, options: &Options) -> Result<Row, SqlError> {
    let sql = format!("SELECT {}", current(options));
    client.query_typed_one(&sql, &[]).await
}

/// The incarnation in the first column.
pub(super) fn read(row: &Row) -> Result<Option<Incarnation>, Fault> {
    Ok(row.try_get::<_, Option<i64>>(0)?.map(from))
}

pub(super) fn from(stored: i64) -> Incarnation {
    Incarnation::new(u64::from_ne_bytes(stored.to_ne_bytes()))
}

/// Gives the database an incarnation, unless it has one: it is new, or an
/// earlier version of this library made it. A user who may only read goes
/// without.
pub(super) async fn make(lease: &Lease, options: &Options) -> Result<(), Fault> {
    let sql = format!(
        "INSERT INTO {} (name, value) VALUES ('incarnation', {}) ON CONFLICT (name) DO NOTHING",
        options.qualified("persistify_meta"),
        Incarnation::random().get()
    );
    match lease.answer(lease.client()?.batch_execute(&sql)).await {
        Err(fault) if !fault.is_answer() => Err(fault),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts a new one in the place of the old one, and commits that.
///
/// # Errors
///
/// `Unavailable` if another process has done so in the same moment; it has
/// noticed the same, and by its incarnation the next try finds out.
pub(super) async fn renew(
    lease: &Lease,
    options: &Options,
    old: Option<Incarnation>,
    new: Incarnation,
) -> Result<(), Fault> {
    let client = lease.client()?;
    let (meta, new) = (options.qualified("persistify_meta"), new.get());
    let sql = match old {
        Some(old) => format!(
            "UPDATE {meta} SET value = {new} WHERE name = 'incarnation' AND value = {}",
            i64::from_ne_bytes(old.get().to_ne_bytes())
        ),
        None => format!(
            "INSERT INTO {meta} (name, value) VALUES ('incarnation', {new})
             ON CONFLICT (name) DO NOTHING"
        ),
    };
    let renewed = lease.answer(client.execute_typed(&sql, &[])).await?;
    if renewed == 0 {
        return Err(renewed_already().into());
    }
    lease.answer(client.batch_execute("COMMIT")).await
}

fn renewed_already() -> Error {
    let message = "another process has noticed in the same moment that the database went back in time; try again";
    Error::new(ErrorKind::Unavailable, message).nothing_applied()
}

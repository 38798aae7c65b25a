//! What Postgres's errors mean to the caller: sorted by what to do about them.

use std::{error::Error as _, io, sync::Arc};

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::{
    Error as SqlError,
    error::{DbError, Severity, SqlState},
    types::{WasNull, WrongType},
};

use super::values::ValueType;
use crate::{
    error::{Error, ErrorKind},
    name::MapName,
};

/// What stopped a piece of work inside the provider.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server, or the way to it, before a commit was sent.
    Sql(SqlError),
    /// The same, about the table of a map.
    Table(SqlError, MapName),
    /// The server does not take rows of a map.
    Rows(SqlError, MapName, Blame),
    /// The server does not take what ends the transaction.
    End(SqlError),
    /// The way to the server, once a commit was sent.
    Commit(SqlError),
    /// The server did not answer in time, before a commit was sent.
    Silent,
    /// The server did not answer in time, once a commit was sent.
    SilentCommit,
    /// There was no connection to be had.
    Pool(PoolError),
    /// The provider itself.
    Ours(Error),
}

/// Which rows are to blame, and how the values are kept.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// Empty where it is not known.
    pub(super) keys: Vec<Arc<str>>,
    pub(super) values: ValueType,
}

impl From<SqlError> for Fault {
    fn from(cause: SqlError) -> Self {
        Self::Sql(cause)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl Fault {
    /// The same, if it is not known yet what it is about: about that map.
    pub(super) fn on_map(self, map: &MapName) -> Self {
        match self {
            Self::Sql(cause) => Self::Table(cause, map.clone()),
            other => other,
        }
    }

    /// The same, once a commit was sent: what a server says as an `ERROR` has
    /// ended the transaction with nothing applied. Everything else, be it that
    /// it shuts down or that no one answers, leaves open how far it got.
    pub(super) fn committing(self) -> Self {
        match self {
            Self::Sql(cause) | Self::Table(cause, _) | Self::Rows(cause, ..) | Self::End(cause)
                if !is_refusal(&cause) =>
            {
                Self::Commit(cause)
            }
            Self::Silent => Self::SilentCommit,
            other => other,
        }
    }

    /// Whether the connection was gone, or is to be taken for gone.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Sql(cause) | Self::Table(cause, _) => {
                !is_refusal(cause) && !is_about_types(cause)
            }
            Self::Silent => true,
            _ => false,
        }
    }

    /// Whether there was a row already where one was to be inserted.
    pub(super) fn is_duplicate(&self) -> bool {
        matches!(self, Self::Rows(cause, ..) if code(cause) == Some("23505"))
    }

    /// Whether a table is missing. Then the server has changed nothing.
    pub(super) fn lacks_table(&self) -> bool {
        match self {
            Self::Sql(cause) | Self::Table(cause, _) | Self::Rows(cause, ..) | Self::End(cause) => {
                cause.code() == Some(&SqlState::UNDEFINED_TABLE)
            }
            _ => false,
        }
    }

    /// Whether the server still talks: the transaction can be ended in order.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Sql(cause) | Self::Table(cause, _) | Self::Rows(cause, ..) | Self::End(cause) => {
                is_refusal(cause)
            }
            Self::Ours(_) => true,
            _ => false,
        }
    }

    /// The error for the caller, about that database.
    pub(super) fn explained(self, place: &str) -> Error {
        match self {
            Self::Sql(cause) => explain(place, cause).nothing_applied(),
            Self::Table(cause, map) => explain(place, cause).on_map(&map).nothing_applied(),
            Self::Rows(cause, map, blame) => rows_error(place, cause, &map, blame),
            Self::End(cause) => end_error(place, cause).nothing_applied(),
            Self::Commit(cause) => explain(place, cause).outcome_unknown(),
            Self::Silent => silent(place).nothing_applied(),
            Self::SilentCommit => silent(place).outcome_unknown(),
            Self::Pool(cause) => pool_error(place, cause).nothing_applied(),
            Self::Ours(error) => error,
        }
    }
}

/// Whether the server said so and goes on, rather than ended the connection.
fn is_refusal(cause: &SqlError) -> bool {
    cause.as_db_error().is_some_and(|said| {
        let severity = said.parsed_severity();
        severity == Some(Severity::Error) || (severity.is_none() && said.severity() == "ERROR")
    })
}

fn rows_error(place: &str, cause: SqlError, map: &MapName, blame: Blame) -> Error {
    if !is_about_rows(&cause) {
        return explain(place, cause).on_map(map).nothing_applied();
    }
    let what = match (code(&cause), blame.values) {
        (Some("22P05" | "22P02"), ValueType::Jsonb) => {
            "a value is no `jsonb`, which holds no `\\u0000`; a map made with `ValueType::Json` or `ValueType::Text` takes any JSON"
        }
        (Some("22003"), ValueType::Jsonb) => {
            "a value holds a number beyond those of `jsonb`; a map made with `ValueType::Json` or `ValueType::Text` takes any JSON"
        }
        (Some("22P02"), ValueType::Json) => {
            "a value is no JSON; a map made with `ValueType::Text` takes any text"
        }
        (Some("23502"), _) if cause.as_db_error().is_some_and(is_left_out) => {
            "its table leaves them out, by a trigger or a rule, or cuts off the blanks at the end of a key"
        }
        (Some("42501"), _) => "a policy of its table does not let this user write them",
        (Some("22021"), _) => "a value or a key is no UTF-8 text, or holds a NUL",
        _ => "they are too large, or break a rule of its table",
    };
    let message = format!("the Postgres {place} does not take these changes: {what}");
    Error::new(ErrorKind::Refused, message)
        .on_map(map)
        .on_keys(blame.keys)
        .with_source(cause)
        .nothing_applied()
}

/// Whether there was nothing to note of a row that was written, or a check has
/// found that it is not there.
fn is_left_out(said: &DbError) -> bool {
    let table = said.table().unwrap_or_default();
    match said.column() {
        Some("digest") => table.starts_with("persistify_of_"),
        Some("writer") => table == "persistify_writers",
        _ => false,
    }
}

fn is_about_rows(cause: &SqlError) -> bool {
    let Some(said) = cause.as_db_error() else {
        return false;
    };
    // Data, cardinality, integrity, `WITH CHECK OPTION`, limits, and what the
    // functions of a trigger raise.
    let classes = ["21", "22", "23", "38", "39", "44", "54", "P0"];
    // What a policy says of a row has the code of a missing permission.
    let is_policy = said.routine() == Some("ExecWithCheckOptions");
    is_policy
        || classes
            .iter()
            .any(|class| said.code().code().starts_with(class))
}

fn end_error(place: &str, cause: SqlError) -> Error {
    if !cause.as_db_error().is_some_and(is_broken_rule) {
        return explain(place, cause);
    }
    let message = format!(
        "the Postgres {place} does not take these changes: together they break a rule of its tables"
    );
    Error::new(ErrorKind::Refused, message).with_source(cause)
}

const ALTERED: &str = "lacks a table, a column or an index that belongs there, or it was altered; put it back as it was, or restore it from a backup; columns that were made under other names take `.columns(..)`";

fn explain(place: &str, cause: SqlError) -> Error {
    let (kind, what) = match cause.as_db_error() {
        Some(said) => remedy(said),
        None if is_about_trust(&cause) => (
            ErrorKind::Unusable,
            "is not trusted, or offers no TLS; check `.tls(..)`, `.root_certificate(..)`, and the certificate of the server",
        ),
        None if is_about_types(&cause) => (ErrorKind::Unusable, ALTERED),
        None if is_about_options(&cause) => (
            ErrorKind::Unusable,
            "cannot be logged in to as the url says; the cause says what it lacks",
        ),
        None => (
            ErrorKind::Unavailable,
            "cannot be reached, or broke off the connection; check host and port, or try again",
        ),
    };
    Error::new(kind, format!("the Postgres {place} {what}")).with_source(cause)
}

/// Whether a column of ours holds something else than it was made for.
fn is_about_types(cause: &SqlError) -> bool {
    let source = cause.source();
    source.is_some_and(|source| source.is::<WrongType>() || source.is::<WasNull>())
}

/// Whether the driver itself would not log in: a password is asked for, and the
/// url has none. It has no other name for that.
fn is_about_options(cause: &SqlError) -> bool {
    cause.to_string().starts_with("invalid configuration")
}

/// Whether encryption failed for a reason that no waiting changes: what the
/// server shows, or that it has nothing to show.
fn is_about_trust(cause: &SqlError) -> bool {
    let Some(source) = cause.source() else {
        return false;
    };
    match source.downcast_ref::<io::Error>() {
        Some(broken) => broken
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>()),
        None => source.to_string() == "server does not support TLS",
    }
}

/// A rule that is checked at the end of a transaction only, or what a trigger
/// raises there. In tables of ours it means that another process was quicker.
fn is_broken_rule(said: &DbError) -> bool {
    let ours = said.table().is_some_and(|t| t.starts_with("persistify_"));
    let code = said.code().code();
    !ours && ["23", "P0"].iter().any(|class| code.starts_with(class))
}

/// The kind, and the rest of a sentence that begins with the database.
fn remedy(said: &DbError) -> (ErrorKind, &'static str) {
    use ErrorKind::{Corrupt, Unavailable, Unusable};
    let code = said.code().code();
    match code {
        "57P01" | "57P02" | "57P03" | "57P05" => (
            Unavailable,
            "is shutting down or starting; it may be tried again",
        ),
        "57014" | "25P03" | "25P04" => (
            Unavailable,
            "ended this before it was done, by a timeout or because someone asked; it may be tried again",
        ),
        "55P03" => (
            Unavailable,
            "was kept locked by someone else for longer than the lock timeout; it may be tried again",
        ),
        "40001" | "40003" | "40P01" | "23505" => (
            Unavailable,
            "was written to by someone else in the same moment; it may be tried again",
        ),
        "25001" | "25P01" | "25P02" => (
            Unavailable,
            "was left in the middle of a transaction on this connection, which has been ended; it may be tried again; end all transactions before connections go back to the pool",
        ),
        "72000" => (
            Unavailable,
            "does not keep for so long what a load reads; it may be tried again",
        ),
        "53300" => (
            Unavailable,
            "takes no more connections; it may be tried again; raise its `max_connections`, or use fewer",
        ),
        "53000" | "53200" | "53400" => (
            Unavailable,
            "is out of memory, or of something else that is limited there; it may be tried again",
        ),
        "53100" => (Unusable, "cannot grow; make room on its disk"),
        "25006" => (
            Unusable,
            "is read-only: a standby, or set so; connect to the one that takes writes",
        ),
        "42501" => (
            Unusable,
            "does not permit this to this user; the cause says what; grant it USAGE and CREATE on the schema, and SELECT, INSERT, UPDATE and DELETE on all tables in it, or connect as another",
        ),
        "28000" | "28P01" => (
            Unusable,
            "does not let this user in; check its name, its password and the server's `pg_hba.conf`",
        ),
        "3D000" | "57P04" => (
            Unusable,
            "does not exist; create it, or name another in the url",
        ),
        "3F000" => (
            Unusable,
            "lacks the schema; create it, or name another with `.schema(..)`",
        ),
        "42P01" | "42703" | "42804" | "42P10" | "42704" | "42809" | "42846" | "42883" => {
            (Unusable, ALTERED)
        }
        "23502" if is_left_out(said) => (
            Unusable,
            "does not empty this table, because a trigger or a rule leaves rows out; drop that",
        ),
        "55000" => (
            Unusable,
            "does not allow this as the table, or the database, is set up; the cause says what it lacks",
        ),
        "58030" => (
            Unusable,
            "could not read or write its files; check its disk",
        ),
        "XX001" | "XX002" => (Corrupt, "is damaged; restore it from a backup"),
        _ if code.starts_with("08") => (
            Unavailable,
            "broke off the connection; it may be tried again",
        ),
        _ => (
            Unusable,
            "refuses this for a reason that concerns no single entry; the cause says which",
        ),
    }
}

fn silent(place: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the Postgres {place} did not answer in time; it may be tried again; raise `.statement_timeout(..)` if that happens often"
        ),
    )
}

fn pool_error(place: &str, cause: PoolError) -> Error {
    let what = match cause {
        PoolError::Backend(cause) => return explain(place, cause),
        PoolError::Closed => return closed(),
        PoolError::Timeout(TimeoutType::Wait) => {
            "is in use over all connections of the pool; it may be tried again; raise `.max_connections(..)` if that happens often"
        }
        PoolError::Timeout(_) => "did not let us connect in time; it may be tried again",
        _ => "cannot be connected to: the pool lacks a runtime, or a hook of it failed",
    };
    let message = format!("the Postgres {place} {what}");
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}

pub(super) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the connections to Postgres were closed; connect again",
    )
}

fn code(cause: &SqlError) -> Option<&str> {
    cause.code().map(|state| state.code())
}

//! Classifies the errors of Postgres by what the caller can do.

use std::{error::Error as _, io};

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::{
    Error as SqlError,
    error::{DbError, Severity, SqlState},
    types::{WasNull, WrongType},
};

use super::values::ValueType;
use crate::{
    error::{Error, ErrorKind},
    provider::sql::failure::{self, Subject},
};

/// Why work on a database failed.
pub(super) type Failure = failure::Failure<Cause>;

/// The cause of a failure.
#[derive(Debug)]
pub(super) enum Cause {
    /// The server, or the connection to it.
    Sql(SqlError),
    /// The server rejects values in a column of this type.
    Values(SqlError, ValueType),
    /// The server did not answer in time.
    Silence,
    /// The pool has no connection.
    Pool(PoolError),
    /// Another failure, after a commit was sent: the outcome is unknown.
    Unknown(Box<Cause>),
}

impl From<SqlError> for Failure {
    fn from(cause: SqlError) -> Self {
        Self::database(Cause::Sql(cause))
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::database(cause)
    }
}

impl Cause {
    fn sql(&self) -> Option<&SqlError> {
        match self {
            Self::Sql(cause) | Self::Values(cause, _) => Some(cause),
            _ => None,
        }
    }

    /// Whether the server reported the error and kept the connection.
    fn is_refusal(&self) -> bool {
        self.sql().is_some_and(is_refusal)
    }

    fn explained(self, database: &str) -> Error {
        match self {
            Self::Sql(cause) | Self::Values(cause, _) => explain(database, cause).nothing_applied(),
            Self::Silence => silent(database).nothing_applied(),
            Self::Pool(cause) => pool_error(database, cause).nothing_applied(),
            Self::Unknown(cause) => cause.explained(database).outcome_unknown(),
        }
    }
}

impl Failure {
    /// The failure, if it came after a commit was sent. An `ERROR` of the server aborted the
    /// transaction, with nothing applied. After any other failure, such as a shutdown or a
    /// timeout, the outcome is unknown.
    pub(super) fn committing(self) -> Self {
        match self {
            Self::Database(cause, subject) if !cause.is_refusal() => {
                Self::Database(Cause::Unknown(Box::new(cause)), subject)
            }
            other => other,
        }
    }

    /// Whether the connection is lost, or must be treated as lost.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Database(Cause::Sql(cause), _) => !is_refusal(cause) && !is_about_types(cause),
            Self::Database(Cause::Silence, _) => true,
            _ => false,
        }
    }

    /// Whether an inserted row existed already.
    pub(super) fn is_duplicate(&self) -> bool {
        let is_about_rows = matches!(self, Self::Database(_, Subject::Rows(..)));
        is_about_rows && self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Whether a table is missing. The server has then changed nothing.
    pub(super) fn lacks_table(&self) -> bool {
        self.code() == Some(&SqlState::UNDEFINED_TABLE)
    }

    /// Whether this user, or this server, is read-only.
    pub(super) fn is_read_only(&self) -> bool {
        let codes = [
            &SqlState::READ_ONLY_SQL_TRANSACTION,
            &SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        self.code().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the connection still works, so that the transaction can be ended.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Database(cause, _) => cause.is_refusal(),
            Self::Provider(_) => true,
        }
    }

    pub(super) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Database(cause, _) => cause.sql().and_then(SqlError::code),
            Self::Provider(_) => None,
        }
    }

    /// The error for the caller, with the name of the database.
    pub(super) fn explained(self, database: &str) -> Error {
        let (cause, subject) = match self {
            Self::Provider(error) => return error,
            Self::Database(cause, subject) => (cause, subject),
        };
        let map = match &subject {
            Subject::Table(map) | Subject::Rows(map, _) => Some(map.clone()),
            Subject::Database | Subject::Commit => None,
        };
        let error = match refusal(&cause, &subject) {
            Some(what) => refused(database, what, cause, subject),
            None => cause.explained(database),
        };
        map.into_iter().fold(error, Error::on_map)
    }
}

/// Whether the server reported the error and kept the connection.
fn is_refusal(cause: &SqlError) -> bool {
    cause.as_db_error().is_some_and(|said| {
        let severity = said.parsed_severity();
        severity == Some(Severity::Error) || (severity.is_none() && said.severity() == "ERROR")
    })
}

/// Why changes are refused, if the error means that: the rest of a sentence that begins
/// with the database.
fn refusal(cause: &Cause, subject: &Subject) -> Option<&'static str> {
    let said = cause.sql()?.as_db_error()?;
    let code = said.code().code();
    match subject {
        Subject::Commit => {
            is_broken_rule(said).then_some("together they violate a rule of its tables")
        }
        Subject::Rows(..) if is_about_rows(said) => Some(match (code, cause) {
            ("22P05" | "22P02", Cause::Values(_, ValueType::Jsonb)) => {
                "a value is no `jsonb`, which holds no `\\u0000`; a map made with `ValueType::Json` or `ValueType::Text` takes any JSON"
            }
            ("22003", Cause::Values(_, ValueType::Jsonb)) => {
                "a value holds a number beyond those of `jsonb`; a map made with `ValueType::Json` or `ValueType::Text` takes any JSON"
            }
            ("22P02", Cause::Values(_, ValueType::Json)) => {
                "a value is no JSON; a map made with `ValueType::Text` takes any text"
            }
            ("23502", _) if is_ignored_change(said) => {
                "a trigger or a rule of its table skips them, or the key column cuts off trailing blanks"
            }
            ("42501", _) => "a policy of its table does not let this user write them",
            ("22021", _) => "a value or a key is no UTF-8 text, or holds a NUL",
            _ => "they are too large, or violate a rule of its table",
        }),
        _ => None,
    }
}

fn refused(database: &str, what: &str, cause: Cause, subject: Subject) -> Error {
    let message = format!("the Postgres {database} refuses these changes: {what}");
    let keys = match subject {
        Subject::Rows(_, keys) => keys,
        _ => Vec::new(),
    };
    let error = Error::new(ErrorKind::Refused, message).on_keys(keys);
    match cause {
        Cause::Sql(cause) | Cause::Values(cause, _) => error.with_source(cause),
        _ => error,
    }
    .nothing_applied()
}

/// Whether a check found that a change was ignored. The checks violate a NOT NULL
/// constraint of a companion (its digest) or of the table of writers (its writer).
fn is_ignored_change(said: &DbError) -> bool {
    let table = said.table().unwrap_or_default();
    match said.column() {
        Some("digest") => table.starts_with("persistify_of_"),
        Some("writer") => table == "persistify_writers",
        _ => false,
    }
}

fn is_about_rows(said: &DbError) -> bool {
    // Data, cardinality, integrity, `WITH CHECK OPTION`, limits, errors raised by
    // trigger functions, and a rule instead of a deletion.
    let classes = ["0A", "21", "22", "23", "38", "39", "44", "54", "P0"];
    // A row-level security policy fails with the code of a missing permission.
    let is_policy = said.routine() == Some("ExecWithCheckOptions");
    is_policy
        || classes
            .iter()
            .any(|class| said.code().code().starts_with(class))
}

const ALTERED: &str = "lacks a table, a column or an index that belongs there, or it was altered; put it back as it was, or restore it from a backup; columns that were made under other names take `.columns(..)`";

fn explain(database: &str, cause: SqlError) -> Error {
    let (kind, what) = match cause.as_db_error() {
        Some(said) => remedy(said),
        None if is_about_trust(&cause) => (
            ErrorKind::Unusable,
            "is not trusted, or offers no TLS; check `.tls(..)`, `.root_certificate(..)`, and the certificate of the server",
        ),
        None if is_about_types(&cause) => (ErrorKind::Unusable, ALTERED),
        None if is_about_options(&cause) => (
            ErrorKind::Unusable,
            "cannot be logged in to with this URL (see the cause)",
        ),
        None => (
            ErrorKind::Unavailable,
            "cannot be reached, or closed the connection; check host and port, or try again",
        ),
    };
    Error::new(kind, format!("the Postgres {database} {what}")).with_source(cause)
}

/// Whether a column of this provider contains an unexpected value.
fn is_about_types(cause: &SqlError) -> bool {
    let source = cause.source();
    source.is_some_and(|source| source.is::<WrongType>() || source.is::<WasNull>())
}

/// Whether the driver failed to log in because the server requires a password and the URL
/// has none. The driver has no error code for this.
fn is_about_options(cause: &SqlError) -> bool {
    cause.to_string().starts_with("invalid configuration")
}

/// Whether TLS failed permanently: because of the certificate of the server, or because
/// the server does not support TLS.
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

/// A deferred constraint, or an error of a deferred trigger. In tables of this provider it
/// means that another process was faster.
fn is_broken_rule(said: &DbError) -> bool {
    let ours = said.table().is_some_and(|t| t.starts_with("persistify_"));
    let code = said.code().code();
    !ours && ["23", "P0"].iter().any(|class| code.starts_with(class))
}

/// The kind of an error, and the rest of a sentence that begins with the database.
fn remedy(said: &DbError) -> (ErrorKind, &'static str) {
    use ErrorKind::{Corrupt, Unavailable, Unusable};
    let code = said.code().code();
    match code {
        "57P01" | "57P02" | "57P03" | "57P05" => {
            (Unavailable, "is shutting down or starting; try again")
        }
        "57014" | "25P03" | "25P04" => (
            Unavailable,
            "canceled this, because of a timeout or on request; try again",
        ),
        "55P03" => (
            Unavailable,
            "was locked by another connection for longer than the lock timeout; try again",
        ),
        "40001" | "40003" | "40P01" | "23505" => (
            Unavailable,
            "was written to by another connection at the same time; try again",
        ),
        "25001" | "25P01" | "25P02" => (
            Unavailable,
            "had an open transaction on this connection, which was ended; try again, and end all transactions before connections return to the pool",
        ),
        "72000" => (
            Unavailable,
            "no longer keeps the snapshot that this load reads; try again",
        ),
        "53300" => (
            Unavailable,
            "accepts no more connections; try again, raise its `max_connections`, or use fewer",
        ),
        "53000" | "53200" | "53400" => (
            Unavailable,
            "is out of memory or another limited resource; try again",
        ),
        "53100" => (Unusable, "cannot grow; free some space on its disk"),
        "25006" => (
            Unusable,
            "is read-only, as a standby or by a setting; connect to the primary",
        ),
        "42501" => (
            Unusable,
            "does not permit this to this user (see the cause); grant it USAGE and CREATE on the schema, and SELECT, INSERT, UPDATE and DELETE on all tables in it, or connect as another",
        ),
        "28000" | "28P01" => (
            Unusable,
            "rejects this user; check its name, its password and the server's `pg_hba.conf`",
        ),
        "3D000" | "57P04" => (
            Unusable,
            "does not exist; create it, or name another in the URL",
        ),
        "3F000" => (
            Unusable,
            "lacks the schema; create it, or name another with `.schema(..)`",
        ),
        "42P01" | "42703" | "42804" | "42P10" | "42704" | "42809" | "42846" | "42883" => {
            (Unusable, ALTERED)
        }
        "23502" if is_ignored_change(said) => (
            Unusable,
            "does not empty this table, because a trigger or a rule skips rows; drop it",
        ),
        "55000" => (
            Unusable,
            "does not allow this in the current setup of the table or the database (see the cause)",
        ),
        "58030" => (
            Unusable,
            "could not read or write its files; check its disk",
        ),
        "XX001" | "XX002" => (Corrupt, "is damaged; restore it from a backup"),
        _ if code.starts_with("08") => (Unavailable, "closed the connection; try again"),
        _ => (
            Unusable,
            "refuses this for a reason that is not about single entries (see the cause)",
        ),
    }
}

fn silent(database: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the Postgres {database} did not answer in time; try again, and raise `.statement_timeout(..)` if this happens often"
        ),
    )
}

fn pool_error(database: &str, cause: PoolError) -> Error {
    let what = match cause {
        PoolError::Backend(cause) => return explain(database, cause),
        PoolError::Closed => return closed(),
        PoolError::Timeout(TimeoutType::Wait) => {
            "has no free connection in the pool; try again, and raise `.max_connections(..)` if this happens often"
        }
        PoolError::Timeout(_) => "did not accept a connection in time; try again",
        _ => "cannot be connected to: the pool lacks a runtime, or a hook of it failed",
    };
    let message = format!("the Postgres {database} {what}");
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}

pub(super) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the connections to Postgres were closed; connect again",
    )
}

/// The error for a server that does not meet the requirements.
pub(super) fn unusable(message: impl Into<String>) -> Failure {
    Error::new(ErrorKind::Unusable, message).into()
}

//! Whether a connection may write.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

/// Whether the file was opened for reading only, which SQLite does silently
/// where it cannot write.
///
/// A write that is rolled back finds out: it is refused before SQLite takes any
/// lock, so this waits for no other writer. (There is a call for it, but its
/// signature is not the same in all versions of rusqlite that can be used.)
pub(super) fn is_read_only(connection: &Connection) -> rusqlite::Result<bool> {
    let patience: u32 = connection.pragma_query_value(None, "busy_timeout", |row| row.get(0))?;
    connection.busy_timeout(Duration::ZERO)?;
    let written = connection
        .unchecked_transaction()
        .and_then(|writing| writing.pragma_update(None, "user_version", 0));
    connection.busy_timeout(Duration::from_millis(patience.into()))?;
    match written.as_ref().map_err(rusqlite::Error::sqlite_error_code) {
        Err(Some(ErrorCode::ReadOnly)) => Ok(true),
        Ok(()) | Err(Some(ErrorCode::DatabaseBusy)) => Ok(false),
        Err(_) => written.map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rusqlite::OpenFlags;

    use super::*;

    fn database() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("a.db")).unwrap();
        let prepare = "PRAGMA journal_mode = WAL; PRAGMA user_version = 7; CREATE TABLE t (x)";
        connection.execute_batch(prepare).unwrap();
        (folder, connection)
    }

    #[test]
    fn a_connection_that_only_reads_is_told_and_nothing_is_changed() {
        let (folder, writer) = database();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let reader = Connection::open_with_flags(folder.path().join("a.db"), flags).unwrap();
        assert!(is_read_only(&reader).unwrap());
        assert!(!is_read_only(&writer).unwrap());
        let version = writer.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        assert_eq!(version.unwrap(), 7);
    }

    #[test]
    fn another_writer_is_not_waited_for() {
        let (folder, writer) = database();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let second = Connection::open(folder.path().join("a.db")).unwrap();
        second.busy_timeout(Duration::from_secs(3_600)).unwrap();
        let started = Instant::now();
        assert!(!is_read_only(&second).unwrap());
        assert!(started.elapsed() < Duration::from_secs(600));
        let patience = second.pragma_query_value(None, "busy_timeout", |row| row.get::<_, i64>(0));
        assert_eq!(patience.unwrap(), 3_600_000);
    }
}

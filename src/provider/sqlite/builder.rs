//! The options of a SQLite file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::Sqlite;
use crate::{
    error::{Error, ErrorKind, Result},
    file::access::{PRIVATE, check_mode},
    name::MapName,
    provider::{
        ledger::TOMBSTONES_KEPT,
        sql::{
            columns::Columns,
            options::{Problem, adopt},
        },
    },
};

/// The options of a SQLite file that is not yet open.
///
/// [`Sqlite::builder`] returns one.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open`"]
pub struct SqliteBuilder {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    adopt: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) busy_timeout: Duration,
    pub(super) synchronous: Synchronous,
    pub(super) tombstones_kept: Duration,
    pub(super) columns: Columns,
    /// The mode of a file that is created.
    pub(super) file_mode: u32,
    /// The adopted table of each map that has one.
    pub(super) adopted: BTreeMap<MapName, String>,
}

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// A commit waits until it is on disk, and survives a power loss.
    #[default]
    Full,
    /// A commit does not wait. It survives the end of the process. After a crash of
    /// the machine or a power loss, the last commits may be missing; the file is
    /// intact.
    Normal,
}

/// SQLite takes milliseconds as a C `int`.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

/// The columns beside key, value and time in a map's own table.
const RESERVED: [&str; 3] = ["revision", "expires_at", "schema"];

impl SqliteBuilder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            options: Options {
                busy_timeout: Duration::from_secs(5),
                synchronous: Synchronous::Full,
                tombstones_kept: TOMBSTONES_KEPT,
                columns: Columns::default(),
                file_mode: PRIVATE,
                adopted: BTreeMap::new(),
            },
            adopt: Vec::new(),
        }
    }

    /// Sets how long a commit waits for another connection or process that is writing
    /// to the file. After that it fails as `Unavailable`, with nothing applied.
    ///
    /// 5 seconds by default, at most about 24 days; with zero it does not wait. A long
    /// wait delays the commits of all maps of this file; with a short one, maps retry
    /// while another program is writing.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options.busy_timeout = timeout;
        self
    }

    /// Sets whether a commit waits for the disk: [`Synchronous::Full`] by default.
    ///
    /// [`Synchronous::Normal`] makes small commits many times faster, but the last ones
    /// may be lost in a power failure.
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.options.synchronous = synchronous;
        self
    }

    /// Sets for how long tombstones of deleted entries are kept, for readers that follow
    /// the [changes](crate::Wanted::Changed) of a map; a day by default.
    ///
    /// The age of a tombstone is counted from the time of the writer that deleted the
    /// entry. Old ones are pruned when a map is closed, by the first commit, and then 24
    /// times in that time. If several processes have the file open, the shortest time
    /// counts.
    pub fn keep_tombstones(mut self, time: Duration) -> Self {
        self.options.tombstones_kept = time;
        self
    }

    /// Sets the mode of a file that is created, regardless of the umask: `0o600` by
    /// default, which keeps values private. It must let the owner read and write, and is
    /// at most `0o777`. Folders that are created get a matching mode, `0o700` by default:
    /// users that may read the file may list them.
    ///
    /// An existing file keeps its mode. SQLite gives its logs (`-wal`, `-shm`) the mode
    /// and the owner of the file. A [backup](Sqlite::backup) has those of the file that it
    /// replaces, or else of the original.
    ///
    /// It has an effect only on Unix.
    pub fn file_mode(mut self, mode: u32) -> Self {
        self.options.file_mode = mode;
        self
    }

    /// Stores a map in an existing table of another program, which can go on reading and
    /// writing it.
    ///
    /// Every other map gets a table of its own. The adopted table is not altered: revisions and
    /// expiries are stored in a companion table, and its other columns keep their values. (New rows
    /// leave these out, so each needs a default or must allow NULL.) It needs a key column of text
    /// with a unique index of its own and a value column of text or `BLOB`;
    /// [`columns`](Self::columns) sets their names. Each load reads the whole table to find the
    /// changes of the other program, which takes about twice as long as for a table of its own; a
    /// load of [changes](crate::Wanted::Changed) is `Unsupported`. Its values have [schema
    /// version](crate::PersistentMapBuilder::schema) 0 unless a map wrote them. A value that is
    /// stored as a blob stays a blob when it is overwritten, and new values are blobs if the column
    /// is declared as `BLOB`; all others are text. Values of [bytes](crate::Encoding::Bytes) are
    /// `Unsupported`: a blob there is JSON. A change that a trigger or a constraint of the table
    /// ignores is refused.
    pub fn table(mut self, map: impl Into<String>, table: impl Into<String>) -> Self {
        self.adopt.push((map.into(), table.into()));
        self
    }

    /// Sets the names of the columns in all tables of this file: `key`, `value` and
    /// `updated_at` by default.
    ///
    /// They are not case-sensitive. The three names must differ from each other and from
    /// `revision`, `expires_at` and `schema`. An adopted table may lack the third column;
    /// then no times are written. A table that was created under other names does not open
    /// under these.
    pub fn columns(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        updated_at: impl Into<String>,
    ) -> Self {
        self.options.columns = Columns::new(key, value, updated_at);
        self
    }

    /// Opens the file. If it does not exist, it is created, together with its folders.
    ///
    /// # Errors
    ///
    /// - `Invalid`: an option is out of bounds, the path is a folder or
    ///   `:memory:`, or an adopted table cannot hold a map.
    /// - `Unusable`: the file cannot be opened or written to, it is not a regular file
    ///   (for example a FIFO, a socket or a device), it was written by a later version
    ///   of this library, or an adopted table is missing.
    /// - `Corrupt`: it is not a SQLite database, or it is damaged.
    /// - `Unavailable`: another process kept it locked.
    ///
    /// In all of these cases, stored data is unchanged.
    pub async fn open(mut self) -> Result<Sqlite> {
        for (map, table) in std::mem::take(&mut self.adopt) {
            check_name("table", &table).map_err(invalid)?;
            check_foreign(&table).map_err(invalid)?;
            let lower = table.to_ascii_lowercase();
            let is_same = |other: &String| other.eq_ignore_ascii_case(&lower);
            adopt(&mut self.options.adopted, &map, table, is_same, invalid)?;
        }
        self.options.check().map_err(invalid)?;
        let path = checked_path(&self.path)?;
        Sqlite::start(path, self.options).await
    }
}

impl Options {
    fn check(&self) -> Result<(), Problem> {
        if self.busy_timeout > MAX_BUSY_TIMEOUT {
            let problem = "it is at most 2147483647 milliseconds";
            return Err(Problem::new("busy_timeout", problem));
        }
        check_mode(self.file_mode).map_err(|problem| Problem::new("file_mode", problem))?;
        let mut names = self.columns.names().into_iter();
        names.try_for_each(|name| check_name("columns", name))?;
        self.columns.check(&RESERVED, str::to_ascii_lowercase)
    }
}

fn check_name(option: &'static str, name: &str) -> Result<(), Problem> {
    if name.is_empty() || name.contains('\0') {
        return Err(Problem::new(option, "a name is not empty and holds no NUL"));
    }
    Ok(())
}

fn check_foreign(table: &str) -> Result<(), Problem> {
    let lower = table.to_ascii_lowercase();
    if lower.starts_with("sqlite_") || lower.starts_with("persistify_") {
        let problem = format!("{table:?} is not a table of another program");
        return Err(Problem::new("table", problem));
    }
    Ok(())
}

fn invalid(problem: Problem) -> Error {
    problem.of("the SQLite file")
}

/// The absolute path, which stays the same if the current folder changes.
pub(super) fn checked_path(path: &Path) -> Result<PathBuf> {
    if path == Path::new(":memory:") {
        return Err(Error::new(
            ErrorKind::Invalid,
            "`:memory:` is not a file; for maps that are kept in memory only, use `Memory`",
        ));
    }
    let absolute = std::path::absolute(path).map_err(|cause| {
        let message = format!("\"{}\" is not the path of a file; name one", path.display());
        Error::new(ErrorKind::Invalid, message).with_source(cause)
    })?;
    if absolute.is_dir() {
        let message = format!("{} is a folder; name a file in it", absolute.display());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(absolute)
}

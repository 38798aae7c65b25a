//! The companion of a table that another program owns.
//!
//! An adopted table is not altered. A companion table stores the revision, expiry and
//! schema of each row, and a digest of the value that they belong to. If the value has
//! another digest, the other program has written the row since; it is then a new entry
//! without expiry. Loads and conditions first note such rows, which gives them a revision.
//!
//! In all of this SQL `t` is the adopted table and `c` the companion.

/// The SQL about an adopted table and its companion.
///
/// The names are quoted; the expressions are in terms of `t`.
#[derive(Clone, Debug)]
pub(crate) struct Companion {
    pub(crate) name: String,
    pub(crate) table: String,
    /// The key as text.
    pub(crate) key: String,
    /// The key as text that compares byte by byte.
    pub(crate) key_by_bytes: String,
    /// The digest of the value as it is in the row.
    pub(crate) digest: String,
}

impl Companion {
    /// The rows, joined with their companion rows if the digest of the value matches.
    pub(crate) fn joined(&self) -> String {
        let Self {
            name,
            table,
            key_by_bytes,
            digest,
            ..
        } = self;
        format!(
            "{table} AS t LEFT JOIN {name} AS c ON c.key = {key_by_bytes} AND c.digest = {digest}"
        )
    }

    /// Whether another program wrote the row of [`joined`](Self::joined). A row
    /// without a key is not an entry, and cannot be noted.
    pub(crate) fn is_new(&self) -> String {
        format!("(c.key IS NULL AND {} IS NOT NULL)", self.key)
    }

    fn is_deleted(&self) -> String {
        format!(
            "NOT EXISTS (SELECT 1 FROM {} AS t WHERE {} = c.key)",
            self.table, self.key_by_bytes
        )
    }

    /// Whether another program wrote or deleted a row; with a condition, whether it
    /// wrote a row within it.
    pub(crate) fn any_new(&self, within: Option<&str>) -> String {
        let (joined, is_new) = (self.joined(), self.is_new());
        match within {
            Some(within) => {
                format!("SELECT EXISTS (SELECT 1 FROM {joined} WHERE {within} AND {is_new})")
            }
            None => format!(
                "SELECT EXISTS (SELECT 1 FROM {joined} WHERE {is_new})
                    OR EXISTS (SELECT 1 FROM {} AS c WHERE {})",
                self.name,
                self.is_deleted()
            ),
        }
    }

    /// Notes the rows that another program wrote, or those within a condition.
    pub(crate) fn note_new(&self, within: Option<&str>, revision: i64) -> String {
        let within = within.unwrap_or("TRUE");
        self.note(&format!(
            "SELECT {}, {revision}, NULL, 0, {} FROM {} WHERE {within} AND {}",
            self.key,
            self.digest,
            self.joined(),
            self.is_new(),
        ))
    }

    /// Forgets the rows that another program deleted.
    pub(crate) fn forget_deleted(&self) -> String {
        format!("DELETE FROM {} AS c WHERE {}", self.name, self.is_deleted())
    }

    /// Notes the selected key, revision, expiry, schema and digest.
    pub(crate) fn note(&self, selected: &str) -> String {
        format!(
            "INSERT INTO {} (key, revision, expires_at, schema, digest) {selected}
             ON CONFLICT (key) DO UPDATE SET
                revision = excluded.revision, expires_at = excluded.expires_at,
                schema = excluded.schema, digest = excluded.digest",
            self.name
        )
    }

    /// The condition of the rows on a page: the first `limit` keys, after the
    /// key `$1` if there is one.
    pub(crate) fn is_on_page(&self, after: bool, limit: i64) -> String {
        let Self {
            table,
            key_by_bytes: key,
            ..
        } = self;
        let after = if after {
            format!("WHERE {key} > $1")
        } else {
            String::new()
        };
        format!("{key} IN (SELECT {key} FROM {table} AS t {after} ORDER BY {key} LIMIT {limit})")
    }
}

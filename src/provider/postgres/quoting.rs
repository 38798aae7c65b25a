//! Names and texts as they stand in SQL.

/// The longest name that Postgres takes, in bytes.
pub(super) const MAX_NAME: usize = 63;

/// A name as it stands in SQL, whatever is in it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A piece of text as it stands in SQL, whatever is in it and however the
/// server reads backslashes.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

//! Providers that are found by a path.

#[cfg(feature = "json")]
use crate::provider::json_file::{JsonFile, JsonFileBuilder};
#[cfg(feature = "sqlite")]
use crate::provider::sqlite::{
    Sqlite,
    builder::{SqliteBuilder, Synchronous},
};
use crate::{
    connect::{options::Options, url::Url},
    error::Result,
};

#[cfg(feature = "json")]
pub(super) fn json(url: &Url<'_>, options: &mut Options) -> Result<JsonFileBuilder> {
    let mut builder = JsonFile::builder(url.path()?);
    if let Some(bytes) = options.size("max_journal")? {
        builder = builder.max_journal(bytes);
    }
    if let Some(time) = options.duration("keep_tombstones")? {
        builder = builder.keep_tombstones(time);
    }
    if let Some(mode) = options.mode("file_mode")? {
        builder = builder.file_mode(mode);
    }
    for (map, file) in options.by_map("file") {
        builder = builder.file(map, file);
    }
    Ok(builder)
}

#[cfg(feature = "sqlite")]
pub(super) fn sqlite(url: &Url<'_>, options: &mut Options) -> Result<SqliteBuilder> {
    let mut builder = Sqlite::builder(url.path()?);
    if let Some(time) = options.duration("busy_timeout")? {
        builder = builder.busy_timeout(time);
    }
    let words = [("full", Synchronous::Full), ("normal", Synchronous::Normal)];
    if let Some(synchronous) = options.choice("synchronous", &words)? {
        builder = builder.synchronous(synchronous);
    }
    if let Some(time) = options.duration("keep_tombstones")? {
        builder = builder.keep_tombstones(time);
    }
    if let Some(mode) = options.mode("file_mode")? {
        builder = builder.file_mode(mode);
    }
    if let Some([key, value, updated_at]) = super::columns(options) {
        builder = builder.columns(key, value, updated_at);
    }
    for (map, table) in options.by_map("table") {
        builder = builder.table(map, table);
    }
    Ok(builder)
}

//! The formats of the files of a map: journal, snapshot and meta file.

pub(crate) mod base64_text;
pub(crate) mod frame;
pub(crate) mod journal;
pub(crate) mod meta;
pub(crate) mod pairs;
pub(crate) mod snapshot;
pub(crate) mod trailer;

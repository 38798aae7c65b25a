//! A concurrent map that you use like a `HashMap` and that keeps itself on
//! disk or in a database.

// In reading order: what is stored, what comes up, what goes down, where it is kept.
mod error;
mod record;

mod batch;
mod load;
mod name;

mod clock;
mod provider;

pub use batch::{
    Batch, BatchId, Change, Committed, Expect, MapBatch, Op, Otherwise, Skipped, Turn, WriterId,
};
pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use load::{Load, PAGE_RECORDS, Wanted};
pub use name::MapName;
#[cfg(all(feature = "json", feature = "testing"))]
pub use provider::json_file::disk::{Disk, DiskFile, FolderLock, NewFile, RealDisk};
#[cfg(feature = "json")]
pub use provider::json_file::{JsonFile, JsonFileBuilder};
pub use provider::{Capabilities, Provider, memory::Memory};
pub use record::{Encoding, Payload, Record, Revision};

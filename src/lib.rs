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

mod codec;
mod event;
mod map;

mod caching;

pub use batch::{
    Batch, BatchId, Change, Committed, Expect, MapBatch, Op, Otherwise, Skipped, Turn, WriterId,
};
pub use caching::{CachingMap, CachingMapBuilder};
pub use clock::{Clock, SystemClock};
pub use error::{Error, ErrorKind, Result};
pub use event::{
    Health, KeySample, Operation, RefusedChange, SaveFailure, Stats, UnreadableRecord,
};
pub use load::{Load, PAGE_RECORDS, Wanted};
pub use map::{
    Map, PersistentMap, PersistentMapBuilder, builder::Builder, retry::RetryPolicy, write::Occupied,
};
pub use name::MapName;
#[cfg(feature = "sqlite")]
pub use provider::sqlite::{
    Sqlite,
    builder::{SqliteBuilder, Synchronous},
};
pub use provider::{Capabilities, Provider, memory::Memory};
pub use record::{Encoding, Payload, Record, Revision};

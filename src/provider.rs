//! The contract between a map and the place where it is kept.

use std::fmt;

use async_trait::async_trait;

use crate::{
    batch::{Batch, Committed},
    error::{Error, ErrorKind, Result},
    heartbeat::Heartbeat,
    incarnation::Incarnation,
    load::{Load, Wanted},
    name::MapName,
};

#[cfg(feature = "json")]
pub(crate) mod json_file;
pub mod ledger;
pub(crate) mod memory;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

/// What a provider can do beyond the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an ability of its own, and they go together in every way"
)]
pub struct Capabilities {
    /// A batch may touch several maps, and still lands whole or not at all.
    pub several_maps: bool,
    /// Conditions ([`Expect`](crate::Expect)) are checked in the commit itself, and
    /// a change that is skipped takes its [group](crate::Change::group) with it.
    pub conditions: bool,
    /// A load of [changes](Wanted::Changed) also reports what was deleted.
    pub deletions: bool,
    /// What was committed survives the end of the process.
    pub durable: bool,
    /// Values may be any [bytes](crate::Encoding::Bytes), not only JSON.
    pub bytes: bool,
}

impl Capabilities {
    /// No optional ability.
    pub const fn least() -> Self {
        Self {
            several_maps: false,
            conditions: false,
            deletions: false,
            durable: false,
            bytes: false,
        }
    }

    /// Adds support for batches that span several maps.
    #[must_use]
    pub const fn with_several_maps(mut self) -> Self {
        self.several_maps = true;
        self
    }

    /// Adds support for conditions.
    #[must_use]
    pub const fn with_conditions(mut self) -> Self {
        self.conditions = true;
        self
    }

    /// Adds tombstones to loads of changes.
    #[must_use]
    pub const fn with_deletions(mut self) -> Self {
        self.deletions = true;
        self
    }

    /// Adds durability: commits survive the end of the process.
    #[must_use]
    pub const fn with_durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Adds support for values of any bytes.
    #[must_use]
    pub const fn with_bytes(mut self) -> Self {
        self.bytes = true;
        self
    }
}

/// Where maps are kept: it knows names, keys and bytes, and no value types.
///
/// One provider serves many maps. Handles are shared (`Arc`), and calls for
/// different maps, or two handles on the same map, may come at the same time.
///
/// # What a provider promises
///
/// Each word is a test of that name in the conformance suite (feature
/// `testing`), which every provider should run.
///
/// - **Faithful**: a load answers with what was committed: every key as it was
///   written, the same JSON value, times to the millisecond; expired entries too.
///   The text of a value may differ: white space, the order of fields, escapes,
///   and another way to write a number, of which no digit may be lost.
///   [Bytes](crate::Encoding::Bytes) do not differ. A load has
///   every commit that was acknowledged before it began, so its horizon is not
///   below their revisions.
/// - **Atomic**: a batch lands whole, or not at all, also when the process is
///   killed in the middle of it. Changes that are [skipped](crate::Otherwise::Skip)
///   are no part of it; [`ledger::check_conditions`] says which those are.
/// - **Idempotent and fenced**: the sequences of a writer grow; each batch is
///   applied once, a repeat of the writer's last one is answered as before,
///   lower ones are refused as `Superseded`. So a commit that timed out cannot
///   land late. What is remembered of a writer survives a restart like the
///   batch itself (it commits with it), for a day at least. Nothing is
///   remembered of a batch that failed. A store that does not remember what was
///   [acknowledged](crate::MapBatch::acknowledged) has lost commits: it refuses
///   the batch as `Rewound`, and takes a new [incarnation](Incarnation), which it
///   keeps durably and answers from then on. [`ledger::admit`] decides all of
///   this.
/// - **Isolated**: no map sees another's keys, whatever the names.
/// - **Durable**: what `commit` returned from is there after the process is
///   killed, if [`Capabilities::durable`] says so.
/// - **Ordered**: the new revision exceeds every earlier one of the maps it
///   touches, and `batch.after` ([`Batch::revision_after`]).
/// - **Honest**: an error says by its [kind](ErrorKind) what to do, and by
///   [`Error::may_have_applied`] what state it leaves. What cannot be done is
///   refused as `Unsupported` before anything is written.
///
/// # What a provider may assume
///
/// A map has one commit in flight at a time. The future of a commit may be
/// dropped at any await; then the identical batch comes again.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Returns the optional abilities of this provider. Default: none.
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
    }

    /// Loads the stored records of a map; none for a map that was never written to.
    ///
    /// A store without partial loads loads all records and
    /// [narrows](Load::narrowed) the load.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Unusable`, or `Corrupt`; nothing is changed.
    async fn load<'a>(&'a self, map: &'a MapName, wanted: Wanted) -> Result<Load<'a>>;

    /// Applies a batch, whole or not at all; on return it is durable.
    ///
    /// # Errors
    ///
    /// Any kind; `Refused` names the keys if it can. Where
    /// [`Error::may_have_applied`] says so, the caller commits the identical
    /// batch again; otherwise nothing was applied, nor will be.
    async fn commit(&self, batch: &Batch) -> Result<Committed>;

    /// The map is closed: a chance to tidy up. It may be opened again.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`; nothing that was committed is lost.
    async fn release(&self, map: &MapName) -> Result<()> {
        let _ = map;
        Ok(())
    }

    /// The maps that are stored here, in no order.
    ///
    /// # Errors
    ///
    /// `Unsupported` unless overridden.
    async fn maps(&self) -> Result<Vec<MapName>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            "this provider cannot list its maps",
        ))
    }

    /// Deletes all that is stored of a map: its records and what is kept beside
    /// them. A map that was never written to is dropped as well.
    ///
    /// It is a commit, with a revision of its own: all or nothing, durable on
    /// return, and nothing of before comes back. A batch whose writer has not
    /// [seen](crate::MapBatch::seen) the drop is refused as `Rewound`, so a commit
    /// that was given up does not land late, and an open map of that name stops
    /// until it is told how to go on. [`ledger::check_dropped`] decides this. A
    /// writer that loads the map after the drop finds it empty, and may write.
    ///
    /// A table or a file that was adopted is only detached: its rows stay, and the
    /// revisions and expiries that were kept beside it go.
    ///
    /// Answers to batches that were applied before are remembered for as long as
    /// their writers are.
    ///
    /// # Errors
    ///
    /// `Unsupported` unless overridden. Where [`Error::may_have_applied`] says so, the
    /// map may be gone; drop it again.
    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let message = "this provider cannot drop a map; clear it instead";
        Err(Error::new(ErrorKind::Unsupported, message).on_map(map))
    }

    /// Whether the store can be written to just now, and the incarnation that it
    /// is in; `None` if it keeps none, or one for each map.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`, as a commit would be answered now.
    async fn ping(&self) -> Result<Option<Incarnation>> {
        Ok(None)
    }

    /// The signal that the store answers, one for all handles of it: through it
    /// a map that finds the store well tells the others, which then need not wait
    /// for their next probe. `None` unless overridden.
    ///
    /// Keep a [`Heartbeat`] in the handle, so that its clones share it, and
    /// return a clone of that; a provider that wraps another one returns that of
    /// the one inside. A provider without it loses nothing: each of its maps
    /// finds out by itself.
    fn heartbeat(&self) -> Option<Heartbeat> {
        None
    }

    /// Ends it: lets go of files and connections. Every later call is answered
    /// `Closed`, where that can be told.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`; nothing that was committed is lost.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

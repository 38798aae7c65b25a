//! The contract between a map and its store.

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

/// The optional abilities of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an ability of its own, and they go together in every way"
)]
pub struct Capabilities {
    /// A batch may touch several maps, and is still applied as a whole or not at all.
    pub several_maps: bool,
    /// Conditions ([`Expect`](crate::Expect)) are checked in the commit itself, and
    /// a skipped change skips its whole [group](crate::Change::group).
    pub conditions: bool,
    /// A load of [changes](Wanted::Changed) also reports deletions, as tombstones.
    pub deletions: bool,
    /// Commits survive the end of the process.
    pub durable: bool,
    /// Values may be any [bytes](crate::Encoding::Bytes), not only JSON.
    pub bytes: bool,
    /// A layer compresses the values before the store sees them.
    pub compressed: bool,
    /// A layer encrypts the values before the store sees them.
    pub encrypted: bool,
    /// A layer [spreads](crate::Sharded) the keys of a map over several stores. A batch
    /// for several of them is `Unsupported` unless it is
    /// [divisible](crate::Batch::divisible) and has no groups and no conditions that must
    /// hold; loads of [changes](Wanted::Changed) are `Unsupported`; and a load is no
    /// snapshot: it may contain a commit in part that is made meanwhile.
    pub sharded: bool,
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
            compressed: false,
            encrypted: false,
            sharded: false,
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

    /// Adds compression of the values, by a layer.
    #[must_use]
    pub const fn with_compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Adds the limits of keys on several stores, by a layer.
    #[must_use]
    pub const fn with_sharded(mut self) -> Self {
        self.sharded = true;
        self
    }

    /// Adds encryption of the values, by a layer.
    #[must_use]
    pub const fn with_encrypted(mut self) -> Self {
        self.encrypted = true;
        self
    }
}

/// A store of maps. It knows names, keys and bytes, but no value types.
///
/// One provider serves many maps. Handles are shared (`Arc`); calls for different maps,
/// and from several handles of the same map, may be concurrent.
///
/// # What a provider promises
///
/// Each promise is tested by the part of that name in the conformance suite (feature
/// `testing`), which every provider should pass.
///
/// - **Faithful**: a load returns the committed entries: every key unchanged, an equal
///   JSON value, and times to the millisecond; expired entries too. The text of a value
///   may differ in white space, in the order of its fields, in escapes, and in how a
///   number is written, but no digit is lost. [Bytes](crate::Encoding::Bytes) are
///   returned unchanged. A load contains every commit that was acknowledged before it
///   began, so its horizon is not below their revisions.
/// - **Atomic**: a batch is applied as a whole or not at all, even if the process is
///   killed during the commit. [Skipped](crate::Otherwise::Skip) changes are not part
///   of it; [`ledger::check_conditions`] determines which are skipped.
/// - **Idempotent and fenced**: the sequence numbers of a writer grow. Each batch is
///   applied once. A repeat of the writer's last batch gets the same answer again;
///   lower sequences are refused as `Superseded`. So a commit that timed out cannot
///   be applied late. The record of a writer's last batch commits with that batch,
///   survives a restart like it, and is kept for at least a day. A failed batch
///   leaves no record. A store that lacks the
///   [acknowledged](crate::MapBatch::acknowledged) batch has lost commits: it refuses
///   the new one as `Rewound`, and takes a new [incarnation](Incarnation), which it
///   stores durably and returns from then on. [`ledger::admit`] decides all of this.
/// - **Isolated**: a map never contains keys of another map, whatever their names.
/// - **Durable**: a batch survives a kill of the process once `commit` has returned, if
///   [`Capabilities::durable`] is set.
/// - **Ordered**: the revision of a commit exceeds every earlier one of the maps that it
///   touches, and `batch.after` ([`Batch::revision_after`]).
/// - **Honest**: the [kind](ErrorKind) of an error tells the caller what to do, and
///   [`Error::may_have_applied`] which state it leaves. A batch that the provider does
///   not support is refused as `Unsupported` before anything is written.
///
/// # What a provider may assume
///
/// A map has one commit in flight at a time. The future of a commit may be dropped at
/// any await; the map then commits the identical batch again.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Returns the optional abilities of this provider. Default: none.
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
    }

    /// Loads the stored records of a map; none if the map was never written to.
    ///
    /// A store without partial loads loads all records and
    /// [narrows](Load::narrowed) the load.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `Unusable`, or `Corrupt`; nothing is changed.
    async fn load<'a>(&'a self, map: &MapName, wanted: Wanted) -> Result<Load<'a>>;

    /// Applies a batch as a whole or not at all. It is durable on return.
    ///
    /// # Errors
    ///
    /// Any kind; `Refused` names the keys if possible. If
    /// [`Error::may_have_applied`] is true, the caller commits the identical batch again.
    /// Otherwise the batch was not applied and never will be. `Refused` that may have
    /// applied is the final answer to a [divisible](Batch::divisible) batch: some stores
    /// have refused their part, the others have applied theirs.
    async fn commit(&self, batch: &Batch) -> Result<Committed>;

    /// Called when a map is closed, so that the provider can free or compact what it
    /// keeps for it. The map may be opened again. Default: does nothing.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`; nothing that was committed is lost.
    async fn release(&self, map: &MapName) -> Result<()> {
        let _ = map;
        Ok(())
    }

    /// Lists the stored maps, in no particular order.
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

    /// Deletes a map: its records and its metadata. A map that was never written to can
    /// be dropped too.
    ///
    /// A drop is a commit with a revision of its own: atomic, durable on return, and
    /// final. A batch whose writer has not [seen](crate::MapBatch::seen) the drop is
    /// refused as `Rewound`. So a commit that was given up is not applied late, and an
    /// open map of that name stops until the program decides how it continues.
    /// [`ledger::check_dropped`] implements this check. A writer that loads the map after
    /// the drop finds it empty and may write.
    ///
    /// An adopted table or file is only detached: its rows stay; the revisions and
    /// expiries that the provider kept beside it are deleted.
    ///
    /// Answers to earlier batches are kept for as long as their writers are remembered.
    ///
    /// # Errors
    ///
    /// `Unsupported` unless overridden. If [`Error::may_have_applied`] is true, the map
    /// may already be dropped; drop it again.
    async fn drop_map(&self, map: &MapName) -> Result<()> {
        let message = "this provider cannot drop a map; clear it instead";
        Err(Error::new(ErrorKind::Unsupported, message).on_map(map))
    }

    /// Checks that the store can be written to, and returns its incarnation; `None` if
    /// it has none, or one for each map.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`: the error that a commit would get now.
    async fn ping(&self) -> Result<Option<Incarnation>> {
        Ok(None)
    }

    /// Returns the signal that the store answers, shared by all handles of the provider.
    /// A map whose probe succeeds uses it to wake the other maps, which then do not wait
    /// for their own next probe. `None` unless overridden.
    ///
    /// Keep a [`Heartbeat`] in the handle, so that its clones share it, and return a clone
    /// of it. A layer returns the heartbeat of the wrapped provider. Without a heartbeat,
    /// each map probes by itself, and nothing else changes.
    fn heartbeat(&self) -> Option<Heartbeat> {
        None
    }

    /// Closes the provider: releases its files and connections. Later calls fail as
    /// `Closed`. Default: does nothing.
    ///
    /// # Errors
    ///
    /// `Unavailable` or `Unusable`; nothing that was committed is lost.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

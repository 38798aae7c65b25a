//! The builder of a map: every option with its unit, default, bounds and trade-off.

pub(crate) mod options;
pub(crate) mod rewind;
pub(crate) mod verify;

use std::{fmt, marker::PhantomData, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tracing::Instrument;

use self::{
    options::{Options, Progress, Triggers},
    rewind::Rewind,
    verify::Verify,
};
use crate::{
    clock::{Clock, MapClock, SystemClock},
    error::{Error, ErrorKind, Result},
    map::{
        Map,
        core::Core,
        lifetime::Plan,
        load::migrations::Migrated,
        shared::Shared,
        spans,
        write_behind::{
            committer::retry::RetryPolicy,
            conflicts::{Conflicts, OnConflict},
        },
    },
    name::MapName,
    provider::Provider,
};

/// The options of a map before it is opened.
///
/// Every option has a default that suits most programs. A value out of bounds is an
/// error of [`open`](Self::open), never a panic. Options that take a closure need
/// to know the value type: name it at the beginning, as in
/// `PersistentMap::<u32>::builder(..)`, or in the closure.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> persistify::Result<()> {
/// # use std::time::Duration;
/// # use persistify::{Memory, PersistentMap};
/// let stock: PersistentMap<u32> = PersistentMap::builder(Memory::new(), "stock")
///     .batch(500, Duration::from_millis(200))
///     .max_pending(1_000_000)
///     .open()
///     .await?;
/// # stock.close().await
/// # }
/// ```
#[must_use = "a builder does nothing until `open` is awaited"]
pub struct Builder<V, P> {
    provider: Arc<dyn Provider>,
    name: Result<MapName>,
    options: Options,
    clock: Option<Arc<dyn Clock>>,
    progress: Option<Progress>,
    conflicts: OnConflict<V>,
    pub(crate) plan: P,
    values: PhantomData<fn() -> V>,
}

impl<V, P> Builder<V, P> {
    pub(crate) fn new<N>(provider: impl Provider, name: N, plan: P) -> Self
    where
        N: TryInto<MapName>,
        N::Error: Into<Error>,
    {
        Self {
            provider: Arc::new(provider),
            name: name.try_into().map_err(Into::into),
            options: Options::default(),
            clock: None,
            progress: None,
            conflicts: OnConflict::LastWrite,
            plan,
            values: PhantomData,
        }
    }

    /// Sets when a flush starts by itself: once `size` keys are pending, or once
    /// the oldest pending change is `interval` old, whichever comes first. 1,000
    /// keys and one second by default; at least 1 key and 1 millisecond.
    ///
    /// The number of keys starts at most one flush in 10 milliseconds, so keys that
    /// change all the time are not committed continuously.
    ///
    /// Smaller values put fewer changes at risk; larger values make fewer and
    /// cheaper commits. Can be changed while the map is open:
    /// [`set_batch`](crate::Map::set_batch).
    pub fn batch(mut self, size: usize, interval: Duration) -> Self {
        self.options.triggers = Triggers { size, interval };
        self
    }

    /// Sets how often and how fast a failed save is retried; see [`RetryPolicy`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// Sets how often and how fast an [update in the
    /// store](crate::Map::update_in_store) is retried after a conflict with another
    /// writer. By default 100 attempts with random delays from 5 to 250
    /// milliseconds, about 12 seconds in all. The more processes write the same
    /// key, the more attempts it takes.
    pub fn retry_conflicts(mut self, policy: RetryPolicy) -> Self {
        self.options.retry_conflicts = policy;
        self
    }

    /// Sets the maximum number of keys in one commit; at least 1, 32,768 by
    /// default. A larger flush takes several commits. Large commits are cheaper per
    /// key, but saves wait longer for them. While one commit is in flight, up to half of the
    /// next one is encoded.
    pub fn max_batch(mut self, keys: usize) -> Self {
        self.options.max_batch = keys;
        self
    }

    /// Sets the approximate maximum size of one commit, in bytes of keys and
    /// encoded values; at least 1, 16 MiB by default. The memory that a commit
    /// needs is proportional to it. A batch ends with the change that reaches the
    /// limit, so it may exceed it by one value.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.options.max_batch_bytes = bytes;
        self
    }

    /// Limits the number of pending keys: beyond it, saves (`…_and_save`) return
    /// `Unavailable` and change nothing. At least 1; no limit by default.
    ///
    /// Plain writes are never rejected, because they have no error to return. To
    /// bound memory while a store is down, use saves, or check
    /// [`pending`](crate::Map::pending).
    pub fn max_pending(mut self, keys: usize) -> Self {
        self.options.max_pending = Some(keys);
        self
    }

    /// Sets how long one call of the provider (a commit, a page of a load) may take
    /// before it counts as failed with an unknown outcome; at least 1 millisecond,
    /// 30 seconds by default.
    pub fn commit_timeout(mut self, limit: Duration) -> Self {
        self.options.commit_timeout = limit;
        self
    }

    /// Sets how long [`open`](Self::open) retries to load the map while the store
    /// is [`Unavailable`](ErrorKind::Unavailable), with the delays of the [retry
    /// policy](Self::retry). Zero by default: no retries.
    ///
    /// For programs that start before their database. Other errors are returned at
    /// once: retrying repairs neither `Corrupt` records nor an `Invalid` call, and
    /// an `Unusable` store needs manual repair, so the error is reported at once. The
    /// last attempt starts when that time has elapsed, and is not cut off, because a
    /// large map takes long to load. A call without an answer is limited by
    /// [`commit_timeout`](Self::commit_timeout). (A provider that connects when it
    /// is constructed, such as `Postgres`, may fail before that.)
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.options.open_timeout = limit;
        self
    }

    /// Opens the map even if stored records do not decode into its value type.
    ///
    /// These records are [listed](crate::Map::unreadable). They are missing from
    /// the map and kept in the store, whatever is written to their keys. Without
    /// this option, one such record makes `open` fail; the error states their
    /// number and names their keys.
    pub fn allow_unreadable(mut self) -> Self {
        self.options.allow_unreadable = true;
        self
    }

    /// Sets which values are decoded again before they are saved: all by default,
    /// so that every saved map opens again. A value that does not decode is
    /// refused. The other settings give up that promise for speed; see [`Verify`].
    pub fn verify(mut self, verify: Verify) -> Self {
        self.options.verify = verify;
        self
    }

    /// Sets how a change is resolved if another process has changed the same key
    /// since this map loaded or last saved it; see [`OnConflict`]. By default the
    /// last write wins and conflicts are not detected.
    pub fn conflicts(mut self, policy: OnConflict<V>) -> Self {
        self.conflicts = policy;
        self
    }

    /// Sets how the map proceeds when its store has gone back in time: the store was
    /// replaced by an older backup or an empty store while the map was open. By
    /// default the map stops, writes nothing, and waits for a decision; see
    /// [`Rewind`].
    ///
    /// The rewind is detected at the next commit if the map's last commit was less
    /// than 12 hours ago, if the store remembers an older commit of this map, or if
    /// another map has detected it. When a map is opened, the state of the store is
    /// accepted as it is.
    pub fn on_rewind(mut self, policy: Rewind) -> Self {
        self.options.on_rewind = policy;
        self
    }

    /// Sets the schema version that the program writes its values in; 0 by default.
    /// Each stored record carries its schema version.
    ///
    /// Raise the version when the value type changes so that stored values no longer
    /// decode, or mean something else, and add the [migration step](Self::migrate)
    /// that leads to it. `open` fails if the map holds values of a higher version,
    /// even if [unreadable](Self::allow_unreadable) records are allowed: an older
    /// version of the program must not write to a map that a newer one has written.
    pub fn schema(mut self, version: u32) -> Self {
        self.options.migrations.current = version;
        self
    }

    /// Adds the migration step from schema version `from` to the next one, `from + 1`.
    ///
    /// When values of an older schema version are loaded, by `open` or
    /// [`reload`](Map::reload), they go through all steps from their version to the
    /// [current](Self::schema) one. In the store they stay as they are until they
    /// are written the next time (but see
    /// [`rewrite_on_load`](Self::rewrite_on_load)). Records without a schema
    /// version, such as those of other programs, have version 0.
    ///
    /// The step returns the value, or a `Result` of it. If a step fails or panics,
    /// the record is unreadable, like one that does not decode; its bytes are kept;
    /// see [`UnreadableRecord`](crate::UnreadableRecord). Steps work on
    /// [`serde_json::Value`], which stores integers of up to 64 bits; larger
    /// integers become floats.
    ///
    /// Every step from the oldest to the current schema version must be given exactly
    /// once; otherwise `open` returns an error that names the missing or duplicate
    /// step. Old steps can be removed when no records of that version are left.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> persistify::Result<()> {
    /// use persistify::{Memory, PersistentMap, serde_json::json};
    ///
    /// let store = Memory::new();
    /// let names: PersistentMap<String> =
    ///     PersistentMap::builder(store.clone(), "users").open().await?;
    /// names.insert("1", "Ada Lovelace".to_owned());
    /// names.close().await?;
    ///
    /// #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// struct User {
    ///     name: String,
    ///     admin: bool,
    /// }
    /// let users: PersistentMap<User> = PersistentMap::builder(store, "users")
    ///     .schema(2)
    ///     .migrate(0, |name| json!({ "name": name }))
    ///     .migrate(1, |mut user| {
    ///         user["admin"] = false.into();
    ///         user
    ///     })
    ///     .open()
    ///     .await?;
    /// assert_eq!(users.get("1").map(|user| user.name), Some("Ada Lovelace".to_owned()));
    /// # users.close().await
    /// # }
    /// ```
    pub fn migrate<R: Migrated>(
        mut self,
        from: u32,
        step: impl Fn(Value) -> R + Send + Sync + 'static,
    ) -> Self {
        self.options.migrations.add(from, step);
        self
    }

    /// Stores migrated values in the current schema version.
    ///
    /// Values that were migrated on load become pending and are flushed as if they
    /// had been written. If another process has written such a key meanwhile, its
    /// value stays. Without this option, a value that is never written is migrated
    /// on every load.
    ///
    /// Records with an expiry are left as they are, because their time to live must
    /// not restart. So are records that the store refuses.
    pub fn rewrite_on_load(mut self) -> Self {
        self.options.migrations.rewrite = true;
        self
    }

    /// Sets the clock of the map, for tests; the system clock by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets a closure that is called after each loaded page, with the number of
    /// records so far and, if the store knows it, their approximate total.
    pub fn on_progress(mut self, call: impl Fn(u64, Option<u64>) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(call));
        self
    }
}

impl<V, P> Builder<V, P>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
    P: Plan<V>,
{
    /// Loads the map and starts its background task, on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// - `Invalid` if the name or an option is out of bounds, the call is made
    ///   outside of a tokio runtime, or the store holds values of a [schema
    ///   version](Self::schema) that the program does not know.
    /// - `Unsupported` if [conflicts](Self::conflicts) are to be detected and the
    ///   provider cannot check conditions.
    /// - `Corrupt`, with the number and the keys of the records, if records do not
    ///   decode (unless they are [allowed](Self::allow_unreadable)).
    /// - Otherwise the provider's error, at once unless
    ///   [`open_timeout`](Self::open_timeout) is set.
    ///
    /// The store is unchanged.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the opening and leaves nothing behind.
    ///
    /// # Panics
    ///
    /// If the runtime was built without its timers (`enable_time`).
    pub async fn open(self) -> Result<P::Handle> {
        let name = self.name.clone()?;
        self.options.check().map_err(|error| error.on_map(&name))?;
        self.plan.check().map_err(|error| error.on_map(&name))?;
        let conflicts = Conflicts::new(self.conflicts);
        conflicts
            .check(self.provider.capabilities())
            .map_err(|error| error.on_map(&name))?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|e| {
            let message = "a map must be opened on a tokio runtime, and this call was made \
                           outside of one; make it within one (`#[tokio::main]`, `block_on`)";
            let error = Error::new(ErrorKind::Invalid, message).with_source(e);
            error.on_map(&name)
        })?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let clock = Arc::new(MapClock::new(clock));
        let lifetime = self.plan.begin(clock.clone());
        let shared = Shared::new(name, self.provider, self.options, clock);
        let core = Core::new(shared, lifetime, conflicts);
        let open = spans::open(&core.name, &*core.provider);
        let load = open.in_scope(|| spans::load(&core.name, &*core.provider));
        let loading = core.load_in_time(self.progress.as_ref()).instrument(load);
        let loaded = loading.instrument(open).await?;
        Ok(Map::start(Arc::new(core), loaded, runtime).into())
    }
}

impl<V, P: fmt::Debug> fmt::Debug for Builder<V, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("provider", &self.provider)
            .field("name", &self.name)
            .field("options", &self.options)
            .field("conflicts", &self.conflicts)
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

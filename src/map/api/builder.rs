//! Every option of a map: its unit, default, bounds, and what it trades.

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
/// Every option has a default that suits most programs; a value out of its
/// bounds is an error of [`open`](Self::open), never a panic. Closures need to
/// know the type of the values at once: name it at the beginning, as in
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

    /// When a flush starts by itself: once so many keys are pending, or once the
    /// oldest change is that old, whichever comes first. 1,000 keys and one
    /// second by default.
    ///
    /// Both at least 1 (key, millisecond). Smaller numbers put fewer changes at
    /// risk; larger ones make fewer and cheaper commits. Can be changed while
    /// the map is open: [`set_batch`](crate::Map::set_batch).
    pub fn batch(mut self, size: usize, interval: Duration) -> Self {
        self.options.triggers = Triggers { size, interval };
        self
    }

    /// How often and how fast a failed save is tried again; see [`RetryPolicy`].
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.options.retry = policy;
        self
    }

    /// How often and how fast an [update in the
    /// store](crate::Map::update_in_store) is tried again when others have
    /// written the key meanwhile: 100 attempts by default, with random delays from
    /// 5 to 250 milliseconds, so it gives up after about 12 seconds. The more
    /// processes write the same key, the more attempts it takes.
    pub fn retry_conflicts(mut self, policy: RetryPolicy) -> Self {
        self.options.retry_conflicts = policy;
        self
    }

    /// How many keys one commit carries at the most; at least 1, 100,000 by
    /// default. A flush of more takes several commits. Large ones are cheaper by
    /// the key, and hold up those who wait for theirs.
    pub fn max_batch(mut self, keys: usize) -> Self {
        self.options.max_batch = keys;
        self
    }

    /// About how many bytes of keys and encoded values one commit carries at
    /// the most; at least 1, 16 MiB by default. The memory that a commit takes
    /// follows it. A batch ends with the change that reaches it, so it may be
    /// larger by one value.
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.options.max_batch_bytes = bytes;
        self
    }

    /// How many keys may be pending before saves (`…_and_save`) are turned away
    /// as `Unavailable`, without changing anything; at least 1, no limit by
    /// default.
    ///
    /// Writes without a save are never turned away: they have no way to say so.
    /// Where a dead store must not fill the memory, save, or look at
    /// [`pending`](crate::Map::pending).
    pub fn max_pending(mut self, keys: usize) -> Self {
        self.options.max_pending = Some(keys);
        self
    }

    /// How long one call of the provider (a commit, a page of a load) may take
    /// before it counts as failed with an unknown outcome; at least a millisecond, 30 seconds by default.
    pub fn commit_timeout(mut self, limit: Duration) -> Self {
        self.options.commit_timeout = limit;
        self
    }

    /// How long [`open`](Self::open) goes on trying to load the map while the
    /// store is [`Unavailable`](ErrorKind::Unavailable), with the delays of the
    /// [policy](Self::retry); not at all by default.
    ///
    /// For a program that starts before its database. Other errors are told at
    /// once: time mends neither what is `Corrupt` nor a call that is `Invalid`,
    /// and a store that is `Unusable` needs a person, who should not have to wait
    /// to be told. The last attempt begins at the end of that time and is not cut
    /// off, because loading a large map takes as long as it takes; a call without
    /// an answer ends by [`commit_timeout`](Self::commit_timeout). (A provider
    /// that connects when it is made, as `Postgres` does, has errors of its own
    /// before that.)
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.options.open_timeout = limit;
        self
    }

    /// Opens the map even if stored records do not decode into its values.
    ///
    /// They are then [listed](crate::Map::unreadable), missing from
    /// the map, and kept in the store, whatever is written to their keys. Without
    /// this, one such record fails the opening; the error says how many there
    /// are, and names their keys.
    pub fn allow_unreadable(mut self) -> Self {
        self.options.allow_unreadable = true;
        self
    }

    /// Which values are read back before they are saved: all of them by default.
    /// A value that the map could not read again is refused, so what was saved
    /// opens again. The others trade that for time; see [`Verify`].
    pub fn verify(mut self, verify: Verify) -> Self {
        self.options.verify = verify;
        self
    }

    /// What becomes of a change when another process has changed the same key
    /// since this map loaded or last saved it; see [`OnConflict`]. By default the
    /// last write wins, and nobody notices.
    pub fn conflicts(mut self, policy: OnConflict<V>) -> Self {
        self.conflicts = policy;
        self
    }

    /// How the map goes on once its store has gone back in time: its server was
    /// replaced by an older backup, or by an empty one, while the map was open. By
    /// default it stops, writes nothing, and waits for a decision; see [`Rewind`].
    ///
    /// A store that went back notices it at the next commit, provided that the
    /// map's last commit was less than 12 hours ago, or that the store remembers
    /// an older one of this map, or that another map has noticed it. What a store
    /// holds when a map is opened is taken as it is.
    pub fn on_rewind(mut self, policy: Rewind) -> Self {
        self.options.on_rewind = policy;
        self
    }

    /// The number of the shape that the program writes its values in; 0 by
    /// default. Each stored record carries the number of its own.
    ///
    /// Raise it when a value's type changes so that stored values do not decode
    /// any more, or mean something else, and add the [step](Self::migrate) that
    /// leads there. `open` refuses a map that holds values of a higher number,
    /// also where [unreadable](Self::allow_unreadable) records are allowed: an
    /// older program must not write beside a newer one.
    pub fn schema(mut self, number: u32) -> Self {
        self.options.shapes.current = number;
        self
    }

    /// How a value of the shape `from` becomes one of the next, `from + 1`.
    ///
    /// Values of an older shape go through all steps from theirs to the
    /// [current](Self::schema) one when they are loaded, by `open` or
    /// [`reload`](Map::reload). In the store they stay as they are until they
    /// are written the next time (but see
    /// [`rewrite_on_load`](Self::rewrite_on_load)). What was stored before
    /// shapes were numbered is of shape 0, and so is what other programs write.
    ///
    /// The step returns the value, or a `Result` of it. A record whose step
    /// fails or panics is unreadable, as one that does not decode; it is never
    /// overwritten unasked. Steps work on [`serde_json::Value`], which has
    /// integers of up to 64 bits only: larger ones become floats.
    ///
    /// Each step from the oldest to the current shape is there once, or `open`
    /// says which is not. Old steps may go when nothing of that shape is left.
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
        self.options.shapes.add(from, step);
        self
    }

    /// Stores anew, in the current shape, what was upgraded when it was loaded.
    ///
    /// It becomes pending and goes out with the flushes, as if it had been
    /// written; if another process has written such a key meanwhile, its value
    /// stays. Without this, what is never written is upgraded at each load.
    ///
    /// Records that expire are left as they are: a time to live must not begin
    /// anew. So are those that the store refuses.
    pub fn rewrite_on_load(mut self) -> Self {
        self.options.shapes.rewrite = true;
        self
    }

    /// The clock of the map, for tests; the machine's by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Called after each page while the map loads, with the number of records
    /// so far and, if the store knows, about how many there are.
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
    /// Loads the map and starts its background task, on the tokio runtime that
    /// this is awaited on.
    ///
    /// # Errors
    ///
    /// `Invalid` if the name or an option is out of its bounds, this is called
    /// outside of a tokio runtime, or the store holds values of a [shape](Self::schema) that
    /// the program does not know; `Unsupported` if [conflicts](Self::conflicts)
    /// are to be looked for, and the provider cannot; `Corrupt`, with how many
    /// and their keys, if records do not decode (unless
    /// [allowed](Self::allow_unreadable)); otherwise what the provider errs with,
    /// at once unless there is an [`open_timeout`](Self::open_timeout). The store
    /// is as it was.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future opens nothing, and leaves nothing behind.
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
            let message = "a map is opened on a tokio runtime, and this call was made outside of \
                           one; make it within one (`#[tokio::main]`, `block_on`)";
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

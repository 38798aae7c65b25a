//! The error type of the crate, sorted by remedy.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::{incarnation::Rewound, record::Record};

mod logged;

use logged::Logged;

/// A `Result` with [`Error`] as its default error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The remedy for an [`Error`], and the state that the failure leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached: a lost connection, a lock, a timeout. Try
    /// again. An open map retries by itself, and its changes stay pending.
    Unavailable,
    /// The whole store needs repair: a missing permission, a full disk, a missing
    /// table. No entry is at fault. Changes stay pending, and an open map resumes
    /// by itself once the store works again.
    Unusable,
    /// The store or the codec rejects the changes of [these keys](Error::keys)
    /// for good. They stay in memory and do not delay other changes.
    Refused,
    /// A precondition failed: the store holds [another record](Error::found)
    /// than expected. Nothing was written.
    Conflict,
    /// A later batch of the same writer has already been applied. Nothing was
    /// written.
    Superseded,
    /// The store has lost commits that it had acknowledged: it was replaced by an older
    /// copy or by an empty store, or the map was [dropped](crate::Provider::drop_map).
    /// [`Error::rewound`] has both states. Nothing was written. The map stops writing
    /// until the store is restored, or [`on_rewind`](crate::Builder::on_rewind) or
    /// [`resolve_rewind`](crate::Map::resolve_rewind) decides how to continue.
    Rewound,
    /// The stored data is damaged or cannot be decoded. Nothing was overwritten.
    Corrupt,
    /// The call is wrong: a name, an option, an argument. Fix the call.
    Invalid,
    /// The provider does not support the operation. Nothing was written.
    Unsupported,
    /// The map or the provider was closed.
    Closed,
}

/// An error of a map or a provider.
///
/// [`kind`](Self::kind) says what to do about it. The message says what was
/// attempted, on what, and what to do. `{}` prints the message, the map, up to five
/// keys and all causes; `{:?}` prints the kind as well. Causes may quote stored
/// data. [`source`](StdError::source) returns the cause. A clone is an `Arc` clone.
#[derive(Clone)]
pub struct Error(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    kind: ErrorKind,
    message: String,
    map: Option<Arc<str>>,
    keys: Vec<Arc<str>>,
    found: Option<Record>,
    rewound: Option<Rewound>,
    may_have_applied: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error.
    ///
    /// The message should say what was attempted, on what, and what to do. It must
    /// not contain a secret, and need not repeat the [source](Self::with_source),
    /// which is printed after it.
    ///
    /// By default, an [`Unavailable`](ErrorKind::Unavailable) error leaves it open
    /// whether the batch was applied, and every other kind means that nothing was
    /// applied. [`nothing_applied`](Self::nothing_applied) and
    /// [`outcome_unknown`](Self::outcome_unknown) override this.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Parts {
            kind,
            message: message.into(),
            map: None,
            keys: Vec::new(),
            found: None,
            rewound: None,
            may_have_applied: kind == ErrorKind::Unavailable,
            source: None,
        }))
    }

    /// The error of a change whose precondition failed, with the stored record.
    pub(crate) fn conflict(map: impl AsRef<str>, key: &Arc<str>, found: Option<Record>) -> Self {
        let stored = found.as_ref().filter(|record| record.value.is_some());
        let there = stored.map_or("the store has none".to_owned(), |record| {
            format!("it was last written by revision {}", record.revision)
        });
        let message = format!(
            "the stored entry is not as expected: {there}; nothing was written; see \
             `found()` for the stored entry, then try again"
        );
        Self::new(ErrorKind::Conflict, message)
            .on_map(map)
            .on_keys([key.clone()])
            .with_found(found)
    }

    /// The error of a store that has lost acknowledged commits.
    pub(crate) fn store_rewound(states: Rewound) -> Self {
        let message = format!(
            "the store has lost commits, or is another store: it {states}; nothing was written; \
             restore the latest state of the store, or choose how to go on with `resolve_rewind` \
             or `on_rewind`"
        );
        Self::new(ErrorKind::Rewound, message).with_rewound(states)
    }

    /// The error of a map that was dropped after its writer had loaded it.
    pub(crate) fn map_dropped(states: Rewound) -> Self {
        let message = "the map was dropped from its store after it was loaded; nothing was written; \
                       open it again, or choose how to go on with `resolve_rewind` or `on_rewind`";
        Self::new(ErrorKind::Rewound, message).with_rewound(states)
    }

    /// Appends to the message.
    pub(crate) fn and_say(self, more: &str) -> Self {
        self.change(|parts| parts.message = format!("{}; {more}", parts.message))
    }

    /// Sets the map concerned.
    #[must_use]
    pub fn on_map(self, map: impl AsRef<str>) -> Self {
        self.change(|parts| parts.map = Some(map.as_ref().into()))
    }

    /// Sets the keys concerned, replacing earlier ones.
    #[must_use]
    pub fn on_keys(self, keys: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.change(|parts| parts.keys = keys.into_iter().collect())
    }

    /// Sets the stored record that conflicted.
    #[must_use]
    pub fn with_found(self, found: Option<Record>) -> Self {
        self.change(|parts| parts.found = found)
    }

    /// Sets the expected and the found state of a rewound store.
    #[must_use]
    pub fn with_rewound(self, rewound: Rewound) -> Self {
        self.change(|parts| parts.rewound = Some(rewound))
    }

    /// Sets the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.change(|parts| parts.source = Some(Arc::from(source.into())))
    }

    /// Marks the outcome as unknown: the batch may have been applied, or may yet be.
    #[must_use]
    pub fn outcome_unknown(self) -> Self {
        self.change(|parts| parts.may_have_applied = true)
    }

    /// Marks the batch as not applied: it was not, and it never will be.
    #[must_use]
    pub fn nothing_applied(self) -> Self {
        self.change(|parts| parts.may_have_applied = false)
    }

    /// The remedy.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The map concerned, if it is a single map.
    pub fn map(&self) -> Option<&str> {
        self.0.map.as_deref()
    }

    /// The keys concerned. Empty if no key is at fault, or if the keys at fault are
    /// not known.
    pub fn keys(&self) -> &[Arc<str>] {
        &self.0.keys
    }

    /// The record that the store holds, for a [`Conflict`](ErrorKind::Conflict).
    pub fn found(&self) -> Option<&Record> {
        self.0.found.as_ref()
    }

    /// The expected and the found state of the store, for a store that was
    /// [`Rewound`](ErrorKind::Rewound).
    pub fn rewound(&self) -> Option<&Rewound> {
        self.0.rewound.as_ref()
    }

    /// Whether the batch may have been applied, or may yet be. Commit the identical
    /// batch again until its outcome is known.
    pub fn may_have_applied(&self) -> bool {
        self.0.may_have_applied
    }

    /// The error without keys and values, for log levels above `TRACE`.
    pub(crate) fn logged(&self) -> impl fmt::Display {
        Logged(self)
    }

    fn change(mut self, with: impl FnOnce(&mut Parts)) -> Self {
        with(Arc::make_mut(&mut self.0));
        self
    }
}

/// The maximum number of keys that a message names.
const MAX_KEYS_NAMED: usize = 5;

/// Prints the message, the map, the keys and all causes. The causes are included
/// because many programs print an error without its sources, and the system's
/// message is often the only one that says what is wrong.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if let Some(map) = &self.0.map {
            write!(f, " (map {map:?})")?;
        }
        match self.0.keys.as_slice() {
            [] => {}
            [key] => write!(f, " (key {key:?})")?,
            keys => write_keys(f, keys)?,
        }
        write_causes(f, self.source())
    }
}

fn write_causes(
    f: &mut fmt::Formatter<'_>,
    mut cause: Option<&(dyn StdError + 'static)>,
) -> fmt::Result {
    while let Some(error) = cause {
        write!(f, "; caused by: {error}")?;
        // An `Error` prints its own causes.
        cause = error.source().filter(|_| !error.is::<Error>());
    }
    Ok(())
}

fn write_keys(f: &mut fmt::Formatter<'_>, keys: &[Arc<str>]) -> fmt::Result {
    write!(f, " ({} keys: ", keys.len())?;
    for (n, key) in keys.iter().take(MAX_KEYS_NAMED).enumerate() {
        write!(f, "{}{key:?}", if n == 0 { "" } else { ", " })?;
    }
    f.write_str(if keys.len() > MAX_KEYS_NAMED {
        ", …)"
    } else {
        ")"
    })
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self)
    }
}

/// Lets arguments be `impl TryInto<MapName, Error: Into<Error>>`, which includes
/// `MapName` itself.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

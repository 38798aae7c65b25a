//! The one error type, sorted by what the caller should do about it.

use std::{error::Error as StdError, fmt, sync::Arc};

use crate::{incarnation::Rewound, record::Record};

mod logged;

use logged::Logged;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What to do about an [`Error`], and what state it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached just now: connection, lock, timeout. Try
    /// again; a map does so by itself, and what is pending stays pending.
    Unavailable,
    /// The whole store needs a person: a permission, a full disk, a missing
    /// table. No entry is to blame; what is pending stays pending, and the map
    /// finds out by itself when the store is well again.
    Unusable,
    /// The store (or the codec) will never take the changes of
    /// [these keys](Error::keys). They stay in memory, out of the others' way.
    Refused,
    /// The store holds [something else](Error::found) than was expected.
    /// Nothing was written.
    Conflict,
    /// A later batch of the same writer was applied already. Nothing was
    /// written.
    Superseded,
    /// The store has lost commits that it had acknowledged: it was replaced by an
    /// older copy of itself, or by an empty store; [`Error::rewound`] has the two
    /// states. Nothing was written. A map stops writing until it is told how to
    /// go on: [`on_rewind`](crate::Builder::on_rewind),
    /// [`resolve_rewind`](crate::Map::resolve_rewind).
    Rewound,
    /// What is stored does not make sense. Nothing was overwritten.
    Corrupt,
    /// The call cannot be carried out as it is: fix the call.
    Invalid,
    /// This provider cannot do that. Nothing was written.
    Unsupported,
    /// The map or the provider was closed.
    Closed,
}

/// What went wrong, on what, and what to do about it.
///
/// [`kind`](Self::kind) sorts errors by remedy. The message says what was
/// attempted and what to do. `{}` prints it with all causes, which are in
/// [`source`](StdError::source) as well; they may quote what is stored. A clone shares
/// everything.
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
    /// An error of this kind. The message says what was attempted, on what,
    /// and what to do; it holds no secret and does not repeat the
    /// [source](Self::with_source), which is printed after it.
    ///
    /// An [`Unavailable`](ErrorKind::Unavailable) error leaves it open whether
    /// the batch was applied, unless [`nothing_applied`](Self::nothing_applied)
    /// says otherwise; every other kind says that nothing was, unless
    /// [`outcome_unknown`](Self::outcome_unknown) says otherwise.
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

    /// What every provider says of a change whose condition does not hold; with
    /// what it found in place of what was expected.
    pub(crate) fn conflict(map: impl AsRef<str>, key: &Arc<str>, found: Option<Record>) -> Self {
        let stored = found.as_ref().filter(|record| record.value.is_some());
        let there = stored.map_or("there is none".to_owned(), |record| {
            format!("it was last written by revision {}", record.revision)
        });
        let message = format!(
            "the stored entry is not as expected: {there}; nothing was written: look at \
             `found()`, decide, and try again"
        );
        Self::new(ErrorKind::Conflict, message)
            .on_map(map)
            .on_keys([key.clone()])
            .with_found(found)
    }

    /// What every provider, and every map, says of a store in these two states.
    pub(crate) fn store_rewound(states: Rewound) -> Self {
        let message = format!(
            "the store has gone back in time, or is another one: it {states}; nothing was \
             written: put back the store as it was, or say how to go on with `resolve_rewind` or \
             `on_rewind`"
        );
        Self::new(ErrorKind::Rewound, message).with_rewound(states)
    }

    /// The same error; the message goes on with what only this caller knows.
    pub(crate) fn and_say(self, more: &str) -> Self {
        self.change(|parts| parts.message = format!("{}; {more}", parts.message))
    }

    /// The same error, about this map.
    #[must_use]
    pub fn on_map(self, map: impl AsRef<str>) -> Self {
        self.change(|parts| parts.map = Some(map.as_ref().into()))
    }

    /// The same error, about these keys and no others.
    #[must_use]
    pub fn on_keys(self, keys: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.change(|parts| parts.keys = keys.into_iter().collect())
    }

    /// The same error, with the record that stood in the way.
    #[must_use]
    pub fn with_found(self, found: Option<Record>) -> Self {
        self.change(|parts| parts.found = found)
    }

    /// The same error, with the two states of the store that was rewound.
    #[must_use]
    pub fn with_rewound(self, rewound: Rewound) -> Self {
        self.change(|parts| parts.rewound = Some(rewound))
    }

    /// The same error, with its cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.change(|parts| parts.source = Some(Arc::from(source.into())))
    }

    /// The same error; whether the batch was applied is not known.
    #[must_use]
    pub fn outcome_unknown(self) -> Self {
        self.change(|parts| parts.may_have_applied = true)
    }

    /// The same error; it is certain that nothing was applied, nor will be.
    #[must_use]
    pub fn nothing_applied(self) -> Self {
        self.change(|parts| parts.may_have_applied = false)
    }

    /// What to do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The map concerned, if it is a single one.
    pub fn map(&self) -> Option<&str> {
        self.0.map.as_deref()
    }

    /// The keys concerned; empty where no key is to blame, or where it is not
    /// known which.
    pub fn keys(&self) -> &[Arc<str>] {
        &self.0.keys
    }

    /// What the store holds instead, for a [`Conflict`](ErrorKind::Conflict).
    pub fn found(&self) -> Option<&Record> {
        self.0.found.as_ref()
    }

    /// What the map knew of the store, and what the store holds, for a store that
    /// was [`Rewound`](ErrorKind::Rewound).
    pub fn rewound(&self) -> Option<&Rewound> {
        self.0.rewound.as_ref()
    }

    /// Whether the batch may have been applied, or may yet be. The remedy is
    /// to commit the identical batch again, until its fate is known.
    pub fn may_have_applied(&self) -> bool {
        self.0.may_have_applied
    }

    /// What a log may say of it above `TRACE`: no key and no value.
    pub(crate) fn logged(&self) -> impl fmt::Display {
        Logged(self)
    }

    fn change(mut self, with: impl FnOnce(&mut Parts)) -> Self {
        with(Arc::make_mut(&mut self.0));
        self
    }
}

/// How many keys a message names before it counts the rest.
const MAX_KEYS_NAMED: usize = 5;

/// The message, what it is about, and all causes: what is wrong is often said by the
/// system alone, and many programs print an error without its sources.
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
        // An error of this type has printed its own causes.
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

/// So that an argument may be anything that turns into a name, a name included.
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

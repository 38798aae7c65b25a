//! Which life of a store this is, and what is known when one has lost commits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The life of a store: a random number that the store keeps beside the maps
/// and answers with every load, commit and ping.
///
/// It stays the same for as long as the store keeps what it acknowledged. Once
/// a store turns out to have lost commits, because it was replaced by an older
/// copy or by an empty store, the first writer to notice has it draw a new one.
/// By that every other writer learns of it, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// An incarnation that no store has had yet. Its number is above 0 and
    /// fits into 63 bits, so a database can keep it as a signed integer.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX >> 1))
    }

    /// The incarnation with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Serialize for Incarnation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Incarnation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The two states of a store that has gone back in time: what the map knew of
/// it, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewound {
    /// The incarnation in which the map knew the store.
    pub expected: Option<Incarnation>,
    /// The incarnation that the store is in now; `None` if it keeps none.
    pub found: Option<Incarnation>,
    /// The sequence of the last commit of the map that the store acknowledged;
    /// `None` if there was none.
    pub acknowledged: Option<u64>,
    /// The sequence of the last commit of the map that the store remembers;
    /// `None` if it remembers none.
    pub remembered: Option<u64>,
}

impl Rewound {
    /// The map knew the store in the first incarnation, and finds it in the
    /// second.
    pub const fn new(expected: Option<Incarnation>, found: Option<Incarnation>) -> Self {
        Self {
            expected,
            found,
            acknowledged: None,
            remembered: None,
        }
    }

    /// Adds what was acknowledged to the map, and what the store remembers of
    /// it.
    #[must_use]
    pub const fn with_sequences(
        mut self,
        acknowledged: Option<u64>,
        remembered: Option<u64>,
    ) -> Self {
        self.acknowledged = acknowledged;
        self.remembered = remembered;
        self
    }
}

/// The rest of a sentence that begins with the store.
impl fmt::Display for Rewound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(acknowledged) = self.acknowledged {
            write!(f, "acknowledged commit {acknowledged} of this map and ")?;
            match self.remembered {
                Some(last) if last >= acknowledged => f.write_str("remembers it; it ")?,
                Some(last) => write!(f, "remembers only commit {last}; it ")?,
                None => f.write_str("remembers none; it ")?,
            }
        }
        f.write_str("is in incarnation ")?;
        write_known(f, self.found)?;
        f.write_str(", and the map knew it in ")?;
        write_known(f, self.expected)
    }
}

fn write_known(f: &mut fmt::Formatter<'_>, incarnation: Option<Incarnation>) -> fmt::Result {
    match incarnation {
        Some(incarnation) => fmt::Display::fmt(&incarnation, f),
        None => f.write_str("none"),
    }
}

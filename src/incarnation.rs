//! The incarnation of a store, and the states of a store that has lost commits.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A random number that identifies one history of a store.
///
/// The store keeps it beside its maps and returns it with every load, commit and
/// ping. It stays the same while the store keeps all commits that it acknowledged.
/// When a store has lost commits, because it was replaced by an older copy or by an
/// empty store, the first commit that detects this makes the store choose a new
/// incarnation. All other writers detect the loss by the new number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Creates a new, random incarnation. Its number is positive and fits into 63
    /// bits, so a database can store it as a signed integer.
    pub fn random() -> Self {
        Self(rand::random_range(1..=u64::MAX >> 1))
    }

    /// The incarnation with the given number.
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

/// The expected and the found state of a store that has lost commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewound {
    /// The incarnation that the map expects; `None` if it knows of none.
    pub expected: Option<Incarnation>,
    /// The incarnation of the store now; `None` if the store keeps none.
    pub found: Option<Incarnation>,
    /// The sequence number of the last commit of the map that the store
    /// acknowledged; `None` if there was none.
    pub acknowledged: Option<u64>,
    /// The sequence number of the last commit of the map that the store remembers;
    /// `None` if it remembers none.
    pub remembered: Option<u64>,
}

impl Rewound {
    /// Creates a value from the expected and the found incarnation.
    pub const fn new(expected: Option<Incarnation>, found: Option<Incarnation>) -> Self {
        Self {
            expected,
            found,
            acknowledged: None,
            remembered: None,
        }
    }

    /// Sets the last acknowledged and the last remembered sequence number.
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

/// Prints the predicate of a sentence whose subject is the store.
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
        f.write_str(", and the map expects ")?;
        write_known(f, self.expected)
    }
}

fn write_known(f: &mut fmt::Formatter<'_>, incarnation: Option<Incarnation>) -> fmt::Result {
    match incarnation {
        Some(incarnation) => fmt::Display::fmt(&incarnation, f),
        None => f.write_str("none"),
    }
}

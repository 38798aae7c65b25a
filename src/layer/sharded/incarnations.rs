//! The incarnation of a layer over several stores: a digest of those of its shards.
//!
//! A map knows one number. The layer translates it, so that each shard is asked for its own
//! incarnation, and a shard that has gone back in time changes the number of the layer.

use std::{collections::HashMap, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

use crate::incarnation::Incarnation;

/// One incarnation for each shard.
pub(super) type Vector = Vec<Option<Incarnation>>;

pub(super) struct Incarnations {
    names: Vec<Arc<str>>,
    /// Those that the shards answered with last.
    latest: Vector,
    /// The vectors behind the numbers that were given out. They grow by one with each loss.
    known: HashMap<Incarnation, Vector>,
}

impl Incarnations {
    pub(super) fn new(names: impl Iterator<Item = Arc<str>>) -> Self {
        let names: Vec<_> = names.collect();
        Self {
            latest: vec![None; names.len()],
            names,
            known: HashMap::new(),
        }
    }

    pub(super) fn latest(&self) -> &Vector {
        &self.latest
    }

    /// Records the answer of a shard.
    pub(super) fn saw(&mut self, shard: usize, found: Option<Incarnation>) {
        self.latest[shard] = found.or(self.latest[shard]);
    }

    /// The vector of a number; `None` for one that this layer has not given out.
    pub(super) fn vector(&self, combined: Incarnation) -> Option<Vector> {
        match self.names.len() {
            1 => Some(vec![Some(combined)]),
            _ => self.known.get(&combined).cloned(),
        }
    }

    /// The number of a vector; `None` if no shard has an incarnation. That of one shard is
    /// its own.
    pub(super) fn combined(&mut self, vector: &Vector) -> Option<Incarnation> {
        if let [one] = &**vector {
            return *one;
        }
        vector.iter().flatten().next()?;
        let mut digested = Vec::new();
        for (name, incarnation) in self.names.iter().zip(vector) {
            digested.extend_from_slice(name.as_bytes());
            // No name contains a control character, so the end of a name is certain.
            digested.push(0);
            let number = incarnation.map_or(0, Incarnation::get);
            digested.extend_from_slice(&number.to_le_bytes());
        }
        // 63 bits, like every incarnation.
        let combined = Incarnation::new((xxh3_64(&digested) >> 1).max(1));
        let known = self.known.entry(combined);
        known.or_insert_with(|| vector.clone());
        Some(combined)
    }
}

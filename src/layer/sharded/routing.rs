//! Routing: which shard has a key.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    error::{Error, ErrorKind, Result},
    name::MapName,
    provider::Provider,
    record::Revision,
};

/// A provider with its name in the layout.
pub(super) struct Shard {
    pub(super) name: Arc<str>,
    pub(super) provider: Arc<dyn Provider>,
    seed: u64,
    /// The highest revision that it was seen to assign.
    last: AtomicU64,
}

impl Shard {
    /// # Errors
    ///
    /// `Invalid` for a name that is no name of a map.
    pub(super) fn new(name: &str, provider: Arc<dyn Provider>) -> Result<Self> {
        MapName::new(name).map_err(|error| {
            let message = format!("{name:?} cannot name a shard");
            Error::new(ErrorKind::Invalid, message).with_source(error)
        })?;
        Ok(Self {
            name: name.into(),
            provider,
            seed: xxh3_64(name.as_bytes()),
            last: AtomicU64::new(0),
        })
    }

    pub(super) fn last(&self) -> Revision {
        Revision::new(self.last.load(Relaxed))
    }

    pub(super) fn saw(&self, revision: Revision) {
        self.last.fetch_max(revision.get(), Relaxed);
    }

    /// The error, with the name of this shard.
    pub(super) fn blame(&self, error: Error) -> Error {
        error.and_say(&format!("the shard is {:?}", self.name))
    }

    /// The weight of a key on this shard. Frozen: another function would look for stored
    /// keys on the wrong shards.
    fn weight(&self, key: &str) -> u64 {
        xxh3_64_with_seed(key.as_bytes(), self.seed)
    }
}

/// The index of the shard with the highest weight for this key; of two equal ones, that
/// with the greater name. The shards are sorted by name.
pub(super) fn owner(shards: &[Shard], key: &str) -> usize {
    let weights = shards.iter().map(|shard| shard.weight(key)).enumerate();
    weights
        .max_by_key(|(_, weight)| *weight)
        .map_or(0, |(n, _)| n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::memory::Memory;

    fn owner_among(names: &[&str], key: &str) -> String {
        let shard = |name: &&str| Shard::new(name, Arc::new(Memory::new())).unwrap();
        let shards: Vec<_> = names.iter().map(shard).collect();
        shards[owner(&shards, key)].name.to_string()
    }

    #[test]
    fn the_routing_is_frozen() {
        let owners = ["", "a", "b", "apple", "user/1", "user/2", "日本", "🦀"]
            .map(|key| (key, owner_among(&["a", "b", "c"], key)));
        let found = owners
            .map(|(key, owner)| format!("{key}={owner}"))
            .join(" ");
        let expected = "=b a=c b=a apple=b user/1=a user/2=a 日本=a 🦀=a";
        assert_eq!(found, expected);
        let shard = Shard::new("a", Arc::new(Memory::new())).unwrap();
        assert_eq!(shard.seed, 0xe6c6_32b6_1e96_4e1f);
        for (key, weight) in [
            ("", 0x5789_64e5_2438_5cb8),
            ("apple", 0x1371_b2ee_98d6_4324),
            ("日本", 0xefcf_c761_eaf1_6d6d),
            (&"x".repeat(1_000), 0xc854_96cb_02c0_8359),
        ] {
            assert_eq!(shard.weight(key), weight, "{key}");
        }
    }
}

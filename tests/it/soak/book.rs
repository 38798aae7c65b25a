//! All writes and their answers: the values that a key may have, in memory and in the store.

use std::{collections::BTreeMap, fmt};

use super::trace;

/// The number of keys of each map.
pub(super) const KEYS: usize = 4;

/// Expiries have a resolution in milliseconds. An entry this close to its expiry is not checked.
const SLACK: u64 = 4;

pub(super) fn key(n: usize) -> String {
    format!("k{n}")
}

/// The lifetime of a value in milliseconds: at least and at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) least: Option<u64>,
    pub(super) most: Option<u64>,
}

/// A write to a key, from the call to the answer.
struct Write {
    map: usize,
    key: usize,
    /// `None` removes the key.
    token: Option<u64>,
    what: &'static str,
    owner: usize,
    begun: u64,
    /// When it was certainly in memory.
    done: Option<u64>,
    /// The time after which it cannot take effect any more.
    over: Option<u64>,
    /// Whether it is certainly in the store.
    saved: bool,
    never: bool,
    span: Span,
    /// The earliest and the latest time at which it expires.
    gone: [Option<u64>; 2],
    /// The same for all writes that were committed together.
    group: Option<u64>,
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = if self.never {
            "never"
        } else if self.saved {
            "saved"
        } else {
            "open"
        };
        let (token, over) = (self.token, self.over);
        let from = format!("{} {} of owner {}", self.begun, self.what, self.owner);
        let done = format!("done {:?}, over {over:?}, gone {:?}", self.done, self.gone);
        let place = format!("map {} k{} = {token:?}", self.map, self.key);
        write!(f, "{from}: {place}, {told}, {done}, of {:?}", self.group)
    }
}

/// The value of a write, and its lifetime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) what: &'static str,
    pub(super) token: Option<u64>,
    pub(super) span: Span,
}

/// The writes to all maps, in the order in which they began.
#[derive(Default)]
pub(super) struct Book {
    tick: u64,
    /// The current time, in milliseconds.
    pub(super) now: u64,
    /// Whether other owners write to the same maps, so that a value in one memory may reach the
    /// store at any time.
    foreign: bool,
    writes: Vec<Write>,
}

/// For each key, the beginning of the last write that must have taken effect.
pub(super) type Floor = [u64; KEYS];

/// The contents of a map or a store, by key.
pub(super) type Held = BTreeMap<String, u64>;

impl Book {
    pub(super) fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    pub(super) fn begin(&mut self, owner: usize, map: usize, key: usize, wanted: Wanted) -> usize {
        let begun = self.tick();
        let early = wanted.span.least.map(|least| self.now + least);
        self.writes.push(Write {
            map,
            key,
            token: wanted.token,
            what: wanted.what,
            owner,
            begun,
            done: None,
            over: None,
            saved: false,
            never: false,
            span: wanted.span,
            gone: [early, None],
            group: None,
        });
        let id = self.writes.len() - 1;
        trace::tell(|| format!("[{id}] {:?}", self.writes[id]));
        id
    }

    /// Records that the writes were committed together.
    pub(super) fn together(&mut self, ids: &[usize]) {
        let group = self.tick();
        for id in ids {
            self.writes[*id].group = Some(group);
        }
    }

    /// Records that the writes have not taken effect and never will.
    pub(super) fn never(&mut self, ids: &[usize]) {
        for id in ids {
            self.writes[*id].never = true;
        }
    }

    /// Records that the writes are in memory.
    pub(super) fn done(&mut self, ids: &[usize]) {
        for id in ids {
            self.maybe(&[*id]);
            let write = &mut self.writes[*id];
            write.done.get_or_insert(self.tick);
        }
    }

    /// Records that the writes are in memory, or will not be any more.
    pub(super) fn maybe(&mut self, ids: &[usize]) {
        let now = self.tick();
        for id in ids {
            let write = &mut self.writes[*id];
            if !self.foreign {
                write.over.get_or_insert(now);
            }
            let late = write.span.most.map(|most| self.now + most);
            write.gone[1] = write.gone[1].or(late);
        }
    }

    /// Records that the writes are in the store, or were.
    pub(super) fn saved(&mut self, ids: &[usize]) {
        self.done(ids);
        let now = self.tick();
        for id in ids {
            let write = &mut self.writes[*id];
            write.saved = true;
            write.over = Some(now);
        }
    }

    /// Records that the store has everything that the owner had in memory before that tick.
    pub(super) fn flushed(&mut self, owner: usize, map: usize, before: u64) {
        let now = self.tick();
        let own = self.writes.iter_mut();
        let own = own.filter(|w| w.map == map && w.owner == owner);
        for write in own.filter(|w| w.done.is_some_and(|done| done < before)) {
            write.saved = true;
            write.over.get_or_insert(now);
        }
    }

    /// Starts again with the [found](Self::found) records.
    pub(super) fn restart(&mut self, foreign: bool) {
        self.writes.clear();
        self.foreign = foreign;
    }

    pub(super) fn found(&mut self, map: usize, key: usize, token: Option<u64>, span: Span) {
        let what = "found";
        let id = self.begin(0, map, key, Wanted { what, token, span });
        self.saved(&[id]);
    }

    fn of(&self, map: usize, key: usize) -> impl Iterator<Item = &Write> {
        let writes = self.writes.iter();
        writes.filter(move |w| w.map == map && w.key == key)
    }

    fn floor(&self, map: usize, must: impl Fn(&Write) -> bool) -> Floor {
        let must = |w: &Write| must(w) && !w.never && !(self.foreign && self.has_expired(w));
        std::array::from_fn(|key| {
            let sure = self.of(map, key).filter(|w| must(w));
            sure.map(|w| w.begun).max().unwrap_or(0)
        })
    }

    /// Whether the write, or a later one of the same owner, may have expired. If it was not saved
    /// before, it changes nothing that other owners have stored.
    fn has_expired(&self, write: &Write) -> bool {
        let mut later = self.of(write.map, write.key);
        later.any(|w| {
            let is_later = w.owner == write.owner && w.begun >= write.begun;
            is_later && w.gone[0].is_some_and(|at| at <= self.now + SLACK)
        })
    }

    /// For each key, the last write that memory must have, if not a later one.
    pub(super) fn in_memory(&self, map: usize) -> Floor {
        self.floor(map, |w| w.done.is_some())
    }

    /// For each key, the last write that the store must have, if not a later one.
    pub(super) fn in_store(&self, map: usize) -> Floor {
        self.floor(map, |w| w.saved)
    }

    /// Asserts that each key has the value of the last write before the floor, or of a write that
    /// may have come after it.
    pub(super) fn check(&self, map: usize, floor: &Floor, held: &Held, place: &str) {
        for (n, last) in floor.iter().enumerate() {
            let token = held.get(&key(n)).copied();
            let fits = self.of(map, n).any(|w| self.explains(w, token, *last));
            let untouched = token.is_none() && *last == 0;
            assert!(
                fits || untouched,
                "{place}: map {map} holds {token:?} at {}, at {} ms, after {last}: {:#?}",
                key(n),
                self.now,
                self.latest(map, n)
            );
        }
    }

    fn explains(&self, write: &Write, token: Option<u64>, last: u64) -> bool {
        if write.never || write.over.is_some_and(|over| over < last) {
            return false;
        }
        let [early, late] = write.gone;
        match token {
            None => write.token.is_none() || early.is_some_and(|at| at <= self.now + SLACK),
            token => write.token == token && late.is_none_or(|at| self.now <= at + SLACK),
        }
    }

    fn latest(&self, map: usize, key: usize) -> Vec<&Write> {
        let all: Vec<_> = self.of(map, key).collect();
        all[all.len().saturating_sub(12)..].to_vec()
    }

    /// Checks that the value of the key was written by an actor. (A merged value counts as one of
    /// its parts.)
    pub(super) fn check_known(&self, map: usize, held: &Held) {
        for (n, token) in (0..KEYS).filter_map(|n| Some((n, *held.get(&key(n))?))) {
            let known = self.of(map, n).any(|w| w.token == Some(token) && !w.never);
            let latest = self.latest(map, n);
            assert!(known, "nobody wrote {token} to map {map}: {latest:#?}");
        }
    }

    /// Asserts that no part of an atomic commit is visible while another key still has an older
    /// value.
    pub(super) fn check_whole(&self, held: &[Held; 2]) {
        let holds = |w: &Write| held[w.map].get(&key(w.key)).copied();
        for one in self.writes.iter().filter(|w| w.group.is_some() && !w.never) {
            if one.token.is_none() || holds(one) != one.token {
                continue;
            }
            for other in self.writes.iter().filter(|w| w.group == one.group) {
                let token = holds(other);
                let mut writes = self.of(other.map, other.key);
                let fits = writes.any(|w| self.explains(w, token, other.begun));
                assert!(
                    fits,
                    "half of a commit: {one:#?}, but {token:?}: {other:#?}"
                );
            }
        }
    }
}

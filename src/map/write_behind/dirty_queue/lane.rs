//! A queue of keys that any of them can leave from the middle.

use std::sync::Arc;

use slab::Slab;

/// No entry.
const NONE: u32 = u32::MAX;
/// How many keys a lane holds at the most: 4 GiB of keys in the queue alone.
pub(crate) const MAX_SPOTS: u32 = 1 << 28;
/// An empty lane gives back a table larger than this many keys.
const KEPT: usize = 1_024;

#[derive(Default)]
pub(crate) struct Lane {
    nodes: Slab<Node>,
    ends: Option<Ends>,
    /// How many keys were ever pushed at the back.
    pub(crate) pushed: u64,
}

#[derive(Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
}

/// A key in its lane. Linked both ways, so that a key can leave from the
/// middle: an entry that is inserted and removed while the store is down leaves
/// nothing behind.
struct Node {
    key: Arc<str>,
    turn: u64,
    before: u32,
    after: u32,
}

impl Lane {
    /// An empty lane, after so many were pushed.
    pub(crate) fn after(pushed: u64) -> Self {
        Self {
            pushed,
            ..Self::default()
        }
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.nodes.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn push_back(&mut self, key: Arc<str>) -> u32 {
        self.pushed += 1;
        let before = self.ends.map_or(NONE, |ends| ends.last);
        let node = Node {
            key,
            turn: self.pushed,
            before,
            after: NONE,
        };
        let entry = self.insert(node);
        match &mut self.ends {
            Some(ends) => {
                let old = std::mem::replace(&mut ends.last, entry);
                self.nodes[old as usize].after = entry;
            }
            None => self.ends = Some(Ends::both(entry)),
        }
        entry
    }

    pub(crate) fn push_front(&mut self, key: Arc<str>) -> u32 {
        let after = self.ends.map_or(NONE, |ends| ends.first);
        let node = Node {
            key,
            turn: 0,
            before: NONE,
            after,
        };
        let entry = self.insert(node);
        match &mut self.ends {
            Some(ends) => {
                let old = std::mem::replace(&mut ends.first, entry);
                self.nodes[old as usize].before = entry;
            }
            None => self.ends = Some(Ends::both(entry)),
        }
        entry
    }

    fn insert(&mut self, node: Node) -> u32 {
        let entry = self.nodes.insert(node);
        // Beyond that the place would not fit, and a wrong one would lose a
        // change.
        let fits = u32::try_from(entry).ok().filter(|entry| *entry < MAX_SPOTS);
        fits.unwrap_or_else(|| panic!("more than {MAX_SPOTS} keys are pending"))
    }

    pub(crate) fn has(&self, until: u64) -> bool {
        self.ends
            .is_some_and(|ends| self.nodes[ends.first as usize].turn <= until)
    }

    pub(crate) fn pop(&mut self, until: u64) -> Option<Arc<str>> {
        let first = self.ends.filter(|_| self.has(until))?.first;
        Some(self.remove(first).key)
    }

    /// Whether the key was there. A entry may have been popped, and be another
    /// key's by now; the same allocation of the key says that it was not.
    pub(crate) fn unlink(&mut self, entry: u32, key: &Arc<str>) -> bool {
        let there = self.nodes.get(entry as usize);
        let is_there = there.is_some_and(|node| Arc::ptr_eq(&node.key, key));
        if is_there {
            self.remove(entry);
        }
        is_there
    }

    fn remove(&mut self, entry: u32) -> Node {
        let node = self.nodes.remove(entry as usize);
        if let Some(before) = self.nodes.get_mut(node.before as usize) {
            before.after = node.after;
        }
        if let Some(after) = self.nodes.get_mut(node.after as usize) {
            after.before = node.before;
        }
        self.ends = self.ends.and_then(|ends| ends.without(entry, &node));
        if self.nodes.is_empty() && self.nodes.capacity() > KEPT {
            self.nodes = Slab::new();
        }
        node
    }
}

impl Ends {
    fn both(entry: u32) -> Self {
        Self {
            first: entry,
            last: entry,
        }
    }

    fn without(self, entry: u32, node: &Node) -> Option<Self> {
        let first = if self.first == entry {
            node.after
        } else {
            self.first
        };
        let last = if self.last == entry {
            node.before
        } else {
            self.last
        };
        (first != NONE && last != NONE).then_some(Self { first, last })
    }
}

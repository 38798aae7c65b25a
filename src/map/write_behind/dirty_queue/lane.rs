//! A queue of keys from which any key can be removed.

use std::sync::Arc;

use slab::Slab;

/// The index of no node.
const NONE: u32 = u32::MAX;
/// The maximum number of keys in a lane: 4 GiB of keys in the queue alone.
pub(crate) const MAX_KEYS: u32 = 1 << 28;
/// An emptied lane frees a table larger than this many keys.
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

/// A key in its lane. Doubly linked, so that any key can be unlinked: an entry that
/// is inserted and removed while the store is down leaves nothing behind.
struct Node {
    key: Arc<str>,
    turn: u64,
    before: u32,
    after: u32,
}

impl Lane {
    /// An empty lane, as after this many keys were pushed and popped.
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
        let index = self.insert(node);
        match &mut self.ends {
            Some(ends) => {
                let old = std::mem::replace(&mut ends.last, index);
                self.nodes[old as usize].after = index;
            }
            None => self.ends = Some(Ends::both(index)),
        }
        index
    }

    pub(crate) fn push_front(&mut self, key: Arc<str>) -> u32 {
        let after = self.ends.map_or(NONE, |ends| ends.first);
        let node = Node {
            key,
            turn: 0,
            before: NONE,
            after,
        };
        let index = self.insert(node);
        match &mut self.ends {
            Some(ends) => {
                let old = std::mem::replace(&mut ends.first, index);
                self.nodes[old as usize].before = index;
            }
            None => self.ends = Some(Ends::both(index)),
        }
        index
    }

    fn insert(&mut self, node: Node) -> u32 {
        let index = self.nodes.insert(node);
        // A larger index would not fit into a place, and a wrong place would lose a
        // change.
        let fits = u32::try_from(index).ok().filter(|index| *index < MAX_KEYS);
        fits.unwrap_or_else(|| panic!("more than {MAX_KEYS} keys are pending"))
    }

    pub(crate) fn has(&self, until: u64) -> bool {
        self.ends
            .is_some_and(|ends| self.nodes[ends.first as usize].turn <= until)
    }

    pub(crate) fn pop(&mut self, until: u64) -> Option<Arc<str>> {
        let first = self.ends.filter(|_| self.has(until))?.first;
        Some(self.remove(first).key)
    }

    /// Unlinks the key, if it is at that index; returns whether it was. The index
    /// may have been popped and reused for another key; comparing the allocation of
    /// the key detects that.
    pub(crate) fn unlink(&mut self, index: u32, key: &Arc<str>) -> bool {
        let there = self.nodes.get(index as usize);
        let is_there = there.is_some_and(|node| Arc::ptr_eq(&node.key, key));
        if is_there {
            self.remove(index);
        }
        is_there
    }

    fn remove(&mut self, index: u32) -> Node {
        let node = self.nodes.remove(index as usize);
        if let Some(before) = self.nodes.get_mut(node.before as usize) {
            before.after = node.after;
        }
        if let Some(after) = self.nodes.get_mut(node.after as usize) {
            after.before = node.before;
        }
        self.ends = self.ends.and_then(|ends| ends.without(index, &node));
        if self.nodes.is_empty() && self.nodes.capacity() > KEPT {
            self.nodes = Slab::new();
        }
        node
    }
}

impl Ends {
    fn both(index: u32) -> Self {
        Self {
            first: index,
            last: index,
        }
    }

    fn without(self, index: u32, node: &Node) -> Option<Self> {
        let first = if self.first == index {
            node.after
        } else {
            self.first
        };
        let last = if self.last == index {
            node.before
        } else {
            self.last
        };
        (first != NONE && last != NONE).then_some(Self { first, last })
    }
}

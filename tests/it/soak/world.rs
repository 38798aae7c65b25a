//! The state shared by the actors of a phase.

use std::{
    cell::{Cell, RefCell, RefMut},
    sync::Arc,
};

use persistify::{Clock, Provider, SystemClock};

use super::{
    book::{Book, KEYS},
    stack::Stack,
    stored::{self, Seen, Store, Treasure, live, millis, name},
    terms::Terms,
    tested::Tested,
};

/// A handle of a map, which may be closed and reopened.
pub(super) struct Slot {
    map: RefCell<Tested>,
    pub(super) is_closing: Cell<bool>,
}

impl Slot {
    fn new(map: Tested) -> Self {
        Self {
            map: RefCell::new(map),
            is_closing: Cell::new(false),
        }
    }

    pub(super) fn map(&self) -> Tested {
        self.map.borrow().clone()
    }

    pub(super) fn replace(&self, map: Tested) {
        self.map.replace(map);
    }
}

/// The store, and the book of all phases.
pub(super) struct Ground {
    /// The store itself, which fails.
    pub(super) store: Store,
    /// The store under the layers, as the maps see it.
    pub(super) layered: Arc<dyn Provider>,
    /// The same without the failures.
    pub(super) calm: Arc<dyn Provider>,
    stack: Stack,
    pub(super) clock: SystemClock,
    pub(super) seen: RefCell<Seen>,
    pub(super) treasure: RefCell<Treasure>,
    book: RefCell<Book>,
}

impl Ground {
    pub(super) fn new(store: Store, stack: Stack) -> Self {
        Self {
            layered: stack.on(store.clone()),
            calm: stack.on(store.inner().clone()),
            store,
            stack,
            clock: SystemClock::new(),
            seen: RefCell::default(),
            treasure: RefCell::default(),
            book: RefCell::default(),
        }
    }

    /// Replaces the store by another one, as a new process opens it.
    pub(super) fn renew(&mut self, store: Store) {
        self.layered = self.stack.on(store.clone());
        self.calm = self.stack.on(store.inner().clone());
        self.store = store;
    }

    pub(super) fn now(&self) -> u64 {
        millis(self.clock.now())
    }

    pub(super) fn book(&self) -> RefMut<'_, Book> {
        let mut book = self.book.borrow_mut();
        book.now = self.now();
        book
    }

    /// The stored records of a map. (Concurrent loads may overtake this one.)
    pub(super) async fn load(&self, map: usize) -> stored::Records {
        let seen = self.seen.borrow().clone();
        let (horizon, records) = stored::records(&self.calm, &name(map)).await;
        seen.check(map, horizon, &records);
        self.seen.borrow_mut().add(map, horizon, &records);
        records
    }

    /// As above, with the records checked against the book.
    pub(super) async fn stored(&self, map: usize, terms: &Terms) -> stored::Records {
        let floor = self.book().in_store(map);
        let records = self.load(map).await;
        let held = live(&records, self.now());
        if terms.merges() {
            self.book().check_known(map, &held);
        } else {
            self.book().check(map, &floor, &held, "the store");
        }
        records
    }
}

/// The maps of a phase.
pub(super) struct World {
    pub(super) ground: Ground,
    pub(super) terms: Terms,
    /// By owner, then by map.
    slots: Vec<[Slot; 2]>,
}

impl World {
    pub(super) async fn open(ground: Ground, terms: Terms) -> Self {
        let mut slots = Vec::new();
        for _ in 0..if terms.foreign { 2 } else { 1 } {
            let (store, clock) = (&ground.layered, &ground.clock);
            let first = terms.open(store, clock, 0).await.unwrap();
            let second = terms.open(store, clock, 1).await.unwrap();
            slots.push([Slot::new(first), Slot::new(second)]);
        }
        Self {
            ground,
            terms,
            slots,
        }
    }

    /// Drops the maps.
    pub(super) fn ground(self) -> Ground {
        self.ground
    }

    pub(super) fn owners(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slot(&self, owner: usize, map: usize) -> &Slot {
        &self.slots[owner][map]
    }

    pub(super) fn map(&self, owner: usize, map: usize) -> Tested {
        self.slots[owner][map].map()
    }

    pub(super) async fn check_store(&self, map: usize) {
        self.ground.stored(map, &self.terms).await;
    }

    /// Asserts that each memory has the writes of its owner, unless there are other owners.
    pub(super) fn check_memory(&self) {
        for (owner, map) in (0..self.owners()).flat_map(|o| [(o, 0), (o, 1)]) {
            let tested = self.map(owner, map);
            let stats = tested.stats();
            assert!(stats.pending <= KEYS + 1, "{stats:?}");
            assert_eq!(
                stats.pending > 0,
                stats.oldest_pending.is_some(),
                "{stats:?}"
            );
            assert_eq!(stats.unreadable, tested.unreadable().len());
            if !self.terms.foreign {
                assert_eq!(stats.conflicts, 0);
                let floor = self.ground.book().in_memory(map);
                let held = tested.held();
                self.ground.book().check(map, &floor, &held, "memory");
            }
        }
    }
}

//! An actor that uses the maps in all ways, at random.

use std::{rc::Rc, time::Duration};

use rand::{RngExt, rngs::StdRng};
use tokio::time::sleep;

use super::{
    book::{KEYS, Span, Wanted, key},
    terms::{MS, is_caching},
    tested::Tested,
    world::World,
};

/// The number of steps of each actor in a phase.
const STEPS: usize = 12;

/// Longer than any test waits.
const LONG: Duration = Duration::from_hours(1_000);

/// An actor that uses the maps of one owner. Each step picks a map, a key, and a value that no
/// other actor writes.
pub(super) struct Actor {
    pub(super) world: Rc<World>,
    pub(super) dice: StdRng,
    pub(super) owner: usize,
    pub(super) map: usize,
    pub(super) key: usize,
    pub(super) token: u64,
    /// The map and the key of a commit of unknown outcome.
    pub(super) unknown: Option<(usize, usize)>,
}

impl Actor {
    pub(super) fn new(world: Rc<World>, dice: StdRng, owner: usize) -> Self {
        Self {
            world,
            dice,
            owner,
            map: 0,
            key: 0,
            token: 0,
            unknown: None,
        }
    }

    pub(super) async fn run(mut self) {
        for _ in 0..STEPS {
            self.token = self.dice.random();
            if let Some((map, key)) = self.unknown.take()
                && self.dice.random_ratio(2, 3)
            {
                (self.map, self.key) = (map, key);
                self.step_behind().await;
            } else {
                sleep(MS * self.dice.random_range(0..400)).await;
                self.map = self.dice.random_range(0..2);
                self.key = self.dice.random_range(0..KEYS);
                self.step().await;
            }
            self.world.check_memory();
        }
    }

    /// A step with a key of unknown outcome.
    async fn step_behind(&mut self) {
        let removes = !self.world.terms.foreign;
        match self.dice.random_range(0..12) {
            0..2 if removes => self.remove(),
            2..4 if removes => self.remove_and_save().await,
            4..6 if removes => {
                self.insert();
                self.world.check_memory();
                self.remove();
            }
            6 => self.insert(),
            7 => self.clear(),
            8 => self.clear_and_save().await,
            9 => self.save_if().await,
            10 => self.update_in_store().await,
            _ => self.swap().await,
        }
    }

    async fn step(&mut self) {
        // Other owners may have stored an entry that this map has never seen; a removal would miss
        // it.
        let removes = !self.world.terms.foreign;
        match self.dice.random_range(0..30) {
            0..4 => self.insert(),
            4 if removes => self.remove(),
            5..7 => self.update(),
            7 if self.dice.random_ratio(1, 3) => self.clear(),
            8..11 => self.insert_and_save().await,
            11 => self.update_and_save().await,
            12 if removes => self.remove_and_save().await,
            13 if self.dice.random_ratio(1, 2) => self.clear_and_save().await,
            14..17 => self.save_if().await,
            17 => self.update_in_store().await,
            18..20 => self.swap().await,
            20..23 => self.transact().await,
            23..26 => self.flush().await,
            26 => self.reload().await,
            27 => self.import().await,
            28 => self.close().await,
            _ => drop(self.tested().retry_refused()),
        }
    }

    pub(super) fn tested(&self) -> Tested {
        self.world.map(self.owner, self.map)
    }

    pub(super) fn key(&self) -> String {
        key(self.key)
    }

    /// The own TTL of an entry, which some entries of the caching map have.
    pub(super) fn own_time(&mut self) -> Option<Duration> {
        let has = is_caching(self.map) && self.dice.random_ratio(1, 3);
        has.then(|| MS * self.dice.random_range(0..3_000))
    }

    /// The time for which the actor waits for an answer.
    pub(super) fn patience(&mut self) -> Duration {
        if self.dice.random_ratio(1, 4) {
            MS * self.dice.random_range(1..800)
        } else {
            LONG
        }
    }

    /// Records the beginning of a write in the book. Returns its position.
    pub(super) fn write(&self, what: &'static str, token: Option<u64>, span: Span) -> usize {
        let wanted = Wanted { what, token, span };
        let mut book = self.world.ground.book();
        book.begin(self.owner, self.map, self.key, wanted)
    }

    /// Records the beginning of writes that empty every key.
    pub(super) fn write_all(&self, what: &'static str) -> Vec<usize> {
        let wanted = Wanted {
            what,
            token: None,
            span: Span::default(),
        };
        let mut book = self.world.ground.book();
        let keys = 0..KEYS;
        keys.map(|key| book.begin(self.owner, self.map, key, wanted))
            .collect()
    }
}

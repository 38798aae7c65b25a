//! A history: a store, and the phases in which maps are open on it. Between two phases, all maps
//! are dropped, and only the store remains.

use std::{rc::Rc, thread};

use persistify::{Memory, Record, copy, testing::Faulty};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    book::{KEYS, key},
    phase::Phase,
    place::{Kind, Place},
    stack::Stack,
    stored::{Records, live, millis, plant, records, value},
    terms::Terms,
    trace,
    world::{Ground, World},
};

const PHASES: u32 = 3;

/// Runs a history from its beginning to its end.
pub(super) async fn history(kind: Kind, seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let (mut place, stack) = (Place::new(kind), Stack::draw(&mut dice));
    trace::tell(|| format!("{stack:?}"));
    let mut ground = Ground::new(Faulty::new(place.open().await), stack);
    let mut shape = 0;
    for number in 0..PHASES {
        shape += dice.random_range(0..2);
        let terms = Terms::draw(&mut dice, shape);
        trace::tell(|| format!("phase {number}: {terms:?}"));
        let _told = Told(number, terms.clone());
        ground.begin(&mut dice, &terms).await;
        let world = Rc::new(World::open(ground, terms.clone()).await);
        let phase = Phase::begin(world, StdRng::seed_from_u64(dice.random())).await;
        ground = phase.run().await;
        ground.check_rest(&terms).await;
        ground.check_copy(&mut dice).await;
        // The program is killed here at the latest, or ends normally.
        let store = ground.store.inner().clone();
        if dice.random() {
            place.kill(&store).await;
        } else {
            place.end(&store).await;
        }
        drop(store);
        ground.renew(Faulty::new(place.open().await));
        ground.check_rest(&terms).await;
    }
    place.end(ground.store.inner()).await;
}

/// Prints the phase if the test fails.
struct Told(u32, Terms);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("that was phase {}: {:?}", self.0, self.1);
        }
    }
}

impl Ground {
    /// Begins a phase with the contents of the store: the entries that the last phase has left, and
    /// those that other programs have written since.
    async fn begin(&self, dice: &mut StdRng, terms: &Terms) {
        self.book().restart(terms.foreign);
        for map in 0..2 {
            let before = self.load(map).await;
            for n in 0..KEYS {
                let planted = match dice.random_range(0..12) {
                    0 => junk(dice, terms),
                    1 => old(dice, terms),
                    _ => continue,
                };
                self.plant(map, n, planted, before.get(&key(n))).await;
            }
            let found = self.load(map).await;
            self.adopt(map, terms, &found);
        }
    }

    fn adopt(&self, map: usize, terms: &Terms, found: &Records) {
        let held = live(found, self.now());
        for n in 0..KEYS {
            let ends = found.get(&key(n)).and_then(|record| record.expires_at);
            let rest = ends.map(|ends| millis(ends).saturating_sub(self.now()));
            let span = terms.rest(map, rest);
            self.book().found(map, n, held.get(&key(n)).copied(), span);
        }
    }

    async fn plant(&self, map: usize, n: usize, planted: (String, u32), there: Option<&Record>) {
        let (key, (text, shape)) = (key(n), planted);
        {
            let mut treasure = self.treasure.borrow_mut();
            treasure.give_up(map, &key, there);
            if text.contains("junk") {
                treasure.bury(map, &key, &text);
            }
        }
        trace::tell(|| format!("map {map} {key}: {text} is planted, of shape {shape}"));
        plant(self, map, &key, &text, shape).await;
    }

    /// Checks the store while no map is open.
    async fn check_rest(&self, terms: &Terms) {
        let mut held = Vec::new();
        for map in 0..2 {
            let records = self.stored(map, terms).await;
            held.push(live(&records, self.now()));
        }
        let held = held.try_into().unwrap();
        if !terms.merges() {
            self.book().check_whole(&held);
        }
        let treasure = self.treasure.borrow().clone();
        treasure.check(&*self.calm).await;
    }

    /// Checks that a copy of the store has the same contents.
    async fn check_copy(&self, dice: &mut StdRng) {
        if dice.random_ratio(3, 4) {
            return;
        }
        let (from, to) = (&self.calm, Memory::new());
        let maps = from.maps().await.unwrap();
        copy(from, &to, maps.clone(), |_, _| {}).await.unwrap();
        for map in &maps {
            let (_, original) = records(from, map).await;
            let (_, copied) = records(&to, map).await;
            let told = |records: &Records| -> Vec<_> {
                let told = records.iter();
                told.map(|(key, r)| (key.clone(), value(r), r.expires_at.map(millis)))
                    .collect()
            };
            assert_eq!(told(&original), told(&copied), "{map}");
        }
    }
}

/// A value that does not decode.
fn junk(dice: &mut StdRng, terms: &Terms) -> (String, u32) {
    (format!("\"junk {}\"", dice.random::<u32>()), terms.shape)
}

/// A value of the current schema version, or of an older one.
fn old(dice: &mut StdRng, terms: &Terms) -> (String, u32) {
    let shape = dice.random_range(0..=terms.shape);
    (format!("[{shape},{}]", dice.random::<u64>()), shape)
}

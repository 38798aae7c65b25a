//! A phase: maps are opened, used by many actors while the store fails, and end normally or by a
//! crash.

use std::{future::Future, rc::Rc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::{JoinHandle, LocalSet, yield_now},
    time::{sleep, timeout},
};

use super::{
    actor::Actor,
    stored::{Records, live, value},
    terms::{MS, is_caching},
    trouble::Trouble,
    world::{Ground, World},
};

/// The number of concurrent actors.
const ACTORS: usize = 5;

/// The longest time for which a call may wait once the store is healthy again.
const PATIENCE: Duration = Duration::from_mins(10);

const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Phase {
    world: Rc<World>,
    dice: StdRng,
}

impl Phase {
    /// Begins a phase. Asserts that each map has the contents of the store.
    pub(super) async fn begin(world: Rc<World>, dice: StdRng) -> Self {
        for (owner, map) in every(&world) {
            let stored = world.ground.stored(map, &world.terms).await;
            let held = world.map(owner, map).held();
            let mut live = live(&stored, world.ground.now());
            if is_caching(map) && world.terms.idle.is_some() {
                live.retain(|key, _| held.contains_key(key));
            }
            assert_eq!(held, live, "as it was opened");
        }
        let mut phase = Self { world, dice };
        if phase.world.terms.rewrite && phase.dice.random() {
            phase.check_rewritten().await;
        }
        phase
    }

    /// Asserts that after a flush, all entries without an expiry have the current schema version.
    async fn check_rewritten(&self) {
        for (owner, map) in every(&self.world) {
            self.world.map(owner, map).flush().await.unwrap();
            let records = self.world.ground.stored(map, &self.world.terms).await;
            let lasting = records.values().filter(|r| r.expires_at.is_none());
            for (shape, _) in lasting.filter_map(value) {
                assert_eq!(shape, self.world.terms.shape, "was not rewritten");
            }
        }
    }

    /// Runs the phase, from its first fault to its end.
    pub(super) async fn run(mut self) -> Ground {
        let store = self.world.ground.store.clone();
        let trouble = Rc::new(Trouble::begin(&store, self.fork()));
        let local = LocalSet::new();
        let actors: Vec<_> = (0..ACTORS)
            .map(|n| {
                let owner = n % self.world.owners();
                let actor = Actor::new(self.world.clone(), self.fork(), owner);
                local.spawn_local(actor.run())
            })
            .collect();
        let late = {
            let (trouble, dice) = (trouble.clone(), self.fork());
            local.spawn_local(async move { trouble.come_late(dice).await })
        };
        let (crash, lands) = (self.dice.random_ratio(1, 3), self.dice.random());
        local.run_until(self.end(crash, actors, late)).await;
        drop(local);
        let world = Rc::into_inner(self.world).expect("nobody acts any more");
        let ground = world.gone().await;
        if lands {
            trouble.land().await;
        }
        ground.store.inner().idle().await;
        ground.store.behave();
        ground
    }

    fn fork(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.dice.random())
    }

    async fn end(&mut self, crash: bool, actors: Vec<JoinHandle<()>>, late: JoinHandle<()>) {
        sleep(MS * self.dice.random_range(500..6_000)).await;
        if crash {
            actors.iter().for_each(JoinHandle::abort);
            for actor in actors {
                acted(actor).await;
            }
        } else {
            sleep(20 * SECOND).await;
            self.world.ground.store.behave();
            for actor in actors {
                in_time("an actor", acted(actor)).await;
            }
        }
        late.abort();
        acted(late).await;
        if !crash {
            in_time("the end", self.settle()).await;
        }
    }

    /// The store is healthy: saves everything, and asserts that all maps agree with the store.
    async fn settle(&self) {
        let all: Vec<_> = every(&self.world).collect();
        // A second round, because the other maps have to load the values that were saved last.
        for (owner, map) in all.iter().chain(&all) {
            self.save_all(*owner, *map).await;
        }
        for (owner, map) in all {
            let tested = self.world.map(owner, map);
            tested.reload().await.unwrap();
            assert!(tested.health().is_healthy());
            let stats = tested.stats();
            assert_eq!((stats.pending, stats.refused), (0, 0), "{stats:?}");
            let records = self.world.ground.stored(map, &self.world.terms).await;
            self.check_agrees(owner, map, &records);
        }
    }

    async fn save_all(&self, owner: usize, map: usize) {
        sleep(10 * SECOND).await;
        let tested = self.world.map(owner, map);
        tested.retry_refused();
        let begun = self.world.ground.book().tick();
        tested.flush().await.unwrap();
        if !self.world.terms.may_lose() {
            self.world.ground.book().flushed(owner, map, begun);
        }
        tested.reload().await.unwrap();
    }

    fn check_agrees(&self, owner: usize, map: usize, records: &Records) {
        let tested = self.world.map(owner, map);
        let (held, stored) = (tested.held(), live(records, self.world.ground.now()));
        // Reads extend idle deadlines in memory first.
        for (key, token) in held.iter().chain(&stored) {
            assert_eq!(held.get(key), Some(token), "{key} of map {map}");
            let record = &records[key];
            assert_eq!(
                value(record).map(|v| v.1),
                Some(*token),
                "{key} of map {map}"
            );
            let (_, revision) = tested.with_revision(key).unwrap();
            assert_eq!(record.revision, revision, "{key} of map {map}");
        }
    }
}

impl World {
    /// Drops all handles of the maps.
    async fn gone(self) -> Ground {
        let ground = self.ground();
        for _ in 0..200 {
            yield_now().await;
        }
        ground
    }
}

fn every(world: &World) -> impl Iterator<Item = (usize, usize)> + use<> {
    let owners = 0..world.owners();
    owners.flat_map(|owner| [(owner, 0), (owner, 1)])
}

/// Awaits an actor, and passes its panic on.
async fn acted(actor: JoinHandle<()>) {
    if let Err(error) = actor.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn in_time(who: &str, wait: impl Future<Output = ()>) {
    let waited = timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{who} waits for ever");
}

//! Conditional saves, and several writes that are committed together.

use std::future::Future;

use persistify::{ErrorKind, Expect, Provider, Result, Transaction};
use rand::RngExt;
use tokio::time::timeout;

use super::{
    actor::Actor,
    book::{KEYS, Span},
    terms::is_caching,
    trace,
};

impl Actor {
    pub(super) async fn save_if(&mut self) {
        let (map, key) = (self.tested(), self.key());
        let expect = match self.dice.random_range(0..4) {
            0 => Expect::Any,
            1 => Expect::Absent,
            2 => Expect::Present,
            _ => {
                let found = map.with_revision(&key);
                found.map_or(Expect::Absent, |(_, revision)| Expect::At(revision))
            }
        };
        let span = self.world.terms.span(self.map, None);
        let id = self.write("save_if", Some(self.token), span);
        self.conclude(&[id], map.save_if(&key, self.token, expect))
            .await;
    }

    pub(super) async fn update_in_store(&mut self) {
        let (map, key) = (self.tested(), self.key());
        // The entry keeps the rest of its own TTL.
        let least = is_caching(self.map).then_some(0);
        let span = Span { least, most: None };
        let id = self.write("update_in_store", Some(self.token), span);
        self.conclude(&[id], map.update_in_store(&key, self.token))
            .await;
    }

    pub(super) async fn swap(&mut self) {
        let (map, put) = (self.tested(), self.key());
        let span = self.world.terms.span(self.map, None);
        let first = self.write("swap in", Some(self.token), span);
        self.key = (self.key + self.dice.random_range(1..KEYS)) % KEYS;
        let second = self.write("swap out", None, Span::default());
        self.world.ground.book().together(&[first, second]);
        self.conclude(&[first, second], map.swap(&put, self.token, &self.key()))
            .await;
    }

    pub(super) async fn transact(&mut self) {
        let key = self.key();
        let mut tx = Transaction::new(&self.world.ground.layered);
        let mut ids = Vec::new();
        for map in 0..2 {
            self.map = map;
            let span = self.world.terms.span(map, None);
            ids.push(self.write("transaction", Some(self.token), span));
            self.tested().put_in(&mut tx, &key, self.token);
        }
        if self.dice.random_ratio(1, 3) {
            self.tested().expect_in(&mut tx, &key, Expect::Present);
        }
        self.world.ground.book().together(&ids);
        let commit = async { tx.commit().await.map(|_| true) };
        self.conclude(&ids, commit).await;
    }

    /// Records the result of a commit. Memory has it if the store has it. If the outcome is
    /// unknown, memory may adopt it at any time.
    async fn conclude(&mut self, ids: &[usize], call: impl Future<Output = Result<bool>>) {
        let patience = self.patience();
        let Ok(answer) = timeout(patience, call).await else {
            return;
        };
        trace::tell(|| format!("{ids:?} of owner {}: {answer:?}", self.owner));
        match answer {
            Ok(true) => self.world.ground.book().saved(ids),
            Ok(false) => return self.world.ground.book().never(ids),
            Err(error) if !error.may_have_applied() => {
                if error.kind() == ErrorKind::Unsupported {
                    let provider = self.world.ground.layered.capabilities();
                    assert!(!provider.several_maps, "{error}");
                }
                self.world.ground.book().never(ids);
            }
            // It may have been applied, or may still be, before the next write.
            Err(_) => {
                self.world.ground.book().maybe(ids);
                self.unknown = Some((self.map, self.key));
                return;
            }
        }
        self.world.check_store(self.map).await;
    }
}

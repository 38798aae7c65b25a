//! Writes to memory, and writes that wait until they are saved.

use std::{future::Future, pin::pin, task::Poll};

use futures_util::poll;
use persistify::{ErrorKind, Result};
use tokio::time::timeout;

use super::{actor::Actor, book::Span, stored::millis, terms::is_caching};

impl Actor {
    /// Whether the map is neither closed nor being closed. A write would panic otherwise.
    fn may_write(&self) -> bool {
        let slot = self.world.slot(self.owner, self.map);
        !slot.is_closing.get()
    }

    pub(super) fn insert(&mut self) {
        if !self.may_write() {
            return;
        }
        let own = self.own_time();
        let span = self.world.terms.span(self.map, own);
        let id = self.write("insert", Some(self.token), span);
        let before = self.tested().with_revision(&self.key());
        let old = self.tested().insert(&self.key(), self.token, own);
        assert_eq!(old, before.map(|(token, _)| token));
        self.world.ground.book().done(&[id]);
    }

    pub(super) fn update(&mut self) {
        if !self.may_write() || !self.tested().update(&self.key(), self.token) {
            return;
        }
        let span = self.rest();
        let id = self.write("update", Some(self.token), span);
        self.world.ground.book().done(&[id]);
    }

    /// The lifetime that an update has given to the entry.
    fn rest(&self) -> Span {
        let ends = self.tested().expires_at(&self.key());
        let ends = ends.map(|ends| millis(ends).saturating_sub(self.world.ground.now()));
        self.world.terms.rest(self.map, ends)
    }

    pub(super) fn remove(&mut self) {
        if !self.may_write() {
            return;
        }
        let id = self.write("remove", None, Span::default());
        let was_there = self.tested().with_revision(&self.key()).is_some();
        assert_eq!(self.tested().remove(&self.key()), was_there);
        self.world.ground.book().done(&[id]);
    }

    pub(super) fn clear(&mut self) {
        if !self.may_write() {
            return;
        }
        let ids = self.write_all("clear");
        self.tested().clear();
        self.world.ground.book().done(&ids);
    }

    pub(super) async fn insert_and_save(&mut self) {
        let (own, map, key) = (self.own_time(), self.tested(), self.key());
        let span = self.world.terms.span(self.map, own);
        let id = self.write("insert_and_save", Some(self.token), span);
        self.save(&[id], map.insert_and_save(&key, self.token, own))
            .await;
    }

    pub(super) async fn update_and_save(&mut self) {
        let (map, key) = (self.tested(), self.key());
        // Its TTL starts again, whether it is its own or the map's.
        let least = is_caching(self.map).then_some(0);
        let span = Span { least, most: None };
        let id = self.write("update_and_save", Some(self.token), span);
        if map.with_revision(&key).is_none() {
            self.world.ground.book().never(&[id]);
        }
        self.save(&[id], map.update_and_save(&key, self.token))
            .await;
    }

    pub(super) async fn remove_and_save(&mut self) {
        let (map, key) = (self.tested(), self.key());
        let id = self.write("remove_and_save", None, Span::default());
        self.save(&[id], map.remove_and_save(&key)).await;
    }

    pub(super) async fn clear_and_save(&mut self) {
        let map = self.tested();
        let ids = self.write_all("clear_and_save");
        self.save(&ids, map.clear_and_save()).await;
    }

    /// Records the result of a save. Memory has the change after the first poll, or never. The
    /// answer shows whether the store has it.
    async fn save(&mut self, ids: &[usize], call: impl Future<Output = Result<bool>>) {
        let patience = self.patience();
        let mut call = pin!(call);
        let answer = match poll!(&mut call) {
            Poll::Ready(Err(_)) => return self.world.ground.book().never(ids),
            Poll::Ready(answer) => answer,
            Poll::Pending => {
                self.world.ground.book().done(ids);
                match timeout(patience, call).await {
                    Ok(answer) => answer,
                    Err(_) => return,
                }
            }
        };
        self.saved(ids, answer).await;
    }

    async fn saved(&self, ids: &[usize], answer: Result<bool>) {
        match answer {
            Ok(true) => self.world.ground.book().saved(ids),
            // Another owner's stored value has won.
            Err(error) if error.kind() == ErrorKind::Conflict && !error.may_have_applied() => {
                assert!(self.world.terms.may_lose(), "{error}");
                self.world.ground.book().never(ids);
            }
            // There was nothing to update, or the change may still be saved.
            Ok(false) | Err(_) => return,
        }
        self.world.check_store(self.map).await;
    }
}

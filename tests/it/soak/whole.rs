//! Calls on a whole map: flush, reload, import, close.

use persistify::{ErrorKind, serde_json};
use rand::RngExt;
use tokio::time::{sleep, timeout};

use super::{actor::Actor, terms::MS};

impl Actor {
    pub(super) async fn flush(&mut self) {
        let (map, begun) = (self.tested(), self.world.ground.book().tick());
        let patience = self.patience();
        if let Ok(Ok(())) = timeout(patience, map.flush()).await {
            self.flushed(begun);
            self.world.check_store(self.map).await;
        }
    }

    /// Records that everything that was in memory by then is in the store, unless values of other
    /// owners may have won.
    fn flushed(&self, begun: u64) {
        if !self.world.terms.may_lose() {
            let mut book = self.world.ground.book();
            book.flushed(self.owner, self.map, begun);
        }
    }

    pub(super) async fn reload(&mut self) {
        let (map, patience) = (self.tested(), self.patience());
        let _answer = timeout(patience, map.reload()).await;
    }

    /// Exports the map, and imports the lines again.
    pub(super) async fn import(&mut self) {
        let map = self.tested();
        let lines = map.export().await;
        let ids = self.write_lines(&lines);
        let answer = map.import(&lines).await;
        // Entries that expire meanwhile are omitted.
        let all = answer.is_ok_and(|count| count == ids.len() as u64);
        if all && !self.world.terms.may_lose() {
            self.world.ground.book().saved(&ids);
        } else {
            self.world.ground.book().maybe(&ids);
        }
        self.world.check_store(self.map).await;
    }

    fn write_lines(&mut self, lines: &[u8]) -> Vec<usize> {
        let lines = std::str::from_utf8(lines).unwrap().lines().skip(1);
        let mut ids = Vec::new();
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let key = line["key"].as_str().unwrap();
            self.key = key[1..].parse().unwrap();
            let ends = line["expires_at"].as_u64();
            let rest = ends.map(|ends| ends.saturating_sub(self.world.ground.now()));
            let span = match rest {
                Some(_) => self.world.terms.rest(self.map, rest),
                None => self.world.terms.span(self.map, None),
            };
            ids.push(self.write("import", line["value"][1].as_u64(), span));
        }
        ids
    }

    /// Closes the map and reopens it.
    pub(super) async fn close(&mut self) {
        let world = self.world.clone();
        let slot = world.slot(self.owner, self.map);
        if slot.is_closing.replace(true) {
            return;
        }
        let begun = world.ground.book().tick();
        let limit = MS * self.dice.random_range(1..4_000);
        if slot.map().close_within(limit).await.is_ok() {
            self.flushed(begun);
            world.check_store(self.map).await;
            self.reopen().await;
        }
        slot.is_closing.set(false);
    }

    async fn reopen(&self) {
        let ground = &self.world.ground;
        loop {
            let opened = self
                .world
                .terms
                .open(&ground.layered, &ground.clock, self.map);
            match opened.await {
                Ok(map) => return self.world.slot(self.owner, self.map).replace(map),
                Err(error) => {
                    let kinds = [ErrorKind::Unavailable, ErrorKind::Unusable];
                    assert!(kinds.contains(&error.kind()), "{error:?}");
                }
            }
            sleep(MS * 200).await;
        }
    }
}

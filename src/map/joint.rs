//! Commits that land whole or not at all, in one map or in several.
//!
//! The flushers of all maps concerned stand still, one after the other in the
//! order of their names, so that two such commits never wait for each other.
//! Then nothing else goes into the store from these maps until the fate of the
//! batch is known: what is written to memory meanwhile is later, and its commit
//! comes later. Memory follows while they still stand still.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::oneshot};

use super::{
    conditional::check_conditions,
    delivery::Delivery,
    errands::{Reply, answered},
    flight::{self, Flight},
    hold::{Grant, Hold},
    inside::Inside,
    line::Line,
    retry::Attempts,
    share::Share,
};
use crate::{
    batch::{Batch, MapBatch},
    error::{Error, ErrorKind, Result},
    record::Revision,
};

/// The shares of a commit, and how it goes to the store.
pub(super) struct Joint {
    pub(super) shares: Vec<Box<dyn Share>>,
    pub(super) line: Line,
    /// Whether it has to be proven that the maps are kept by this store.
    pub(super) prove: bool,
}

impl Joint {
    /// Commits it, on that runtime: if this future is dropped, the commit goes
    /// on to its end.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`](super::transaction::Transaction::commit).
    pub(super) async fn commit(mut self, runtime: &Handle) -> Result<Option<Revision>> {
        Inside::check_not();
        for share in &mut self.shares {
            share.seal()?;
        }
        self.shares.retain(|share| !share.is_empty());
        if self.shares.is_empty() {
            return Ok(None);
        }
        self.shares.sort_by_key(|s| (s.name().clone(), s.id()));
        self.check()?;
        let (reply, answer) = oneshot::channel();
        runtime.spawn(self.conduct(reply));
        answered(answer).await
    }

    fn check(&self) -> Result<()> {
        let mut pairs = self.shares.iter().zip(self.shares.iter().skip(1));
        if let Some((twice, _)) = pairs.find(|(a, b)| a.name() == b.name()) {
            let message = "a commit holds two maps of this name, because it was opened twice; \
                           use one of them";
            return Err(Error::new(ErrorKind::Invalid, message).on_map(twice.name()));
        }
        let capabilities = self.line.provider.capabilities();
        if self.shares.len() > 1 && !capabilities.several_maps {
            return Err(self.not_together());
        }
        let mut shares = self.shares.iter();
        shares.try_for_each(|share| check_conditions(&**share, capabilities.conditions))
    }

    fn not_together(&self) -> Error {
        let names: Vec<_> = self.shares.iter().map(|s| s.name().as_str()).collect();
        let message = format!(
            "the maps {names:?} are kept by a provider that commits to one map at a time (as JSON \
             files are); nothing was written: commit to one after the other, or keep them in a \
             database"
        );
        Error::new(ErrorKind::Unsupported, message)
    }

    async fn conduct(mut self, reply: Reply) {
        let mut reply = Some(reply);
        let result = self.carry_out(&mut reply).await;
        answer(&mut reply, result);
    }

    async fn carry_out(&mut self, reply: &mut Option<Reply>) -> Result<Option<Revision>> {
        // Before any map stands still: a value that is refused holds up nobody.
        for share in &mut self.shares {
            share.encode()?;
        }
        let grants = self.hold().await?;
        if self.prove {
            for (share, grant) in self.shares.iter().zip(&grants) {
                let proven = self.prove_kept_here(&**share, grant).await;
                proven.inspect_err(|error| {
                    if error.kind() == ErrorKind::Rewound {
                        flight::tell_of_rewind(&self.shares, &grants, error);
                    }
                })?;
            }
        }
        let alone = self.alone();
        let flight = Flight::begin(&mut self.shares, grants);
        let batch = flight.batch(self.line.clock.now());
        let delivery = Delivery::new(self.line.clone(), batch, flight.words());
        let unknown = |error: &Error| answer(reply, Err(on(alone.as_deref(), error.clone())));
        match delivery.run(unknown).await {
            Ok(committed) => Ok(flight.land(&committed)),
            Err(error) => {
                let error = on(alone.as_deref(), error);
                flight.fail(&error);
                Err(error)
            }
        }
    }

    /// Makes all flushers stand still.
    ///
    /// # Errors
    ///
    /// Why one of them does not. Those before it go on.
    async fn hold(&self) -> Result<Vec<Grant>> {
        let mut grants = Vec::new();
        for share in &self.shares {
            let (granted, answer) = oneshot::channel();
            share.hold(Hold {
                keys: share.keys(),
                others: !grants.is_empty(),
                prove: self.prove,
                granted,
            });
            let answer = async { answer.await.unwrap_or_else(|_| Err(gone())) };
            // The first one holds up nobody, and waits like any save.
            let limit = self.line.limit;
            let granted = tokio::select! {
                granted = answer => granted,
                () = self.line.clock.sleep(limit), if !grants.is_empty() => Err(busy()),
            };
            let granted = granted.map_err(|e| e.nothing_applied().on_map(share.name()));
            grants.push(granted?);
        }
        Ok(grants)
    }

    /// Two handles may be of one store without anything telling so. But a store
    /// refuses a batch of a writer of whom it has a later one: that is asked of
    /// the transaction's store, of the last writer of each map.
    ///
    /// Another store would take it for a batch without changes, which is what it
    /// is.
    async fn prove_kept_here(&self, share: &dyn Share, grant: &Grant) -> Result<()> {
        let nothing = MapBatch::new(share.name().clone(), Vec::new());
        let now = self.line.clock.now();
        let batch = Batch::new(grant.proof, Revision::ZERO, now, vec![nothing]);
        let mut attempts = Attempts::new(&self.line.retry);
        while let Err(error) = self.line.commit(&batch, attempts.made + 1).await {
            if error.kind() == ErrorKind::Superseded {
                return Ok(());
            }
            let delay = attempts.failed(self.line.clock.now());
            let delay = delay.filter(|_| error.kind() == ErrorKind::Unavailable);
            let Some(delay) = delay else {
                return Err(error.nothing_applied().on_map(share.name()));
            };
            self.line.clock.sleep(delay).await;
        }
        // Its own store may have forgotten the writer: it has gone back in time.
        let nothing = MapBatch::new(share.name().clone(), Vec::new());
        let claiming = Batch::new(
            grant.id,
            grant.horizon,
            now,
            [grant.claims.on(nothing, now)],
        );
        match share.line().commit(&claiming, 1).await {
            Err(error) if error.kind() == ErrorKind::Rewound => return Err(error),
            // Whatever it says, it is another store than the transaction's.
            Ok(_) | Err(_) => {}
        }
        let message = "this map is not kept by the provider of the transaction; nothing was \
                       written: begin it with the provider that the map was opened with, or a \
                       clone of that";
        Err(Error::new(ErrorKind::Invalid, message).on_map(share.name()))
    }

    /// The name of the map, if it is one.
    fn alone(&self) -> Option<Arc<str>> {
        match self.shares.as_slice() {
            [share] => Some(share.name().as_str().into()),
            _ => None,
        }
    }
}

fn answer(reply: &mut Option<Reply>, result: Result<Option<Revision>>) {
    if let Some(reply) = reply.take() {
        // Whoever stopped waiting needs no answer.
        let _ = reply.send(result);
    }
}

fn on(map: Option<&str>, error: Error) -> Error {
    match map {
        Some(map) => error.on_map(map),
        None => error,
    }
}

fn busy() -> Error {
    let message = "the map was busy with another commit for longer than `commit_timeout`; \
                   nothing was written";
    Error::new(ErrorKind::Unavailable, message)
}

fn gone() -> Error {
    let message = "the runtime on which the map was opened has ended, or its last handle was \
                   dropped; nothing was written";
    Error::new(ErrorKind::Closed, message)
}

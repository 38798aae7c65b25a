//! A commit that spans several maps.
//!
//! It borrows the writers of its maps one after the other, in the order of their
//! names, so two such commits cannot deadlock. These maps commit nothing else until
//! its outcome is known: writes to memory made meanwhile are later and are
//! committed later. The commit is applied to memory before the writers are
//! returned.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::oneshot};

use super::{Borrowing, Job, Loan, Proposal, Reply, answered, flight::Flight, share::Share};
use crate::{
    batch::{Batch, BatchId, Committed, MapBatch},
    error::{Error, ErrorKind, Result},
    event::{Health, KeySample, Operation},
    map::{
        shared::Shared,
        spans,
        table::reentrancy::ReentrancyGuard,
        write_behind::committer::{Committer, calls::answer_within, retry::Attempts},
    },
    provider::Provider,
    record::Revision,
};

/// A map that takes part in a commit, and its share of it.
pub(crate) struct Participant {
    pub(crate) shared: Arc<Shared>,
    pub(crate) share: Box<dyn Share>,
}

/// A commit that spans several maps.
pub(crate) struct TransactionCommit {
    pub(crate) participants: Vec<Participant>,
    pub(crate) provider: Arc<dyn Provider>,
}

impl TransactionCommit {
    /// Commits on that runtime. Dropping this future cancels the wait, not the
    /// commit.
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::commit`](crate::Transaction::commit).
    pub(crate) async fn commit(mut self, runtime: &Handle) -> Result<Option<Revision>> {
        ReentrancyGuard::check();
        for one in &mut self.participants {
            one.share.seal()?;
        }
        self.participants.retain(|one| !one.share.is_empty());
        if self.participants.is_empty() {
            return Ok(None);
        }
        self.participants
            .sort_by_key(|one| (one.shared.name.clone(), one.share.id()));
        self.check()?;
        let (reply, answer) = oneshot::channel();
        runtime.spawn(self.conduct(reply));
        answered(answer).await
    }

    fn check(&self) -> Result<()> {
        let names = || self.participants.iter().map(|one| &one.shared.name);
        if let Some((twice, _)) = names().zip(names().skip(1)).find(|(a, b)| a == b) {
            let message = "the transaction uses two handles of this map, because it was opened \
                           twice; use one of them";
            return Err(Error::new(ErrorKind::Invalid, message).on_map(twice));
        }
        let capabilities = self.provider.capabilities();
        if self.participants.len() > 1 && !capabilities.several_maps {
            let names: Vec<_> = names().map(|name| name.as_str()).collect();
            return Err(not_together(&names));
        }
        let mut shares = self.participants.iter().map(|one| &*one.share);
        shares.try_for_each(|share| check_conditions(share, capabilities.conditions))
    }

    async fn conduct(mut self, reply: Reply) {
        let mut loans = match self.borrow_writers().await {
            Ok(loans) => loans,
            // A caller that stopped waiting needs no answer.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (maps, shares): (Vec<_>, Vec<_>) = { self.participants.into_iter() }
            .map(|one| (one.shared, one.share))
            .unzip();
        let flight = Flight::begin(vec![Proposal::new(shares, reply)]);
        let writers = loans.iter_mut().filter_map(Loan::writer);
        let committers = maps.iter().zip(writers);
        let mut committers: Vec<_> = committers
            .map(|(shared, writer)| Committer { shared, writer })
            .collect();
        // Like the maps' own batches, the commit ends with their last handles: sent
        // again later, it could overwrite newer changes of a program that has
        // opened the maps again.
        tokio::select! {
            // The maps may have ended before it starts.
            biased;
            () = ended(&maps) => {}
            _ = flight.commit(&*self.provider, &mut committers) => {}
        }
    }

    async fn borrow_writers(&mut self) -> Result<Vec<Loan>> {
        // Before any writer is borrowed: a refused value must not hold up a map.
        for one in &mut self.participants {
            one.share.encode()?;
        }
        let mut loans: Vec<Loan> = Vec::new();
        for one in &self.participants {
            let loan = one.borrow_writer(!loans.is_empty()).await;
            let unwritten = |e: Error| e.nothing_applied().on_map(&one.shared.name);
            loans.push(loan.map_err(unwritten)?);
        }
        for (one, loan) in self.participants.iter().zip(&mut loans) {
            let Some(writer) = loan.writer() else {
                continue;
            };
            let shared = &*one.shared;
            let mut committer = Committer { shared, writer };
            prove_kept_here(&*self.provider, &mut committer).await?;
        }
        Ok(loans)
    }
}

impl Participant {
    /// Borrows the writer of the map once earlier writes to the keys are committed.
    async fn borrow_writer(&self, holds_others: bool) -> Result<Loan> {
        let (granted, answer) = oneshot::channel();
        self.shared.submit_job(Job::Lend(Borrowing {
            keys: self.share.keys(),
            holds_others,
            granted,
        }));
        let answer = async { answer.await.unwrap_or_else(|_| Err(gone())) };
        // While it waits for the first writer, the commit holds up no map, so it
        // may wait as long as any save.
        let limit = self.shared.options.commit_timeout;
        tokio::select! {
            granted = answer => granted,
            () = self.shared.clock.sleep(limit), if holds_others => Err(busy()),
        }
    }
}

/// Proves that a map is kept by the store of this provider.
///
/// Two handles may belong to one store without any visible sign. But a store
/// refuses a batch of a writer if it has a later batch of that writer, so an old
/// batch of the map's writer is sent. Another store would accept this batch,
/// which is empty.
///
/// # Errors
///
/// `Invalid` if it is another store; otherwise the provider's error.
async fn prove_kept_here(provider: &dyn Provider, committer: &mut Committer<'_>) -> Result<()> {
    let shared = committer.shared;
    let old = BatchId::new(committer.writer.id, 0);
    let nothing = || MapBatch::new(shared.name.clone(), Vec::new());
    let batch = Batch::new(old, Revision::ZERO, shared.clock.now(), vec![nothing()]);
    let mut attempts = Attempts::new(&shared.options.retry);
    while let Err(error) = ask(provider, shared, &batch, attempts.made + 1).await {
        if error.kind() == ErrorKind::Superseded {
            return Ok(());
        }
        let delay = attempts.failed(shared.clock.now());
        match delay.filter(|_| error.kind() == ErrorKind::Unavailable) {
            Some(delay) => shared.clock.sleep(delay).await,
            None => return Err(error.nothing_applied()),
        }
    }
    // The map's own store may have forgotten the writer because it has gone back in
    // time.
    let claiming = committer.writer.batch(nothing(), &shared.clock);
    match ask(&*shared.provider, shared, &claiming, 1).await {
        Err(error) if error.kind() == ErrorKind::Rewound => {
            committer.report(Operation::Commit, KeySample::default(), &error, true);
            committer.stop(&error, false);
            Err(error)
        }
        // Whatever the map's own store answers, it is not the transaction's
        // store.
        Ok(_) | Err(_) => Err(not_kept_here().on_map(&shared.name)),
    }
}

async fn ask(
    provider: &dyn Provider,
    map: &Shared,
    batch: &Batch,
    attempt: u32,
) -> Result<Committed> {
    let span = spans::commit(batch, provider, attempt);
    let call = answer_within(map.options.commit_timeout, &map.clock, || {
        provider.commit(batch)
    });
    let answer = tracing::Instrument::instrument(call, span).await;
    answer.map_err(|error| error.on_map(&map.name))
}

/// Returns when the flushers of all these maps have ended.
async fn ended(maps: &[Arc<Shared>]) {
    for map in maps {
        let is_ended = |health: &Health| matches!(health, Health::Ended { .. });
        // Fails if the map is gone.
        drop(map.health.subscribe().wait_for(is_ended).await);
    }
}

/// # Errors
///
/// `Unsupported` if the share has conditions and the provider does not check them.
pub(crate) fn check_conditions(share: &dyn Share, supported: bool) -> Result<()> {
    if supported || !share.is_conditional() {
        return Ok(());
    }
    let message = "this provider does not check conditions; nothing was written";
    Err(Error::new(ErrorKind::Unsupported, message)
        .on_map(share.name())
        .on_keys(share.keys()))
}

fn not_together(names: &[&str]) -> Error {
    let message = format!(
        "the maps {names:?} are kept by a provider that commits to one map at a time (such as \
         JSON files); nothing was written: commit to one after the other, or keep the maps in a \
         database"
    );
    Error::new(ErrorKind::Unsupported, message)
}

fn not_kept_here() -> Error {
    let message = "this map is not kept by the provider of the transaction; nothing was \
                   written: create the transaction with the provider that the map was opened \
                   with, or a clone of it";
    Error::new(ErrorKind::Invalid, message)
}

fn busy() -> Error {
    let message = "the map was busy with another commit for longer than `commit_timeout`; \
                   nothing was written";
    Error::new(ErrorKind::Unavailable, message)
}

fn gone() -> Error {
    let message = "the runtime on which the map was opened has shut down, or its last handle was \
                   dropped; nothing was written";
    Error::new(ErrorKind::Closed, message)
}

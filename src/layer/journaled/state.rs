//! A map with a journal: its file, its owner, and the state of the drain.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    body::Tokens,
    folder::Folder,
    map_journal::{Content, MapJournal},
    owner::{Owner, Row},
    stats::JournalStats,
};
use crate::{
    batch::{Acknowledged, Batch, BatchId, Committed, MapBatch, WriterId},
    error::{Error, ErrorKind, Result},
    incarnation::{Incarnation, Rewound},
    name::MapName,
    provider::{Provider, ledger},
    record::Revision,
};

/// The time limit of a call of the remote.
const ATTEMPT: Duration = Duration::from_secs(30);

/// How often one attempt to become the owner reads the row.
const MAX_READS: usize = 3;

/// A map with a journal.
pub(super) struct State {
    pub(super) map: MapName,
    pub(super) remote: Arc<dyn Provider>,
    pub(super) folder: Arc<Folder>,
    pub(super) journal: Arc<tokio::sync::Mutex<MapJournal>>,
    /// The row of the owner, once it is known. Its holder is the only one that drains.
    pub(super) row: tokio::sync::Mutex<Option<Row>>,
    /// Wakes the drain.
    pub(super) wake: Arc<Notify>,
    pub(super) known: Arc<Mutex<Known>>,
}

/// The known state of the remote and of the journal.
#[derive(Default)]
pub(super) struct Known {
    /// This process has put a token of its own into the remote.
    pub(super) is_owned: bool,
    pub(super) incarnation: Option<Incarnation>,
    /// The last batch of this map that the remote has acknowledged.
    acknowledged: Option<(BatchId, SystemTime)>,
    /// The revision at which the map was last dropped.
    pub(super) dropped: Option<Revision>,
    /// The content of the journal.
    pub(super) content: Content,
    /// The last error of the drain.
    pub(super) error: Option<Error>,
}

impl State {
    pub(super) fn new(remote: Arc<dyn Provider>, folder: Arc<Folder>, journal: MapJournal) -> Self {
        let known = Known {
            content: journal.content(),
            ..Known::default()
        };
        Self {
            map: journal.map.clone(),
            remote,
            folder,
            journal: Arc::new(tokio::sync::Mutex::new(journal)),
            row: tokio::sync::Mutex::default(),
            wake: Arc::default(),
            known: Arc::new(Mutex::new(known)),
        }
    }

    /// Works on the file on a thread for blocking calls. Dropping the future does not stop it.
    pub(super) async fn with_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut MapJournal, &Folder) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let folder = self.folder.clone();
        let mut journal = self.journal.clone().lock_owned().await;
        let known = self.known.clone();
        blocking(move || {
            let done = work(&mut journal, &folder);
            known.lock().content = journal.content();
            done
        })
        .await
    }

    /// Sends a batch to the remote.
    pub(super) async fn commit(&self, batch: &Batch) -> Result<Committed> {
        let committed = self.in_time(self.remote.commit(batch)).await;
        self.learn(batch.id, &committed);
        committed
    }

    /// Limits an attempt in time.
    pub(super) async fn in_time<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = tokio::time::timeout(ATTEMPT, attempt).await;
        answer.unwrap_or_else(|error| {
            let message = "the remote has not answered in time; try again";
            let error = Error::new(ErrorKind::Unavailable, message).with_source(error);
            Err(error.on_map(&self.map))
        })
    }

    /// Learns the state of the remote from an answer.
    pub(super) fn learn(&self, id: BatchId, answer: &Result<Committed>) {
        let mut known = self.known.lock();
        match answer {
            Ok(committed) => {
                known.incarnation = committed.incarnation.or(known.incarnation);
                known.acknowledged = Some((id, SystemTime::now()));
            }
            Err(error) => {
                let found = error.rewound().and_then(|states| states.found);
                known.incarnation = found.or(known.incarnation);
            }
        }
    }

    /// Adds the claim that the remote has the last batch that it acknowledged, which it must
    /// remember. It is not the claim of the map: that one may name a batch that was discarded.
    ///
    /// A batch may be sent long after it was made. The claim is therefore dated by the batch.
    pub(super) fn claim(&self, part: MapBatch, at: SystemTime) -> MapBatch {
        let acknowledged = self.known.lock().acknowledged;
        let is_recent =
            |since: &SystemTime| since.elapsed().is_ok_and(|past| past < ledger::RECENT);
        let recent = acknowledged.filter(|(_, since)| is_recent(since));
        part.after_acknowledged(recent.map(|(id, _)| Acknowledged::new(id, at)))
    }

    /// Refuses a batch that must not be acknowledged, as the remote would.
    ///
    /// # Errors
    ///
    /// `Unusable` while the journal needs a person; `Rewound` if the batch names another
    /// incarnation, or was made before a drop of the map.
    pub(super) fn check(&self, batch: &Batch, part: &MapBatch) -> Result<()> {
        let known = self.known.lock();
        if let Some(error) = known.error.as_ref().filter(|error| needs_a_person(error)) {
            return Err(blocked(error.clone()));
        }
        let found = known.incarnation;
        if part.incarnation.is_some() && found.is_some() && part.incarnation != found {
            let states = Rewound::new(part.incarnation, found);
            return Err(Error::store_rewound(states).on_map(&self.map));
        }
        ledger::check_dropped(batch, |_| Ok::<_, Error>(known.dropped))
    }

    /// Makes this process the owner of the map, unless it is. Nothing must be pending.
    pub(super) async fn keep(&self, row: &mut Option<Row>) -> Result<()> {
        if self.known.lock().is_owned {
            let found = self.in_time(Row::read(&*self.remote, &self.map)).await?;
            let tokens = self.journal.lock().await.tokens;
            if found
                .0
                .is_some_and(|(owner, _)| tokens.contain(owner.token))
            {
                return Ok(());
            }
        }
        self.own(row).await
    }

    /// Makes this process the owner of the map, with a new token. Nothing must be pending.
    ///
    /// The token is durable here first. Otherwise a crash after the commit would leave the
    /// remote with a token that this journal does not know.
    pub(super) async fn own(&self, row: &mut Option<Row>) -> Result<()> {
        for _ in 0..MAX_READS {
            let found = self.in_time(Row::read(&*self.remote, &self.map)).await?;
            let token = WriterId::random();
            let reached = found.0.map_or(0, |(owner, _)| owner.number);
            let number = self.with_file(move |journal, folder| {
                // After a restore of the folder, its numbers would begin below those that the
                // remote has.
                journal.next = journal.next.max(reached + 1);
                journal.tokens.latest = Some(token);
                journal.rewrite(folder)?;
                Ok(journal.next - 1)
            });
            let owner = Owner {
                token,
                number: number.await?,
            };
            let put = found.put(&*self.remote, &self.map, owner, None);
            match self.in_time(put).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                put => {
                    *row = Some(put?);
                    self.owned(token).await;
                    return Ok(());
                }
            }
        }
        let message = "other processes become the owner of the map at the same time, or the \
                       remote loads an older state than it commits to; try again";
        Err(Error::new(ErrorKind::Unavailable, message).on_map(&self.map))
    }

    /// Records that the remote has confirmed this token.
    pub(super) async fn owned(&self, token: WriterId) {
        let latest = Some(token);
        self.journal.lock().await.tokens = Tokens {
            confirmed: latest,
            latest,
        };
        self.known.lock().is_owned = true;
    }

    pub(super) fn learn_incarnation(&self, found: Option<Incarnation>) {
        let mut known = self.known.lock();
        known.incarnation = found.or(known.incarnation);
    }

    /// Records that the map was dropped at that revision, at the latest.
    pub(super) fn dropped(&self, at: Revision) {
        let mut known = self.known.lock();
        known.dropped = Some(at);
        known.is_owned = false;
    }

    /// Records that the journal was discarded.
    pub(super) fn discarded(&self) {
        let mut known = self.known.lock();
        (known.is_owned, known.error) = (false, None);
    }

    /// Accepts the present state of the remote, even if it has lost acknowledged batches.
    pub(super) fn forced(&self) {
        let mut known = self.known.lock();
        (known.acknowledged, known.error) = (None, None);
    }

    pub(super) fn stats(&self) -> JournalStats {
        let known = self.known.lock();
        let Content {
            batches,
            bytes,
            oldest,
            set_aside,
        } = known.content;
        JournalStats {
            batches,
            bytes,
            oldest: oldest.map(|at| at.elapsed().unwrap_or_default()),
            set_aside,
            error: known.error.clone(),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("map", &self.map)
            .finish_non_exhaustive()
    }
}

/// All maps with a journal, by name.
pub(super) type States = Mutex<HashMap<MapName, Arc<State>>>;

/// Whether the drain cannot go on before a person has decided.
pub(super) fn needs_a_person(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Superseded | ErrorKind::Rewound)
}

/// The error of a call that needs an empty journal, where the drain failed with that error.
pub(super) fn blocked(error: Error) -> Error {
    use ErrorKind::{Closed, Corrupt, Rewound, Superseded, Unsupported, Unusable};
    let message = "batches that were acknowledged have not reached the remote";
    match error.kind() {
        Superseded | Rewound => {
            let remedy = "export, discard or force the journal of the map";
            let error = Error::new(Unusable, format!("{message}; {remedy}")).with_source(error);
            error.nothing_applied()
        }
        Unusable | Corrupt | Closed | Unsupported => error.and_say(message).nothing_applied(),
        _ => Error::new(ErrorKind::Unavailable, format!("{message}; try again"))
            .with_source(error)
            .nothing_applied(),
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let message = "the work on the journal was interrupted; try again";
        Err(Error::new(ErrorKind::Unavailable, message).with_source(error))
    })
}

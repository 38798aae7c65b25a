//! The connections, and how they are kept clean.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_postgres::{Hook, HookError, Object, Pool};
use tokio::time::timeout;
use tokio_postgres::{Client, Error as SqlError, Row};

use super::errors::{Fault, closed};
use crate::{
    batch::{Batch, Change},
    error::{Error, ErrorKind, Result},
};

/// A connection that was idle for longer is asked whether it is still there: a
/// router may have forgotten it, and then no one answers for a long time.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// How long it may take to answer that.
pub(super) const MAX_PING: Duration = Duration::from_secs(2);

/// How long the server is waited for beyond what it allows itself.
const GRACE: Duration = Duration::from_secs(5);

/// What a pool asks of a connection before it hands it out again. One that was
/// used just now is only looked at, which takes no round trip.
pub(super) fn before_reuse() -> Hook {
    Hook::async_fn(|client, metrics| {
        Box::pin(async move {
            if metrics.last_used() < MAX_IDLE {
                return Ok(());
            }
            match timeout(MAX_PING, client.check_connection()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(cause)) => Err(HookError::Backend(cause)),
                Err(_) => Err(HookError::message("it did not answer")),
            }
        })
    })
}

/// From how many bytes on a connection is not used again that has sent them: it
/// keeps the memory that they took for as long as it lives, twice over. More than
/// a batch comes to by default, unless a single value is larger; and beside what
/// it takes to send them, a new connection costs nothing.
const MAX_SENT: usize = 32 << 20;

/// The connections that the handles share.
pub(super) struct Connections {
    pool: Pool,
    /// Whether the pool was made here, and ends with the handles.
    own: bool,
    closed: AtomicBool,
    statement_timeout: Duration,
}

impl Connections {
    pub(super) fn new(pool: Pool, own: bool, statement_timeout: Duration) -> Self {
        Self {
            pool,
            own,
            closed: AtomicBool::new(false),
            statement_timeout,
        }
    }

    /// # Errors
    ///
    /// `Closed` if it was closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(())
    }

    /// Lets go of the connections. Those in use end with what they do.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // A pool that was handed in is someone else's.
        if self.own {
            self.pool.close();
        }
    }

    /// A connection to work on.
    pub(super) async fn lease(&self) -> Result<Lease, Fault> {
        self.check_open()?;
        let object = self.pool.get().await.map_err(Fault::Pool)?;
        Ok(Lease {
            used_before: Object::metrics(&object).recycle_count > 0,
            object: Some(object),
            patience: self.patience(),
        })
    }

    /// The rows that a single statement answers with; it changes nothing, or the
    /// same if it runs twice.
    pub(super) async fn query(&self, sql: &str) -> Result<Vec<Row>, Fault> {
        loop {
            let lease = self.lease().await?;
            match lease.answer(lease.client()?.query_typed(sql, &[])).await {
                Ok(rows) => {
                    lease.give_back();
                    return Ok(rows);
                }
                Err(fault) if lease.was_stale(&fault) => {}
                Err(fault) => return Err(lease.give_up(fault)),
            }
        }
    }

    /// Runs statements that change nothing, or the same if they run twice.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Fault> {
        loop {
            let lease = self.lease().await?;
            match lease.answer(lease.client()?.batch_execute(sql)).await {
                Ok(()) => {
                    lease.give_back();
                    return Ok(());
                }
                Err(fault) if lease.was_stale(&fault) => {}
                Err(fault) => return Err(lease.abandon(fault).await),
            }
        }
    }

    /// How long one answer is waited for; `None` is for ever.
    fn patience(&self) -> Option<Duration> {
        let limited = !self.statement_timeout.is_zero();
        limited.then(|| self.statement_timeout.saturating_add(GRACE))
    }
}

/// A connection in use.
///
/// It goes back into the pool only by [`give_back`](Self::give_back), with no
/// transaction open. Dropped in any other way, at whatever await, it is cut,
/// and the server rolls back what it had begun: no half-done work is left for
/// whoever comes next.
pub(super) struct Lease {
    /// `None` only while it is given back.
    object: Option<Object>,
    used_before: bool,
    patience: Option<Duration>,
}

impl Lease {
    pub(super) fn client(&self) -> Result<&Client, Fault> {
        match &self.object {
            Some(object) => Ok(object),
            None => Err(Fault::Ours(closed())),
        }
    }

    /// Waits for an answer of the server, but not for ever.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Fault> {
        self.in_time(1, answer).await?.map_err(Fault::Sql)
    }

    /// Waits for the answers to so many statements, but not for ever.
    pub(super) async fn in_time<T>(
        &self,
        statements: usize,
        answers: impl Future<Output = T>,
    ) -> Result<T, Fault> {
        let Some(patience) = self.patience else {
            return Ok(answers.await);
        };
        let times = u32::try_from(statements).unwrap_or(u32::MAX);
        let answered = timeout(patience.saturating_mul(times), answers).await;
        answered.map_err(|_| Fault::Silent)
    }

    /// Ends the transaction, which only read, and gives the connection back.
    pub(super) async fn end(self) -> Result<(), Fault> {
        self.answer(self.client()?.batch_execute("ROLLBACK"))
            .await?;
        self.give_back();
        Ok(())
    }

    /// Ends a transaction that went wrong. A connection that cannot even do
    /// that is cut; the error is the one that is known already.
    pub(super) async fn abandon(self, fault: Fault) -> Fault {
        if fault.is_answer() {
            // Whatever comes of it: the transaction does not go on.
            let _ = self.end().await;
        }
        fault
    }

    /// Lets go after an error outside of a transaction. There is none to end: to
    /// end it all the same makes the server log a warning.
    pub(super) fn give_up(self, fault: Fault) -> Fault {
        if fault.is_answer() {
            self.give_back();
        }
        fault
    }

    /// Puts the connection back, with no transaction open.
    pub(super) fn give_back(mut self) {
        drop(self.object.take());
    }

    /// The same, after it has carried this batch; if that was a huge one, it is
    /// cut.
    pub(super) fn give_back_after(self, batch: &Batch) {
        let changes = batch.maps.iter().flat_map(|part| &part.changes);
        if changes.map(Change::weight).sum::<usize>() <= MAX_SENT {
            self.give_back();
        }
    }

    /// Whether it is worth while to begin anew on another connection: this one
    /// had been idle and was lost with the first words, which change nothing.
    pub(super) fn was_stale(&self, fault: &Fault) -> bool {
        self.used_before && fault.is_lost_connection()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

/// What there is to say of a server that is not as it has to be.
pub(super) fn unusable(message: impl Into<String>) -> Fault {
    Fault::Ours(Error::new(ErrorKind::Unusable, message))
}

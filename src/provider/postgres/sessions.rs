//! The connections, and how they are kept clean.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use deadpool_postgres::{Hook, HookError, Object, Pool};
use tokio::time::timeout;
use tokio_postgres::{Client, Error as SqlError, Row};

use super::{
    errors::{Cause, Failure, closed},
    statement::Statement,
};
use crate::{
    batch::{Batch, Change},
    error::Result,
};

/// A connection that was idle for longer is checked before it is used: a router
/// may have forgotten it, and then no answer comes for a long time.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// How long that check may take.
pub(super) const MAX_PING: Duration = Duration::from_secs(2);

/// How much longer than the server's own limit its answer is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// A connection that has sent more bytes in a batch is not used again: it keeps
/// the memory that they took for as long as it lives, twice over. That is more
/// than a batch comes to by default, unless a single value is larger; and
/// compared with sending them, a new connection costs nothing.
const MAX_SENT: usize = 32 << 20;

/// The check of a pool before it hands out a connection again. One that was
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

/// The connections that the handles share.
pub(super) struct Connections {
    pool: Pool,
    /// Whether the pool was made here, and ends with the handles.
    owned: bool,
    closed: AtomicBool,
    statement_timeout: Duration,
}

impl Connections {
    pub(super) fn new(pool: Pool, owned: bool, statement_timeout: Duration) -> Self {
        Self {
            pool,
            owned,
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
        // A pool that was handed in belongs to the program.
        if self.owned {
            self.pool.close();
        }
    }

    /// A connection to work on.
    pub(super) async fn session(&self) -> Result<Session, Failure> {
        self.check_open()?;
        let object = self.pool.get().await.map_err(Cause::Pool)?;
        Ok(Session {
            used_before: Object::metrics(&object).recycle_count > 0,
            object: Some(object),
            in_transaction: AtomicBool::new(false),
            patience: self.patience(),
        })
    }

    /// Begins work on a connection by statements that change nothing, or the same
    /// if they run twice: on another connection if this one turns out to be lost.
    pub(super) async fn begin<T, W>(
        &self,
        work: impl Fn(Session) -> W,
    ) -> Result<(Session, T), Failure>
    where
        W: Future<Output = (Session, Result<T, Failure>)>,
    {
        loop {
            let (session, done) = work(self.session().await?).await;
            match done {
                Ok(done) => return Ok((session, done)),
                Err(failure) if session.was_stale(&failure) => {}
                Err(failure) => return Err(session.abandon(failure).await),
            }
        }
    }

    /// The rows of a single statement that changes nothing, or the same if it
    /// runs twice.
    pub(super) async fn query(&self, sql: &str) -> Result<Vec<Row>, Failure> {
        let query = async |session: Session| {
            let rows = session.rows(&Statement::new(sql)).await;
            (session, rows)
        };
        let (session, rows) = self.begin(query).await?;
        session.give_back();
        Ok(rows)
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
/// transaction open. Dropped in any other way, at whatever await, it is cut, and
/// the server rolls back what it had begun.
pub(super) struct Session {
    /// `None` only while it is given back.
    object: Option<Object>,
    used_before: bool,
    /// Whether a transaction was begun and not ended.
    in_transaction: AtomicBool,
    patience: Option<Duration>,
}

impl Session {
    pub(super) fn client(&self) -> Result<&Client, Failure> {
        match &self.object {
            Some(object) => Ok(object),
            None => Err(closed().into()),
        }
    }

    /// The rows that a statement answers with.
    pub(super) async fn rows(&self, statement: &Statement<'_>) -> Result<Vec<Row>, Failure> {
        self.answer(statement.rows(self.client()?)).await
    }

    /// The one row that it answers with, if there is one.
    pub(super) async fn row(&self, statement: &Statement<'_>) -> Result<Option<Row>, Failure> {
        Ok(self.rows(statement).await?.pop())
    }

    /// How many rows it changed.
    pub(super) async fn execute(&self, statement: &Statement<'_>) -> Result<u64, Failure> {
        self.answer(statement.execute(self.client()?)).await
    }

    /// Runs statements without parameters, in one message.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.answer(self.client()?.batch_execute(sql)).await
    }

    /// A transaction is begun, by what is sent from now on.
    pub(super) fn begins(&self) {
        // The flag is the session's own: nothing else is passed on with it.
        self.in_transaction.store(true, Ordering::Relaxed);
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, sql: &str) -> Result<(), Failure> {
        self.begins();
        self.batch(sql).await
    }

    /// The transaction has ended.
    pub(super) fn ended(&self) {
        self.in_transaction.store(false, Ordering::Relaxed);
    }

    /// Ends a transaction, by a commit or a rollback.
    pub(super) async fn finish(&self, sql: &str) -> Result<(), Failure> {
        self.batch(sql).await?;
        self.ended();
        Ok(())
    }

    /// Ends a transaction, and gives the connection back.
    pub(super) async fn end(self, sql: &str) -> Result<(), Failure> {
        self.finish(sql).await?;
        self.give_back();
        Ok(())
    }

    /// Waits for an answer of the server, but not for ever.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Failure> {
        Ok(self.in_time(1, answer).await??)
    }

    /// Waits for the answers to so many statements, but not for ever.
    pub(super) async fn in_time<T>(
        &self,
        statements: usize,
        answers: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let Some(patience) = self.patience else {
            return Ok(answers.await);
        };
        let times = u32::try_from(statements).unwrap_or(u32::MAX);
        let answered = timeout(patience.saturating_mul(times), answers).await;
        answered.map_err(|_| Cause::Silence.into())
    }

    /// Lets go after a failure, which is the one that is known already. A
    /// connection that does not answer is cut.
    pub(super) async fn abandon(self, failure: Failure) -> Failure {
        if failure.is_answer() {
            self.release().await;
        }
        failure
    }

    /// Ends the transaction if there is one, and gives the connection back. To end
    /// none makes the server log a warning. A connection that cannot even do that
    /// is cut.
    pub(super) async fn release(self) {
        if self.in_transaction.load(Ordering::Relaxed) {
            // Whatever comes of it, the transaction does not go on.
            let _ = self.end("ROLLBACK").await;
        } else {
            self.give_back();
        }
    }

    /// Puts the connection back, with no transaction open.
    pub(super) fn give_back(mut self) {
        drop(self.object.take());
    }

    /// Puts the connection back after a commit of this batch; if that was a huge
    /// one, it is cut.
    pub(super) fn give_back_after(self, batch: &Batch) {
        let changes = batch.maps.iter().flat_map(|part| &part.changes);
        if changes.map(Change::weight).sum::<usize>() <= MAX_SENT {
            self.give_back();
        }
    }

    /// Whether to begin anew on another connection: this one had been idle, and
    /// was lost with the first statements, which change nothing.
    pub(super) fn was_stale(&self, failure: &Failure) -> bool {
        self.used_before && failure.is_lost_connection()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

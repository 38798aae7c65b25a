//! Sessions: connections of the pool, with their timeouts and transactions.

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

/// A connection that was idle for longer is checked before use: a router may have dropped
/// it, and an answer would then not come for a long time.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// The timeout of that check.
pub(super) const MAX_PING: Duration = Duration::from_secs(2);

/// How much longer than the server's own limit a call waits for the answer.
const GRACE: Duration = Duration::from_secs(5);

/// A connection that has sent more bytes in one batch is not reused, because it keeps twice
/// that memory for as long as it lives. A batch has fewer bytes by default, unless a single
/// value is larger; and compared with sending them, a new connection is cheap.
const MAX_SENT: usize = 32 << 20;

/// The check of the pool before it reuses a connection. For a recently used connection, it
/// takes no round trip.
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

/// The connection pool that the handles share.
pub(super) struct Connections {
    pool: Pool,
    /// Whether this provider created the pool, which then ends with the handles.
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
    /// `Closed` if the pool is closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(())
    }

    /// Closes the pool. Connections in use are closed when their work ends.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // The program owns a pool that it passed in.
        if self.owned {
            self.pool.close();
        }
    }

    /// Gets a connection.
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

    /// Begins work on a connection with idempotent statements; on another connection if the
    /// first one is broken.
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

    /// Runs a single idempotent statement and returns its rows.
    pub(super) async fn query(&self, sql: &str) -> Result<Vec<Row>, Failure> {
        let query = async |session: Session| {
            let rows = session.rows(&Statement::new(sql)).await;
            (session, rows)
        };
        let (session, rows) = self.begin(query).await?;
        session.give_back();
        Ok(rows)
    }

    /// The timeout for one answer; `None` for no timeout.
    fn patience(&self) -> Option<Duration> {
        let limited = !self.statement_timeout.is_zero();
        limited.then(|| self.statement_timeout.saturating_add(GRACE))
    }
}

/// A connection in use.
///
/// It returns to the pool only by [`give_back`](Self::give_back), without an open
/// transaction. If it is dropped in any other way, at any await, the connection is closed,
/// and the server rolls back its transaction.
pub(super) struct Session {
    /// `None` only while the connection is returned.
    object: Option<Object>,
    used_before: bool,
    /// Whether a transaction is open.
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

    /// Runs a statement and returns its rows.
    pub(super) async fn rows(&self, statement: &Statement<'_>) -> Result<Vec<Row>, Failure> {
        self.answer(statement.rows(self.client()?)).await
    }

    /// Runs a statement and returns its row, if there is one.
    pub(super) async fn row(&self, statement: &Statement<'_>) -> Result<Option<Row>, Failure> {
        Ok(self.rows(statement).await?.pop())
    }

    /// Runs a statement and returns the number of changed rows.
    pub(super) async fn execute(&self, statement: &Statement<'_>) -> Result<u64, Failure> {
        self.answer(statement.execute(self.client()?)).await
    }

    /// Runs statements without parameters, in one message.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.answer(self.client()?.batch_execute(sql)).await
    }

    /// Marks that the next statements begin a transaction.
    pub(super) fn begins(&self) {
        // The flag guards no other data.
        self.in_transaction.store(true, Ordering::Relaxed);
    }

    /// Begins a transaction.
    pub(super) async fn begin(&self, sql: &str) -> Result<(), Failure> {
        self.begins();
        self.batch(sql).await
    }

    /// Marks that the transaction has ended.
    pub(super) fn ended(&self) {
        self.in_transaction.store(false, Ordering::Relaxed);
    }

    /// Ends a transaction, by a commit or a rollback.
    pub(super) async fn finish(&self, sql: &str) -> Result<(), Failure> {
        self.batch(sql).await?;
        self.ended();
        Ok(())
    }

    /// Ends a transaction, and returns the connection to the pool.
    pub(super) async fn end(self, sql: &str) -> Result<(), Failure> {
        self.finish(sql).await?;
        self.give_back();
        Ok(())
    }

    /// Waits for an answer of the server, up to the timeout.
    pub(super) async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, SqlError>>,
    ) -> Result<T, Failure> {
        Ok(self.in_time(1, answer).await??)
    }

    /// Waits for the answers to this many statements, up to their timeout.
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

    /// Releases the connection after a failure that the caller already has. A connection
    /// that does not answer is closed.
    pub(super) async fn abandon(self, failure: Failure) -> Failure {
        if failure.is_answer() {
            self.release().await;
        }
        failure
    }

    /// Ends the transaction, if there is one (otherwise the server would log a warning), and
    /// returns the connection to the pool. If that fails, the connection is closed.
    pub(super) async fn release(self) {
        if self.in_transaction.load(Ordering::Relaxed) {
            // In either case the transaction does not continue.
            let _ = self.end("ROLLBACK").await;
        } else {
            self.give_back();
        }
    }

    /// Returns the connection to the pool; no transaction is open.
    pub(super) fn give_back(mut self) {
        drop(self.object.take());
    }

    /// Returns the connection to the pool after a commit of this batch; closes it if the
    /// batch was huge.
    pub(super) fn give_back_after(self, batch: &Batch) {
        let changes = batch.maps.iter().flat_map(|part| &part.changes);
        if changes.map(Change::weight).sum::<usize>() <= MAX_SENT {
            self.give_back();
        }
    }

    /// Whether to start over on another connection: this one had been idle, and broke with
    /// the first statements, which change nothing.
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

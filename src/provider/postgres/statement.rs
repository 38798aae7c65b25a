//! Statements, and how they are sent: one after the other, without waiting for
//! answers in between.

use std::{fmt, future::poll_fn, task::Poll};

use futures_util::future::BoxFuture;
use tokio_postgres::{
    Client, Error as SqlError, Row,
    types::{ToSql, Type},
};

type Parameter<'a> = (Box<dyn ToSql + Sync + Send + 'a>, Type);

/// A statement with its parameters. It is never prepared under a name: behind a
/// pooler the next one may run elsewhere.
pub(super) struct Statement<'a> {
    sql: String,
    parameters: Vec<Parameter<'a>>,
    /// How many rows it changes at least, unless some are left out.
    rows: u64,
}

impl<'a> Statement<'a> {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            parameters: Vec::new(),
            rows: 0,
        }
    }

    /// The same statement, which changes as many rows, unless some are left out.
    pub(super) fn changing(self, rows: usize) -> Self {
        let rows = u64::try_from(rows).unwrap_or_default();
        Self { rows, ..self }
    }

    /// Whether it has left out some, if it changed so many.
    pub(super) fn falls_short(&self, changed: u64) -> bool {
        changed < self.rows
    }

    /// The same statement, with one more parameter of that type.
    pub(super) fn with(mut self, value: impl ToSql + Sync + Send + 'a, kind: Type) -> Self {
        self.parameters.push((Box::new(value), kind));
        self
    }

    /// The same statement, with a text as its next parameter.
    pub(super) fn text(self, value: &'a str) -> Self {
        self.with(value, Type::TEXT)
    }

    /// The same statement, with a column of values as its next parameter.
    pub(super) fn array<T: ToSql + Sync + Send + 'a>(
        self,
        values: impl Iterator<Item = T>,
        kind: Type,
    ) -> Self {
        self.with(values.collect::<Vec<_>>(), kind)
    }

    fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let all = self.parameters.iter();
        all.map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()))
            .collect()
    }

    /// The rows it answers with.
    pub(super) async fn rows(&self, client: &Client) -> Result<Vec<Row>, SqlError> {
        client.query_typed(&self.sql, &self.parameters()).await
    }

    /// How many rows it changed.
    pub(super) async fn execute(&self, client: &Client) -> Result<u64, SqlError> {
        client.execute_typed(&self.sql, &self.parameters()).await
    }
}

impl fmt::Debug for Statement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("sql", &self.sql)
            .finish_non_exhaustive()
    }
}

/// Sends all of these, in this order, before it waits; the answers, each in
/// the place of its request. All answers are awaited, also after an error: the
/// statements after it fail as well, and then the connection can be used again.
///
/// After a request that cannot be sent, because no message is that long, none is
/// sent: a commit must not come through without it.
pub(super) async fn pipelined<T>(
    mut requests: Vec<BoxFuture<'_, Result<T, SqlError>>>,
) -> Vec<Result<T, SqlError>> {
    let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut left = 0;
        // A request is sent when it is polled first, so this is the order.
        for n in 0..requests.len() {
            if answers[n].is_some() {
                continue;
            }
            match requests[n].as_mut().poll(cx) {
                Poll::Pending => left += 1,
                Poll::Ready(answer) => {
                    let unsent = is_unsent(&answer);
                    answers[n] = Some(answer);
                    if unsent {
                        requests.truncate(n + 1);
                        break;
                    }
                }
            }
        }
        if left == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    answers.into_iter().flatten().collect()
}

/// Whether no server said so. After that nothing more comes of a connection, or
/// must not.
fn is_unsent<T>(answer: &Result<T, SqlError>) -> bool {
    matches!(answer, Err(cause) if cause.as_db_error().is_none())
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::{FutureExt, future::poll_immediate};
    use tokio_postgres::Config;

    use super::*;

    fn unsent() -> SqlError {
        "no url".parse::<Config>().unwrap_err()
    }

    /// A value of more than two gigabytes cannot be sent. What came after it
    /// was, the commit included: the batch counted as applied, and was without
    /// that value.
    #[tokio::test]
    async fn nothing_is_sent_after_what_cannot_be() {
        let sent = |()| panic!("it was sent");
        let after = ready(()).map(sent);
        let requests = vec![
            ready(Ok(1)).boxed(),
            ready(Err(unsent())).boxed(),
            after.boxed(),
        ];
        let answers = pipelined(requests).await;
        assert_eq!(answers.len(), 2);
        assert!(answers[0].is_ok() && answers[1].is_err());
    }

    #[tokio::test]
    async fn what_was_sent_before_it_is_waited_for() {
        let requests = vec![
            pending::<Result<(), _>>().boxed(),
            ready(Err(unsent())).boxed(),
        ];
        assert!(poll_immediate(pipelined(requests)).await.is_none());
    }
}

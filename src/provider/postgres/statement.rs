//! Statements, and how they are sent: one after the other, without waiting for
//! answers in between.

use std::{fmt, future::poll_fn, task::Poll};

use futures_util::future::BoxFuture;
use tokio_postgres::{
    Client, Error as SqlError, Row,
    types::{ToSql, Type},
};

type Parameter<'a> = (Box<dyn ToSql + Sync + Send + 'a>, Type);

/// A statement with its parameters. It is never a named prepared statement, because a
/// pooler may run the next one on another connection.
pub(super) struct Statement<'a> {
    sql: String,
    parameters: Vec<Parameter<'a>>,
    /// The minimum number of rows that it changes, unless a trigger or a rule ignores some.
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

    /// Sets how many rows the statement changes, unless a trigger or a rule ignores some.
    pub(super) fn changing(self, rows: usize) -> Self {
        let rows = u64::try_from(rows).unwrap_or_default();
        Self { rows, ..self }
    }

    /// Whether rows were ignored, given the number of changed rows.
    pub(super) fn falls_short(&self, changed: u64) -> bool {
        changed < self.rows
    }

    /// Adds a parameter of that type.
    pub(super) fn with(mut self, value: impl ToSql + Sync + Send + 'a, kind: Type) -> Self {
        self.parameters.push((Box::new(value), kind));
        self
    }

    /// Adds a text parameter.
    pub(super) fn text(self, value: &'a str) -> Self {
        self.with(value, Type::TEXT)
    }

    /// Adds an array of values as a parameter.
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

    /// Returns the rows of the result.
    pub(super) async fn rows(&self, client: &Client) -> Result<Vec<Row>, SqlError> {
        client.query_typed(&self.sql, &self.parameters()).await
    }

    /// Returns the number of changed rows.
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

/// Sends all requests in order before it waits, and returns the answers in the same
/// order. It awaits all answers even after an error: the statements that follow fail as
/// well, and the connection can then be used again.
///
/// If a request exceeds the maximum length of a message, no later one is sent: a commit
/// must not succeed without it.
pub(super) async fn pipelined<T>(
    mut requests: Vec<BoxFuture<'_, Result<T, SqlError>>>,
) -> Vec<Result<T, SqlError>> {
    let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut left = 0;
        // A request is sent on its first poll, so polling in order sends in order.
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

/// Whether the error is not an answer of the server. The connection must not be used
/// after such an error.
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

    /// A value of more than two gigabytes cannot be sent. The statements after it were
    /// sent nevertheless, including the commit: the batch counted as applied, but lacked
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

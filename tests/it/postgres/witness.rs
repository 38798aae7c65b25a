//! A second client that inspects the tables, on its own thread.

use std::{sync::mpsc, thread};

use postgres::{Client, NoTls, Row, SimpleQueryMessage, types::ToSql};

use super::database::Database;

type Order = Box<dyn FnOnce(&mut Client) + Send>;

/// A connection that stays open until this value is dropped.
pub(crate) struct Witness {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
    /// Dropped with this value.
    database: Option<Database>,
}

/// Rows, as text.
type Texts = Vec<Vec<Option<String>>>;

impl Witness {
    pub(crate) fn connect(url: &str) -> Self {
        Self::try_connect(url).unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub(crate) fn try_connect(url: &str) -> Result<Self, postgres::Error> {
        let (orders, given) = mpsc::channel::<Order>();
        let (opened, is_open) = mpsc::channel();
        let url = url.to_owned();
        // The blocking client must not be used where a runtime runs.
        let thread = thread::spawn(move || match Client::connect(&url, NoTls) {
            Ok(mut client) => {
                opened.send(Ok(())).unwrap();
                for order in given {
                    order(&mut client);
                }
            }
            Err(error) => opened.send(Err(error)).unwrap(),
        });
        is_open.recv().unwrap()?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
            database: None,
        })
    }

    /// Connects to a database, which is dropped with the witness.
    pub(crate) fn of(database: Database) -> Self {
        let mut witness = database.witness();
        witness.database = Some(database);
        witness
    }

    /// Runs a query and returns its rows as text.
    pub(crate) fn try_run(&self, sql: &str) -> Result<Texts, postgres::Error> {
        let sql = sql.to_owned();
        let said = self.with(move |client| client.simple_query(&sql))?;
        let rows = said.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let texts = rows.map(|row| {
            (0..row.len())
                .map(|n| row.get(n).map(str::to_owned))
                .collect()
        });
        Ok(texts.collect())
    }

    pub(crate) fn run(&self, sql: &str) -> Texts {
        let said = self.try_run(sql);
        said.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The first cell of a query that returns one row.
    pub(crate) fn cell(&self, sql: &str) -> Option<String> {
        let mut rows = self.run(sql);
        assert_eq!(rows.len(), 1, "{sql}");
        rows.remove(0).remove(0)
    }

    pub(crate) fn text(&self, sql: &str) -> String {
        self.cell(sql).unwrap()
    }

    /// Runs a closure with the connection.
    pub(crate) fn with<T: Send + 'static>(
        &self,
        order: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> T {
        let (answer, answered) = mpsc::channel();
        let order = move |client: &mut Client| answer.send(order(client)).unwrap();
        self.orders.as_ref().unwrap().send(Box::new(order)).unwrap();
        answered.recv().expect("the witness lives")
    }

    /// Runs statements without parameters.
    pub(crate) fn execute(&self, sql: impl Into<String>) {
        let sql = sql.into();
        let done = self.with({
            let sql = sql.clone();
            move |client| client.batch_execute(&sql)
        });
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(crate) fn rows(&self, sql: impl Into<String>) -> Vec<Row> {
        self.rows_with(sql, Vec::new())
    }

    pub(crate) fn rows_with(
        &self,
        sql: impl Into<String>,
        parameters: Vec<Box<dyn ToSql + Sync + Send>>,
    ) -> Vec<Row> {
        let sql = sql.into();
        self.with(move |client| {
            let parameters: Vec<_> = parameters
                .iter()
                .map(|p| &**p as &(dyn ToSql + Sync))
                .collect();
            let rows = client.query(&sql, &parameters);
            rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        })
    }

    /// The number in the first cell of the first row.
    pub(crate) fn number(&self, sql: impl Into<String>) -> i64 {
        self.rows(sql)[0].get(0)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // Dropping the sender ends the thread. The database, if any, is dropped after this.
        self.orders.take();
        let ended = self.thread.take().map(thread::JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().expect("the witness ends well");
        }
    }
}

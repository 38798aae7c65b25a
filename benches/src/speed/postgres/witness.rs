//! A client of its own, which the server code of the tests requires.

use postgres::{Client, NoTls};

/// A connection that is not part of the measurement.
pub struct Witness(Client);

impl Witness {
    pub fn connect(url: &str) -> Self {
        Self::try_connect(url).expect("a connection")
    }

    pub fn try_connect(url: &str) -> Result<Self, postgres::Error> {
        Client::connect(url, NoTls).map(Self)
    }

    pub fn execute(&mut self, sql: &str) {
        self.0.batch_execute(sql).expect("a statement that runs");
    }
}

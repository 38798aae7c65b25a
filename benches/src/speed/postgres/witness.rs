//! Another client, which the servers of the tests ask for.

use postgres::{Client, NoTls};

/// A connection outside of what is measured.
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

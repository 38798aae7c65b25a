//! A fresh database for each test.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use super::{proxy::Proxy, server::Server, witness::Witness};

/// The environment variable with the URL of a server to use.
const VARIABLE: &str = "PERSISTIFY_TEST_POSTGRES";

/// A database for one test; it is dropped with this value.
pub(crate) struct Database {
    name: String,
    admin: String,
    url: String,
    /// False on the tests' own servers, which are removed with their databases.
    to_be_dropped: bool,
}

impl Database {
    /// Creates a database on the server in the environment variable, or else on the shared one.
    pub(crate) fn fresh() -> Self {
        match env::var(VARIABLE) {
            Ok(url) => Self::at(&url, true),
            Err(_) => Self::on(Server::shared()),
        }
    }

    /// Creates a database on this server.
    pub(crate) fn on(server: &Server) -> Self {
        Self::at(&server.url("postgres"), false)
    }

    fn at(admin: &str, to_be_dropped: bool) -> Self {
        let name = format!("persistify_test_{:016x}", rand::random::<u64>());
        let made = Witness::try_connect(admin);
        let made = made.unwrap_or_else(|error| panic!("no Postgres at {VARIABLE}: {error:?}"));
        made.execute(create(&name));
        Self {
            url: with_database(admin, &name),
            admin: admin.to_owned(),
            name,
            to_be_dropped,
        }
    }

    /// Drops the database despite open connections and creates an empty one of the same name.
    pub(crate) fn make_anew(&self) {
        let admin = self.admin();
        admin.execute(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        admin.execute(create(&self.name));
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The URL of the database through the proxy.
    pub(crate) fn url_through(&self, proxy: &Proxy) -> String {
        format!("postgres://postgres@{}/{}", proxy.address(), self.name)
    }

    pub(crate) fn witness(&self) -> Witness {
        Witness::connect(&self.url)
    }

    /// Waits until no client is connected to the database.
    pub(crate) fn wait_until_unused(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let admin = self.admin();
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        );
        while admin.number(&count) > 0 {
            assert!(Instant::now() < deadline, "someone is still connected");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connects to another database of the server as a superuser.
    pub(crate) fn admin(&self) -> Witness {
        Witness::connect(&self.admin)
    }
}

fn create(name: &str) -> String {
    format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.to_be_dropped {
            let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
            self.admin().execute(drop);
        }
    }
}

/// Replaces the database in a URL.
fn with_database(url: &str, name: &str) -> String {
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = rest.split_once("://").expect("a URL: postgres://…");
    let host = rest.split('/').next().unwrap();
    let query = if query.is_empty() {
        String::new()
    } else {
        format!("?{query}")
    };
    format!("{scheme}://{host}/{name}{query}")
}

#[test]
fn a_url_gets_another_database() {
    let url = |url| with_database(url, "d");
    assert_eq!(url("postgres://u:p@h:1/x?a=b"), "postgres://u:p@h:1/d?a=b");
    assert_eq!(url("postgresql://h"), "postgresql://h/d");
}

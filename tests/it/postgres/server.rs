//! A server to test against.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
};

/// A fresh database.
pub(crate) struct Server {
    url: String,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }
}

/// A fresh database on the server that `PERSISTIFY_TEST_POSTGRES` names.
pub(crate) fn server() -> Server {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let url = env::var("PERSISTIFY_TEST_POSTGRES")
        .expect("name a server: PERSISTIFY_TEST_POSTGRES=postgres://user@host:port/postgres");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("persistify_{}_{number}", std::process::id());
    std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        client
            .batch_execute(&format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"
            ))
            .unwrap();
        let (server, _) = url.rsplit_once('/').unwrap();
        Server {
            url: format!("{server}/{name}"),
        }
    })
    .join()
    .unwrap()
}

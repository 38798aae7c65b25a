//! Sessions of a web site, with a time to idle: they expire when they are not used,
//! a listener is called when they do, and they survive a restart of the server.
//!
//! ```text
//! cargo run --example sessions
//! ```

use std::{error::Error, path::Path, sync::mpsc, time::Duration};

use persistify::{CachingMap, Sqlite};
use serde::{Deserialize, Serialize};

const IDLE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session {
    user: String,
    basket: Vec<String>,
}

fn session_of(user: &str) -> Session {
    let user = user.to_owned();
    Session {
        user,
        basket: vec![],
    }
}

async fn open(db: &Path, ended: mpsc::Sender<String>) -> persistify::Result<CachingMap<Session>> {
    CachingMap::builder(Sqlite::open(db).await?, "sessions")
        .time_to_idle(IDLE)
        .on_expire(move |_token, session: Session| {
            println!("   expired: {session:?}");
            // The receiver may be gone when the program ends.
            let _ = ended.send(session.user);
        })
        .open()
        .await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("site.db");
    let (ended, who_ended) = mpsc::channel();

    let sessions = open(&db, ended.clone()).await?;
    // Real tokens are random. A login waits until it is on disk.
    for (token, user) in [("token-a", "alice"), ("token-b", "bob")] {
        sessions.insert_and_save(token, session_of(user)).await?;
    }
    println!("alice and bob log in; a session expires after {IDLE:?} without use");

    // Alice keeps clicking; Bob does not.
    sessions.update("token-b", |bob| bob.basket.push("umbrella".to_owned()));
    for click in 1..=6 {
        tokio::time::sleep(IDLE / 4).await;
        sessions.update("token-a", |alice| {
            alice.basket.push(format!("book {click}"));
        });
    }
    println!("the server restarts");
    sessions.close().await?;
    drop(sessions);
    let sessions = open(&db, ended).await?;

    // Reads count as use.
    for _ in 0..4 {
        tokio::time::sleep(IDLE / 4).await;
        let items = sessions.read("token-a", |session| session.basket.len());
        assert_eq!(items, Some(6), "the session of alice was in use");
    }
    println!("the session of alice is alive, with 6 books; that of bob has expired");
    assert!(!sessions.contains_key("token-b"));
    assert_eq!(who_ended.try_iter().collect::<Vec<_>>(), ["bob"]);

    sessions.close().await?;
    Ok(())
}

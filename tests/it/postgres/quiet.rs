//! Failures that leave no warning in the server's log.

use persistify::ErrorKind;

use super::*;

/// An adoption that failed before its transaction began sent a rollback anyway, so the server
/// logged a warning each time a program with a wrong option started.
#[tokio::test]
async fn a_failed_adoption_leaves_no_warning_in_the_log_of_the_server() {
    let server = Server::private();
    let database = Database::on(&server);
    let other = database.witness();
    other.execute("CREATE TABLE numbers (key integer PRIMARY KEY, value text)");
    other.execute("CREATE TABLE one (key text PRIMARY KEY, value text)");
    other.execute("CREATE TABLE two (key text PRIMARY KEY, value text)");
    // Sets up the schema, and adopts the table `one` for the map.
    let adopted = Postgres::builder(database.url()).table("m", "one");
    adopted.connect().await.unwrap();
    for (map, table, kind) in [
        ("n", "missing", ErrorKind::Unusable),
        ("n", "numbers", ErrorKind::Invalid),
        ("m", "two", ErrorKind::Invalid),
        ("n", "one", ErrorKind::Invalid),
    ] {
        let adopted = Postgres::builder(database.url()).table(map, table);
        let error = adopted.connect().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{table}: {error:?}");
    }
    let log = server.log();
    assert!(!log.contains("no transaction in progress"), "{log}");
}

/// The COMMIT of a failed transaction is already a rollback. The provider rolled back again, and
/// the server logged a warning for each refused change.
#[tokio::test]
async fn a_refused_change_leaves_no_warning_in_the_log_of_the_server() {
    let server = Server::private();
    let database = Database::on(&server);
    let postgres = database.connect().await;
    let (map, mut pen) = (name("m"), Pen::new());
    for n in 0..3 {
        pen.put(&postgres, &map, "k", &n.to_string()).await;
        let refused = put("nul", "\"\\u0000\"");
        let refused = error(pen.write(&postgres, &map, vec![refused]).await);
        assert_eq!(refused.kind(), ErrorKind::Refused, "{refused}");
    }
    let log = server.log();
    assert!(!log.contains("no transaction in progress"), "{log}");
}

/// Reading a FIFO blocks until a writer opens it.
#[tokio::test]
async fn a_root_certificate_that_is_no_file_is_invalid_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("root.pem");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let builder = Postgres::builder("postgres://localhost/x").root_certificate(&pipe);
    let connected = tokio::time::timeout(Duration::from_secs(30), builder.connect()).await;
    let error = connected.expect("it waits").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let said = format!("{error:?}");
    assert!(said.contains("root.pem") && said.contains("FIFO"), "{said}");
}

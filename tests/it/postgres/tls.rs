//! TLS, trusted certificates, and secrets that must not be printed.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::{server::Server, *};

const PASSWORD: &str = "correct-horse-battery";

/// A certificate authority, and the certificate of a local server.
struct Papers {
    folder: TempDir,
}

impl Papers {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new([]).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = root.self_signed(&key).unwrap();
        let issuer = Issuer::new(root, key);
        let own = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let signed = server.unwrap().signed_by(&own, &issuer).unwrap();
        let papers = Self { folder };
        std::fs::write(papers.path("root.pem"), certificate.pem()).unwrap();
        std::fs::write(papers.path("server.pem"), signed.pem()).unwrap();
        std::fs::write(papers.path("server.key"), own.serialize_pem()).unwrap();
        papers
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn root(&self) -> PathBuf {
        self.path("root.pem")
    }
}

/// Starts a server that requires a password of the user `app`, with TLS if there are papers.
fn server(papers: Option<&Papers>) -> (Server, Database) {
    let server = Server::private();
    let database = Database::on(&server);
    database.witness().execute(format!(
        "CREATE ROLE app SUPERUSER LOGIN PASSWORD '{PASSWORD}'"
    ));
    let access = server.folder().join("data/pg_hba.conf");
    std::fs::write(
        access,
        "host all postgres all trust\nhost all all all scram-sha-256\n",
    )
    .unwrap();
    if let Some(papers) = papers {
        for file in ["server.pem", "server.key"] {
            // Written by the server's user, who must own the file.
            let text = std::fs::read_to_string(papers.path(file)).unwrap();
            for line in text.lines() {
                server.shell(&format!("echo '{line}' >>data/{file}"));
            }
        }
        server.set("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'");
    }
    server.restart(super::server::Stop::Fast);
    (server, database)
}

fn url(server: &Server, database: &Database, host: &str) -> String {
    format!(
        "postgres://app:{PASSWORD}@{host}:{}/{}",
        server.port(),
        database.name()
    )
}

/// The numbers of encrypted and unencrypted sessions of the program.
fn encrypted(database: &Database) -> (i64, i64) {
    let count = |yes: &str| {
        database.witness().number(format!(
            "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE usename = 'app' AND {yes} ssl"
        ))
    };
    (count(""), count("NOT"))
}

async fn connect(url: &str, tls: Tls, root: Option<&Path>) -> Result<Postgres> {
    let builder = Postgres::builder(url)
        .tls(tls)
        .connect_timeout(Duration::from_secs(5));
    let builder = match root {
        Some(root) => builder.root_certificate(root),
        None => builder,
    };
    let store = builder.connect().await?;
    Pen::new()
        .write(&store, &name("map"), vec![put("k", "1")])
        .await?;
    Ok(store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_papers_is_trusted_as_far_as_they_go() {
    let (papers, others) = (Papers::new(), Papers::new());
    let (server, database) = server(Some(&papers));
    for host in ["localhost", "127.0.0.1"] {
        let url = url(&server, &database, host);
        let store = connect(&url, Tls::Require, Some(&papers.root()))
            .await
            .unwrap();
        assert_eq!(encrypted(&database), (1, 0));
        store.close().await.unwrap();
        eventually("it lets go", || encrypted(&database) == (0, 0)).await;
    }
    let url = url(&server, &database, "127.0.0.1");
    let store = connect(&url, Tls::Off, None).await.unwrap();
    assert_eq!(encrypted(&database), (0, 1));
    store.close().await.unwrap();
    eventually("it lets go", || encrypted(&database) == (0, 0)).await;
    let store = connect(&url, Tls::Prefer, Some(&papers.root()))
        .await
        .unwrap();
    assert_eq!(encrypted(&database), (1, 0));
    drop(store);
    // Trusts another authority, or none that signed the certificate.
    for root in [Some(others.root()), None] {
        let failed = error(connect(&url, Tls::Require, root.as_deref()).await);
        assert!(!failed.may_have_applied());
        assert!(
            format!("{failed:?}").to_lowercase().contains("certificate"),
            "{failed:?}"
        );
        assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    }
    let missing = papers.path("missing.pem");
    let failed = error(connect(&url, Tls::Require, Some(&missing)).await);
    assert!(failed.to_string().contains("missing.pem"), "{failed:?}");
    let nonsense = papers.path("server.key");
    error(connect(&url, Tls::Require, Some(&nonsense)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_papers_is_no_place_for_who_requires_them() {
    let (server, database) = server(None);
    let url = url(&server, &database, "127.0.0.1");
    for tls in [Tls::Off, Tls::Prefer] {
        connect(&url, tls, None).await.unwrap();
    }
    let papers = Papers::new();
    let failed = error(connect(&url, Tls::Require, Some(&papers.root())).await);
    assert_eq!(failed.kind(), ErrorKind::Unusable, "{failed:?}");
    assert!(format!("{failed:?}").contains("TLS"), "{failed:?}");
}

/// No message contains a password, regardless of the error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_holds_a_password() {
    let (server, database) = server(None);
    let good = url(&server, &database, "127.0.0.1");
    let store = Postgres::connect(&good).await.unwrap();
    let mut said = vec![
        format!("{store:?} {store:#?}"),
        format!("{:?}", Postgres::builder(&good)),
    ];
    server.stop(super::server::Stop::Fast);
    said.push(format!("{:?}", error(store.ping().await)));
    said.push(format!("{store:?}"));
    server.start();
    let port = server.port();
    let bad = [
        good.replace("correct", "incorrect"),
        good.replace("app:", "nobody:"),
        good.replace(database.name(), "missing"),
        good.replace(&port.to_string(), "1"),
        good.replace(&port.to_string(), "no port"),
        good.replace("127.0.0.1", "no.such.host.invalid"),
        good.replace("postgres://", "mysql://"),
        format!("{good}?connect_timeout=soon"),
        format!("{good}?sslmode=sometimes"),
        format!("host=127.0.0.1 port=x user=app password={PASSWORD}"),
        format!("password={PASSWORD} host"),
        format!("postgres://app:{PASSWORD}"),
        PASSWORD.to_owned(),
    ];
    for url in bad {
        let builder = Postgres::builder(&url).connect_timeout(Duration::from_secs(3));
        said.push(format!("{builder:?} {builder:#?}"));
        let failed = error(builder.connect().await);
        said.push(format!("{failed} {failed:?} {failed:#?}"));
    }
    for text in said {
        assert!(!text.contains("horse-battery"), "{text}");
        assert!(!text.is_empty());
    }
}

/// Errors that retrying cannot fix are returned at once, with a remedy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_is_told_so() {
    let (server, database) = server(None);
    let good = url(&server, &database, "127.0.0.1");
    for (bad, kind) in [
        (good.replace("correct", "incorrect"), ErrorKind::Unusable),
        (good.replace("app:", "nobody:"), ErrorKind::Unusable),
        (
            good.replace(database.name(), "missing"),
            ErrorKind::Unusable,
        ),
        (good.replace("postgres://", "mysql://"), ErrorKind::Invalid),
        (format!("{good}?connect_timeout=soon"), ErrorKind::Invalid),
    ] {
        let failed = error(Postgres::connect(&bad).await);
        assert_eq!(failed.kind(), kind, "{failed:?}");
    }
}

/// A server given only by `hostaddr` could not be reached, because TLS needs a name. The error
/// was that of a server that is temporarily down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_papers_is_found_by_its_address() {
    let papers = Papers::new();
    let (server, database) = server(Some(&papers));
    let (port, db) = (server.port(), database.name());
    let url =
        format!("postgres:///{db}?user=app&password={PASSWORD}&hostaddr=127.0.0.1&port={port}");
    let store = connect(&url, Tls::Prefer, None).await.unwrap();
    assert!(format!("{store:?}").contains("127.0.0.1"), "{store:?}");
    let root = papers.root();
    let other = connect(&url, Tls::Require, Some(&root)).await.unwrap();
    assert_eq!(encrypted(&database), (2, 0));
    drop((store, other));
}

//! Maps behind a pooler that runs each transaction on any free session.

use std::fs;

use persistify::testing::conformance;

use super::{
    keeper::Keeper,
    server::{Server, free_port},
    writers::{Writers, open},
    *,
};

/// `PgBouncer` in transaction mode, with two sessions for all clients.
pub(crate) struct PgBouncer {
    port: u16,
    keeper: Keeper,
}

impl PgBouncer {
    pub(crate) fn before(server: &Server) -> Self {
        let (keeper, port) = (Keeper::new(), free_port());
        let settings = format!(
            "[databases]
            * = host=127.0.0.1 port={} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = 2
            max_client_conn = 100",
            server.port()
        );
        fs::write(
            keeper.folder().join("pgbouncer.ini"),
            settings.replace("            ", ""),
        )
        .unwrap();
        keeper
            .run("chmod a+r pgbouncer.ini 2>/dev/null; PATH=$PATH:/usr/sbin command -v pgbouncer");
        keeper.run("end=KILL; PATH=$PATH:/usr/sbin pgbouncer pgbouncer.ini & pid=$!");
        let pooler = Self { port, keeper };
        pooler.wait_until_ready();
        pooler
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = Witness::try_connect(&self.url("postgres")) {
            assert!(
                Instant::now() < deadline,
                "no PgBouncer: {error:?}\n{}",
                self.keeper.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// The number of sessions that the pooler keeps.
fn sessions(database: &Database) -> i64 {
    database.admin().number(format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
        database.name()
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_behind_a_pooler_conforms() {
    let database = Database::on(Server::shared());
    let pooler = PgBouncer::before(Server::shared());
    let url = pooler.url(database.name());
    conformance(async || Postgres::connect(&url).await).await;
    assert!(sessions(&database) <= 2);
}

/// There are more clients than sessions, so each transaction may run on another session than
/// the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_maps_on_two_sessions_of_a_pooler_all_save() {
    let database = Database::on(Server::shared());
    let pooler = PgBouncer::before(Server::shared());
    let url = pooler.url(database.name());
    let saving = (0..12).map(|n| {
        let url = url.clone();
        tokio::spawn(async move {
            let store = Postgres::connect(url).await.unwrap();
            let (map, mut pen) = (name(&format!("map {}", n % 5)), Pen::new());
            for value in 0..20 {
                pen.put(&store, &map, &format!("{n}"), &value.to_string())
                    .await;
                assert_eq!(
                    text_of(&store, &map, &format!("{n}")).await.unwrap(),
                    value.to_string()
                );
            }
        })
    });
    for saved in saving.collect::<Vec<_>>() {
        saved.await.unwrap();
    }
    assert_eq!(sessions(&database), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_end_behind_a_pooler_lose_nothing() {
    let database = Database::on(Server::shared());
    let pooler = PgBouncer::before(Server::shared());
    let store = Postgres::connect(pooler.url(database.name()))
        .await
        .unwrap();
    let map = open(store).await;
    let writers = Writers::at(&map);
    for _ in 0..20 {
        writers.go_on(5).await;
        database.admin().execute(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            database.name()
        ));
        writers.check(&database);
    }
    writers.finish(&database).await;
}

//! Tests of the test support: servers, keeper and proxy.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    database::Database,
    keeper::Keeper,
    proxy::{End, Hold, Proxy},
    server::{Server, Stop},
    witness::Witness,
};

/// Polls until the condition holds; panics after 30 seconds.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_is_stopped_in_every_way_and_comes_back_where_it_was() {
    let server = Server::private();
    let database = Database::on(&server);
    let port = server.port();
    database.witness().execute("CREATE TABLE t (n bigint)");
    for (n, stop) in [Stop::Fast, Stop::Immediate, Stop::Killed]
        .into_iter()
        .enumerate()
    {
        let held = database.witness();
        held.execute(format!("INSERT INTO t VALUES ({n})"));
        server.stop(stop);
        assert!(Witness::try_connect(database.url()).is_err());
        assert!(
            held.with(|client| client.batch_execute("SELECT 1"))
                .is_err()
        );
        server.start();
        assert_eq!(server.port(), port);
        let rows = database.witness().number("SELECT count(*) FROM t");
        assert_eq!(rows, i64::try_from(n).unwrap() + 1, "{stop:?}");
    }
}

const NOTE: &str = "PERSISTIFY_KIT_NOTE";

/// The test program is killed while a server runs. Neither its folder nor a process remains.
#[test]
fn nothing_is_left_behind_when_the_test_program_is_killed() {
    if let Some(note) = std::env::var_os(NOTE) {
        let server = Server::private();
        fs::write(note, server.folder().to_str().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    }
    let test = "postgres::kit::nothing_is_left_behind_when_the_test_program_is_killed";
    let scratch = tempfile::tempdir().unwrap();
    let note = scratch.path().join("note");
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child
        .args(["--exact", test, "--test-threads=1"])
        .env(NOTE, &note);
    let mut child = child
        .env("TMPDIR", scratch.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    open_to_all(scratch.path());
    wait_for("a server", || {
        fs::read_to_string(&note).is_ok_and(|text| !text.is_empty())
    });
    let folder = PathBuf::from(fs::read_to_string(&note).unwrap());
    assert!(folder.starts_with(scratch.path()));
    let pid = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().to_owned();
    assert!(is_alive(&pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of the server", || !is_alive(&pid));
    let left = || fs::read_dir(scratch.path()).unwrap().count();
    wait_for("an empty folder", || left() == 1);
}

/// The keeper's shell may be another user.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).unwrap();
}

fn is_alive(pid: &str) -> bool {
    let signal = format!("kill -s 0 {pid}");
    let sent = Command::new("sh")
        .args(["-c", &signal])
        .stderr(Stdio::null())
        .status();
    sent.unwrap().success()
}

#[test]
fn a_small_disk_gets_full_and_is_gone_afterwards() {
    let Some(keeper) = Keeper::with_small_disk(1_000_000) else {
        println!("left out: no small file system can be mounted here");
        return;
    };
    let folder = keeper.folder().to_owned();
    assert_eq!(keeper.order("head -c 900000 /dev/zero >small/a"), 0);
    assert_ne!(keeper.order("head -c 900000 /dev/zero >small/b"), 0);
    drop(keeper);
    assert_eq!(
        fs::metadata(folder).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

fn through(proxy: &Proxy) -> (Database, Witness, Witness) {
    let database = Database::on(Server::shared());
    let direct = database.witness();
    direct.execute("CREATE TABLE t (n bigint)");
    let far = Witness::connect(&database.url_through(proxy));
    (database, direct, far)
}

fn fails(witness: &Witness, sql: &'static str) -> bool {
    witness
        .with(move |client| client.batch_execute(sql))
        .is_err()
}

#[test]
fn the_proxy_loses_the_answer_to_a_commit_that_lands() {
    let proxy = Proxy::to(Server::shared().address());
    for (n, end) in (1..).zip([End::Cut, End::Reset]) {
        let (_database, direct, far) = through(&proxy);
        far.execute("BEGIN; INSERT INTO t VALUES (1); COMMIT");
        proxy.lose_answers(1, end);
        far.execute("BEGIN; INSERT INTO t VALUES (2); ROLLBACK");
        assert!(fails(&far, "BEGIN; INSERT INTO t VALUES (3); COMMIT"));
        assert_eq!(proxy.lost(), n);
        assert_eq!(direct.number("SELECT sum(n)::bigint FROM t"), 4);
    }
}

#[test]
fn the_proxy_stops_a_commit_before_the_server() {
    let proxy = Proxy::to(Server::shared().address());
    for (n, end) in (1..).zip([End::Cut, End::Reset]) {
        let (_database, direct, far) = through(&proxy);
        proxy.stop_commits(1, end);
        far.execute("BEGIN; INSERT INTO t VALUES (2)");
        assert!(fails(&far, "COMMIT"));
        assert_eq!(proxy.stopped(), n);
        assert_eq!(direct.number("SELECT count(*) FROM t"), 0);
    }
}

#[test]
fn the_proxy_holds_a_commit_until_it_is_let_go() {
    let proxy = Proxy::to(Server::shared().address());
    let (_database, direct, far) = through(&proxy);
    proxy.hold(Hold::Commits);
    far.execute("BEGIN; INSERT INTO t VALUES (1)");
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| far.execute("COMMIT"));
        wait_for("a commit", || proxy.held() == 1);
        assert_eq!(direct.number("SELECT count(*) FROM t"), 0);
        proxy.let_go();
        commit.join().unwrap();
    });
    assert_eq!(direct.number("SELECT count(*) FROM t"), 1);
}

#[test]
fn the_proxy_ends_refuses_and_accepts_again() {
    let proxy = Proxy::to(Server::shared().address());
    let (database, _direct, far) = through(&proxy);
    assert_eq!(proxy.connections(), 1);
    proxy.end_all(End::Reset);
    assert!(fails(&far, "SELECT 1"));
    wait_for("no connection", || proxy.connections() == 0);
    proxy.refuse(true);
    assert!(Witness::try_connect(&database.url_through(&proxy)).is_err());
    proxy.refuse(false);
    Witness::connect(&database.url_through(&proxy)).execute("SELECT 1");
}

#[test]
fn the_proxy_delays_and_half_opens() {
    let proxy = Proxy::to(Server::shared().address());
    let (database, direct, far) = through(&proxy);
    proxy.delay(Duration::from_millis(40));
    let begun = Instant::now();
    far.execute("SELECT 1");
    assert!(begun.elapsed() >= Duration::from_millis(80));
    proxy.delay(Duration::ZERO);
    proxy.half_open(false, true);
    std::thread::scope(|scope| {
        let insert = scope.spawn(|| fails(&far, "INSERT INTO t VALUES (1)"));
        wait_for("a row", || direct.number("SELECT count(*) FROM t") == 1);
        assert!(!insert.is_finished());
        // New connections still work.
        Witness::connect(&database.url_through(&proxy)).execute("SELECT 1");
        proxy.end_all(End::Cut);
        assert!(insert.join().unwrap());
    });
    wait_for("no connection", || proxy.connections() == 0);
    proxy.deafen(true);
    std::thread::scope(|scope| {
        let connect = scope.spawn(|| Witness::try_connect(&database.url_through(&proxy)));
        wait_for("a connection", || proxy.connections() == 1);
        proxy.deafen(false);
        Witness::connect(&database.url_through(&proxy)).execute("SELECT 1");
        assert!(!connect.is_finished());
        proxy.end_all(End::Cut);
        assert!(connect.join().unwrap().is_err());
    });
}

//! Postgres servers started by the tests.

use std::{
    env, fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use super::{keeper::Keeper, witness::Witness};

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A fast shutdown: connections end, open transactions are rolled back, everything is written.
    Fast,
    /// Connections are cut; the next start recovers.
    Immediate,
    /// `kill -9` of every process.
    Killed,
}

/// A server on loopback in its own folder. It is removed when dropped, and when the test program
/// ends, even if that is killed.
pub(crate) struct Server {
    keeper: Keeper,
    port: Mutex<u16>,
}

/// The server for all tests that do not harm it. They make many small commits and do not crash
/// it, so it need not wait for the disk.
static SHARED: LazyLock<Server> = LazyLock::new(|| Server::with(&["fsync = off"]));

/// A new cluster to copy, which is faster than running `initdb` for each server.
static TEMPLATE: LazyLock<Keeper> = LazyLock::new(|| {
    let keeper = Keeper::new();
    let initdb = "initdb -D data -U postgres -A trust -E UTF8 --locale=C --no-sync";
    keeper.run(&format!("{}/{initdb}", quoted(binaries())));
    keeper
});

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = '..'
max_connections = 40
shared_buffers = 32MB
max_wal_size = 256MB
log_lock_waits = on
log_statement = none
";

impl Server {
    /// The server shared by the tests, which must not stop or break it.
    pub(crate) fn shared() -> &'static Self {
        &SHARED
    }

    /// Starts a server that a test may harm.
    pub(crate) fn private() -> Self {
        Self::with(&[])
    }

    /// Starts a server that a test may harm, with these lines in its `postgresql.conf`.
    pub(crate) fn with(settings: &[&str]) -> Self {
        Self::kept_by(Keeper::new(), settings)
    }

    pub(crate) fn kept_by(keeper: Keeper, settings: &[&str]) -> Self {
        let template = TEMPLATE.folder().join("data");
        keeper.run(&format!("cp -R {} data", quoted(&template)));
        let server = Self::unprepared(keeper);
        server.set(SETTINGS);
        for line in settings {
            server.set(line);
        }
        server.start();
        server
    }

    /// Starts a read-only standby of this server.
    pub(crate) fn standby(&self) -> Self {
        let keeper = Keeper::new();
        keeper.run(&format!(
            "{}/pg_basebackup -D data -R -X stream -c fast -h 127.0.0.1 -p {} -U postgres",
            quoted(binaries()),
            self.port()
        ));
        let server = Self::unprepared(keeper);
        server.start();
        server
    }

    fn unprepared(keeper: Keeper) -> Self {
        let port = Mutex::new(free_port());
        Self { keeper, port }
    }

    /// The folder that contains `data`.
    pub(crate) fn folder(&self) -> &Path {
        self.keeper.folder()
    }

    pub(crate) fn port(&self) -> u16 {
        *self.port.lock().unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port()).into()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// The log of the server.
    pub(crate) fn log(&self) -> String {
        self.keeper.log()
    }

    /// Appends a line to `postgresql.conf`, for the next start.
    pub(crate) fn set(&self, line: &str) {
        self.append("postgresql.conf", line);
    }

    /// Appends a line to a file in `data`.
    pub(crate) fn append(&self, file: &str, line: &str) {
        let path = self.folder().join("data").join(file);
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    /// Runs a command in a shell as the server's user, in the server's folder.
    pub(crate) fn shell(&self, order: &str) {
        self.keeper.run(order);
    }

    pub(crate) fn stop(&self, stop: Stop) {
        match stop {
            Stop::Fast => self.keeper.run("kill -s INT $pid"),
            Stop::Immediate => self.keeper.run("kill -s QUIT $pid"),
            Stop::Killed => self.kill(),
        }
        self.keeper.order("wait $pid; pid=");
    }

    /// Suspends the server first, so that it starts no children after they are listed.
    fn kill(&self) {
        self.keeper.run("kill -s STOP $pid");
        let pid = fs::read_to_string(self.folder().join("data/postmaster.pid")).unwrap();
        let pid = pid.lines().next().unwrap();
        let children = children_of(pid).join(" ");
        self.keeper.order(&format!("kill -s KILL $pid {children}"));
    }

    /// Starts the server, on the same port as before if it was started before, and waits until
    /// it accepts connections.
    pub(crate) fn start(&self) {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let said = self.keeper.log().len();
            self.keeper.run(&format!(
                "{}/postgres -D data -p {} & pid=$!",
                quoted(binaries()),
                self.port()
            ));
            let Err(problem) = self.wait_until_ready(said, deadline) else {
                return;
            };
            self.keeper.order("wait $pid; pid=");
            assert!(Instant::now() < deadline, "no server: {problem}");
            // The processes of a killed server may still hold its shared memory for a moment,
            // so try again. A taken port is replaced only on the first start, before a test
            // knows it.
            if problem.contains("could not create any TCP/IP sockets") && said == 0 {
                *self.port.lock().unwrap() = free_port();
            }
        }
    }

    fn wait_until_ready(&self, said: usize, deadline: Instant) -> Result<(), String> {
        loop {
            let Err(refused) = Witness::try_connect(&self.url("postgres")) else {
                return Ok(());
            };
            let log = self.keeper.log().split_off(said);
            let ended =
                |line: &str| line.contains("FATAL:") && !line.contains("the database system");
            if log.lines().any(ended) {
                return Err(log);
            }
            assert!(Instant::now() < deadline, "no server: {refused}\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn restart(&self, stop: Stop) {
        self.stop(stop);
        self.start();
    }
}

fn children_of(pid: &str) -> Vec<String> {
    if let Ok(listed) = Command::new("pgrep").args(["-P", pid]).output() {
        let listed = String::from_utf8(listed.stdout).unwrap();
        return listed.lines().map(str::to_owned).collect();
    }
    let processes = fs::read_dir("/proc").expect("`pgrep`, or a /proc");
    let names = processes.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_child = |process: &String| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.is_some_and(|parent| parent.trim() == pid)
    };
    names.filter(is_child).collect()
}

/// Finds a free port below the ephemeral range: a client that retries at an ephemeral port while
/// nothing listens there may end up connected to itself.
pub(crate) fn free_port() -> u16 {
    let mut candidates = std::iter::repeat_with(|| rand::random_range(15_000..32_000));
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.find(free).unwrap()
}

const MISSING: &str = "These tests need a PostgreSQL server, version 13 or later, and found no \
`initdb` in the PATH, in /usr/lib/postgresql/*/bin or where `pg_config --bindir` says.
  Debian, Ubuntu: sudo apt-get install postgresql (`tests/run.sh` does that, as root)
  Fedora: sudo dnf install postgresql-server     macOS: brew install postgresql
Most of them also run on a server of yours: PERSISTIFY_TEST_POSTGRES=postgres://user:password@host
Each of them makes a database there, and drops it.";

/// The folder of the server's programs.
pub(crate) fn binaries() -> &'static Path {
    static FOUND: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        // The PATH may have a link to `initdb`, in a folder without the other programs.
        let places = folders().into_iter().filter_map(|folder| {
            let initdb = folder.join("initdb").canonicalize().ok()?;
            initdb.parent().map(Path::to_owned)
        });
        let mut complete = places.filter(|folder| folder.join("postgres").is_file());
        complete.next()
    });
    FOUND.as_deref().unwrap_or_else(|| panic!("{MISSING}"))
}

/// The folders that may contain the server's programs, the likeliest first.
fn folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    if let Ok(said) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(String::from_utf8_lossy(&said.stdout).trim().into());
    }
    let several = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"];
    for parent in several {
        let entries = fs::read_dir(parent).into_iter().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|e| Some(e.ok()?.path().join("bin")))
            .collect();
        found.sort();
        folders.extend(found.into_iter().rev());
    }
    folders.push("/usr/pgsql/bin".into());
    folders
}

/// Quotes a path for the shell.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.to_str().expect("a path in UTF-8");
    format!("'{}'", path.replace('\'', r"'\''"))
}

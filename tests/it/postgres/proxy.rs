//! A way to a server on which anything can happen.

mod way;

use std::{
    future::pending,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    runtime::Runtime,
    sync::watch,
};

use super::{
    server::free_port,
    wire::{Commits, Messages, asks_for_encryption, has_committed},
};

/// A TCP proxy before a server. It runs on a thread of its own, so that it goes
/// on while a test waits.
pub(crate) struct Proxy {
    way: Arc<Way>,
    runtime: Option<Runtime>,
}

/// What can be done to what goes by.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault of its own, and they go together in every way"
)]
struct Weather {
    refusing: bool,
    delay: Duration,
    /// When this counter increases, the messages of these sides are lost, on all current
    /// connections.
    half_opened: u64,
    lost_from_client: bool,
    lost_from_server: bool,
    /// New connections are half open on both sides.
    deaf: bool,
    /// What waits here.
    holding: Option<Hold>,
    /// Counts up: every connection ends, in that way.
    ended: u64,
    end: End,
}

/// Which messages are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// COMMITs.
    Commits,
    /// All bytes of the clients.
    All,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// As if the other side had closed it.
    #[default]
    Cut,
    /// As if the other side had never heard of it.
    Reset,
}

struct Way {
    from: SocketAddr,
    to: SocketAddr,
    weather: watch::Sender<Weather>,
    /// So many COMMITs do not reach the server.
    to_stop: Counted,
    /// The number of commits to let through without an answer to the client.
    to_lose: Counted,
    connections: AtomicUsize,
    held: AtomicUsize,
}

/// So many times yet, with this end; and how often it was done.
#[derive(Default)]
struct Counted {
    left: Mutex<(usize, End)>,
    done: AtomicUsize,
}

impl Counted {
    fn arm(&self, times: usize, end: End) {
        *self.left.lock() = (times, end);
    }

    fn take(&self) -> Option<End> {
        let mut left = self.left.lock();
        left.0 = left.0.checked_sub(1)?;
        self.done.fetch_add(1, SeqCst);
        Some(left.1)
    }
}

impl Proxy {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let way = Arc::new(Way {
            from: ([127, 0, 0, 1], free_port()).into(),
            to: server,
            weather: watch::Sender::new(Weather::default()),
            to_stop: Counted::default(),
            to_lose: Counted::default(),
            connections: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        });
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        runtime.spawn(way.clone().listen(ready));
        is_ready.recv().unwrap();
        Self {
            way,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.way.from
    }

    /// How many connections there are just now.
    pub(crate) fn connections(&self) -> usize {
        self.way.connections.load(SeqCst)
    }

    /// Ends every connection there is.
    pub(crate) fn end_all(&self, end: End) {
        self.change(|weather| {
            weather.end = end;
            weather.ended += 1;
        });
    }

    /// No new connections from now on, or again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.change(|weather| weather.refusing = refusing);
        // The listener is closed, or open, when this returns.
        while TcpProbe::is_open(self.way.from) == refusing {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All that goes by takes so much longer, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|weather| weather.delay = delay);
    }

    /// The connections that are there are half open from now on: what comes
    /// from that side gets lost, without an error.
    pub(crate) fn half_open(&self, from_client: bool, from_server: bool) {
        self.change(|weather| {
            weather.half_opened += 1;
            weather.lost_from_client = from_client;
            weather.lost_from_server = from_server;
        });
    }

    /// New connections are taken, and nothing gets through.
    pub(crate) fn deafen(&self, deaf: bool) {
        self.change(|weather| weather.deaf = deaf);
    }

    /// Held connections wait here, even if their client gives up, until they are released.
    pub(crate) fn hold(&self, what: Hold) {
        self.change(|weather| weather.holding = Some(what));
    }

    pub(crate) fn let_go(&self) {
        self.change(|weather| weather.holding = None);
    }

    /// How often something came to wait here.
    pub(crate) fn held(&self) -> usize {
        self.way.held.load(SeqCst)
    }

    /// The next COMMITs, so many, end their connection instead of reaching the
    /// server.
    pub(crate) fn stop_commits(&self, times: usize, end: End) {
        self.way.to_stop.arm(times, end);
    }

    pub(crate) fn stopped(&self) -> usize {
        self.way.to_stop.done.load(SeqCst)
    }

    /// The next COMMITs, so many, are carried out by the server, and end their
    /// connection instead of being answered.
    pub(crate) fn lose_answers(&self, times: usize, end: End) {
        self.way.to_lose.arm(times, end);
    }

    pub(crate) fn lost(&self) -> usize {
        self.way.to_lose.done.load(SeqCst)
    }

    fn change(&self, with: impl FnOnce(&mut Weather)) {
        self.way.weather.send_modify(with);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // In the background: it may be dropped where a runtime runs.
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Whether a server listens at the address.
struct TcpProbe;

impl TcpProbe {
    fn is_open(address: SocketAddr) -> bool {
        std::net::TcpStream::connect(address).is_ok()
    }
}

/// Who speaks, and what the weather was when the connection began.
#[derive(Clone, Copy)]
enum Side {
    Client(Weather),
    Server(Weather),
}

/// Whether the connection is encrypted.
#[derive(Default)]
struct Talk {
    asked: bool,
    encrypted: bool,
}

impl Talk {
    /// The letter that answers the client who asked for encryption.
    fn answered(&mut self, chunk: &[u8]) -> Option<u8> {
        if !std::mem::take(&mut self.asked) {
            return None;
        }
        self.encrypted = chunk[0] != b'N';
        Some(chunk[0])
    }
}

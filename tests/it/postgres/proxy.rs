//! A proxy that injects faults into connections to a server.

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

/// A TCP proxy in front of a server. It runs on its own thread, so that it continues while a
/// test blocks.
pub(crate) struct Proxy {
    way: Arc<Way>,
    runtime: Option<Runtime>,
}

/// The faults to inject.
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
    /// The messages to hold back.
    holding: Option<Hold>,
    /// When this counter increases, all current connections end in the mode `end`.
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
    /// As if the other side did not know the connection.
    Reset,
}

struct Way {
    from: SocketAddr,
    to: SocketAddr,
    weather: watch::Sender<Weather>,
    /// The number of COMMITs to stop before the server.
    to_stop: Counted,
    /// The number of COMMITs to let through without an answer to the client.
    to_lose: Counted,
    connections: AtomicUsize,
    held: AtomicUsize,
}

/// A fault to inject: how many times it is left to do, how it ends a connection, and how often
/// it was done.
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

    /// The number of current connections.
    pub(crate) fn connections(&self) -> usize {
        self.way.connections.load(SeqCst)
    }

    /// Ends all current connections.
    pub(crate) fn end_all(&self, end: End) {
        self.change(|weather| {
            weather.end = end;
            weather.ended += 1;
        });
    }

    /// Refuses new connections, or accepts them again.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.change(|weather| weather.refusing = refusing);
        // Waits until the listener is closed, or open.
        while TcpProbe::is_open(self.way.from) == refusing {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Delays all bytes in both directions.
    pub(crate) fn delay(&self, delay: Duration) {
        self.change(|weather| weather.delay = delay);
    }

    /// Makes all current connections half open: bytes from the given sides are lost without an
    /// error.
    pub(crate) fn half_open(&self, from_client: bool, from_server: bool) {
        self.change(|weather| {
            weather.half_opened += 1;
            weather.lost_from_client = from_client;
            weather.lost_from_server = from_server;
        });
    }

    /// Accepts new connections but forwards nothing on them.
    pub(crate) fn deafen(&self, deaf: bool) {
        self.change(|weather| weather.deaf = deaf);
    }

    /// Holds messages back until they are released, even if their client gives up.
    pub(crate) fn hold(&self, what: Hold) {
        self.change(|weather| weather.holding = Some(what));
    }

    pub(crate) fn let_go(&self) {
        self.change(|weather| weather.holding = None);
    }

    /// How many times a message was held back.
    pub(crate) fn held(&self) -> usize {
        self.way.held.load(SeqCst)
    }

    /// Ends the connections of the next `times` COMMITs before these reach the server.
    pub(crate) fn stop_commits(&self, times: usize, end: End) {
        self.way.to_stop.arm(times, end);
    }

    pub(crate) fn stopped(&self) -> usize {
        self.way.to_stop.done.load(SeqCst)
    }

    /// Lets the server execute the next `times` COMMITs, but ends their connections instead of
    /// forwarding the answers.
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
        // In the background, because the proxy may be dropped within another runtime.
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

/// The sending side, with the weather when the connection began.
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
    /// Takes the letter that answers the client's request for encryption.
    fn answered(&mut self, chunk: &[u8]) -> Option<u8> {
        if !std::mem::take(&mut self.asked) {
            return None;
        }
        self.encrypted = chunk[0] != b'N';
        Some(chunk[0])
    }
}

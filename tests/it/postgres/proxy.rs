//! A way to a server on which anything can happen.

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
    /// What these sides say gets lost, for every connection that is there when
    /// this counts up.
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

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// COMMITs.
    Commits,
    /// All that clients say.
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
    /// So many land, and no answer reaches the client.
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
    /// from that side gets lost, and no one is told.
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

    /// These wait here, also when their client gives up; until they are let go.
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

/// Whether someone listens there.
struct TcpProbe;

impl TcpProbe {
    fn is_open(address: SocketAddr) -> bool {
        std::net::TcpStream::connect(address).is_ok()
    }
}

impl Way {
    async fn listen(self: Arc<Self>, ready: std::sync::mpsc::Sender<()>) {
        let mut weather = self.weather.subscribe();
        loop {
            let listener = TcpListener::bind(self.from).await.unwrap();
            // Told once; who refused and accepts again probes by itself.
            ready.send(()).ok();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        tokio::spawn(self.clone().connect(accepted.unwrap().0));
                    }
                    refusing = weather.wait_for(|now| now.refusing) => {
                        refusing.unwrap();
                        break;
                    }
                }
            }
            drop(listener);
            weather.wait_for(|now| !now.refusing).await.unwrap();
        }
    }

    async fn connect(self: Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.to).await else {
            return;
        };
        self.connections.fetch_add(1, SeqCst);
        self.carry(client, server).await;
        self.connections.fetch_sub(1, SeqCst);
    }

    async fn carry(&self, mut client: TcpStream, mut server: TcpStream) {
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let mut weather = self.weather.subscribe();
        let born = *weather.borrow();
        let talk = Mutex::new(Talk::default());
        let end = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            tokio::select! {
                end = self.up(from_client, to_server, &talk, Side::Client(born)) => end.unwrap_or_default(),
                end = self.down(from_server, to_client, &talk, Side::Server(born)) => end.unwrap_or_default(),
                now = weather.wait_for(|now| now.ended > born.ended) => now.unwrap().end,
            }
        };
        if end == End::Reset {
            client.set_zero_linger().unwrap();
            server.set_zero_linger().unwrap();
        }
    }

    async fn up(
        &self,
        mut client: ReadHalf<'_>,
        mut server: WriteHalf<'_>,
        talk: &Mutex<Talk>,
        side: Side,
    ) -> io::Result<End> {
        let mut messages = Messages::of_a_client();
        let mut commits = Commits::default();
        let mut chunk = vec![0; 64 * 1_024];
        loop {
            let read = client.read(&mut chunk).await?;
            if read == 0 {
                // The server goes on with what it has heard, and then hangs up.
                server.shutdown().await?;
                return pending().await;
            }
            self.wait_out_delay().await;
            if talk.lock().encrypted {
                self.pass(side, &chunk[..read], &mut server).await?;
                continue;
            }
            messages.add(&chunk[..read]);
            while let Some(message) = messages.next() {
                talk.lock().asked |= asks_for_encryption(&message);
                let is_commit = commits.is_commit(&message);
                if is_commit && let Some(end) = self.to_stop.take() {
                    return Ok(end);
                }
                self.hold(is_commit, &mut client, &mut messages).await?;
                self.pass(side, &message.bytes, &mut server).await?;
            }
        }
    }

    /// Waits while this is held. All that the client says meanwhile is kept,
    /// and its giving up does not keep what it said from landing.
    async fn hold(
        &self,
        is_commit: bool,
        client: &mut ReadHalf<'_>,
        messages: &mut Messages,
    ) -> io::Result<()> {
        let is_held = |now: &Weather| match now.holding {
            None => false,
            Some(Hold::Commits) => is_commit,
            Some(Hold::All) => true,
        };
        let mut weather = self.weather.subscribe();
        if is_held(&weather.borrow()) {
            self.held.fetch_add(1, SeqCst);
        }
        let mut free = pin!(weather.wait_for(|now| !is_held(now)));
        let mut chunk = vec![0; 64 * 1_024];
        let mut is_there = true;
        loop {
            tokio::select! {
                biased;
                free = &mut free => return free.map(drop).map_err(io::Error::other),
                read = client.read(&mut chunk), if is_there => {
                    let read = read.unwrap_or_default();
                    is_there = read > 0;
                    messages.add(&chunk[..read]);
                }
            }
        }
    }

    async fn down(
        &self,
        mut server: ReadHalf<'_>,
        mut client: WriteHalf<'_>,
        talk: &Mutex<Talk>,
        side: Side,
    ) -> io::Result<End> {
        let mut messages = Messages::of_a_server();
        let mut chunk = vec![0; 64 * 1_024];
        loop {
            let read = server.read(&mut chunk).await?;
            if read == 0 {
                return Ok(End::Cut);
            }
            self.wait_out_delay().await;
            let mut chunk = &chunk[..read];
            let letter = talk.lock().answered(chunk);
            if let Some(letter) = letter {
                self.pass(side, &[letter], &mut client).await?;
                chunk = &chunk[1..];
            }
            if talk.lock().encrypted {
                self.pass(side, chunk, &mut client).await?;
                continue;
            }
            messages.add(chunk);
            while let Some(message) = messages.next() {
                if has_committed(&message)
                    && let Some(end) = self.to_lose.take()
                {
                    return Ok(end);
                }
                // A client that is gone is no reason for a server to stop.
                let _ = self.pass(side, &message.bytes, &mut client).await;
            }
        }
    }

    async fn wait_out_delay(&self) {
        let delay = self.weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    async fn pass(&self, side: Side, bytes: &[u8], to: &mut WriteHalf<'_>) -> io::Result<()> {
        let now = *self.weather.borrow();
        let (born, lost) = match side {
            Side::Client(born) => (born, now.lost_from_client),
            Side::Server(born) => (born, now.lost_from_server),
        };
        let half_open = lost && now.half_opened > born.half_opened;
        if half_open || born.deaf {
            return Ok(());
        }
        to.write_all(bytes).await
    }
}

/// Who speaks, and what the weather was when the connection began.
#[derive(Clone, Copy)]
enum Side {
    Client(Weather),
    Server(Weather),
}

/// Whether the two speak so that no one else understands.
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

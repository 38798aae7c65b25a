//! A TCP proxy that adds to the round trip to a server, as a network does.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

/// Delays bytes, but not those that follow them: the throughput is not limited. It has
/// threads of its own, because tokio's timers have a resolution of a millisecond.
///
/// Its listener ends with the process.
pub struct SlowLink(SocketAddr);

/// Bytes, and when they arrive at the other end.
type Chunk = (Instant, Vec<u8>);

impl SlowLink {
    /// Each direction takes half of the added round trip.
    pub fn to(server: SocketAddr, added: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.expect("a client");
                let server = TcpStream::connect(server).expect("a server that listens");
                forward(&client, &server, added / 2);
                forward(&server, &client, added / 2);
            }
        });
        Self(address)
    }

    pub fn address(&self) -> SocketAddr {
        self.0
    }
}

fn forward(from: &TcpStream, to: &TcpStream, delay: Duration) {
    let (from, to) = (from.try_clone(), to.try_clone());
    let (from, to) = (from.expect("a socket"), to.expect("a socket"));
    to.set_nodelay(true).expect("a socket without delay");
    let (sender, receiver) = channel();
    thread::spawn(move || receive(from, delay, &sender));
    thread::spawn(move || deliver(&receiver, to));
}

/// Reads at once whatever comes.
fn receive(mut from: TcpStream, delay: Duration, sender: &Sender<Chunk>) {
    let mut buffer = vec![0; 64 * 1_024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let chunk = (Instant::now() + delay, buffer[..read].to_vec());
        if sender.send(chunk).is_err() {
            break;
        }
    }
}

fn deliver(receiver: &Receiver<Chunk>, mut to: TcpStream) {
    for (due, bytes) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other end may have closed the connection already.
    to.shutdown(Shutdown::Write).ok();
}

//! Forwards connections through the proxy.

use super::*;

impl Way {
    pub(super) async fn listen(self: Arc<Self>, ready: std::sync::mpsc::Sender<()>) {
        let mut weather = self.weather.subscribe();
        loop {
            let listener = TcpListener::bind(self.from).await.unwrap();
            // Only the first send has a receiver.
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
                // The server executes the messages it has received, then closes the connection.
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

    /// Waits while the connection is held. The client's bytes are kept and forwarded later, even
    /// if the client gives up.
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
                // The server continues even if the client is gone.
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

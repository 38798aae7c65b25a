//! The background thread for programs without a runtime.

use std::{
    fmt, io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake},
    thread,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    runtime::{Builder as RuntimeBuilder, Handle},
    sync::oneshot,
};

use super::Blocking;
use crate::{
    error::{Error, ErrorKind, Result},
    map::{
        api::{builder::Builder, close_on_drop::polling::is_polling},
        lifetime::Plan,
    },
};

/// How long the thread waits at its end for disk calls that hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// A background thread that runs providers and maps in a program without a tokio
/// runtime.
///
/// Cloning returns another handle to the same thread, and each map
/// [opened](Self::open) here holds one. When the last handle is dropped, the thread
/// ends.
#[derive(Clone)]
pub struct Runtime(Arc<Background>);

/// The thread; dropping this ends it.
struct Background {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Runtime {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// `Unusable` if the system cannot create a thread.
    pub fn start() -> Result<Self> {
        let start = || -> io::Result<Background> {
            let runtime = RuntimeBuilder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (stop, stopped) = oneshot::channel::<()>();
            let work = move || {
                // Dropping the sender ends it, too.
                runtime.block_on(async { drop(stopped.await) });
                runtime.shutdown_timeout(PATIENCE);
            };
            let thread = thread::Builder::new().name("persistify".to_owned());
            Ok(Background {
                handle,
                stop: Some(stop),
                thread: Some(thread.spawn(work)?),
            })
        };
        let failed = |cause| {
            let message = "the background thread cannot be started";
            Error::new(ErrorKind::Unusable, message).with_source(cause)
        };
        start().map(|thread| Self(Arc::new(thread))).map_err(failed)
    }

    /// Blocks until a call of this crate completes, for example the opening of a
    /// provider: `runtime.wait(JsonFile::open("./data"))?`.
    ///
    /// # Errors
    ///
    /// Those of the call. `Invalid` on a thread that runs async code, because
    /// blocking it would delay everything else that runs there: use `.await`, or
    /// `spawn_blocking`. The call was not started.
    pub fn wait<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if is_polling() {
            let message = "a blocking call was made in async code, whose thread must not block; \
                           await the call there, or make this one in `spawn_blocking`";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        // Tasks and timers of the call run on the background thread; this thread
        // only polls the call itself.
        let _context = self.0.handle.enter();
        wait_here(call)
    }

    /// [Opens](Builder::open) a map on the background thread.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::open`], and of [`wait`](Self::wait).
    pub fn open<V, P>(&self, builder: Builder<V, P>) -> Result<Blocking<P::Handle>>
    where
        V: Serialize + DeserializeOwned + Send + Sync + 'static,
        P: Plan<V>,
    {
        let map = self.wait(builder.open())?;
        Ok(Blocking::new(map, self.clone()))
    }
}

/// Wakes the waiting thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Unlike tokio's `block_on` it never panics. A poll without a budget cannot be
/// told from a thread that may block, so `is_polling` may miss it.
fn wait_here<T>(call: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut call = pin!(call);
    loop {
        if let Poll::Ready(done) = call.as_mut().poll(&mut context) {
            return done;
        }
        thread::park();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A task on the thread itself may drop the last handle; joining would wait
        // for its own end.
        if thread.thread().id() != thread::current().id() {
            // Joining fails only if a task panicked while being dropped, which was
            // printed.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

//! Renders pages on several threads.

use std::{
    num::NonZero,
    sync::mpsc::sync_channel,
    thread::{self, available_parallelism},
};

use crate::error::{Error, ErrorKind, Result};

/// More threads than this only wait for the disk.
const MAX_THREADS: usize = 4;

/// The number of rendered pages per thread that wait to be written.
const AHEAD: usize = 2;

/// Renders pages on several threads, and writes them in order on this one.
///
/// # Errors
///
/// The first error of either; `Unavailable` if no thread can be started.
pub(super) fn in_order<P: Sync, R: Send>(
    pages: &[P],
    render: impl Fn(usize, &P) -> Result<R> + Sync,
    mut write: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let threads = available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(MAX_THREADS).min(pages.len());
    thread::scope(|scope| {
        let mut lanes = Vec::with_capacity(threads);
        for first in 0..threads {
            let (rendered, to_write) = sync_channel(AHEAD);
            let render = &render;
            let work = move || {
                for n in (first..pages.len()).step_by(threads) {
                    if rendered.send(render(n, &pages[n])).is_err() {
                        // The writing has failed.
                        break;
                    }
                }
            };
            let spawned = thread::Builder::new().spawn_scoped(scope, work);
            spawned.map_err(no_thread)?;
            lanes.push(to_write);
        }
        for n in 0..pages.len() {
            // Receiving fails after a panic, which the scope passes on.
            let Ok(rendered) = lanes[n % threads].recv() else {
                break;
            };
            write(rendered?)?;
        }
        Ok(())
    })
}

fn no_thread(error: std::io::Error) -> Error {
    let message = "the system refused a thread for the compaction; nothing was changed";
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

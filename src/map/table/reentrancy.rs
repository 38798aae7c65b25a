//! Prevents closures from calling back into a map.

use std::{cell::Cell, marker::PhantomData};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as inside a map call, where foreign code (a closure, or a
/// value's own `Clone` or `Serialize`) may run under a lock.
///
/// One flag covers all maps: two maps that call each other deadlock as surely as
/// one that calls itself.
pub(crate) struct ReentrancyGuard {
    // The flag is thread-local, so the guard must not move to another thread.
    here: PhantomData<*const ()>,
}

impl ReentrancyGuard {
    /// # Panics
    ///
    /// If this thread is inside a map call already. It would otherwise wait for a
    /// lock that it holds itself.
    #[inline]
    pub(crate) fn enter() -> Self {
        if INSIDE.replace(true) {
            nested();
        }
        Self { here: PhantomData }
    }

    /// Checks that this thread is not inside a map call. For calls that take no
    /// lock themselves but wait for the flusher, which may need a lock that this
    /// thread holds.
    ///
    /// # Panics
    ///
    /// If this thread is inside a map call.
    pub(crate) fn check() {
        drop(Self::enter());
    }
}

impl Drop for ReentrancyGuard {
    #[inline]
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

#[cold]
fn nested() -> ! {
    panic!(
        "a map was called from inside a map's closure (or from a value's Clone, Drop or \
         Serialize while a map held its lock); it would deadlock: take the result out of the \
         closure first, then call the map"
    )
}

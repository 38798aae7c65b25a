//! Keeps closures from calling back into a map.

use std::{cell::Cell, marker::PhantomData};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread is in the middle of a map call, where foreign code (a
/// closure, or a value's own `Clone` or `Serialize`) may run under a lock.
///
/// One flag for all maps: two maps that call each other crosswise deadlock
/// just as well as one that calls itself.
pub(crate) struct ReentrancyGuard {
    // The flag is this thread's; the guard must end here too.
    here: PhantomData<*const ()>,
}

impl ReentrancyGuard {
    /// # Panics
    ///
    /// If this thread is inside a map call already. Without this it would wait
    /// for a lock that it holds itself.
    #[inline]
    pub(crate) fn enter() -> Self {
        if INSIDE.replace(true) {
            nested();
        }
        Self { here: PhantomData }
    }

    /// For calls that lock nothing themselves, and wait for the flusher, who
    /// may need the lock that this thread holds.
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

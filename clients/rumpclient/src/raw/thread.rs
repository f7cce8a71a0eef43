//! What the core keeps for each thread.

use core::cell::Cell;
use core::ptr;

/// What the core keeps for one thread: its ring and its place in nested calls. The caller keeps it, in thread-local
/// storage or wherever one thread finds its own; it may be all zero bytes at the start, must not move while it is in
/// use, and belongs to one thread.
pub struct ThreadState {
    #[allow(dead_code)]
    block: Cell<*mut u8>,
}

impl ThreadState {
    /// The state of a thread that has made no call yet.
    pub const fn new() -> ThreadState {
        ThreadState {
            block: Cell::new(ptr::null_mut()),
        }
    }
}

impl Default for ThreadState {
    fn default() -> Self {
        ThreadState::new()
    }
}

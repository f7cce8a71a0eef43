//! What the core keeps for each thread.

use core::cell::{Cell, UnsafeCell};
use core::ptr;

use abi::Errno;

use super::mem::Pages;
use super::request::Scratch;
use super::ring::Ring;
use super::sys;

/// What the core keeps for one thread: its ring and its place in nested calls. The caller keeps it, in thread-local
/// storage or wherever one thread finds its own; it may be all zero bytes at the start, must not move while it is in
/// use, and belongs to one thread.
pub struct ThreadState {
    block: Cell<*mut Block>,
    /// Calls that this thread is in: more than one when a signal handler makes one during another.
    depth: Cell<u32>,
    /// Where the stack stood when the outermost call began.
    stack: Cell<usize>,
}

/// The larger part, in memory of its own, made with the first call. All zero at the start.
pub(super) struct Block {
    pub(super) pages: Pages,
    pub(super) ring: Ring,
    /// Calls made, until the thread gets a ring.
    pub(super) calls: Cell<u32>,
    /// The readiness connection: its descriptor plus one, and its number at the server.
    pub(super) ready: Cell<(i32, u32)>,
    /// What the server still watches for it, by the caller's own name; 0 for nothing that is known.
    pub(super) watching: Cell<u64>,
    /// Of which of the client's connections that is.
    pub(super) generation: Cell<u32>,
    /// What this thread holds of the connection, should it never come back to it.
    pub(super) slot: Cell<u32>,
    pub(super) holds: Cell<u32>,
    pub(super) scratch: UnsafeCell<Scratch>,
}

const SIZE: usize = size_of::<Block>().next_multiple_of(4096);

impl ThreadState {
    /// The state of a thread that has made no call yet.
    pub const fn new() -> ThreadState {
        ThreadState {
            block: Cell::new(ptr::null_mut()),
            depth: Cell::new(0),
            stack: Cell::new(0),
        }
    }

    /// The block, made when there is none.
    pub(super) fn block(&self) -> Result<&Block, Errno> {
        if self.block.get().is_null() {
            self.block.set(sys::map(SIZE)?.cast());
        }
        // SAFETY: a mapping of that size, zeroed, which is a valid block; it lives until `free`, which no call runs
        // beside. Only this thread has it, and it has no mutable parts outside cells.
        Ok(unsafe { &*self.block.get() })
    }

    /// The block, if there is one.
    pub(super) fn existing(&self) -> Option<&Block> {
        // SAFETY: as in `block`.
        unsafe { self.block.get().as_ref() }
    }

    /// Gives the block back.
    pub(super) fn free(&self) {
        let block = self.block.replace(ptr::null_mut());
        if !block.is_null() {
            // SAFETY: ours, and no call is using it: the thread is here.
            unsafe { sys::unmap(block.cast(), SIZE) };
        }
    }

    /// Enters a call.
    #[inline]
    pub(super) fn enter(&self) -> Entry<'_> {
        let here = stack_pointer();
        let depth = self.depth.get();
        if depth == 0 {
            self.stack.set(here);
        }
        self.depth.set(depth + 1);
        Entry {
            thread: self,
            depth,
            left: depth != 0 && self.was_left(here),
        }
    }

    /// Whether the outermost call was left by a jump out of a signal handler: the stack is above where it began.
    #[cold]
    fn was_left(&self, here: usize) -> bool {
        here > self.stack.get() && !sys::on_altstack()
    }

    /// Forgets calls that were left.
    pub(super) fn restart(&self) {
        self.depth.set(1);
        self.stack.set(stack_pointer());
    }

    /// In a child of fork: no other call is under way.
    pub(super) fn reset(&self) {
        self.depth.set(0);
    }
}

impl Default for ThreadState {
    fn default() -> Self {
        ThreadState::new()
    }
}

/// A call of this thread, counted out when it is dropped.
pub(super) struct Entry<'a> {
    thread: &'a ThreadState,
    depth: u32,
    /// The outer calls will never come back.
    pub(super) left: bool,
}

impl Entry<'_> {
    /// Whether another call of this thread is under way.
    pub(super) fn is_nested(&self) -> bool {
        self.depth != 0 && !self.left
    }
}

impl Drop for Entry<'_> {
    #[inline]
    fn drop(&mut self) {
        self.thread
            .depth
            .set(if self.left { 0 } else { self.depth });
    }
}

#[inline]
fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags))
    };
    sp
}

//! Host threads, with small stacks.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use abi::Errno;

use crate::{JoinHandle, ThreadBody};

/// Kernel code does not recurse deeply; untouched pages cost nothing anyway.
const STACK: usize = 512 << 10;

struct PosixThread(std::thread::JoinHandle<()>);

impl JoinHandle for PosixThread {
    fn join(self: Box<Self>) {
        // A thread that panicked has said so on the console.
        let _ = self.0.join();
    }
}

pub(super) fn spawn(name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno> {
    let name = name.chars().filter(|&c| c != '\0').take(15).collect();
    let thread = std::thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(body);
    match thread {
        Ok(handle) => Ok(Box::new(PosixThread(handle))),
        Err(_) => Err(Errno::EAGAIN),
    }
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HINT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A number for this thread, given out one after the other.
#[inline]
pub(super) fn hint() -> usize {
    let hint = HINT.try_with(Cell::get).unwrap_or(0);
    if hint != usize::MAX { hint } else { new_hint() }
}

#[cold]
fn new_hint() -> usize {
    let hint = NEXT.fetch_add(1, Ordering::Relaxed);
    let _ = HINT.try_with(|cell| cell.set(hint));
    hint
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn join_waits_for_the_body_and_survives_a_panic() {
        let done = Arc::new(AtomicU32::new(0));
        let seen = done.clone();
        spawn(
            "a name with many characters",
            Box::new(move || seen.store(1, Ordering::SeqCst)),
        )
        .expect("a thread")
        .join();
        assert_eq!(done.load(Ordering::SeqCst), 1);
        spawn(
            "panics",
            Box::new(|| std::panic::resume_unwind(Box::new(()))),
        )
        .expect("a thread")
        .join();
    }

    #[test]
    fn hints_stay_with_their_thread() {
        let mine = hint();
        assert_eq!(mine, hint());
        let other = std::thread::spawn(hint).join().expect("a hint");
        assert_ne!(mine, other);
    }
}

//! What an idle connection costs, by an allocator that counts. One test: the count is the whole process's.

#![allow(clippy::disallowed_methods)] // the test's own threads

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

use abi::{Rlimit, Syscalls};
use common::*;
use kern::LwpHandle;

struct Counting;

static BYTES: AtomicIsize = AtomicIsize::new(0);

/// What the host's allocator takes for a request: its word of its own, and a multiple of 16.
fn real(len: usize) -> isize {
    (len + 8).next_multiple_of(16).max(32) as isize
}

fn count(len: usize, n: isize) {
    BYTES.fetch_add(n * real(len), Relaxed);
}

// SAFETY: the system's allocator does everything.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as the caller says.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Enough that what tables have in reserve does not matter much.
const COUNT: usize = 5000;
const RLIMIT_NOFILE: i32 = 7;
const SOL_TCP: i32 = 6;
const TCP_NODELAY: i32 = 1;

fn connections(p: &LwpHandle, l: i32, to: &str, count: usize) {
    for _ in 0..count {
        let a = socket(p, INET, STREAM, 0);
        connect(p, a, to).expect("connected");
        let b = p.accept4(l, &mut [], &mut [], 0).expect("accepted") as i32;
        for fd in [a, b] {
            set(p, fd, SOL_TCP, TCP_NODELAY, 1).expect("TCP_NODELAY");
        }
    }
}

#[test]
fn an_end_of_an_idle_connection_is_at_most_a_kilobyte() {
    let (_kernel, p) = process();
    let limit = Rlimit {
        rlim_cur: 100_000,
        rlim_max: 100_000,
    };
    p.setrlimit(RLIMIT_NOFILE, &limit.to_bytes())
        .expect("a limit");
    let (l, to) = bound(&p, INET, STREAM, "127.0.0.1:0");
    p.listen(l, 128).expect("listens");
    connections(&p, l, &to, 1000);
    let before = BYTES.load(Relaxed);
    connections(&p, l, &to, COUNT);
    let each = (BYTES.load(Relaxed) - before) as usize / (2 * COUNT);
    assert!(each <= 1024, "{each} bytes an end");
}

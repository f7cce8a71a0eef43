//! Waiting on a word: futex(2), with deadlines on the monotonic clock.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Seen, Spin};

use crate::{Nanos, WakeReason};

pub(super) fn monotonic() -> Nanos {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is ours to write; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut ts) };
    ts.tv_sec as Nanos * 1_000_000_000 + ts.tv_nsec as Nanos
}

pub(super) fn park(word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
    if lingers(word, expected) {
        return WakeReason::Woken;
    }
    wait(word, expected, deadline, libc::FUTEX_PRIVATE_FLAG)
}

pub(super) fn unpark(word: &AtomicU32, count: u32) {
    wake(word, count, libc::FUTEX_PRIVATE_FLAG);
}

/// As [`park`], on a word in memory that is shared with other processes.
pub(super) fn park_shared(word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
    wait(word, expected, deadline, 0)
}

/// As [`unpark`], on a word in memory that is shared with other processes.
pub(super) fn unpark_shared(word: &AtomicU32, count: u32) {
    wake(word, count, 0);
}

thread_local! {
    static LINGER: Cell<Spin> = const { Cell::new(Spin::yielding()) };
}

/// Lets other threads have the processor for a while, if it was worth it the last times; whether the word has changed.
fn lingers(word: &AtomicU32, expected: u32) -> bool {
    let look = || match word.load(Ordering::Acquire) == expected {
        true => Ok::<_, Infallible>(Seen::Nothing),
        false => Ok(Seen::It),
    };
    let mut spin = LINGER.get();
    let Ok(changed) = spin.linger(look, monotonic, std::thread::yield_now);
    LINGER.set(spin);
    changed
}

fn wait(word: &AtomicU32, expected: u32, deadline: Option<Nanos>, scope: i32) -> WakeReason {
    let until = deadline.map(|at| libc::timespec {
        tv_sec: (at / 1_000_000_000) as libc::time_t,
        tv_nsec: (at % 1_000_000_000) as libc::c_long,
    });
    let until = until.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // FUTEX_WAIT_BITSET takes an absolute time on the monotonic clock.
    // SAFETY: the word and the timespec live for the whole call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET | scope,
            expected,
            until,
            std::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if status < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ETIMEDOUT) {
        WakeReason::TimedOut
    } else {
        WakeReason::Woken
    }
}

fn wake(word: &AtomicU32, count: u32, scope: i32) {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: waking on an address has no conditions; the word is not even read.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | scope,
            count,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_changed_word_does_not_park() {
        assert_eq!(park(&AtomicU32::new(1), 0, None), WakeReason::Woken);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let start = monotonic();
        let word = AtomicU32::new(0);
        while park(&word, 0, Some(start + 2_000_000)) != WakeReason::TimedOut {}
        assert!(monotonic() >= start + 2_000_000);
        assert_eq!(
            park(&word, 0, Some(0)),
            WakeReason::TimedOut,
            "a deadline that is past"
        );
    }

    #[test]
    fn an_unpark_ends_the_wait() {
        let word = Arc::new(AtomicU32::new(0));
        let waiter = {
            let word = word.clone();
            std::thread::spawn(move || {
                while word.load(Ordering::Acquire) == 0 {
                    park(&word, 0, None);
                }
            })
        };
        word.store(1, Ordering::Release);
        unpark(&word, 1);
        waiter.join().expect("the waiter ends");
    }
}

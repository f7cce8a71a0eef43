//! Condition variables, sleep queues, and sleeps that end by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, Syscalls, Timespec};
use hypercall::Clock;
use kern::{Curlwp, KernelMemory};
use sync::{Condvar, Mutex, Wake};
use testing::{Testbed, on_both_hosts};

#[test]
fn no_wake_up_is_lost() {
    on_both_hosts(|bed| {
        // A bounded buffer of one place between two producers and two consumers.
        let place = Arc::new((
            Mutex::new(None::<u32>),
            Condvar::new("full"),
            Condvar::new("empty"),
        ));
        let sum = Arc::new(AtomicU32::new(0));
        let total = sum.clone();
        bed.users(4, move |i, lwp| {
            for n in 1..=4 {
                lwp.enter(&KernelMemory, |cx| {
                    let (slot, full, empty) = &*place;
                    let mut slot = slot.lock(cx.cpu());
                    if i % 2 == 0 {
                        while slot.is_some() {
                            slot = empty.wait(cx.cpu(), slot);
                        }
                        *slot = Some(n);
                        full.signal(cx.cpu());
                    } else {
                        while slot.is_none() {
                            slot = full.wait(cx.cpu(), slot);
                        }
                        total.fetch_add(slot.take().unwrap_or(0), Ordering::SeqCst);
                        empty.signal(cx.cpu());
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::SeqCst), 20);
    });
}

/// A place to sleep at, with a number of tokens; who wakes up takes one.
struct Tokens {
    left: Mutex<u32>,
    more: Condvar,
}

impl Tokens {
    fn new() -> Arc<Tokens> {
        Arc::new(Tokens {
            left: Mutex::new(0),
            more: Condvar::new("tokens"),
        })
    }

    fn take(&self, cx: &Curlwp<'_>) {
        let mut left = self.left.lock(cx.cpu());
        while *left == 0 {
            left = self.more.wait(cx.cpu(), left);
        }
        *left -= 1;
    }

    fn give(&self, cx: &Curlwp<'_>) {
        *self.left.lock(cx.cpu()) += 1;
        // As most do: woken once the mutex is free again.
        self.more.signal(cx.cpu());
    }
}

#[test]
fn who_leaves_a_sleep_takes_no_wake_up_with_it() {
    on_both_hosts(|bed| {
        let (tokens, elsewhere) = (Tokens::new(), Tokens::new());
        let leaver = bed.process();
        let pid = leaver.pid();
        let sleeps = {
            let (tokens, elsewhere) = (tokens.clone(), elsewhere.clone());
            move || {
                leaver.enter(&KernelMemory, |cx| {
                    let mut left = tokens.left.lock(cx.cpu());
                    while *left == 0 {
                        let wake;
                        (left, wake) = tokens.more.wait_intr(cx.cpu(), left, None);
                        if wake == Wake::Interrupted {
                            drop(left);
                            // It leaves without a token, and sleeps again at once, at another place.
                            elsewhere.take(cx);
                            return;
                        }
                    }
                    *left -= 1;
                    drop(left);
                    tokens.give(cx);
                    elsewhere.take(cx);
                });
            }
        };
        let leaves = bed.spawn("leaves", sleeps);
        let stays = {
            let (bed2, tokens) = (bed.clone(), tokens.clone());
            bed.spawn("stays", move || {
                bed2.process().enter(&KernelMemory, |cx| tokens.take(cx));
            })
        };
        let interrupts = {
            let bed2 = bed.clone();
            bed.spawn("interrupts", move || {
                bed2.pause();
                bed2.end(pid);
            })
        };
        bed.pause();
        bed.kernel().implicit(&KernelMemory, |cx| tokens.give(cx));
        interrupts.join();
        stays.join();
        bed.kernel()
            .implicit(&KernelMemory, |cx| elsewhere.give(cx));
        leaves.join();
    });
}

#[test]
fn a_timed_wait_ends_by_a_wake_up_or_by_its_time() {
    on_both_hosts(|bed| {
        let place = Arc::new((Mutex::new(0u32), Condvar::new("timed")));
        let inner = place.clone();
        bed.users(4, move |i, lwp| {
            lwp.enter(&KernelMemory, |cx| {
                let (count, cv) = &*inner;
                if i == 0 {
                    for _ in 0..3 {
                        *count.lock(cx.cpu()) += 1;
                        cv.signal(cx.cpu());
                        cx.unscheduled(|| cx.kernel().host().relax());
                    }
                    return;
                }
                let mut left = count.lock(cx.cpu());
                let deadline = cx.now(Clock::Monotonic) + 1000 * i as u64;
                while *left == 0 {
                    let wake;
                    (left, wake) = cv.wait_until(cx.cpu(), left, deadline);
                    if wake == Wake::TimedOut {
                        assert!(cx.now(Clock::Monotonic) >= deadline);
                        return;
                    }
                    assert_eq!(wake, Wake::Woken);
                }
                *left -= 1;
            });
        });
        assert!(!place.1.has_waiters());
    });
}

/// Six lwps on two identities: four want a token of their kind each, two bring two each.
fn tokens_of_two_kinds(bed: &Arc<Testbed>, one_by_one: bool) {
    let tokens = Arc::new(Mutex::new([0u32; 2]));
    bed.users(6, move |i, lwp| {
        lwp.enter(&KernelMemory, |cx| {
            let (kind, sleepq) = (i % 2, cx.kernel().sleepq());
            // Each kind has its own identity, and both share a queue.
            let ident = 0x1000 + (kind << 16);
            let mut held = tokens.lock(cx.cpu());
            if i < 4 {
                while held[kind] == 0 {
                    let (back, wake) = sleepq.mtsleep(cx.cpu(), ident, "token", held, None);
                    assert_eq!(wake, Wake::Woken);
                    held = back;
                }
                held[kind] -= 1;
            } else {
                held[kind] += 2;
                drop(held);
                if one_by_one {
                    while sleepq.wakeup_one(cx.cpu(), ident) {}
                } else {
                    cx.wakeup(ident);
                }
            }
        });
    });
    bed.kernel().implicit(&KernelMemory, |cx| {
        assert_eq!(cx.tsleep(7, "nothing", Some(1000)), Err(Errno::EWOULDBLOCK));
        assert_eq!(cx.wakeup(7), 0);
        assert!(!cx.kernel().sleepq().wakeup_one(cx.cpu(), 7));
    });
}

#[test]
fn sleepers_on_an_identity_are_woken_by_it_alone() {
    on_both_hosts(|bed| tokens_of_two_kinds(bed, false));
}

#[test]
fn sleepers_are_woken_one_by_one() {
    on_both_hosts(|bed| tokens_of_two_kinds(bed, true));
}

#[test]
fn a_nap_lasts_as_long_as_it_should() {
    on_both_hosts(|bed| {
        bed.users(3, |i, lwp| {
            let now = || lwp.kernel().host().now(Clock::Monotonic);
            let (start, nap) = (now(), 10_000 * (1 + i as i64));
            let span = Timespec {
                tv_sec: 0,
                tv_nsec: nap,
            };
            assert_eq!(lwp.nanosleep(&span.to_bytes(), &mut [0; 16]), Ok(0));
            assert!(now() >= start + nap as u64);
        });
    });
}

//! Timers that send signals, on the simulated host: in virtual time, whatever the order of switches.

mod common;

use std::sync::Arc;

use abi::{Errno, Itimerspec, Syscalls};
use common::sim::{over_seeds, with_kernel};
use hypercall::{Clock, Host};
use kern::signal::SignalSink;
use kern::{Kernel, KernelMemory, LwpHandle, Pid, RforkFds};
use sync::{Condvar, Mutex, OffCpu};

const SEEDS: u64 = 300;
const MONOTONIC: i32 = 1;
const ABSTIME: i32 = 1;
const MS: i64 = 1_000_000;
const SIGALRM: u32 = 14;
const SIGUSR1: u32 = 10;

/// Keeps the signals that were sent, with the time.
struct Record {
    host: Arc<dyn Host>,
    got: Mutex<Vec<(Pid, u32, u64)>>,
    more: Condvar,
}

impl SignalSink for Record {
    fn raise(&self, pid: Pid, signo: u32) -> bool {
        let off = OffCpu(&*self.host);
        let now = self.host.now(Clock::Monotonic);
        self.got.lock(&off).push((pid, signo, now));
        self.more.broadcast(&off);
        true
    }
}

impl Record {
    fn new(kernel: &Arc<Kernel>) -> Arc<Record> {
        let record = Arc::new(Record {
            host: kernel.host().clone(),
            got: Mutex::default(),
            more: Condvar::new("signals"),
        });
        kernel.set_signal_sink(record.clone());
        record
    }

    /// Waits until there are so many.
    fn wait(&self, p: &LwpHandle, count: usize) -> Vec<(Pid, u32, u64)> {
        p.enter(&KernelMemory, |cx| {
            let mut got = self.got.lock(cx.cpu());
            while got.len() < count {
                got = self.more.wait(cx.cpu(), got);
            }
            got.clone()
        })
    }
}

fn spec(value: i64, interval: i64) -> [u8; 32] {
    let split = |ns: i64| (ns / 1_000_000_000, ns % 1_000_000_000);
    let ((value_sec, value_nsec), (interval_sec, interval_nsec)) = (split(value), split(interval));
    Itimerspec {
        interval_sec,
        interval_nsec,
        value_sec,
        value_nsec,
    }
    .to_bytes()
}

fn sigevent(signo: u32, notify: i32) -> [u8; 64] {
    let mut raw = [0; 64];
    raw[8..12].copy_from_slice(&signo.to_le_bytes());
    raw[12..16].copy_from_slice(&notify.to_le_bytes());
    raw
}

fn create(p: &LwpHandle, event: &[u8]) -> Result<i32, Errno> {
    let mut id = [0; 4];
    p.timer_create(MONOTONIC, event, &mut id)?;
    Ok(i32::from_le_bytes(id))
}

/// Nanoseconds left of a timer.
fn left(p: &LwpHandle, id: i32) -> Result<i64, Errno> {
    let mut raw = [0; 32];
    p.timer_gettime(id, &mut raw)?;
    let spec = Itimerspec::from_bytes(&raw);
    Ok(spec.value_sec * 1_000_000_000 + spec.value_nsec)
}

fn now(p: &LwpHandle) -> u64 {
    p.enter(&KernelMemory, |cx| cx.now(Clock::Monotonic))
}

#[test]
fn a_timer_sends_its_signal_in_time_and_as_often_as_it_says() {
    over_seeds(SEEDS, |seed| {
        with_kernel(seed, 2, |_, kernel| {
            let record = Record::new(kernel);
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let id = create(&p, &sigevent(SIGUSR1, 0)).expect("a timer");
            let start = now(&p);
            p.timer_settime(id, 0, &spec(5 * MS, 10 * MS), &mut [])
                .expect("runs");
            let mut seen = 0;
            let mut expirations = 0;
            while expirations < 5 {
                seen += 1;
                let got = record.wait(&p, seen);
                let (pid, signo, at) = got[seen - 1];
                assert_eq!((pid, signo), (p.pid(), SIGUSR1));
                expirations += 1 + p.timer_getoverrun(id).expect("a number");
                let due = start + (5 + 10 * (seen as u64 - 1)) * MS as u64;
                assert!(at >= due, "{at} is before {due}");
            }
            p.timer_delete(id).expect("goes");
            assert_eq!(left(&p, id), Err(Errno::EINVAL));
        })
    });
}

#[test]
fn a_timer_that_is_stopped_or_whose_process_is_gone_sends_nothing() {
    over_seeds(SEEDS, |seed| {
        with_kernel(seed, 2, |_, kernel| {
            let record = Record::new(kernel);
            let p = kernel.rfork(RforkFds::Clear).expect("a process");
            let q = kernel.rfork(RforkFds::Clear).expect("a process");
            let other = q.pid();
            for lwp in [&p, &q] {
                let id = create(lwp, &[]).expect("a timer");
                lwp.timer_settime(id, 0, &spec(3 * MS, 0), &mut [])
                    .expect("runs");
            }
            let id = create(&p, &sigevent(SIGUSR1, 0)).expect("another");
            assert_eq!(id, 1);
            p.timer_settime(id, 0, &spec(MS, 0), &mut []).expect("runs");
            let mut old = [0; 32];
            p.timer_settime(id, 0, &spec(0, 0), &mut old)
                .expect("stops");
            let stopped = Itimerspec::from_bytes(&old).value_nsec != 0;
            drop(q);
            let q_gone = now(&p);
            // The first timer of p is the last that may come.
            loop {
                let got = record.wait(&p, 1);
                if got
                    .iter()
                    .any(|&(pid, signo, _)| (pid, signo) == (p.pid(), SIGALRM))
                {
                    break;
                }
                record.wait(&p, got.len() + 1);
            }
            let got = record.wait(&p, 1);
            for (pid, signo, at) in got {
                assert!(
                    pid != other || at <= q_gone,
                    "a dead process is sent {signo}"
                );
                assert!(signo != SIGUSR1 || !stopped, "a stopped timer ends");
            }
            assert_eq!(left(&p, id), Ok(0));
        })
    });
}

#[test]
fn a_timer_without_a_signal_runs_and_an_absolute_one_is_due_when_it_says() {
    let run = with_kernel(1, 1, |_, kernel| {
        let record = Record::new(kernel);
        let p = kernel.rfork(RforkFds::Clear).expect("a process");
        let quiet = create(&p, &sigevent(0, 1)).expect("a timer");
        p.timer_settime(quiet, 0, &spec(100 * MS, 0), &mut [])
            .expect("runs");
        assert!((1..=100 * MS).contains(&left(&p, quiet).expect("left")));
        let loud = create(&p, &sigevent(SIGUSR1, 0)).expect("a timer");
        let at = now(&p) as i64 + 50 * MS;
        p.timer_settime(loud, ABSTIME, &spec(at, 0), &mut [])
            .expect("runs");
        let got = record.wait(&p, 1);
        assert!(got[0].2 >= at as u64);
        assert_eq!(got.len(), 1);
        // In the past: at once.
        p.timer_settime(loud, ABSTIME, &spec(1, 0), &mut [])
            .expect("runs");
        record.wait(&p, 2);
        p.nanosleep(&spec(200 * MS, 0)[16..], &mut [])
            .expect("sleeps");
        assert_eq!(left(&p, quiet), Ok(0));
        assert_eq!(record.wait(&p, 2).len(), 2);
    });
    run.result.expect("passes");
}

#[test]
fn wrong_events_timers_and_times_are_refused() {
    let run = with_kernel(1, 1, |_, kernel| {
        let p = kernel.rfork(RforkFds::Clear).expect("a process");
        for event in [
            sigevent(0, 0),
            sigevent(65, 0),
            sigevent(1, 2),
            sigevent(1, 4),
        ] {
            assert_eq!(create(&p, &event), Err(Errno::EINVAL));
        }
        assert_eq!(p.timer_create(2, &[], &mut [0; 4]), Err(Errno::EINVAL));
        assert_eq!(p.timer_create(MONOTONIC, &[], &mut []), Err(Errno::EFAULT));
        let id = create(&p, &[]).expect("the number of the refused one");
        assert_eq!(id, 0);
        let bad = spec(-1, 0);
        assert_eq!(p.timer_settime(id, 0, &bad, &mut []), Err(Errno::EINVAL));
        for call in [p.timer_delete(7), p.timer_getoverrun(7)] {
            assert_eq!(call, Err(Errno::EINVAL));
        }
        for n in 1..256 {
            assert_eq!(create(&p, &[]), Ok(n));
        }
        assert_eq!(create(&p, &[]), Err(Errno::EAGAIN));
        p.timer_delete(77).expect("goes");
        assert_eq!(create(&p, &[]), Ok(77));
    });
    run.result.expect("passes");
}

#[test]
fn an_interval_timer_sends_sigalrm_and_survives_an_exec() {
    let run = with_kernel(1, 2, |_, kernel| {
        let record = Record::new(kernel);
        let p = kernel.rfork(RforkFds::Clear).expect("a process");
        let usec = |value: i64, interval: i64| {
            spec(value * 1000, interval * 1000)
                .chunks(8)
                .enumerate()
                .flat_map(|(i, part)| {
                    let n = i64::from_le_bytes(part.try_into().expect("eight"));
                    (if i % 2 == 1 { n / 1000 } else { n }).to_le_bytes()
                })
                .collect::<Vec<u8>>()
        };
        let id = create(&p, &[]).expect("a timer");
        p.setitimer(0, &usec(2000, 5000), &mut []).expect("runs");
        p.enter(&KernelMemory, |cx| kern::lwproc::exec(cx, "other"))
            .expect("execs");
        assert_eq!(left(&p, id), Err(Errno::EINVAL));
        let got = record.wait(&p, 3);
        assert!(got.iter().all(|g| (g.0, g.1) == (p.pid(), SIGALRM)));
        let mut old = [0; 32];
        p.setitimer(0, &usec(0, 0), &mut old).expect("stops");
        assert_eq!(Itimerspec::from_bytes(&old).interval_nsec, 5000);
        p.getitimer(0, &mut old).expect("tells");
        assert_eq!(old, [0; 32]);
        for which in [1, 2, 3, -1] {
            assert_eq!(p.getitimer(which, &mut old), Err(Errno::EINVAL));
        }
    });
    run.result.expect("passes");
}

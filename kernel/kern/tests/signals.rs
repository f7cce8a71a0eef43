//! Signals: who delivers them, and who may send them.
#![allow(clippy::disallowed_types)]

mod common;

use std::sync::Arc;
use std::sync::Mutex;

use abi::Errno;
use common::{boot, process, user};
use kern::signal::SignalSink;
use kern::{KernelMemory, Pid};

#[derive(Default)]
struct Seen {
    signals: Mutex<Vec<(Pid, u32)>>,
}

impl SignalSink for Seen {
    fn raise(&self, pid: Pid, signo: u32) -> bool {
        self.signals.lock().unwrap().push((pid, signo));
        signo != 2
    }
}

#[test]
fn a_signal_that_nobody_delivers_stays_pending() {
    let kernel = boot();
    let lwp = process(&kernel);
    let proc = lwp.lwp().proc();
    for signo in [1, 64] {
        kernel.psignal(proc, signo).unwrap();
    }
    assert_eq!(proc.pending_signals(), 1 << 63 | 1);
    assert!(proc.take_signal(64) && !proc.take_signal(64) && !proc.take_signal(0));
    assert_eq!(proc.pending_signals(), 1);
    assert_eq!(kernel.psignal(proc, 65), Err(Errno::EINVAL));
}

#[test]
fn a_process_of_its_own_frontend_is_told_there() {
    let kernel = boot();
    let (all, own) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    kernel.set_signal_sink(all.clone());
    let (one, other) = (process(&kernel), process(&kernel));
    other.lwp().proc().set_signal_sink(own.clone());
    for lwp in [&one, &other] {
        for signo in [0, 1, 2] {
            kernel.psignal(lwp.lwp().proc(), signo).unwrap();
        }
        assert_eq!(lwp.lwp().proc().pending_signals(), 2, "not delivered");
    }
    assert_eq!(
        *all.signals.lock().unwrap(),
        [(one.pid(), 1), (one.pid(), 2)]
    );
    assert_eq!(
        *own.signals.lock().unwrap(),
        [(other.pid(), 1), (other.pid(), 2)]
    );
}

#[test]
fn only_the_superuser_signals_other_users() {
    let kernel = boot();
    let [root, anna, ben] = [process(&kernel), user(&kernel, 1, 1), user(&kernel, 2, 2)];
    let kill = |by: &kern::LwpHandle, pid| by.enter(&KernelMemory, |cx| cx.kill(pid, 15));
    assert_eq!(kill(&root, ben.pid()), Ok(()));
    assert_eq!(kill(&anna, anna.pid()), Ok(()));
    assert_eq!(kill(&anna, ben.pid()), Err(Errno::EPERM));
    assert_eq!(kill(&anna, 1 << 20), Err(Errno::ESRCH));
}

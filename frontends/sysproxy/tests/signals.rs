//! Signals that the kernel sends to its clients.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use abi::sysproxy::{Class, HEADER, Kind};
use abi::{Errno, Syscalls, nr};
use kern::{Kernel, KernelMemory};
use rumpclient::Client;
use support::{RawClient, eventually, served};
use sysproxy::{Options, Server};

/// How often handlers have run, by signal.
static HANDLED: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];

extern "C" fn count(signal: libc::c_int) {
    HANDLED[signal as usize].fetch_add(1, Ordering::SeqCst);
}

fn handled(signal: i32) -> u32 {
    HANDLED[signal as usize].load(Ordering::SeqCst)
}

fn handle(signal: i32, flags: i32) {
    // SAFETY: a handler that counts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

fn psignal(kernel: &Arc<Kernel>, pid: i32, signo: i32) {
    kernel.implicit(&KernelMemory, |cx| {
        let proc = kernel.find_proc(cx, pid).expect("it lives");
        kernel.psignal(&proc, signo as u32).expect("sent");
    });
}

/// A client on the socket alone, and one that has a ring already.
fn both(server: &Server) -> [Client; 2] {
    let [socket, ring] =
        ["socket", "ring"].map(|comm| Client::connect(server.url(), comm).unwrap());
    socket.use_rings(false);
    for _ in 0..10 {
        assert_eq!(ring.getpid(), Ok(i64::from(ring.pid())));
    }
    [socket, ring]
}

#[test]
fn a_signal_is_a_frame_that_nobody_answers() {
    let (kernel, server) = served(Options::default());
    let (mut client, shake) = RawClient::guest(&server);
    psignal(&kernel, shake.pid, libc::SIGUSR1);
    let (header, body) = client.receive().unwrap();
    assert_eq!((header.class, header.kind), (Class::Request, Kind::Raise));
    assert_eq!((header.word, header.reqno), (libc::SIGUSR1 as u32, 0));
    assert_eq!((body.len(), HEADER), (0, 24));
    let pid = client.syscall(nr::getpid, &[0; 6], &[]).1;
    assert_eq!(pid, i64::from(shake.pid));
    kernel.implicit(&KernelMemory, |cx| {
        let proc = kernel.find_proc(cx, shake.pid).unwrap();
        assert_eq!(proc.pending_signals(), 0);
    });
}

/// One test, because handlers are the process's.
#[test]
fn a_signal_reaches_a_client_in_a_call_and_with_its_next_one() {
    handle(libc::SIGUSR1, 0);
    handle(libc::SIGUSR2, libc::SA_RESTART);
    let (kernel, server) = served(Options::default());
    for client in both(&server) {
        let mut fds = [0; 8];
        client.pipe2(&mut fds, 0).unwrap();
        let [read, write] =
            [0, 4].map(|at| i32::from_le_bytes(fds[at..at + 4].try_into().unwrap()));

        // With the next call, before it comes back.
        let before = handled(libc::SIGUSR2);
        psignal(&kernel, client.pid(), libc::SIGUSR2);
        client.getpid().unwrap();
        eventually("the handler has run", || {
            handled(libc::SIGUSR2) == before + 1
        });

        for (signal, end) in [(libc::SIGUSR1, Err(Errno::EINTR)), (libc::SIGUSR2, Ok(1))] {
            let done = AtomicBool::new(false);
            let before = handled(signal);
            let mut sent = 0;
            thread::scope(|scope| {
                let sleeper = scope.spawn(|| {
                    let answer = client.read(read, &mut [0], 1);
                    done.store(true, Ordering::SeqCst);
                    answer
                });
                // It may not sleep yet: signals come, one at a time, until one has its effect.
                while !done.load(Ordering::SeqCst) {
                    psignal(&kernel, client.pid(), signal);
                    sent += 1;
                    eventually("the handler has run", || {
                        handled(signal) == before + sent || done.load(Ordering::SeqCst)
                    });
                    if end.is_ok() && sent == 5 {
                        assert!(!done.load(Ordering::SeqCst));
                        client.write(write, &[1], 1).unwrap();
                        break;
                    }
                }
                assert_eq!(sleeper.join().unwrap(), end);
            });
            // The last one may have come after the call: it is not for the next round's.
            client.getpid().unwrap();
            eventually("all handlers have run", || handled(signal) == before + sent);
        }
    }
}

#[test]
fn a_signal_behind_more_than_the_socket_takes_comes_when_there_is_room() {
    const MANY: i32 = libc::SIGIO;
    const LAST: i32 = libc::SIGURG;
    handle(MANY, libc::SA_RESTART);
    handle(LAST, libc::SA_RESTART);
    let (kernel, server) = served(Options::default());
    for client in both(&server) {
        let before = handled(LAST);
        for _ in 0..10_000 {
            psignal(&kernel, client.pid(), MANY);
        }
        psignal(&kernel, client.pid(), LAST);
        eventually("the last one has come", || {
            client.getpid().unwrap();
            handled(LAST) > before
        });
    }
}

//! Clients of a server: calls that sleep, threads, signals, readiness.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use abi::sysproxy::{Kind, Watch};
use abi::{Errno, O_CREAT, O_RDONLY, O_RDWR, Syscalls, nr};
use rumpclient::raw::ThreadState;
use rumpclient::{Client, raw};
use support::{RawClient, both, eventually, pipe, procs, served};
use sysproxy::Options;

#[test]
fn a_call_that_sleeps_holds_nobody_up() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let (read, write) = pipe(&client);
        let sleeping = AtomicU32::new(0);
        thread::scope(|scope| {
            let sleepers: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        sleeping.fetch_add(1, Ordering::SeqCst);
                        client.read(read, &mut [0], 1)
                    })
                })
                .collect();
            eventually("they run", || sleeping.load(Ordering::SeqCst) == 20);
            for _ in 0..100 {
                assert_eq!(client.getpid(), Ok(i64::from(client.pid())));
            }
            assert_eq!(client.write(write, &[1; 20], 20), Ok(20));
            for sleeper in sleepers {
                assert_eq!(sleeper.join().unwrap(), Ok(1));
            }
        });
    }
}

#[test]
fn threads_of_a_client_do_not_mix_their_answers() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        thread::scope(|scope| {
            for t in 0..8u8 {
                let client = &client;
                scope.spawn(move || {
                    let name = std::ffi::CString::new(format!("/t{t}")).unwrap();
                    let fd = client.open(&name, O_CREAT | O_RDWR, 0o644).unwrap() as i32;
                    let mut back = vec![0; 20_000];
                    for i in 0..60u8 {
                        let data = vec![t ^ i; 100 + usize::from(i) * 300];
                        client.pwrite64(fd, &data, data.len(), 0).unwrap();
                        let len = data.len();
                        client.pread64(fd, &mut back, len, 0).unwrap();
                        assert!(back[..len] == data);
                    }
                });
            }
        });
    }
}

extern "C" fn nothing(_: libc::c_int) {}

fn handle(signal: i32, flags: i32) {
    // SAFETY: a handler that does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

#[test]
fn a_signal_interrupts_unless_it_asks_for_restart() {
    handle(libc::SIGUSR1, 0);
    handle(libc::SIGUSR2, libc::SA_RESTART);
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let (read, write) = pipe(&client);
        let sleep = |signal: i32, nr: u32, args: [u64; 6]| {
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                let (sender, receiver) = std::sync::mpsc::channel();
                let (client, done) = (&client, &done);
                let sleeper = scope.spawn(move || {
                    // SAFETY: asks for the own number.
                    sender.send(unsafe { libc::pthread_self() }).unwrap();
                    let mut byte = [0u8; 1];
                    let answer = if nr == nr::read {
                        client.read(read, &mut byte, 1)
                    } else {
                        client.poll(&mut [], 0, args[2] as i32)
                    };
                    done.store(true, Ordering::SeqCst);
                    answer
                });
                let id = receiver.recv().unwrap();
                // It may not sleep yet: signals come until one has its effect, or some have had none.
                for _ in 0..50 {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    // SAFETY: the thread is joined below, so it is there.
                    unsafe { libc::pthread_kill(id, signal) };
                    thread::sleep(std::time::Duration::from_millis(2));
                }
                if nr == nr::read && signal == libc::SIGUSR2 {
                    assert!(!done.load(Ordering::SeqCst));
                    client.write(write, &[1], 1).unwrap();
                }
                sleeper.join().unwrap()
            })
        };
        assert_eq!(sleep(libc::SIGUSR1, nr::read, [0; 6]), Err(Errno::EINTR));
        assert_eq!(sleep(libc::SIGUSR2, nr::read, [0; 6]), Ok(1));
        let forever = [0, 0, 100_000, 0, 0, 0];
        assert_eq!(sleep(libc::SIGUSR2, nr::poll, forever), Err(Errno::EINTR));
        assert_eq!(client.getpid(), Ok(i64::from(client.pid())));
    }
}

#[test]
fn a_signal_handler_makes_calls_during_a_call() {
    static CLIENT: raw::Client = raw::Client::new();
    static SEEN: AtomicU32 = AtomicU32::new(0);
    thread_local! {
        static THREAD: ThreadState = const { ThreadState::new() };
    }
    extern "C" fn calls(_: libc::c_int) {
        let pid = THREAD.with(|ts| CLIENT.call(ts, nr::getpid, &[0; 6]));
        if pid == i64::from(CLIENT.pid()) {
            SEEN.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (_kernel, server) = served(Options::default());
    THREAD
        .with(|ts| CLIENT.connect(ts, server.url().as_bytes(), b"handler", 0))
        .unwrap();
    // SAFETY: the handler makes calls that may be made in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = calls as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGWINCH, &action, std::ptr::null_mut());
    }
    for rings in [false, true] {
        SEEN.store(0, Ordering::SeqCst);
        CLIENT.use_rings(rings);
        let (sender, receiver) = std::sync::mpsc::channel();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                // SAFETY: asks for the own number.
                sender.send(unsafe { libc::pthread_self() }).unwrap();
                THREAD.with(|ts| {
                    while !stop.load(Ordering::SeqCst) {
                        let pid = CLIENT.call(ts, nr::getpid, &[0; 6]);
                        assert_eq!(pid, i64::from(CLIENT.pid()));
                    }
                    CLIENT.thread_exit(ts);
                });
            });
            let id = receiver.recv().unwrap();
            while SEEN.load(Ordering::SeqCst) < 50 {
                // SAFETY: the thread runs until it is told to stop.
                unsafe { libc::pthread_kill(id, libc::SIGWINCH) };
                thread::yield_now();
            }
            stop.store(true, Ordering::SeqCst);
            caller.join().unwrap();
        });
    }
    CLIENT.disconnect();
}

fn readable(fd: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

#[test]
fn readiness_reaches_a_host_descriptor() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let (read, write) = pipe(&client);
        let poll_in = libc::POLLIN as u32;
        let watch = |fds: &[i32]| {
            let mut watches: Vec<Watch> = fds
                .iter()
                .map(|&fd| Watch {
                    fd,
                    events: poll_in,
                    revents: 0,
                })
                .collect();
            let (ready, fd) = client
                .with(|raw, ts| raw.pollwatch(ts, &mut watches))
                .unwrap();
            (
                ready,
                fd,
                watches.iter().map(|w| w.revents).collect::<Vec<_>>(),
            )
        };
        let (ready, fd, revents) = watch(&[read]);
        assert_eq!((ready, revents), (0, vec![0]));
        assert!(!readable(fd));
        client.write(write, &[1], 1).unwrap();
        eventually("told", || readable(fd));
        client.with(|raw, ts| raw.pollwatch_clear(ts));
        assert!(!readable(fd));
        let (ready, same, revents) = watch(&[read, 900]);
        assert_eq!((ready, same), (2, fd));
        assert_eq!(revents, [poll_in, libc::POLLNVAL as u32]);
        client.read(read, &mut [0], 1).unwrap();
        client.with(|raw, ts| raw.pollwatch_end(ts));
        client.write(write, &[1], 1).unwrap();
        client.getpid().unwrap();
        assert!(!readable(fd), "nobody watches");
        assert!(client.with(|raw, _| raw.owns_fd(fd)));
    }
}

#[test]
fn a_client_that_does_not_read_stalls_nobody() {
    let (kernel, server) = served(Options::default());
    let good = Client::connect(server.url(), "good").unwrap();
    let fd = good.open(c"/big", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
    good.pwrite64(fd, &vec![1; 1 << 20], 1 << 20, 0).unwrap();
    let (mut slow, _) = RawClient::guest(&server);
    let args = [0x1000, O_RDONLY as u64, 0, 0, 0, 0];
    let (_, slow_fd, _) = slow.syscall(nr::open, &args, &[(0x1000, b"/big\0")]);
    slow.stream.set_nonblocking(true).unwrap();
    let body = support::call_body(&[slow_fd as u64, 0x10_0000, 1 << 20, 0, 0, 0], &[]);
    let mut frame = abi::sysproxy::Header::new(
        abi::sysproxy::Class::Request,
        Kind::Syscall,
        nr::pread64,
        0,
        body.len(),
    )
    .encode()
    .to_vec();
    frame.extend(body);
    // As many requests as it can get rid of, a thousand at most.
    for reqno in 100u64..1100 {
        frame[8..16].copy_from_slice(&reqno.to_le_bytes());
        if std::io::Write::write_all(&mut slow.stream, &frame).is_err() {
            break;
        }
    }
    for _ in 0..100 {
        assert_eq!(good.getpid(), Ok(i64::from(good.pid())));
    }
    drop(slow);
    eventually("the slow one is gone", || procs(&kernel) == 2);
}

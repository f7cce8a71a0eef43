//! How processes of clients come and go, and what they leave behind.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use abi::{Errno, Invoke, O_CLOEXEC, O_CREAT, O_NONBLOCK, O_RDWR, Syscalls, nr};
use kern::KernelMemory;
use rumpclient::raw::ThreadState;
use rumpclient::{Client, raw};
use support::{both, eventually, kernel, pipe, procs, served};
use sysproxy::Options;

#[test]
fn a_forked_child_has_copies_of_the_descriptors() {
    let (kernel, server) = served(Options::default());
    let url = server.url().as_bytes().to_vec();
    let parent = Box::new(raw::Client::new());
    let ts = ThreadState::new();
    parent.connect(&ts, &url, b"parent", 0).unwrap();
    let open = [
        c"/forked".as_ptr() as u64,
        (O_CREAT | O_RDWR) as u64,
        0o644,
        0,
        0,
        0,
    ];
    let fd = parent.call(&ts, nr::open, &open) as u64;
    for _ in 0..10 {
        parent.call(&ts, nr::getpid, &[0; 6]);
    }
    let cookie = parent.prefork(&ts).unwrap();
    // SAFETY: the child makes calls that need no lock and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let good = parent.connect_fork(&ts, &url, cookie).is_ok()
            && parent.call(&ts, nr::getpid, &[0; 6]) == i64::from(parent.pid())
            && (0..10).all(|_| {
                let args = [fd, c"child".as_ptr() as u64, 5, 0, 0, 0];
                parent.call(&ts, nr::pwrite64, &args) == 5
            })
            && parent.call(&ts, nr::close, &[fd, 0, 0, 0, 0, 0]) == 0;
        // SAFETY: ends the child without anything of the test's.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    let mut back = [0u8; 5];
    let args = [fd, back.as_mut_ptr() as u64, 5, 0, 0, 0];
    assert_eq!(parent.call(&ts, nr::pread64, &args), 5);
    assert_eq!(std::hint::black_box(&back), b"child");
    let cancelled = parent.prefork(&ts).unwrap();
    parent.prefork_cancel(&ts, cancelled).unwrap();
    let again = parent.prefork_cancel(&ts, cancelled);
    assert_eq!(again, Err(Errno::ESRCH));
    parent.thread_exit(&ts);
    parent.disconnect();
    eventually("all gone", || procs(&kernel) == 1);
}

#[test]
fn exec_keeps_the_process_and_closes_what_it_should() {
    let (kernel, server) = served(Options::default());
    let url = server.url().as_bytes().to_vec();
    let old = Box::new(raw::Client::new());
    let ts = ThreadState::new();
    old.connect(&ts, &url, b"old", 0).unwrap();
    let open = |flags: i32| {
        let path = c"/exec".as_ptr() as u64;
        let args = [path, (O_CREAT | O_RDWR | flags) as u64, 0o644, 0, 0, 0];
        old.call(&ts, nr::open, &args)
    };
    let (stays, goes) = (open(0), open(O_CLOEXEC));
    for _ in 0..10 {
        old.call(&ts, nr::getpid, &[0; 6]);
    }
    // Another thread of the old program is in a call that sleeps.
    let mut fds = [0u32; 2];
    old.call(&ts, nr::pipe, &[fds.as_mut_ptr() as u64, 0, 0, 0, 0, 0]);
    let read = u64::from(std::hint::black_box(fds)[0]);
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let ts = ThreadState::new();
            let mut byte = 0u8;
            barrier.wait();
            let args = [read, (&raw mut byte) as u64, 1, 0, 0, 0];
            let answer = old.call(&ts, nr::read, &args);
            old.thread_exit(&ts);
            answer
        });
        barrier.wait();
        let mut text = [0; 64];
        let len = old.exec_prepare(&mut text).unwrap();
        let new = Box::new(raw::Client::new());
        let new_ts = ThreadState::new();
        // The new program closes the descriptor; here both are one process, so it gets one of its own.
        let text = std::str::from_utf8(&text[..len]).unwrap();
        let (number, session) = text.split_once(',').unwrap();
        let number: i32 = number.parse().unwrap();
        // SAFETY: copies a descriptor, which is there.
        let copy = unsafe { libc::dup(number) };
        let handover = format!("{copy},{session}");
        new.after_exec(&new_ts, &url, handover.as_bytes(), b"new")
            .unwrap();
        assert_eq!(new.pid(), old.pid());
        assert!(sleeper.join().unwrap() < 0);
        let mut stat = [0u8; 144];
        let at = stat.as_mut_ptr() as u64;
        assert_eq!(
            new.call(&new_ts, nr::fstat, &[stays as u64, at, 0, 0, 0, 0]),
            0
        );
        let bad = -i64::from(Errno::EBADF.0);
        assert_eq!(
            new.call(&new_ts, nr::fstat, &[goes as u64, at, 0, 0, 0, 0]),
            bad
        );
        let comm = kernel.implicit(&KernelMemory, |cx| {
            kernel.find_proc(cx, new.pid()).map(|p| p.comm(cx))
        });
        assert_eq!(comm.as_deref(), Some("new"));
        new.thread_exit(&new_ts);
        new.disconnect();
    });
    old.thread_exit(&ts);
    old.disconnect();
    eventually("all gone", || procs(&kernel) == 1);
}

#[test]
fn a_server_that_stops_lets_everybody_go() {
    let (kernel, server) = served(Options::default());
    let clients = both(&server);
    let started = AtomicU32::new(0);
    thread::scope(|scope| {
        for client in &clients {
            let (read, _) = pipe(client);
            for _ in 0..3 {
                let started = &started;
                scope.spawn(move || {
                    for _ in 0..10 {
                        client.getpid().unwrap();
                    }
                    started.fetch_add(1, Ordering::SeqCst);
                    assert!(client.read(read, &mut [0], 1).is_err());
                    assert_eq!(client.getpid(), Err(Errno::ENOTCONN));
                });
            }
        }
        eventually("they run", || started.load(Ordering::SeqCst) == 6);
        drop(server);
    });
    assert_eq!(procs(&kernel), 1);
}

#[test]
fn connections_cut_at_random_leave_nothing_and_others_go_on() {
    let (kernel, server) = served(Options::default());
    let before = procs(&kernel);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..3 {
            let (stop, server) = (&stop, &server);
            scope.spawn(move || {
                let client = Client::connect(server.url(), "survivor").unwrap();
                let name = std::ffi::CString::new(format!("/survivor{n}")).unwrap();
                let fd = client.open(&name, O_CREAT | O_RDWR, 0o644).unwrap() as i32;
                let mut i = 0u64;
                while !stop.load(Ordering::SeqCst) {
                    i += 1;
                    client.pwrite64(fd, &i.to_le_bytes(), 8, 0).unwrap();
                    let mut back = [0; 8];
                    client.pread64(fd, &mut back, 8, 0).unwrap();
                    assert_eq!(u64::from_le_bytes(back), i);
                }
            });
        }
        let victims: Vec<_> = (0..32u64)
            .map(|n| {
                let server = &server;
                scope.spawn(move || {
                    let client = Arc::new(Client::connect(server.url(), "victim").unwrap());
                    client.use_rings(n % 2 == 0);
                    let (read, write) = pipe(&client);
                    let threads: Vec<_> = (0..8)
                        .map(|t| {
                            let client = client.clone();
                            thread::spawn(move || {
                                for i in 0u64.. {
                                    let done = match (t + i) % 4 {
                                        0 => client.read(read, &mut [0], 1),
                                        1 => client.write(write, &[1; 64], 64),
                                        2 => client.open(
                                            c"/victim",
                                            O_CREAT | O_RDWR | O_NONBLOCK,
                                            0o600,
                                        ),
                                        _ => client.invoke(nr::getpid, &mut []),
                                    };
                                    if done == Err(Errno::ENOTCONN) {
                                        return;
                                    }
                                }
                            })
                        })
                        .collect();
                    for _ in 0..n * 7 % 50 {
                        thread::yield_now();
                    }
                    client.with(|raw, _| raw.hang_up());
                    for thread in threads {
                        thread.join().unwrap();
                    }
                })
            })
            .collect();
        for victim in victims {
            victim.join().unwrap();
        }
        stop.store(true, Ordering::SeqCst);
    });
    eventually("nothing left", || {
        procs(&kernel) == before && server.clients() == 0
    });
}

/// Not a test of its own: the server process of the next one.
#[test]
fn serves_in_a_process_of_its_own() {
    let Ok(url) = std::env::var("SERVE_AT") else {
        return;
    };
    let _server = sysproxy::serve(&kernel(), &url, Options::default()).unwrap();
    println!("serving");
    loop {
        thread::park();
    }
}

#[test]
fn a_server_that_is_killed_lets_everybody_go() {
    let url = format!("unix://@killed-{}", std::process::id());
    let mut server = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serves_in_a_process_of_its_own", "--nocapture"])
        .env("SERVE_AT", &url)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("it serves", || Client::connect(&url, "try").is_ok());
    let socket = Client::connect(&url, "socket").unwrap();
    socket.use_rings(false);
    let ring = Client::connect(&url, "ring").unwrap();
    let asleep = AtomicU32::new(0);
    thread::scope(|scope| {
        for client in [&socket, &ring] {
            let (read, _) = pipe(client);
            for way in 0..2 {
                let asleep = &asleep;
                scope.spawn(move || {
                    for _ in 0..10 {
                        client.getpid().unwrap();
                    }
                    asleep.fetch_add(1, Ordering::SeqCst);
                    let end = if way == 0 {
                        client.read(read, &mut [0], 1)
                    } else {
                        client.poll(&mut [], 0, -1)
                    };
                    assert_eq!(end, Err(Errno::ENOTCONN));
                });
            }
        }
        eventually("they run", || asleep.load(Ordering::SeqCst) == 4);
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

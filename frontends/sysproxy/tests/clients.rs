//! Clients of a server: what they see, and what they leave behind.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use abi::sysproxy::{Kind, Watch};
use abi::{Errno, Invoke, O_CLOEXEC, O_CREAT, O_NONBLOCK, O_RDONLY, O_RDWR, Stat, Syscalls, nr};
use kern::KernelMemory;
use rumpclient::raw::{self, ThreadState};
use rumpclient::{Client, Reconnect};
use support::{RawClient, eventually, kernel, procs, served};
use sysproxy::{Error, Options, Server};

/// A client on the socket alone, and one that has a ring already.
fn both(server: &Server) -> [Client; 2] {
    let socket = Client::connect(server.url(), "socket").unwrap();
    socket.use_rings(false);
    let ring = Client::connect(server.url(), "ring").unwrap();
    for _ in 0..10 {
        assert_eq!(ring.getpid(), Ok(i64::from(ring.pid())));
    }
    [socket, ring]
}

fn pipe(client: &Client) -> (i32, i32) {
    let mut fds = [0; 8];
    client.pipe2(&mut fds, 0).unwrap();
    let fd = |at: usize| i32::from_le_bytes(fds[at..at + 4].try_into().unwrap());
    (fd(0), fd(4))
}

#[test]
fn every_kind_of_url_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("unix://{}/s", dir.path().display());
    let name = format!("unix://@kinds-{}", std::process::id());
    let tcp = (20_000..60_000).find_map(|port| {
        let url = format!("tcp://127.0.0.1:{port}");
        let server = sysproxy::serve(&kernel(), &url, Options::default()).ok()?;
        Some((url, server))
    });
    let (tcp, _tcp_server) = tcp.unwrap();
    let kernel = kernel();
    let _servers =
        [&path, &name].map(|url| sysproxy::serve(&kernel, url, Options::default()).unwrap());
    for url in [&path, &name, &tcp] {
        let client = Client::connect(url, "kinds").unwrap();
        let fd = client.open(c"/f", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
        for i in 0..20 {
            assert_eq!(client.pwrite64(fd, b"hello", 5, i * 5), Ok(5), "{url}");
        }
        let mut stat = [0; Stat::SIZE];
        client.stat(c"/f", &mut stat).unwrap();
        assert_eq!(Stat::from_bytes(&stat).st_size, 100);
        assert_eq!(client.open(c"/missing", 0, 0), Err(Errno::ENOENT));
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("s");
    let url = format!("unix://{}", at.display());
    let kernel = kernel();
    drop(std::os::unix::net::UnixListener::bind(&at).unwrap());
    let server = sysproxy::serve(&kernel, &url, Options::default()).unwrap();
    let second = sysproxy::serve(&kernel, &url, Options::default())
        .err()
        .unwrap();
    assert!(matches!(second, Error::Live { .. }), "{second}");
    drop(server);
    assert!(!at.exists());
    std::fs::write(&at, "precious").unwrap();
    let file = sysproxy::serve(&kernel, &url, Options::default())
        .err()
        .unwrap();
    assert!(matches!(file, Error::NotASocket { .. }), "{file}");
    assert!(at.exists());
}

#[test]
fn a_wrong_url_says_what_is_wrong() {
    let kernel = kernel();
    for (url, word) in [
        ("http://x", "unix://"),
        ("unix://", "names nothing"),
        ("unix:///no/such/dir/s", "directory"),
        ("tcp://1.2.3.4", "port"),
        ("tcp://example.org:80", "address"),
        ("tcp://203.0.113.1:80", "address"),
    ] {
        let error = sysproxy::serve(&kernel, url, Options::default())
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(text.contains(url) && text.contains(word), "{text}");
    }
    assert_eq!(Client::connect("http://x", "x").err(), Some(Errno::EINVAL));
    assert_eq!(
        Client::connect("unix:///no/s", "x").err(),
        Some(Errno::ENOENT)
    );
}

#[test]
fn transfers_of_any_length_arrive_whole() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let fd = client.open(c"/long", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
        for len in [0, 1, 511, 4096, 100_000, 300_000, 1 << 20, 5_000_003] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
            assert_eq!(client.pwrite64(fd, &data, len, 0), Ok(len as i64));
            let mut back = vec![0; len];
            assert_eq!(client.pread64(fd, &mut back, len, 0), Ok(len as i64));
            assert!(back == data, "{len}");
        }
    }
}

/// Calls with raw addresses, as a program makes them.
fn raw_calls(server: &Server, rings: bool, f: impl FnOnce(&dyn Fn(u32, [u64; 6]) -> i64)) {
    let client = Box::new(raw::Client::new());
    let thread = ThreadState::new();
    client
        .connect(&thread, server.url().as_bytes(), b"raw", 0)
        .unwrap();
    client.use_rings(rings);
    for _ in 0..10 {
        client.call(&thread, nr::getpid, &[0; 6]);
    }
    f(&|nr, args| client.call(&thread, nr, &args));
    client.thread_exit(&thread);
    client.disconnect();
}

/// Two pages; the second is protected.
fn page_before_nothing(protection: i32) -> (u64, impl Drop) {
    struct Unmap(u64);
    impl Drop for Unmap {
        fn drop(&mut self) {
            // SAFETY: the mapping made below.
            unsafe { libc::munmap(self.0 as *mut libc::c_void, 8192) };
        }
    }
    // SAFETY: fresh memory.
    let at = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), 8192, rw, flags, -1, 0);
        assert_eq!(libc::mprotect(at.add(4096), 4096, protection), 0);
        at as u64
    };
    (at, Unmap(at))
}

#[test]
fn bad_addresses_are_faults_and_nothing_worse() {
    let (_kernel, server) = served(Options::default());
    for rings in [false, true] {
        raw_calls(&server, rings, |call| {
            let fault = -i64::from(Errno::EFAULT.0);
            let path = c"/faults".as_ptr() as u64;
            let flags = (O_CREAT | O_RDWR) as u64;
            let fd = call(nr::open, [path, flags, 0o644, 0, 0, 0]) as u64;
            let (page, _keep) = page_before_nothing(libc::PROT_NONE);
            let (ro, _keep_ro) = page_before_nothing(libc::PROT_READ);
            for bad in [
                1,
                page + 4096,
                page + 4095,
                u64::MAX - 10,
                1 << 47,
                0xffff_8000_0000_0000,
            ] {
                assert_eq!(call(nr::write, [fd, bad, 100, 0, 0, 0]), fault, "{bad:#x}");
                assert_eq!(call(nr::fstat, [fd, bad, 0, 0, 0, 0]), fault, "{bad:#x}");
            }
            assert_eq!(call(nr::fstat, [fd, ro + 4096, 0, 0, 0, 0]), fault);
            assert_eq!(call(nr::write, [fd, ro + 4096, 100, 0, 0, 0]), 100);
            assert_eq!(call(nr::open, [page + 4096, 0, 0, 0, 0, 0]), fault);
            // A string that runs into nothing, and one that ends right before it.
            // SAFETY: the page is ours.
            unsafe { (page as *mut u8).add(4090).write_bytes(b'a', 6) };
            assert_eq!(call(nr::open, [page + 4090, 0, 0, 0, 0, 0]), fault);
            // SAFETY: the page is ours.
            unsafe { (page as *mut u8).add(4095).write(0) };
            let missing = -i64::from(Errno::ENOENT.0);
            assert_eq!(call(nr::open, [page + 4090, 0, 0, 0, 0, 0]), missing);
            let long = vec![b'/'; 10_000];
            let too_long = -i64::from(Errno::ENAMETOOLONG.0);
            assert_eq!(
                call(nr::open, [long.as_ptr() as u64, 0, 0, 0, 0, 0]),
                too_long
            );
            assert_eq!(call(nr::readv, [fd, page + 4096, 1, 0, 0, 0]), fault);
            let iov = [page + 4096, 10];
            let at = iov.as_ptr() as u64;
            assert_eq!(call(nr::pwritev, [fd, at, 1, 0, 0, 0]), fault);
            assert_eq!(call(nr::preadv, [fd, at, 1, 0, 0, 0]), fault);
            assert!(call(nr::getpid, [0; 6]) > 1, "the connection lives");
        });
    }
}

#[test]
fn vectored_calls_carry_their_buffers() {
    let (_kernel, server) = served(Options::default());
    for rings in [false, true] {
        raw_calls(&server, rings, |call| {
            let path = c"/vectored".as_ptr() as u64;
            let flags = (O_CREAT | O_RDWR) as u64;
            let fd = call(nr::open, [path, flags, 0o644, 0, 0, 0]) as u64;
            let parts: Vec<Vec<u8>> = (0..100).map(|i| vec![i as u8; i * 3]).collect();
            let iov: Vec<[u64; 2]> = parts
                .iter()
                .map(|p| [p.as_ptr() as u64, p.len() as u64])
                .collect();
            let total: i64 = parts.iter().map(|p| p.len() as i64).sum();
            let at = iov.as_ptr() as u64;
            assert_eq!(call(nr::pwritev, [fd, at, 100, 0, 0, 0]), total);
            let mut back: Vec<Vec<u8>> = parts.iter().map(|p| vec![0; p.len()]).collect();
            let iov: Vec<[u64; 2]> = back
                .iter_mut()
                .map(|p| [p.as_mut_ptr() as u64, p.len() as u64])
                .collect();
            let at = iov.as_ptr() as u64;
            assert_eq!(call(nr::preadv, [fd, at, 100, 0, 0, 0]), total);
            assert!(std::hint::black_box(&mut back) == &parts);
        });
    }
}

#[test]
fn the_kernel_reaches_only_what_is_lent() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let fd = client.open(c"/lent", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
        client.pwrite64(fd, &[1; 100], 100, 0).unwrap();
        let mut small = [0; 10];
        assert_eq!(client.pread64(fd, &mut small, 100, 0), Err(Errno::EFAULT));
        assert_eq!(client.pwrite64(fd, &small, 100, 0), Err(Errno::EFAULT));
        assert_eq!(client.pread64(fd, &mut small, 10, 0), Ok(10));
    }
}

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
fn a_client_finds_a_new_server_if_it_is_to() {
    let kernel = kernel();
    let url = format!("unix://@again-{}", std::process::id());
    let serve = || sysproxy::serve(&kernel, &url, Options::default()).unwrap();
    let server = serve();
    let never = Client::connect(&url, "never").unwrap();
    let once = Client::with_policy(&url, "once", Reconnect::Once).unwrap();
    let forever = Client::with_policy(&url, "forever", Reconnect::Forever).unwrap();
    let pid = once.getpid();
    let fd = once.open(c"/once", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
    drop(server);
    for client in [&never, &once] {
        while client.getpid() != Err(Errno::ENOTCONN) {}
    }
    assert!(once.getpid().is_err(), "no server");
    let _server = serve();
    eventually("once more", || once.getpid().is_ok());
    assert_ne!(once.getpid(), pid, "a new process");
    assert_eq!(once.fsync(fd), Err(Errno::EBADF));
    eventually("for ever", || forever.getpid().is_ok());
    assert_eq!(never.getpid(), Err(Errno::ENOTCONN));
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

#[test]
fn only_the_servers_own_user_reaches_files_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "of the host").unwrap();
    let file = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let kernel = kernel();
    let path = format!("unix://{}/s", dir.path().display());
    let _local = sysproxy::serve(&kernel, &path, Options::default()).unwrap();
    let (tcp, _remote) = (20_000..60_000)
        .find_map(|port| {
            let url = format!("tcp://127.0.0.1:{port}");
            let server = sysproxy::serve(&kernel, &url, Options::default()).ok()?;
            Some((url, server))
        })
        .unwrap();
    let register = |client: &Client| client.etfs_register(c"/secret", &file, 0, 0, 11);
    let far = Client::connect(&tcp, "far").unwrap();
    assert_eq!(register(&far), Err(Errno::EPERM));
    let near = Client::connect(&path, "near").unwrap();
    assert_eq!(register(&near), Ok(0));
    assert_eq!(far.etfs_remove(c"/secret"), Err(Errno::EPERM));
    assert!(
        far.open(c"/secret", O_RDONLY, 0).is_ok(),
        "what is registered is the kernel's"
    );
}

#[test]
fn results_that_lie_side_by_side_are_two() {
    let (_kernel, server) = served(Options::default());
    let client = Client::connect(server.url(), "side").unwrap();
    // The value of hw.ncpu, and its length right behind it, as compilers put two variables.
    let mut memory = [0; 16];
    memory[8] = 8;
    let (value, len) = memory.split_at_mut(8);
    let result = client.__sysctl(c"hw.ncpu", value, len, &[], 0);
    assert_eq!(result, Ok(0));
    assert!(value[0] > 0);
}

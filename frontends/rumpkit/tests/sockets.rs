//! Local sockets on both hosts: on the simulated one every switch is drawn from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::{Errno, O_NONBLOCK, Syscalls};
use rumpkit::{LwpHandle, RforkFds};
use testing::sockets::{DGRAM, STREAM, socketpair};
use testing::{Setup, Thread};

const UNIX: i32 = 1;

/// The bare kernel with sockets.
fn with_sockets() -> Setup {
    Setup::new().components(&[&net::NET, &local::LOCAL])
}

fn addr(name: &[u8]) -> Vec<u8> {
    [&1u16.to_le_bytes(), name].concat()
}

fn listener(p: &LwpHandle, name: &[u8]) -> i32 {
    let fd = p.socket(UNIX, STREAM, 0).expect("a socket") as i32;
    p.bind(fd, name, name.len()).expect("bound");
    p.listen(fd, 1).expect("listens");
    fd
}

#[test]
fn connections_come_and_go_in_any_order() {
    with_sockets().run(|bed| {
        let server = bed.process();
        let name = addr(b"\0server");
        let listens = listener(&server, &name);
        let clients: Vec<_> = (0..4u8)
            .map(|i| {
                let (on, name) = (bed.clone(), name.clone());
                bed.spawn(&format!("client{i}"), move || {
                    let p = on.process();
                    let fd = p.socket(UNIX, STREAM, 0).expect("a socket") as i32;
                    p.connect(fd, &name, name.len()).expect("connected");
                    assert_eq!(p.write(fd, &[i; 3000], 3000), Ok(3000));
                    if on.draw(2) == 0 {
                        assert_eq!(p.shutdown(fd, 1), Ok(0));
                        let mut answer = [9; 10];
                        assert_eq!(p.read(fd, &mut answer, 10), Ok(1));
                        assert_eq!(answer[0], i);
                        assert_eq!(p.read(fd, &mut answer, 10), Ok(0), "the end");
                    }
                })
            })
            .collect();
        for _ in 0..4 {
            let fd = server.accept(listens, &mut [], &mut []).expect("accepted") as i32;
            let mut all = Vec::new();
            let mut buf = [0; 1000];
            while let n @ 1.. = server.read(fd, &mut buf, 1000).expect("read") {
                all.extend_from_slice(&buf[..n as usize]);
            }
            assert_eq!(all.len(), 3000);
            assert!(all.iter().all(|b| *b == all[0]));
            // A client that is gone already cannot be answered.
            let _ = server.write(fd, &all[..1], 1);
            server.close(fd).expect("closed");
        }
        clients.into_iter().for_each(Thread::join);
    });
}

#[test]
fn datagrams_stay_whole_and_each_goes_to_one_reader() {
    with_sockets().run(|bed| {
        let main = bed.process();
        let [a, b] = socketpair(&main, DGRAM);
        let got = Arc::new(AtomicU32::new(0));
        let count = got.clone();
        bed.lwps(main.pid(), 4, move |i, lwp| {
            for n in 0..4u8 {
                if i < 2 {
                    // More than the queue takes at once: senders wait.
                    let data = vec![i as u8 * 16 + n; 40_000];
                    assert_eq!(lwp.write(a, &data, data.len()), Ok(40_000));
                } else {
                    let mut data = vec![0; 50_000];
                    assert_eq!(lwp.read(b, &mut data, 50_000), Ok(40_000));
                    assert!(data[..40_000].iter().all(|byte| *byte == data[0]));
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        assert_eq!(got.load(Ordering::SeqCst), 8);
    });
}

#[test]
fn a_stream_is_polled_while_others_read_and_close() {
    with_sockets().run(|bed| {
        let main = bed.process();
        let [a, b] = socketpair(&main, STREAM | O_NONBLOCK);
        let far = main.rfork(RforkFds::Copy).expect("a process");
        main.close(b).expect("closed");
        far.close(a).expect("closed");
        let writer = bed.spawn("writer", move || {
            for _ in 0..5 {
                assert_eq!(far.write(b, b"xyz", 3), Ok(3));
            }
            far.shutdown(b, 1).expect("shut");
            // Ends with its last descriptor.
        });
        let got = Arc::new(AtomicU32::new(0));
        let count = got.clone();
        bed.lwps(main.pid(), 2, move |_, lwp| {
            loop {
                match lwp.read(a, &mut [0; 2], 2) {
                    Ok(0) => return,
                    Ok(n) => drop(count.fetch_add(n as u32, Ordering::SeqCst)),
                    Err(error) => {
                        assert_eq!(error, Errno::EAGAIN);
                        let entry = abi::Pollfd {
                            fd: a,
                            events: 1,
                            revents: 0,
                        };
                        assert_eq!(lwp.poll(&mut entry.to_bytes(), 1, -1), Ok(1));
                    }
                }
            }
        });
        writer.join();
        assert_eq!(got.load(Ordering::SeqCst), 15);
    });
}

#[test]
fn a_dying_process_leaves_every_wait_for_a_socket() {
    with_sockets().run(|bed| {
        let dying = bed.process();
        let (name, full) = (addr(b"\0name"), addr(b"\0full"));
        let listens = listener(&dying, &name);
        let [a, _b] = socketpair(&dying, STREAM);
        let [c, _d] = socketpair(&dying, STREAM);
        // One that nobody accepts from, and that has as many waiting as it takes.
        let other = bed.process();
        let _crowded = listener(&other, &full);
        let mut waiting = Vec::new();
        loop {
            let fd = other
                .socket(UNIX, STREAM | O_NONBLOCK, 0)
                .expect("a socket") as i32;
            match other.connect(fd, &full, full.len()) {
                Ok(_) => waiting.push(fd),
                Err(error) => break assert_eq!(error, Errno::EAGAIN),
            }
        }
        bed.lwps_of_dying(dying, 4, move |i, lwp| {
            let ended = match i {
                0 => lwp.accept(listens, &mut [], &mut []),
                1 => lwp.read(a, &mut [0; 1], 1),
                2 => {
                    let data = [0; 100_000];
                    let mut sent = lwp.write(c, &data, data.len());
                    while sent.is_ok() {
                        sent = lwp.write(c, &data, data.len());
                    }
                    sent
                }
                _ => {
                    let fd = lwp.socket(UNIX, STREAM, 0).expect("a socket") as i32;
                    lwp.connect(fd, &full, full.len())
                }
            };
            assert_eq!(ended, Err(Errno::EINTR), "waiter {i}");
        });
        // Its name is free again.
        let again = listener(&other, &name);
        other.close(again).expect("closed");
    });
}

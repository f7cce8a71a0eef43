//! What sockets and connections keep.

use abi::{Errno, Syscalls};
use inet::Inet;
use kern::LwpHandle;

use crate::common::*;
use crate::frames::*;
use crate::link::{Link, attacked};
use crate::memory_use::most_more;

#[test]
fn a_flood_of_syns_takes_bounded_memory_and_a_client_gets_in() {
    attacked(|link| {
        const LISTENERS: u16 = 4;
        for port in 0..LISTENERS {
            let (fd, _) = bound(&link.us, INET6, STREAM, &format!("[::]:{}", 80 + port));
            link.us.listen(fd, 128).expect("listens");
        }
        let most = most_more(|| {
            for turn in 0..100u32 {
                link.inject((0..100).map(|n| {
                    let n = turn * 100 + n;
                    let port = 80 + (n % 5) as u16;
                    match n % 2 {
                        0 => tcp4(from4(n), 1024 + (n / 7) as u16, port, SYN, n, 0, &[]),
                        _ => tcp6(from6(n), 1024 + (n / 7) as u16, port, SYN, n, 0, &[]),
                    }
                }));
            }
        });
        // Twice its backlog of handshakes for each listener, at half a kilobyte.
        assert!(most < usize::from(LISTENERS) * 256 * 512, "{most}");
        for to in ["10.0.0.1:80", "[fd00::1]:81"] {
            let family = if to.starts_with('[') { INET6 } else { INET };
            let client = socket(&link.them, family, STREAM, 0);
            connect(&link.them, client, to).expect("gets in");
        }
    });
}

#[test]
fn messages_that_nobody_reads_take_no_more_than_their_buffers() {
    attacked(|link| {
        for (family, to) in [(INET, "10.0.0.1:9"), (INET6, "[fd00::1]:9")] {
            bound(&link.us, family, DGRAM, to);
        }
        socket(&link.us, INET, RAW, 17);
        let buffers = 3 * 212_992;
        for len in [0, 1, 100, 1400] {
            let most = most_more(|| {
                for turn in 0..20 {
                    link.inject((0..100).map(|n| match (turn + n) % 2 {
                        0 => ip4(
                            from4(n),
                            ours4(),
                            17,
                            64,
                            &udp(7, 9, &vec![0; len], from4(n), ours4()),
                        ),
                        _ => ip6(
                            from6(n),
                            ours6(),
                            17,
                            64,
                            &udp(7, 9, &vec![0; len], from6(n), ours6()),
                        ),
                    }));
                }
            });
            assert!(most < buffers * 5 / 4, "{len}: {most}");
        }
    });
}

#[test]
fn a_full_accept_queue_takes_no_more_connections() {
    attacked(|link| {
        let (fd, _) = bound(&link.us, INET, STREAM, "10.0.0.1:80");
        link.us.listen(fd, 8).expect("listens");
        let mut clients = Vec::new();
        for _ in 0..100 {
            let client = socket(&link.them, INET, STREAM | NONBLOCK, 0);
            let _ = connect(&link.them, client, "10.0.0.1:80");
            clients.push(client);
        }
        link.wait(2);
        let connections = link.stack(|_, inet| inet.tcp_connections());
        assert!(connections <= 9, "{connections}");
        // Who was there first is let in when there is room, and so are others in their turn.
        for _ in 0..20 {
            link.us.accept4(fd, &mut [], &mut [], 0).expect("accepted");
        }
    });
}

/// So many connections from the other kernel to ours: descriptors there, and here.
fn connections(link: &Link, count: usize) -> Vec<(i32, i32)> {
    let (listener, to) = bound(&link.us, INET, STREAM, "10.0.0.1:80");
    link.us.listen(listener, count as i32).expect("listens");
    let connect_one = |_| {
        let client = socket(&link.them, INET, STREAM, 0);
        connect(&link.them, client, &to).expect("connected");
        let server = link
            .us
            .accept4(listener, &mut [], &mut [], NONBLOCK)
            .expect("accepted");
        (client, server as i32)
    };
    (0..count).map(connect_one).collect()
}

/// Sends as much as there is room for.
fn send_now(p: &LwpHandle, fd: i32, data: &[u8]) -> Result<i64, Errno> {
    p.sendto(fd, data, data.len(), 0x40, &[], 0)
}

#[test]
fn what_all_connections_keep_together_has_a_bound_and_everything_arrives() {
    attacked(|link| {
        const LIMIT: usize = 1 << 20;
        link.sysctl("net.inet.tcp.memory", LIMIT as i64);
        let pairs = connections(link, 40);
        let data = vec![7; 64 << 10];
        let mut sent = vec![0; pairs.len()];
        let fill = |sent: &mut [usize]| {
            for (n, (client, _)) in pairs.iter().enumerate() {
                while sent[n] < 200_000
                    && let Ok(more) = send_now(&link.them, *client, &data)
                {
                    sent[n] += more as usize;
                }
            }
            link.wait(1);
        };
        for _ in 0..10 {
            fill(&mut sent);
        }
        let waiting: usize = run(&link.kernel, |cx| {
            let sockets = Inet::of(cx).expect("a stack").sockets(cx);
            sockets.iter().map(|socket| socket.receive_queue).sum()
        });
        // What each may have whatever others have, and a segment that was let in last.
        assert!(
            waiting < LIMIT + pairs.len() * ((16 << 10) + 65_536),
            "{waiting}"
        );
        assert!(
            sent.iter().sum::<usize>() > 2 * LIMIT,
            "the senders had more"
        );
        let mut received = vec![0; pairs.len()];
        for _ in 0..400 {
            fill(&mut sent);
            for (n, (_, server)) in pairs.iter().enumerate() {
                while let Ok(data) = read(&link.us, *server, 65_536)
                    && !data.is_empty()
                {
                    received[n] += data.len();
                }
            }
            if received.iter().all(|n| *n >= 200_000) {
                return;
            }
        }
        panic!("{received:?} of {sent:?}");
    });
}

#[test]
fn connections_without_sockets_are_so_many_and_others_are_reset() {
    attacked(|link| {
        run(&link.friend, |cx| {
            cx.kernel()
                .sysctl()
                .write(cx, "net.ipv4.tcp_max_orphans", &5i64.to_le_bytes())
                .expect("set");
        });
        let pairs = connections(link, 30);
        for (client, _) in &pairs {
            // More than fits, so that the window is shut and the connection cannot end.
            while send_now(&link.them, *client, &[0; 16_384]).is_ok() {}
            link.wait(1);
            while send_now(&link.them, *client, &[0; 16_384]).is_ok() {}
        }
        for (client, _) in &pairs {
            link.them.close(*client).expect("closed");
        }
        link.wait(1);
        let left = run(&link.friend, |cx| {
            Inet::of(cx).expect("a stack").tcp_connections()
        });
        assert_eq!(left, 5);
    });
}

#[test]
fn a_process_has_so_many_sockets() {
    attacked(|link| {
        let most = most_more(|| {
            let mut count = 0;
            while link.us.socket(INET, STREAM, 0).is_ok() {
                count += 1;
                assert!(count <= 1024, "as many as RLIMIT_NOFILE says");
            }
            assert_eq!(link.us.socket(INET, DGRAM, 0), Err(Errno::EMFILE));
        });
        assert!(most < 1024 * 2048, "{most}");
    });
}

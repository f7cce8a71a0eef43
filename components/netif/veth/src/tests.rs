//! Pairs within a kernel and cables between two, on the real host and over many seeds on a simulated one.

use std::sync::Arc;

use abi::Errno;
use hypercall::sim::{SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use net::Packet;
use netif_testing::{BROADCAST, Station, ether};

use super::{Plug, VETH, cable, plug};

const ME: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn boot(host: Arc<dyn Host>) -> Station {
    Station::boot(host, &[&VETH])
}

fn numbered(n: u32) -> Packet {
    ether(BROADCAST, ME, 0x88b5, &n.to_be_bytes())
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().expect("four bytes"))
}

/// Runs on the real host, and for many seeds on a simulated one.
fn everywhere(check: fn(Arc<dyn Host>)) {
    check(PosixHost::new());
    for seed in 0..100 {
        let run = SimHost::run(SimConfig::new(seed), move |host| check(host.clone()));
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
        assert!(run.leftover.is_empty(), "seed {seed}: {:?}", run.leftover);
    }
}

#[test]
fn what_goes_out_by_one_end_comes_in_by_the_other_in_order() {
    everywhere(|host| {
        let station = boot(host);
        let a = station
            .create("veth0", "peer=wan,mac=02:00:00:00:00:09")
            .expect("made");
        let b = station.run(|cx| {
            let b = station
                .interfaces(cx)
                .by_name(cx.cpu(), "wan")
                .expect("the peer");
            assert_eq!(a.address(cx.cpu()), [2, 0, 0, 0, 0, 9]);
            b
        });
        assert_eq!(
            station.send(&a, numbered(0)),
            Err(Errno::ENOBUFS),
            "nobody is up there"
        );
        station.run(|cx| b.set_up(cx, true)).expect("up");
        for round in 0..5 {
            station.run(|cx| {
                for n in 0..100 {
                    a.output(cx.cpu(), numbered(round * 100 + n)).expect("sent");
                }
            });
            for n in 0..100 {
                let (name, packet) = station.next();
                assert_eq!(name, "wan");
                assert_eq!(number(&packet.to_vec()), round * 100 + n);
            }
        }
        station.send(&b, numbered(7)).expect("sent");
        assert_eq!(station.next().0, "veth0");
        station.end();
    });
}

#[test]
fn a_cable_joins_two_kernels() {
    everywhere(|host| {
        let (a, b) = (boot(host.clone()), boot(host));
        let (a_end, b_end) = cable();
        let at = |station: &Station, end| {
            station.run(|cx| {
                let with = Plug {
                    name: "veth%d".into(),
                    address: ME,
                    mtu: 1500,
                };
                let interface = plug(cx, end, with).expect("plugged");
                interface.set_up(cx, true).expect("up");
                interface
            })
        };
        let (a_if, b_if) = (at(&a, a_end), at(&b, b_end));
        for n in 0..50 {
            for m in 0..4 {
                a.send(&a_if, numbered(n * 4 + m)).expect("sent");
            }
            for m in 0..4 {
                assert_eq!(number(&b.next().1.to_vec()), n * 4 + m);
            }
            b.send(&b_if, numbered(n)).expect("sent");
            assert_eq!(number(&a.next().1.to_vec()), n);
        }
        b.run(|cx| b_if.set_up(cx, false)).expect("down");
        assert_eq!(a.send(&a_if, numbered(0)), Err(Errno::ENOBUFS));
        b.run(|cx| b_if.set_up(cx, true)).expect("up");
        a.send(&a_if, numbered(1)).expect("sent");
        assert_eq!(number(&b.next().1.to_vec()), 1);
        b.end();
        assert_eq!(a.send(&a_if, numbered(0)), Err(Errno::ENOBUFS));
        a.end();
    });
}

#[test]
fn a_queue_that_nobody_empties_is_bounded() {
    let station = boot(PosixHost::new());
    let (near, far) = cable();
    let interface = station.run(|cx| {
        let with = Plug {
            name: "v0".into(),
            address: ME,
            mtu: 1500,
        };
        let interface = plug(cx, near, with).expect("plugged");
        interface.set_up(cx, true).expect("up");
        interface
    });
    station.run(|cx| far.inbound.set_open(cx.cpu(), true));
    let big = ether(BROADCAST, ME, 0x88b5, &[0; 60_000]);
    let mut sent = 0;
    while station.send(&interface, big.clone()).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, (16 << 20) / 60_014);
    station.end();
}

#[test]
fn one_end_takes_the_other_along() {
    let station = boot(PosixHost::new());
    let a = station.create("veth", "peer=veth9").expect("made");
    assert!(
        station.create("veth1", "peer=veth9").is_err(),
        "the name is taken"
    );
    station.run(|cx| {
        let all = station.interfaces(cx);
        assert_eq!(all.list().len(), 2, "nothing is left of what failed");
        all.detach(cx, &a).expect("gone");
        assert!(all.list().is_empty());
    });
    station.end();
}

#[test]
fn a_kernel_without_threads_has_pairs_and_no_cables() {
    let station = boot(PosixHost::with_params([("RUMP_THREADS", "0")]));
    let a = station.create("veth0", "").expect("made");
    station.run(|cx| {
        let b = station
            .interfaces(cx)
            .by_name(cx.cpu(), "veth1")
            .expect("the peer");
        b.set_up(cx, true).expect("up");
        a.output(cx.cpu(), numbered(3)).expect("sent");
    });
    assert_eq!(number(&station.next().1.to_vec()), 3);
    station.run(|cx| {
        let with = Plug {
            name: "cable".into(),
            address: ME,
            mtu: 1500,
        };
        let cable = plug(cx, cable().0, with).expect("plugged");
        assert_eq!(cable.set_up(cx, true), Err(Errno::EOPNOTSUPP));
    });
    station.end();
}

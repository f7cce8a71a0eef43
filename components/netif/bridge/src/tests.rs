//! Frames through a bridge whose ports are pairs, looked at where they come out.

use std::sync::Arc;

use abi::Errno;
use hypercall::sim::{SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use net::{Ifnet, Packet};
use netif_testing::{BROADCAST, Station, ether};
use veth::VETH;

use super::BRIDGE;

/// A kernel with three pairs, one end of each a port of the bridge.
struct Lan {
    station: Station,
    /// The ends that are no ports: `h0`, `h1`, `h2`.
    ends: Vec<Arc<Ifnet>>,
    bridge: Arc<Ifnet>,
}

fn host(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

const BRIDGE_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

impl Lan {
    fn new(on: Arc<dyn Host>, more: &str) -> Lan {
        let station = Station::boot(on, &[&VETH, &BRIDGE]);
        let mut ends = Vec::new();
        for n in 0..3 {
            station
                .create(&format!("veth{n}"), &format!("peer=h{n}"))
                .expect("made");
            ends.push(station.run(|cx| {
                let end = station.interfaces(cx).by_name(cx.cpu(), &format!("h{n}"));
                let end = end.expect("the peer");
                end.set_up(cx, true).expect("up");
                end
            }));
        }
        let params = format!("ports=veth0+veth1+veth2,mac=02:00:00:00:00:bb{more}");
        let bridge = station.create("bridge0", &params).expect("made");
        Lan {
            station,
            ends,
            bridge,
        }
    }

    fn send(&self, end: usize, to: [u8; 6], from: [u8; 6]) {
        let packet = ether(to, from, 0x88b5, b"data");
        self.station.send(&self.ends[end], packet).expect("sent");
    }

    /// Where the frames came out, sorted. Everything has arrived: on one kernel packets go as far as they go when the virtual CPU is
    /// given up.
    fn came_out(&self) -> Vec<String> {
        let mut names: Vec<_> = self.station.pending().into_iter().map(|(n, _)| n).collect();
        names.sort();
        names
    }
}

fn everywhere(check: fn(Arc<dyn Host>)) {
    check(PosixHost::new());
    for seed in 0..50 {
        let run = SimHost::run(SimConfig::new(seed), move |host| check(host.clone()));
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
    }
}

#[test]
fn unknown_addresses_are_flooded_and_known_ones_go_where_they_are() {
    everywhere(|on| {
        let lan = Lan::new(on, "");
        lan.send(0, host(2), host(1));
        assert_eq!(lan.came_out(), ["h1", "h2"]);
        lan.send(1, host(1), host(2));
        assert_eq!(lan.came_out(), ["h0"]);
        lan.send(0, host(2), host(1));
        assert_eq!(lan.came_out(), ["h1"]);
        lan.send(0, host(1), host(9));
        assert!(lan.came_out().is_empty(), "it is where the frame came from");
        lan.send(2, BROADCAST, host(3));
        assert_eq!(lan.came_out(), ["bridge0", "h0", "h1"]);
        lan.send(2, [0x01, 0x80, 0xc2, 0, 0, 0], host(3));
        assert!(lan.came_out().is_empty(), "no bridge forwards these");
        lan.send(0, host(2), BROADCAST);
        assert!(lan.came_out().is_empty(), "nobody's address");
        lan.station.end();
    });
}

#[test]
fn the_kernel_takes_part_by_the_bridge_itself() {
    let lan = Lan::new(PosixHost::new(), "");
    lan.send(1, BRIDGE_ADDRESS, host(2));
    assert_eq!(lan.came_out(), ["bridge0"]);
    let reply = |to| {
        let packet = ether(to, BRIDGE_ADDRESS, 0x88b5, b"reply");
        lan.station.send(&lan.bridge, packet).expect("sent");
    };
    reply(host(2));
    assert_eq!(lan.came_out(), ["h1"]);
    reply(host(7));
    assert_eq!(lan.came_out(), ["h0", "h1", "h2"]);
    reply(BROADCAST);
    assert_eq!(lan.came_out(), ["h0", "h1", "h2"]);
    lan.station.end();
}

#[test]
fn a_bridge_that_is_down_or_gone_forwards_nothing() {
    let lan = Lan::new(PosixHost::new(), "");
    lan.station
        .run(|cx| lan.bridge.set_up(cx, false))
        .expect("down");
    lan.send(0, BROADCAST, host(1));
    assert!(lan.came_out().is_empty());
    lan.station.run(|cx| {
        let all = lan.station.interfaces(cx);
        all.detach(cx, &lan.bridge).expect("gone");
        let port = all.by_name(cx.cpu(), "veth1").expect("a port");
        assert_eq!(port.master(), 0);
    });
    lan.send(0, BROADCAST, host(1));
    assert_eq!(
        lan.came_out(),
        ["veth0"],
        "the port is an ordinary interface again"
    );
    lan.station.end();
}

#[test]
fn ports_come_and_go() {
    let lan = Lan::new(PosixHost::new(), ",age=10,max=8");
    lan.send(0, BROADCAST, host(1));
    lan.came_out();
    lan.station.run(|cx| {
        let all = lan.station.interfaces(cx);
        let port = all.by_name(cx.cpu(), "veth0").expect("a port");
        let driver = lan.bridge.driver();
        assert_eq!(driver.add_port(cx, &port), Err(Errno::EBUSY));
        assert_eq!(driver.add_port(cx, &lan.bridge), Err(Errno::ELOOP));
        driver.remove_port(cx, &port).expect("removed");
        assert_eq!(driver.remove_port(cx, &port), Err(Errno::EINVAL));
        let port = all.by_name(cx.cpu(), "veth1").expect("a port");
        all.detach(cx, &port).expect("gone");
    });
    lan.send(2, host(1), host(3));
    assert!(
        lan.came_out().is_empty(),
        "the address went with its port, and no port is left"
    );
    lan.station.end();
    let station = Station::boot(PosixHost::new(), &[&BRIDGE]);
    let error = station
        .create("bridge", "ports=nothere")
        .err()
        .expect("an error");
    assert!(error.text.contains("nothere"), "{error}");
    assert!(station.run(|cx| station.interfaces(cx).list().is_empty()));
    station.end();
}

#[test]
fn frames_that_are_cut_short_or_too_long_are_dropped() {
    let lan = Lan::new(PosixHost::new(), "");
    let end = &lan.ends[0];
    for bytes in [&[][..], &[0xff; 13]] {
        let packet = Packet::new(bytes.to_vec().into());
        lan.station.send(end, packet).expect("sent");
    }
    lan.station
        .send(end, ether(BROADCAST, host(1), 0x88b5, &[0; 1600]))
        .expect("sent");
    // The kernel itself is no wire, and takes what is too long for the other ports.
    assert_eq!(lan.came_out(), ["bridge0"]);
    lan.station.end();
}

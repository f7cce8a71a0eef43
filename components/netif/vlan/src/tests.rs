//! VLANs on both ends of a pair.

use std::sync::Arc;

use abi::Errno;
use hypercall::sim::{SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use net::{Checksum, Packet};
use netif_testing::{BROADCAST, Station, ether};
use veth::VETH;

use super::VLAN;

const ME: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn boot(host: Arc<dyn Host>) -> Station {
    let station = Station::boot(host, &[&VETH, &VLAN]);
    station.create("veth0", "peer=veth1").expect("made");
    station.run(|cx| {
        let all = station.interfaces(cx);
        let other = all.by_name(cx.cpu(), "veth1").expect("the peer");
        other.set_up(cx, true).expect("up");
    });
    station
}

fn tagged(tci: u16, payload: &[u8]) -> Packet {
    let rest = [&tci.to_be_bytes()[..], &[0x88, 0xb5], payload].concat();
    ether(BROADCAST, ME, 0x8100, &rest)
}

#[test]
fn frames_get_a_tag_and_lose_it_at_the_other_end() {
    let check = |host: Arc<dyn Host>| {
        let station = boot(host);
        let five = station.create("vlan0", "parent=veth0,id=5").expect("made");
        station.create("vlan1", "parent=veth1,id=5").expect("made");
        station
            .create("vlan2", "parent=veth1,id=4094")
            .expect("made");
        let plain = ether(BROADCAST, ME, 0x88b5, b"data");
        let mut sent = plain.clone();
        sent.checksum = Checksum::Partial {
            start: 14,
            offset: 2,
        };
        station.send(&five, sent.clone()).expect("sent");
        let (name, got) = station.next();
        assert_eq!((name.as_str(), got.to_vec()), ("vlan1", plain.to_vec()));
        assert_eq!(got.checksum, sent.checksum);
        station.end();
    };
    check(PosixHost::new());
    for seed in 0..20 {
        let run = SimHost::run(SimConfig::new(seed), move |host| check(host.clone()));
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
    }
}

#[test]
fn tags_of_no_vlan_stay_and_those_of_vlan_0_go() {
    let station = boot(PosixHost::new());
    let raw = station
        .run(|cx| station.interfaces(cx).by_name(cx.cpu(), "veth0"))
        .expect("there");
    station.create("vlan0", "parent=veth1,id=5").expect("made");
    for (tci, name, len) in [
        (5, "vlan0", 18),
        (0xe005, "vlan0", 18),
        (6, "veth1", 22),
        (0xe000, "veth1", 18),
    ] {
        station.send(&raw, tagged(tci, b"data")).expect("sent");
        let (at, got) = station.next();
        assert_eq!((at.as_str(), got.len()), (name, len), "{tci:#x}");
    }
    let cut_short = Packet::new(tagged(5, b"").to_vec()[..15].to_vec().into());
    station.send(&raw, cut_short).expect("sent");
    station.send(&raw, tagged(5, b"next")).expect("sent");
    assert_eq!(station.next().1.len(), 18, "the short one is dropped");
    station.end();
}

#[test]
fn vlans_come_and_go_one_of_a_number() {
    let station = boot(PosixHost::new());
    let vlan = station.create("vlan", "parent=veth0,id=5").expect("made");
    let error = station
        .create("vlan", "parent=veth0,id=5")
        .err()
        .expect("an error");
    assert_eq!(error.errno, Errno::EEXIST);
    for bad in [
        "parent=veth0",
        "id=5",
        "parent=veth0,id=0",
        "parent=veth0,id=4095",
        "parent=nothere,id=5",
    ] {
        assert!(station.create("vlan", bad).is_err(), "{bad}");
    }
    station.run(|cx| {
        let all = station.interfaces(cx);
        assert_eq!(all.list().len(), 3);
        assert_eq!(vlan.set_mtu(cx, 1501), Err(Errno::EINVAL));
        all.detach(cx, &vlan).expect("gone");
    });
    station
        .create("vlan", "parent=veth0,id=5")
        .expect("made again");
    station.end();
}

#[test]
fn a_vlan_may_stand_on_a_vlan() {
    let station = boot(PosixHost::new());
    for (vlan, params) in [
        ("vlan0", "parent=veth0,id=1"),
        ("vlan1", "parent=veth1,id=1"),
        ("vlan2", "parent=vlan1,id=2"),
    ] {
        station.create(vlan, params).expect("made");
    }
    let inner = station.create("vlan3", "parent=vlan0,id=2").expect("made");
    station
        .send(&inner, ether(BROADCAST, ME, 0x88b5, b"data"))
        .expect("sent");
    let (name, got) = station.next();
    assert_eq!((name.as_str(), got.len()), ("vlan2", 18));
    station.end();
}

#[test]
fn only_so_many_stand_on_one_another() {
    let station = boot(PosixHost::new());
    let mut parent = "veth0".to_owned();
    for n in 0..net::HEIGHT_MAX {
        let name = format!("vlan{n}");
        station
            .create(&name, &format!("parent={parent},id=7"))
            .expect("made");
        parent = name;
    }
    let error = station.create("vlan99", &format!("parent={parent},id=7"));
    assert_eq!(error.err().map(|e| e.errno), Some(Errno::ELOOP));
    station.end();
}

#[test]
fn a_bridge_takes_no_port_that_stands_on_it() {
    let station = Station::boot(PosixHost::new(), &[&VETH, &VLAN, &bridge::BRIDGE]);
    station.create("veth0", "peer=veth1").expect("made");
    let first = station.create("bridge0", "ports=veth0").expect("made");
    let above = station
        .create("vlan0", "parent=bridge0,id=2")
        .expect("made");
    let second = station.create("bridge1", "ports=vlan0").expect("made");
    let other = station
        .create("vlan1", "parent=bridge1,id=3")
        .expect("made");
    station.run(|cx| {
        let add = |port| first.driver().add_port(cx, port);
        assert_eq!(add(&other), Err(Errno::ELOOP), "by way of another bridge");
        second.driver().remove_port(cx, &above).expect("removed");
        assert_eq!(add(&above), Err(Errno::ELOOP));
        assert_eq!(add(&other), Ok(()));
    });
    station.end();
}

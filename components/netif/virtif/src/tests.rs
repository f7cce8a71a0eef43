//! Frames through wires: between kernels on a simulated host, and on unix sockets of a real one.

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypercall::PosixHost;
use hypercall::sim::{LinkConfig, SimConfig, SimHost};
use net::consts::IFF_RUNNING;
use net::{Checksum, Cut, Gso, IfError, InternetSum, Packet};
use netif_testing::{BROADCAST, Station, ether};

use super::VIRTIF;

const ME: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn boot(host: Arc<dyn hypercall::Host>) -> Station {
    Station::boot(host, &[&VIRTIF])
}

#[test]
fn kernels_on_a_simulated_host_exchange_frames_over_its_links() {
    for seed in 0..50 {
        let run = SimHost::run(SimConfig::new(seed), |host| {
            let (a_end, b_end) = host.link(LinkConfig::default());
            host.put_wire("a", Arc::new(a_end));
            host.put_wire("b", Arc::new(b_end));
            let (a, b) = (boot(host.clone()), boot(host.clone()));
            let a_if = a.create("virt0", "wire=a").expect("made");
            let b_if = b.create("virt0", "wire=b").expect("made");
            for i in 0..20u8 {
                a.send(&a_if, ether(BROADCAST, ME, 0x88b5, &[i; 100]))
                    .expect("sent");
                let got = b.next_that(|_| true);
                assert_eq!(got[14..], [i; 100]);
                b.send(&b_if, ether(ME, BROADCAST, 0x88b5, &[i]))
                    .expect("sent");
                assert_eq!(a.next_that(|_| true).len(), 15);
            }
            a.end();
            b.end();
        });
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
        assert!(run.leftover.is_empty(), "seed {seed}: {:?}", run.leftover);
    }
}

#[test]
fn an_interface_goes_down_and_up_again_and_again() {
    for seed in 0..50 {
        let run = SimHost::run(SimConfig::new(seed), |host| {
            let (a_end, b_end) = host.link(LinkConfig::default());
            host.put_wire("a", Arc::new(a_end));
            let a = boot(host.clone());
            let eth = a.create("virt", "wire=a").expect("made");
            for round in 0..5 {
                b_end.send(&[round; 60]);
                assert_eq!(a.next().1.to_vec(), [round; 60]);
                a.run(|cx| {
                    eth.set_up(cx, false).expect("down");
                    eth.set_up(cx, true).expect("up");
                });
            }
            a.run(|cx| a.interfaces(cx).detach(cx, &eth)).expect("gone");
            a.end();
        });
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
    }
}

#[test]
fn a_stream_peer_that_goes_takes_the_link_and_coming_up_again_brings_it_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("passt");
    let listener = UnixListener::bind(&path).expect("binds");
    let station = boot(PosixHost::new());
    let eth = station
        .create("virt0", &format!("unix={}", path.display()))
        .expect("made");
    let (changed, changes) = std::sync::mpsc::channel();
    let tell = Box::new(move |_: &sync::Cpu<'_>, _: &net::LinkEvent| {
        let _ = changed.send(());
    });
    station.run(|cx| station.interfaces(cx).listen(tell));
    for _ in 0..3 {
        let (mut peer, _) = listener.accept().expect("a peer");
        let hello = ether(BROADCAST, ME, 0x88b5, b"hello");
        station.send(&eth, hello).expect("sent");
        let mut got = [0; 23];
        peer.read_exact(&mut got).expect("a frame");
        assert_eq!(got[..4], [0, 0, 0, 19]);
        peer.write_all(&got).expect("writes");
        assert_eq!(station.next_that(|_| true)[14..], *b"hello");
        drop(peer);
        while eth.flags() & IFF_RUNNING != 0 {
            changes.recv().expect("a change");
        }
        station.run(|cx| {
            eth.set_up(cx, false).expect("down");
            eth.set_up(cx, true).expect("up");
        });
    }
    station.end();
}

/// A datagram of UDP over IPv4 that is to be cut, with a partial checksum.
fn train(data: &[u8], size: u16) -> Packet {
    let len = 8 + data.len() as u16;
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(len + 20).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = InternetSum::default().with(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let pseudo = InternetSum::pseudo(&ip[12..20], 17, u32::from(len)).folded();
    let mut udp = [0, 7, 0, 8, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
    let mut packet = ether(BROADCAST, ME, 0x0800, &[&ip[..], &udp, data].concat());
    packet.checksum = Checksum::Partial {
        start: 34,
        offset: 6,
    };
    packet.gso = Some(Gso {
        size,
        cut: Cut::Udp,
    });
    packet
}

#[test]
fn what_the_host_does_not_cut_goes_to_it_in_parts_and_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, peers) = (dir.path().join("ours"), dir.path().join("peers"));
    let peer = UnixDatagram::bind(&peers).expect("binds");
    let station = boot(PosixHost::new());
    let params = format!("dgram={},peer={}", ours.display(), peers.display());
    let eth = station.create("virt0", &params).expect("made");
    let data: Vec<u8> = (0..12_000u32).map(|i| (i / 7) as u8).collect();
    station.send(&eth, train(&data, 1400)).expect("sent");
    let mut got = Vec::new();
    let mut buf = [0; 2000];
    while got.len() < data.len() {
        let len = peer.recv(&mut buf).expect("a frame");
        let mut frame = Packet::new(buf[..len].to_vec().into());
        assert!(net::checksum_holds(net::LinkType::Ethernet, &mut frame));
        got.extend_from_slice(&buf[42..len]);
    }
    assert!(got == data);
    let sent = eth.stats.tx_packets.load(Ordering::Relaxed);
    assert_eq!(sent, 12_000u64.div_ceil(1400));
    let bytes = eth.stats.tx_bytes.load(Ordering::Relaxed);
    assert_eq!(bytes, 12_000 + 42 * sent);
    // What finds nobody is lost, and counted.
    drop(peer);
    assert!(station.send(&eth, train(&data, 1400)).is_err());
    assert_eq!(eth.stats.tx_dropped.load(Ordering::Relaxed), sent);
    station.end();
}

#[test]
fn what_is_missing_is_named_with_the_way_out() {
    let station = boot(PosixHost::new());
    let error =
        |params: &str| -> IfError { station.create("virt0", params).err().expect("an error") };
    let text = error("unix=/no/such/socket").text;
    assert!(
        text.contains("/no/such/socket") && text.contains("passt --socket"),
        "{text}"
    );
    let text = error("tap=a-name-that-is-much-too-long").text;
    assert!(text.contains("a-name-that"), "{text}");
    let text = error("packet=nothere0").text;
    assert!(text.contains("nothere0"), "{text}");
    assert!(error("mtu=1500").text.contains("say one of tap=NAME"));
    assert!(error("tap=a,unix=b").text.contains("say one of"));
    assert!(error("tap=a,color=red").text.contains("no parameter color"));
    assert!(error("wire=x").text.contains("no wire of this name"));
    station.end();
}

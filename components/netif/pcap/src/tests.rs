//! Captures of pairs, read back here and by tshark where it is installed.

use std::process::Command;
use std::sync::Arc;

use abi::Errno;
use hypercall::sim::{Faults, SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use net::{Checksum, Ifnet, InternetSum, Packet};
use netif_testing::{BROADCAST, Station, ether};
use veth::VETH;

use super::{Capture, SNAPLEN};

const ME: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A kernel with a pair that is up.
fn boot(host: Arc<dyn Host>) -> (Station, Arc<Ifnet>) {
    let station = Station::boot(host, &[&VETH]);
    let near = station.create("veth0", "").expect("made");
    station.run(|cx| {
        let far = station.interfaces(cx).by_name(cx.cpu(), "veth1");
        far.expect("the peer").set_up(cx, true).expect("up");
    });
    (station, near)
}

fn capture(station: &Station, path: &str, snaplen: u32) -> Arc<Capture> {
    station.run(|cx| {
        let capture = Capture::start(cx, path, snaplen).expect("starts");
        capture.add_all(cx.cpu(), &station.interfaces(cx));
        capture
    })
}

/// A UDP datagram over IPv4 whose checksum is left to the wire.
fn datagram(len: usize) -> Packet {
    let total = (28 + len) as u16;
    let mut ip = vec![
        0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = InternetSum::default().with(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp_len = total - 20;
    let pseudo = InternetSum::pseudo(&ip[12..20], 17, udp_len.into()).folded();
    for field in [40_000, 40_001, udp_len, pseudo] {
        ip.extend(field.to_be_bytes());
    }
    ip.extend((0..len).map(|i| i as u8));
    let mut packet = ether(BROADCAST, ME, 0x0800, &ip);
    packet.checksum = Checksum::Partial {
        start: 34,
        offset: 6,
    };
    packet
}

/// The types of the blocks of a file, which must be whole.
fn blocks(file: &[u8]) -> Vec<u32> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("a word"));
    let (mut at, mut kinds) = (0, Vec::new());
    while at < file.len() {
        let len = word(at + 4) as usize;
        assert_eq!(word(at + len - 4), len as u32);
        kinds.push(word(at));
        at += len;
    }
    kinds
}

#[test]
fn a_capture_has_every_packet_of_every_interface() {
    for seed in 0..20 {
        let run = SimHost::run(SimConfig::new(seed), |host| {
            let (station, near) = boot(host.clone());
            let capture = capture(&station, "/capture", SNAPLEN);
            for n in 0..30 {
                station.send(&near, datagram(n)).expect("sent");
                station.next();
            }
            station.create("veth", "").expect("one that comes later");
            let summary = station.run(|cx| capture.stop(cx));
            assert_eq!((summary.packets, summary.dropped), (60, 0));
            station
                .send(&near, datagram(1))
                .expect("sent, and not seen");
            station.end();
            let file = host.file(b"/capture").expect("a file").content();
            assert_eq!(file.len() as u64, summary.bytes);
            let kinds = blocks(&file);
            let count = |kind| kinds.iter().filter(|k| **k == kind).count();
            assert_eq!((count(1), count(6), count(5)), (4, 60, 4));
        });
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
        assert!(run.leftover.is_empty(), "seed {seed}: {:?}", run.leftover);
    }
}

#[test]
fn the_end_of_the_kernel_is_the_end_of_the_capture() {
    let run = SimHost::run(SimConfig::new(1), |host| {
        let (station, near) = boot(host.clone());
        let _capture = capture(&station, "/capture", 60);
        for _ in 0..10 {
            station.send(&near, datagram(1000)).expect("sent");
        }
        station.end();
        let file = host.file(b"/capture").expect("a file").content();
        let packets = blocks(&file).iter().filter(|k| **k == 6).count();
        assert_eq!(packets, 20);
        assert!(file.len() < 20 * 150, "60 bytes of each");
    });
    assert!(run.result.is_ok(), "{:?}", run.result);
    assert!(run.leftover.is_empty(), "{:?}", run.leftover);
}

#[test]
fn a_file_that_is_full_ends_the_writing_and_nothing_else() {
    let run = SimHost::run(SimConfig::new(1), |host| {
        let (station, near) = boot(host.clone());
        let file = host.new_file(Vec::new());
        file.set_faults(Faults {
            full_at: Some(5000),
            ..Faults::default()
        });
        host.put_file(b"/capture", file.clone());
        let capture = capture(&station, "/capture", SNAPLEN);
        for _ in 0..20 {
            station.send(&near, datagram(1000)).expect("sent");
            station.next();
        }
        let summary = station.run(|cx| capture.stop(cx));
        assert_eq!(summary.error, Some(Errno::ENOSPC));
        assert!(file.content().len() <= 5000);
        station.end();
    });
    assert!(run.result.is_ok(), "{:?}", run.result);
}

#[test]
fn a_file_that_cannot_be_is_named() {
    let station = Station::boot(PosixHost::new(), &[]);
    let error = station.run(|cx| Capture::start(cx, "/no/such/file", SNAPLEN).err());
    assert!(error.expect("an error").text.contains("/no/such/file"));
    station.end();
}

#[test]
fn tshark_reads_it_and_finds_nothing_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.pcapng");
    let (station, near) = boot(PosixHost::new());
    let capture = capture(&station, path.to_str().expect("a name"), SNAPLEN);
    for len in [0, 1, 1472, 60_000] {
        station.send(&near, datagram(len)).expect("sent");
        station.next();
    }
    let summary = station.run(|cx| capture.stop(cx));
    assert_eq!(summary.packets, 8);
    station.end();
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path).args([
        "-o",
        "udp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
        "-T",
        "fields",
        "-e",
        "frame.interface_name",
        "-e",
        "udp.length",
        "-e",
        "udp.checksum.status",
        "-e",
        "ip.checksum.status",
        "-e",
        "_ws.malformed",
    ]);
    let out = match tshark.output() {
        Ok(out) => out,
        Err(error) => {
            println!("tshark does not run ({error}): what it would say is not tested");
            return;
        }
    };
    let text = String::from_utf8_lossy(&out.stdout);
    let want: String = [8, 9, 1480, 60_008]
        .iter()
        .flat_map(|len| ["veth0", "veth1"].map(|name| format!("{name}\t{len}\t1\t1\t\n")))
        .collect();
    assert_eq!(text, want, "{}", String::from_utf8_lossy(&out.stderr));
}

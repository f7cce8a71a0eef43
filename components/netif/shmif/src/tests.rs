//! The ring against a model, ports whose owners die, and kernels on a bus, on the real host and on a simulated one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use hypercall::sim::{SimConfig, SimHost};
use hypercall::{Host, Offload, PosixHost, WireCut};
use netif_testing::{BROADCAST, Station, ether};
use proptest::prelude::*;

use super::SHMIF;
use super::bus::Bus;
use super::layout::{Filter, Geometry, RING_MIN, Record, space};
use super::reader::Reader;
use super::writer::Writer;

const SMALL: Geometry = Geometry {
    ports: 4,
    ring: RING_MIN,
};

fn address(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n]
}

fn path(dir: &tempfile::TempDir) -> String {
    dir.path().join("bus").to_str().expect("a name").to_owned()
}

/// A port without a kernel.
struct Node {
    bus: Bus,
    writer: Writer,
    reader: Reader,
    filter: Filter,
}

impl Node {
    fn new(path: &str, n: u8) -> Node {
        let bus = Bus::attach(&*PosixHost::new(), path, SMALL).expect("attached");
        let filter = Filter::new(address(n), false);
        bus.join(filter);
        Node {
            writer: Writer::new(&bus),
            reader: Reader::new(&bus),
            bus,
            filter,
        }
    }

    fn send(&mut self, to: [u8; 6], payload: &[u8]) -> Result<(), Errno> {
        let mut packet = ether(to, address(99), 0x88b5, payload);
        self.writer.put(&self.bus, &mut packet).map(drop)
    }

    /// The payloads of what has come.
    fn read(&mut self) -> Vec<Vec<u8>> {
        let mut batch = Vec::new();
        self.reader
            .read(&self.bus, self.filter, usize::MAX >> 1, &mut batch);
        batch.iter().map(|p| p.to_vec()[14..].to_vec()).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many bytes to the reader.
    Unicast(u16),
    /// To all, which waits for nobody.
    Broadcast(u16),
    /// To somebody else.
    Other(u16),
    Read,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => any::<u16>().prop_map(Op::Unicast),
        2 => (0u16..3000).prop_map(Op::Unicast),
        1 => any::<u16>().prop_map(Op::Broadcast),
        1 => any::<u16>().prop_map(Op::Other),
        1 => Just(Op::Read),
    ];
    proptest::collection::vec(op, 1..200)
}

/// What a payload says of itself is checked, so that none is seen in part.
fn payload(serial: u32, len: u16) -> Vec<u8> {
    let mut bytes = vec![serial as u8; usize::from(len).min(65_000) + 4];
    bytes[..4].copy_from_slice(&serial.to_be_bytes());
    bytes
}

proptest! {
    #[test]
    fn a_ring_is_a_queue_that_forgets_its_oldest(ops in ops()) {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut a, mut b) = (Node::new(&path(&dir), 1), Node::new(&path(&dir), 2));
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        let mut serial = 0;
        for op in ops {
            match op {
                Op::Unicast(len) => {
                    let payload = payload(serial, len);
                    match a.send(address(2), &payload) {
                        Ok(()) => model.push_back(payload),
                        Err(error) => {
                            prop_assert_eq!(error, Errno::ENOBUFS);
                            let waiting: usize = model.iter().map(|p| space(p.len() + 14)).sum();
                            prop_assert!(waiting > 0, "refused without reason");
                        }
                    }
                    serial += 1;
                }
                Op::Broadcast(len) => {
                    let payload = payload(serial, len);
                    prop_assert_eq!(a.send(BROADCAST, &payload), Ok(()));
                    model.push_back(payload);
                    serial += 1;
                }
                Op::Other(len) => {
                    prop_assert_eq!(a.send(address(3), &payload(serial, len)), Ok(()));
                    serial += 1;
                }
                Op::Read => {
                    let got = b.read();
                    // The oldest may have been overrun by broadcasts, but what is left is the newest, whole and in order.
                    let skip = model.len() - got.len().min(model.len());
                    prop_assert_eq!(&got, &model.iter().skip(skip).cloned().collect::<Vec<_>>());
                    let kept: usize = got.iter().map(|p| space(p.len() + 14)).sum();
                    let lost = model.iter().take(skip).next_back();
                    if let Some(lost) = lost {
                        let more = kept + space(lost.len() + 14);
                        prop_assert!(more + 2 * space(65_100) > RING_MIN as usize, "lost without reason");
                    }
                    model.clear();
                }
            }
        }
    }

    #[test]
    fn nothing_that_others_write_into_the_file_is_believed(
        words in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..60),
        small in proptest::collection::vec((0usize..4096 * 5 / 8, 0u64..1 << 20), 1..60),
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut a, mut b) = (Node::new(&path(&dir), 1), Node::new(&path(&dir), 2));
        for n in 0..20 {
            let _ = a.send(address(2), &payload(n, 5000));
        }
        let region = b.bus.map();
        let words = words.iter().map(|(at, value)| (at.index(region.region().len() / 8), *value));
        for (at, value) in words.chain(small) {
            if let Some(word) = region.region().word64(at * 8) {
                word.store(value, Ordering::Relaxed);
            }
        }
        for n in 0..20 {
            let _ = a.send(address(2), &payload(n, 5000));
            let _ = b.send(address(1), &payload(n, 5000));
            let mut batch = Vec::new();
            a.reader.read(&a.bus, a.filter, 64, &mut batch);
            b.reader.read(&b.bus, b.filter, 64, &mut batch);
        }
    }
}

#[test]
fn records_say_what_goes_with_a_frame() {
    let record = Record {
        len: 1000,
        at: 1 << 40,
        offload: Offload {
            partial: Some((34, 16)),
            valid: false,
            cut: Some((1448, WireCut::Tcp6)),
        },
    };
    assert_eq!(Record::decode(&record.encode()), record);
}

#[test]
fn a_reader_that_does_not_read_loses_what_is_for_it_and_stops_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut a = Node::new(&path(&dir), 1);
    let stuck = Node::new(&path(&dir), 2);
    let mut b = Node::new(&path(&dir), 3);
    let mut sent = 0;
    while a.send(address(2), &payload(sent, 60_000)).is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 4, "as many as go into the ring");
    for n in 0..100 {
        a.send(address(3), &payload(n, 60_000))
            .expect("room for who reads");
        assert_eq!(b.read(), [payload(n, 60_000)]);
    }
    drop(stuck);
}

#[test]
fn a_writer_who_says_there_is_more_than_there_is_is_not_read_round_and_round() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut reader = Node::new(&path(&dir), 1);
    let mut mad = Node::new(&path(&dir), 2);
    mad.send(address(1), b"once").expect("sent");
    mad.bus
        .head(mad.bus.port())
        .fetch_add(4096, Ordering::SeqCst);
    assert_eq!(reader.read(), [b"once"]);
    assert!(!reader.reader.has_news(&reader.bus));
}

#[test]
fn what_somebody_wrote_before_he_left_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut reader = Node::new(&path(&dir), 1);
    let mut leaves = Node::new(&path(&dir), 2);
    leaves.send(address(1), b"goodbye").expect("sent");
    drop(leaves);
    assert!(reader.reader.has_news(&reader.bus));
    assert_eq!(reader.read(), [b"goodbye"]);
}

#[test]
fn a_port_whose_owner_died_in_the_middle_of_writing_is_taken_by_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut reader = Node::new(&path(&dir), 1);
    let mut dies = Node::new(&path(&dir), 2);
    let port = dies.bus.port();
    dies.send(address(1), &payload(1, 100)).expect("sent");
    // As far as writing goes before a frame is there: the old ones given up, and half of it written.
    let ring = dies.bus.geometry().ring_at(port);
    let head = dies.bus.head(port).load(Ordering::SeqCst) as usize;
    let region = dies.bus.map().region();
    region.write(ring + head, &[0xee; 5000]).expect("within");
    // A process that is killed closes its files and does nothing else.
    dies.bus.die();
    let mut next = Node::new(&path(&dir), 3);
    assert_eq!(next.bus.port(), port, "the port is free again");
    next.send(address(1), &payload(2, 100)).expect("sent");
    assert_eq!(reader.read(), [payload(1, 100), payload(2, 100)]);
    reader
        .send(address(2), b"nobody")
        .expect("lost, as on a wire");
    reader.send(address(3), b"here").expect("sent");
    assert_eq!(next.read(), [b"here"]);
}

#[test]
fn a_full_bus_and_what_is_no_bus_are_named_with_the_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let attach = |path: &str| Bus::attach(&*PosixHost::new(), path, SMALL);
    let error = |path: &str| attach(path).err().expect("an error").text;
    let full = path(&dir);
    let nodes: Vec<_> = (0..4).map(|n| Node::new(&full, n)).collect();
    assert!(error(&full).contains("all 4 ports are taken"));
    drop(nodes);
    assert!(attach(&full).is_ok());
    let file = dir.path().join("other");
    std::fs::write(&file, vec![7; 10_000]).expect("written");
    let other = file.to_str().expect("a name");
    assert!(error(other).contains("no bus"), "{}", error(other));
    assert_eq!(std::fs::read(&file).expect("reads"), vec![7; 10_000]);
    std::fs::write(&file, b"short").expect("written");
    assert!(error(other).contains("too short"));
    let cut = std::fs::OpenOptions::new()
        .write(true)
        .open(&full)
        .expect("opens");
    cut.set_len(8192).expect("cut");
    assert!(error(&full).contains("cut off"));
    assert!(error("/no/such/directory/bus").contains("no such directory"));
    assert!(error(dir.path().to_str().expect("a name")).contains("a directory"));
}

/// Runs on the real host, and for many seeds on a simulated one.
fn everywhere(check: fn(Arc<dyn Host>, &str)) {
    let dir = tempfile::tempdir().expect("a directory");
    check(PosixHost::new(), &path(&dir));
    for seed in 0..20 {
        let run = SimHost::run(SimConfig::new(seed), move |host| {
            check(host.clone(), "/bus");
        });
        assert!(run.result.is_ok(), "seed {seed}: {:?}", run.result);
        assert!(run.leftover.is_empty(), "seed {seed}: {:?}", run.leftover);
    }
}

#[test]
fn kernels_on_a_bus_hear_what_is_for_them() {
    everywhere(|host, path| {
        let stations: Vec<Station> = (0..3)
            .map(|_| Station::boot(host.clone(), &[&SHMIF]))
            .collect();
        let interfaces: Vec<_> = stations
            .iter()
            .enumerate()
            .map(|(n, station)| {
                let params = format!("bus={path},mac=02:00:00:00:00:0{n},ports=4,ring=256");
                station.create("shmif0", &params).expect("made")
            })
            .collect();
        for round in 0..20u8 {
            let from = usize::from(round % 3);
            let to = (from + 1) % 3;
            let unicast = ether(
                address(to as u8),
                address(from as u8),
                0x88b5,
                &[round; 60_000],
            );
            stations[from]
                .send(&interfaces[from], unicast)
                .expect("sent");
            let all = ether(BROADCAST, address(from as u8), 0x88b5, &[round]);
            stations[from].send(&interfaces[from], all).expect("sent");
            assert_eq!(stations[to].next().1.to_vec()[14..], [round; 60_000]);
            for (n, station) in stations.iter().enumerate() {
                if n != from {
                    assert_eq!(station.next().1.to_vec()[14..], [round]);
                }
            }
        }
        stations[1].run(|cx| {
            interfaces[1].request(cx.cpu(), net::consts::IFF_PROMISC, true);
        });
        let other = ether(address(2), address(0), 0x88b5, b"overheard");
        stations[0].send(&interfaces[0], other).expect("sent");
        for station in &stations[1..] {
            assert_eq!(station.next().1.to_vec()[14..], *b"overheard");
        }
        stations[1]
            .run(|cx| interfaces[1].set_up(cx, false))
            .expect("down");
        let lost = ether(address(1), address(0), 0x88b5, b"lost");
        stations[0]
            .send(&interfaces[0], lost)
            .expect("as on a wire");
        stations[1]
            .run(|cx| interfaces[1].set_up(cx, true))
            .expect("up");
        let heard = ether(address(1), address(0), 0x88b5, b"heard");
        stations[0].send(&interfaces[0], heard).expect("sent");
        assert_eq!(stations[1].next().1.to_vec()[14..], *b"heard");
        stations.into_iter().for_each(Station::end);
    });
}

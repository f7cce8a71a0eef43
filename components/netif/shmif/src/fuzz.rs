//! A bus file that another process writes whatever it likes into: the body of the fuzz target `shmif_bus`.

use std::sync::atomic::Ordering;

use hypercall::{Host, PosixHost};
use net::Packet;

use crate::bus::Bus;
use crate::layout::{FRAME_MAX, Filter, Geometry, RING_MIN};
use crate::reader::Reader;
use crate::writer::Writer;

const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SMALL: Geometry = Geometry {
    ports: 4,
    ring: RING_MIN,
};

/// Attaches to a bus that begins with the input's first bytes, and goes on as the others say: overwrite some bytes, read, write. What
/// comes is at most so many frames of so many bytes as the rings have room for; nothing panics and nothing goes on for ever.
pub fn fuzz_bus(path: &str, mut input: &[u8]) {
    let host = PosixHost::new();
    let _ = std::fs::remove_file(path);
    if let Some(bus) = begin(&*host, path, &mut input) {
        run(bus, &host, path, input);
    }
    let _ = std::fs::remove_file(path);
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    piece
}

fn number(input: &mut &[u8]) -> usize {
    take(input, 3)
        .iter()
        .fold(0, |n, byte| n << 8 | usize::from(*byte))
}

/// A good bus, or one whose header was made by somebody else.
fn begin(host: &dyn Host, path: &str, input: &mut &[u8]) -> Option<Bus> {
    if take(input, 1) != [0] {
        let header = take(input, 16);
        std::fs::write(path, header).ok()?;
        let file = std::fs::OpenOptions::new().write(true).open(path).ok()?;
        file.set_len(number(input) as u64).ok()?;
    }
    Bus::attach(host, path, SMALL).ok()
}

fn run(bus: Bus, host: &PosixHost, path: &str, mut input: &[u8]) {
    let size = bus.geometry().size();
    let filter = Filter::new(US, false);
    bus.join(filter);
    let (mut reader, mut writer) = (Reader::new(&bus), Writer::new(&bus));
    while let [op] = take(&mut input, 1) {
        match op % 6 {
            // A word of a port's page, which positions are.
            0 => {
                let at = bus.geometry().port_at(u32::from(op >> 4) % 4) + number(&mut input) % 2048;
                let _ = bus.map().region().write(at & !7, take(&mut input, 8));
            }
            // Anything anywhere.
            1 => {
                let at = number(&mut input) % size;
                let len = usize::from(op >> 3);
                let _ = bus.map().region().write(at, take(&mut input, len));
            }
            // A record, and a head behind it.
            2 => {
                let port = 1 + u32::from(op >> 4) % (bus.geometry().ports - 1);
                let head = bus.head(port).load(Ordering::SeqCst);
                let at = head & u64::from(bus.geometry().ring - 1);
                let mut record = take(&mut input, 64).to_vec();
                if let Some(place) = record.get_mut(16..24) {
                    place.copy_from_slice(&head.to_ne_bytes());
                }
                let ring = bus.geometry().ring_at(port);
                let _ = bus.map().region().write(ring + at as usize, &record);
                let next = head.wrapping_add(number(&mut input) as u64 & !31);
                bus.head(port).store(next, Ordering::SeqCst);
            }
            3 => read(&bus, &mut reader, filter),
            4 => {
                let mut bytes = take(&mut input, usize::from(op >> 3)).to_vec();
                bytes.resize(bytes.len() + number(&mut input) % FRAME_MAX, 7);
                let mut packet = Packet::new(bytes.into());
                if let Ok(readers) = writer.put(&bus, &mut packet) {
                    bus.wake(readers);
                }
            }
            // Somebody comes, and finds what is there.
            _ => drop(Bus::attach(host, path, SMALL)),
        }
    }
    // Whatever was said, reading has an end: a ring of records of no bytes is read in 128 turns.
    let mut turns = 0;
    while reader.has_news(&bus) {
        read(&bus, &mut reader, filter);
        turns += 1;
        assert!(turns < 1000);
    }
}

fn read(bus: &Bus, reader: &mut Reader, filter: Filter) {
    let mut batch = Vec::new();
    reader.read(bus, filter, 64, &mut batch);
    assert!(batch.len() <= 64 * bus.geometry().ports as usize);
    assert!(batch.iter().all(|packet| packet.len() <= FRAME_MAX));
}

//! Reading everybody else's rings.

use std::sync::atomic::{Ordering, fence};

use net::Packet;

use crate::bus::Bus;
use crate::layout::{ALIGN, FRAME_MAX, Filter, HEADER, PORTS_MAX, Record, space};

/// Records of a ring that are looked at before others have their turn, for us or not.
const LOOKS: usize = 65_536;

/// How far we have read. What is in the file is a copy for the writers.
pub(crate) struct Reader {
    cursors: [u64; PORTS_MAX as usize],
}

/// What is found at a position of a ring.
enum Found {
    Frame(Record),
    /// The rest of the ring is empty.
    Pad,
    /// It was written over while we looked, or the writer is mad.
    Nothing,
}

impl Reader {
    /// Begins with what comes next in every ring.
    pub(crate) fn new(bus: &Bus) -> Reader {
        let mut reader = Reader {
            cursors: [0; PORTS_MAX as usize],
        };
        for writer in 0..bus.geometry().ports {
            let head = bus.head(writer).load(Ordering::Acquire);
            reader.go_to(bus, writer, head);
        }
        reader
    }

    /// Whether anybody has written something.
    pub(crate) fn has_news(&self, bus: &Bus) -> bool {
        bus.rings()
            .any(|writer| bus.head(writer).load(Ordering::Acquire) != self.cursors[writer as usize])
    }

    /// Appends frames from every ring that the filter takes, at most `max` of each.
    pub(crate) fn read(&mut self, bus: &Bus, filter: Filter, max: usize, batch: &mut Vec<Packet>) {
        for writer in bus.rings() {
            let full = batch.len() + max;
            for _ in 0..LOOKS {
                if batch.len() >= full || !self.read_one(bus, writer, filter, batch) {
                    break;
                }
            }
        }
    }

    fn go_to(&mut self, bus: &Bus, writer: u32, at: u64) {
        self.cursors[writer as usize] = at;
        bus.cursor(bus.port(), writer).store(at, Ordering::Release);
    }

    /// Goes one record on; false at the ring's end.
    fn read_one(
        &mut self,
        bus: &Bus,
        writer: u32,
        filter: Filter,
        batch: &mut Vec<Packet>,
    ) -> bool {
        let head = bus.head(writer).load(Ordering::Acquire);
        let at = self.cursors[writer as usize];
        let unread = head.wrapping_sub(at);
        let ring = u64::from(bus.geometry().ring);
        if unread == 0 {
            return false;
        }
        let found = match unread <= ring && at.is_multiple_of(ALIGN as u64) {
            true => look(bus, writer, at, unread),
            false => Found::Nothing,
        };
        match found {
            Found::Pad => self.go_to(bus, writer, (at | (ring - 1)).wrapping_add(1)),
            Found::Frame(record) => {
                if let Some(bytes) = take(bus, writer, &record, filter) {
                    // It may have been written over while we copied it.
                    if !is_whole(bus, writer, at) {
                        self.recover(bus, writer, head);
                        return true;
                    }
                    batch.extend(Packet::from_wire(bytes.into(), &record.offload));
                }
                let next = at.wrapping_add(space(record.len as usize) as u64);
                self.go_to(bus, writer, next);
            }
            Found::Nothing => self.recover(bus, writer, head),
        }
        true
    }

    /// Goes on with the oldest record that is whole, or else, when the writer is mad, with what comes next.
    fn recover(&mut self, bus: &Bus, writer: u32, head: u64) {
        let at = self.cursors[writer as usize];
        let tail = bus.tail(writer).load(Ordering::SeqCst);
        let ahead = tail.wrapping_sub(at);
        // Never back, or a mad writer would have us go round for ever.
        let forward = ahead != 0 && ahead < 1 << 63;
        let good = forward && head.wrapping_sub(tail) <= bus.geometry().ring.into();
        self.go_to(bus, writer, if good { tail } else { head });
    }
}

/// Whether the record at a position has not been given up, and so what was read of it before is true.
fn is_whole(bus: &Bus, writer: u32, at: u64) -> bool {
    fence(Ordering::SeqCst);
    let tail = bus.tail(writer).load(Ordering::SeqCst);
    // Positions do not go back; half of all of them count as behind.
    at.wrapping_sub(tail) < 1 << 63
}

fn offset(bus: &Bus, writer: u32, at: u64) -> usize {
    let geometry = bus.geometry();
    geometry.ring_at(writer) + (at & u64::from(geometry.ring - 1)) as usize
}

fn look(bus: &Bus, writer: u32, at: u64, unread: u64) -> Found {
    let mut header = [0; HEADER];
    let read = bus
        .map()
        .region()
        .read(offset(bus, writer, at), &mut header);
    let record = Record::decode(&header);
    let ring = u64::from(bus.geometry().ring);
    let to_end = ring - (at & (ring - 1));
    if read.is_none() || record.at != at {
        return Found::Nothing;
    }
    if record.len == Record::PAD {
        return if to_end < unread {
            Found::Pad
        } else {
            Found::Nothing
        };
    }
    let len = record.len as usize;
    let fits = len <= FRAME_MAX && space(len) as u64 <= unread.min(to_end);
    if fits {
        Found::Frame(record)
    } else {
        Found::Nothing
    }
}

/// The bytes of a frame, if the filter takes it.
fn take(bus: &Bus, writer: u32, record: &Record, filter: Filter) -> Option<Vec<u8>> {
    let region = bus.map().region();
    let at = offset(bus, writer, record.at) + HEADER;
    let mut to = [0; 6];
    region.read(at, &mut to)?;
    if !filter.takes(&to) {
        return None;
    }
    let mut bytes = Vec::new();
    region.append_to(&mut bytes, at, record.len as usize)?;
    Some(bytes)
}

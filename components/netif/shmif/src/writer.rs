//! Writing into our ring.

use std::collections::VecDeque;
use std::sync::atomic::{Ordering, fence};

use abi::Errno;
use net::Packet;

use crate::bus::Bus;
use crate::layout::{ALIGN, FRAME_MAX, HEADER, PORTS_MAX, Record, space};

/// Where our ring stands. What is in the file is a copy for others: nobody can confuse us by changing it.
pub(crate) struct Writer {
    head: u64,
    tail: u64,
    /// Bytes of each record from the tail on.
    records: VecDeque<u32>,
    meant: [Meant; PORTS_MAX as usize],
}

/// What a port may still have to read: between where the first frame for it begins that was written when it had read all before, and where the
/// last one ends. What is for others it may miss.
#[derive(Clone, Copy)]
struct Meant {
    first: u64,
    last: u64,
}

/// For whom a frame is: a bit for each port.
struct Readers {
    /// To be woken.
    all: u64,
    /// Of these one at least must have room for it.
    needed: u64,
}

impl Writer {
    /// Goes on where the port's last owner ended.
    pub(crate) fn new(bus: &Bus) -> Writer {
        let head = bus.head(bus.port()).load(Ordering::SeqCst);
        let head = head.wrapping_add(head.wrapping_neg() % ALIGN as u64);
        let left = head.wrapping_sub(bus.tail(bus.port()).load(Ordering::SeqCst));
        let left = if left <= bus.geometry().ring.into() {
            left
        } else {
            0
        };
        let mut writer = Writer {
            head,
            tail: head.wrapping_sub(left),
            // Where its records begin is not known: it goes as one.
            records: VecDeque::from([left as u32]),
            meant: [Meant {
                first: head,
                last: head,
            }; PORTS_MAX as usize],
        };
        writer.publish_tail(bus);
        writer.publish(bus);
        writer
    }

    /// Writes a frame for who is to have it; which ports are to be woken. `ENOBUFS` when who it is for has not read enough yet. Others who
    /// have not lose what they have not read.
    pub(crate) fn put(&mut self, bus: &Bus, packet: &mut Packet) -> Result<u64, Errno> {
        let len = packet.len();
        if len > FRAME_MAX {
            return Err(Errno::EMSGSIZE);
        }
        let to: [u8; 6] = packet
            .front(6)
            .and_then(|to| to.try_into().ok())
            .ok_or(Errno::EINVAL)?;
        let readers = readers(bus, &to);
        if readers.all == 0 {
            return Ok(0);
        }
        let ring = u64::from(bus.geometry().ring);
        let to_end = ring - (self.head & (ring - 1));
        let need = space(len) as u64;
        let pad = if need > to_end { to_end } else { 0 };
        if !self.has_room(bus, readers.needed, pad + need) {
            return Err(Errno::ENOBUFS);
        }
        self.make_room(bus, pad + need);
        if pad > 0 {
            let skip = Record {
                len: Record::PAD,
                at: self.head,
                ..Record::default()
            };
            self.write(bus, self.head, &skip.encode());
        }
        let at = self.head.wrapping_add(pad);
        let record = Record {
            len: len as u32,
            at,
            offload: packet.offload(),
        };
        self.write(bus, at, &record.encode());
        let mut offset = HEADER as u64;
        for piece in packet.pieces() {
            self.write(bus, at.wrapping_add(offset), piece);
            offset += piece.len() as u64;
        }
        self.mean(bus, readers.all, at, at.wrapping_add(need));
        self.head = at.wrapping_add(need);
        self.records.push_back((pad + need) as u32);
        self.publish(bus);
        Ok(readers.all)
    }

    /// Whether so much more overruns nothing that one of the ports has still to read.
    fn has_room(&self, bus: &Bus, ports: u64, need: u64) -> bool {
        let ring = u64::from(bus.geometry().ring);
        ports == 0 || each(ports).any(|port| self.unread(bus, port) + need <= ring)
    }

    /// Bytes from the first frame on that a port has still to read; 0 when there is none.
    fn unread(&self, bus: &Bus, port: u32) -> u64 {
        let Meant { first, last } = self.meant[port as usize];
        let cursor = bus.cursor(port, bus.port()).load(Ordering::Acquire);
        let behind = self.head.wrapping_sub(cursor);
        if behind <= self.head.wrapping_sub(last) {
            return 0;
        }
        // More than there is to be read is nonsense of somebody else's.
        let all = self.head.wrapping_sub(self.tail);
        behind.min(self.head.wrapping_sub(first)).min(all)
    }

    /// Notes for whom the record is that is about to be published.
    fn mean(&mut self, bus: &Bus, ports: u64, begin: u64, end: u64) {
        for port in each(ports) {
            if self.unread(bus, port) == 0 {
                self.meant[port as usize].first = begin;
            }
            self.meant[port as usize].last = end;
        }
    }

    /// Gives up the oldest records, before anything is written over them.
    fn make_room(&mut self, bus: &Bus, need: u64) {
        let ring = u64::from(bus.geometry().ring);
        let before = self.tail;
        while self.head.wrapping_sub(self.tail) + need > ring
            && let Some(len) = self.records.pop_front()
        {
            self.tail = self.tail.wrapping_add(len.into());
        }
        if self.tail != before {
            self.publish_tail(bus);
        }
    }

    /// Says that what is before the tail is no longer whole; to be seen before the bytes change.
    fn publish_tail(&self, bus: &Bus) {
        bus.tail(bus.port()).store(self.tail, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Says that what is before the head can be read.
    fn publish(&mut self, bus: &Bus) {
        bus.head(bus.port()).store(self.head, Ordering::Release);
    }

    fn write(&self, bus: &Bus, at: u64, bytes: &[u8]) {
        let geometry = bus.geometry();
        let offset = geometry.ring_at(bus.port()) + (at & u64::from(geometry.ring - 1)) as usize;
        // Within: records do not go over the ring's end.
        let _ = bus.map().region().write(offset, bytes);
    }
}

/// The ports of a set.
fn each(ports: u64) -> impl Iterator<Item = u32> {
    (0..PORTS_MAX).filter(move |port| ports & 1 << port != 0)
}

fn readers(bus: &Bus, to: &[u8; 6]) -> Readers {
    let (mut all, mut owners, mut curious) = (0, 0, 0);
    for port in bus.others() {
        let filter = bus.filter(port);
        all |= 1 << port;
        if filter.is_for(to) {
            owners |= 1 << port;
        }
        if filter.is_promiscuous() {
            curious |= 1 << port;
        }
    }
    if to[0] & 1 != 0 {
        return Readers { all, needed: 0 };
    }
    Readers {
        all: owners | curious,
        needed: if owners != 0 { owners } else { curious },
    }
}

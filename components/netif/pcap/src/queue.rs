//! What waits to be written.

use std::collections::VecDeque;

use hypercall::{Clock, Nanos};
use kern::Curlwp;
use net::{Direction, Ifnet, LinkType, Packet, Tap};
use sync::{Condvar, Cpu, Mutex, Parker, Wake};

/// The most bytes that wait.
const BYTES: usize = 16 << 20;
/// What a packet counts besides its bytes.
const OVERHEAD: usize = 256;

/// Something to be written.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are packets, and a box for each would cost more"
)]
pub(crate) enum Entry {
    /// An interface; they are numbered in the order in which they come.
    Interface { name: String, link: LinkType },
    /// A packet of one.
    Packet {
        interface: u32,
        at: Nanos,
        direction: Direction,
        packet: Packet,
    },
}

/// What waits to be written. `list` is a leaf.
pub(crate) struct Queue {
    list: Mutex<List>,
    /// The writer waits here.
    filled: Condvar,
}

#[derive(Default)]
struct List {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Nothing comes any more.
    closed: bool,
    /// Of each interface, packets that found no room.
    dropped: Vec<u64>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            list: Mutex::default(),
            filled: Condvar::new("pcap"),
        }
    }
}

impl Queue {
    /// Announces an interface; its number.
    pub(crate) fn add_interface(&self, parker: &dyn Parker, interface: &Ifnet) -> u32 {
        let entry = Entry::Interface {
            name: interface.name(parker),
            link: interface.link(),
        };
        let mut list = self.list.lock(parker);
        list.dropped.push(0);
        list.entries.push_back(entry);
        let number = list.dropped.len() as u32 - 1;
        drop(list);
        self.filled.signal(parker);
        number
    }

    fn add_packet(&self, cpu: &Cpu<'_>, interface: u32, direction: Direction, packet: &Packet) {
        let at = cpu.cpus().host().now(Clock::Realtime);
        let bytes = packet.len() + OVERHEAD;
        let mut list = self.list.lock(cpu);
        if list.closed {
            return;
        }
        if list.bytes + bytes > BYTES {
            if let Some(dropped) = list.dropped.get_mut(interface as usize) {
                *dropped += 1;
            }
            return;
        }
        list.bytes += bytes;
        list.entries.push_back(Entry::Packet {
            interface,
            at,
            direction,
            packet: packet.clone(),
        });
        drop(list);
        self.filled.signal(cpu);
    }

    /// Nothing comes any more; the writer is told.
    pub(crate) fn close(&self, parker: &dyn Parker) {
        self.list.lock(parker).closed = true;
        self.filled.signal(parker);
    }

    /// Waits for something to be written, and takes it; `None` when nothing comes any more, or the kernel goes down.
    pub(crate) fn take(&self, cx: &Curlwp<'_>) -> Option<VecDeque<Entry>> {
        let mut list = self.list.lock(cx.cpu());
        while list.entries.is_empty() {
            if list.closed {
                return None;
            }
            let (guard, wake) = self.filled.wait_intr(cx.cpu(), list, None);
            list = guard;
            if wake == Wake::Interrupted && list.entries.is_empty() {
                return None;
            }
        }
        list.bytes = 0;
        Some(std::mem::take(&mut list.entries))
    }

    /// Of each interface, how many packets found no room.
    pub(crate) fn dropped(&self, parker: &dyn Parker) -> Vec<u64> {
        self.list.lock(parker).dropped.clone()
    }
}

/// A queue as the tap of an interface.
pub(crate) struct Port {
    pub(crate) queue: std::sync::Arc<Queue>,
    pub(crate) number: u32,
    pub(crate) incoming_only: bool,
}

impl Tap for Port {
    fn packet(&self, cpu: &Cpu<'_>, _: &Ifnet, direction: Direction, packet: &Packet) {
        if direction == Direction::Out && self.incoming_only {
            return;
        }
        self.queue.add_packet(cpu, self.number, direction, packet);
    }
}

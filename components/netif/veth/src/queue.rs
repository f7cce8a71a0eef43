//! Packets on their way to one end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use hypercall::Host;
use net::{Packet, Source};
use sync::{Mutex, MutexGuard, OffCpu, Parker};

/// The most packets that wait, and the most bytes.
const PACKETS: usize = 4096;
const BYTES: usize = 16 << 20;
/// Packets that are taken at a time.
pub(crate) const BATCH: usize = 64;

/// What waits for one end to take it.
///
/// `list` is a leaf.
#[derive(Default)]
pub(crate) struct Queue {
    list: Mutex<List>,
    /// Where the receiving end's thread waits, if it has one. Changes with each wake-up.
    word: AtomicU32,
    /// The host of the receiving end.
    host: OnceLock<Arc<dyn Host>>,
}

#[derive(Default)]
struct List {
    packets: VecDeque<Packet>,
    bytes: usize,
    /// The receiving end is up.
    open: bool,
    /// Nobody will look by himself: who puts something in has to see to that.
    idle: bool,
    /// The receiver's wait is to end.
    woken: bool,
}

impl Queue {
    /// Says that the receiving end is there, and on which host.
    pub(crate) fn set_host(&self, host: &Arc<dyn Host>) {
        let _ = self.host.set(host.clone());
    }

    /// Opens it for packets, or closes it and drops what waits.
    pub(crate) fn set_open(&self, parker: &dyn Parker, open: bool) {
        let mut list = self.list.lock(parker);
        list.open = open;
        list.idle = true;
        list.bytes = 0;
        let gone = std::mem::take(&mut list.packets);
        drop(list);
        drop(gone);
    }

    /// Puts a packet in; whether nobody will look by himself. `ENOBUFS` when there is no room, or the other end is down.
    pub(crate) fn put(&self, parker: &dyn Parker, packet: Packet) -> Result<bool, Errno> {
        let len = packet.len();
        let mut list = self.list.lock(parker);
        if !list.open || list.packets.len() >= PACKETS || list.bytes + len > BYTES {
            return Err(Errno::ENOBUFS);
        }
        list.bytes += len;
        list.packets.push_back(packet);
        Ok(std::mem::take(&mut list.idle))
    }

    /// Wakes the receiver's thread.
    pub(crate) fn rouse(&self, host: &dyn Host) {
        self.word.fetch_add(1, Ordering::SeqCst);
        host.unpark(&self.word, 1);
    }

    /// Takes up to [`BATCH`] packets; when there are none, it counts as idle from now on.
    pub(crate) fn take(&self, parker: &dyn Parker, batch: &mut Vec<Packet>) {
        self.take_locked(&mut self.list.lock(parker), batch);
    }

    fn take_locked(&self, list: &mut MutexGuard<'_, List>, batch: &mut Vec<Packet>) {
        let count = list.packets.len().min(BATCH);
        if count == 0 {
            list.idle = true;
        }
        for packet in list.packets.drain(..count) {
            batch.push(packet);
        }
        let taken: usize = batch.iter().map(Packet::len).sum();
        list.bytes = list.bytes.saturating_sub(taken);
    }
}

impl Source for Queue {
    fn receive(&self, batch: &mut Vec<Packet>) -> Result<(), Errno> {
        let host = self.host.get().ok_or(Errno::ENODEV)?;
        let parker = OffCpu(&**host);
        loop {
            let seen = self.word.load(Ordering::SeqCst);
            {
                let mut list = self.list.lock(&parker);
                self.take_locked(&mut list, batch);
                if !batch.is_empty() || std::mem::take(&mut list.woken) {
                    return Ok(());
                }
            }
            host.waits_for("veth");
            host.park(&self.word, seen, None);
        }
    }

    fn wake(&self) {
        if let Some(host) = self.host.get() {
            self.list.lock(&OffCpu(&**host)).woken = true;
            self.rouse(&**host);
        }
    }
}

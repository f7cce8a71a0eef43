//! Frames that wait to be received.

use std::collections::VecDeque;

use net::Packet;

use crate::addr::LinkAddr;
use crate::ring::Ring;

/// What a frame takes besides its bytes, so that there cannot be endlessly many short ones.
const OVERHEAD: usize = 512;

/// A frame that a socket wants.
#[derive(Clone)]
pub(crate) struct Captured {
    pub(crate) packet: Packet,
    /// How much of it the filter lets through.
    pub(crate) snap: usize,
    /// How long it was on the link.
    pub(crate) len: usize,
    /// Bytes of link-layer header, which a datagram socket does not show.
    pub(crate) link_header: usize,
    pub(crate) from: LinkAddr,
    /// Whether the link-layer header was taken off.
    pub(crate) header_hidden: bool,
    /// When, nanoseconds since the epoch.
    pub(crate) time: u64,
}

impl Captured {
    /// Bytes of link-layer header that the socket shows.
    pub(crate) fn shown_header(&self) -> usize {
        if self.header_hidden {
            0
        } else {
            self.link_header
        }
    }
}

/// The queue, bounded by bytes, with the counts of `PACKET_STATISTICS`.
#[derive(Default)]
pub(crate) struct Queue {
    frames: VecDeque<Captured>,
    /// Where frames go instead, when there is one.
    pub(crate) ring: Option<Ring>,
    bytes: usize,
    pub(crate) seen: u32,
    pub(crate) dropped: u32,
}

impl Queue {
    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a frame unless there is no room; answers whether it did.
    pub(crate) fn push(&mut self, captured: Captured, status: u32, limit: usize) -> bool {
        self.seen = self.seen.wrapping_add(1);
        if let Some(ring) = &mut self.ring {
            let took = ring.push(&captured, status);
            self.dropped = self.dropped.wrapping_add(u32::from(!took));
            return took;
        }
        let weight = captured.len + OVERHEAD;
        if self.bytes + weight > limit {
            self.dropped = self.dropped.wrapping_add(1);
            return false;
        }
        self.bytes += weight;
        self.frames.push_back(captured);
        true
    }

    pub(crate) fn pop(&mut self) -> Option<Captured> {
        let captured = self.frames.pop_front()?;
        self.bytes -= captured.len + OVERHEAD;
        Some(captured)
    }

    pub(crate) fn first(&self) -> Option<&Captured> {
        self.frames.front()
    }

    /// Whether there is something to read.
    pub(crate) fn readable(&self) -> bool {
        match &self.ring {
            Some(ring) => ring.readable(),
            None => !self.frames.is_empty(),
        }
    }

    /// Takes the counts, which begin anew.
    pub(crate) fn take_counts(&mut self) -> (u32, u32) {
        (
            std::mem::take(&mut self.seen),
            std::mem::take(&mut self.dropped),
        )
    }
}

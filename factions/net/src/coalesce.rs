//! Receive coalescing: TCP segments that came together go up together.

use smallvec::SmallVec;

use crate::frame::{Layout, TCP, Version};
use crate::offload::checksum_holds;
use crate::{Checksum, Cut, Gso, InternetSum, LinkType, Packet};

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// Flows of a batch that are looked after at a time.
const FLOWS: usize = 8;
/// The most bytes of an IP packet.
const MAX: usize = 65_535;

/// Joins TCP segments of a batch that continue each other into one packet each, to be cut at the same places again
/// ([`Gso`]). Order within a connection stays. Only segments whose checksum holds are joined, and whose headers differ in nothing but what
/// must differ.
pub fn coalesce(link: LinkType, batch: &mut Vec<Packet>) {
    if batch.len() < 2 {
        return;
    }
    let mut flows: SmallVec<[Flow; FLOWS]> = SmallVec::new();
    let mut out: Vec<Packet> = Vec::with_capacity(batch.len());
    for mut packet in batch.drain(..) {
        let Some(layout) = tcp_layout(link, &mut packet) else {
            out.push(packet);
            continue;
        };
        let segment = Segment::of(layout, &mut packet, link);
        let open = flow_of(&mut flows, layout, &mut packet);
        match (open, segment) {
            (Some(at), Some(segment)) if flows[at].continues(&segment) => {
                flows[at].join(&mut out, &segment, packet);
                if flows[at].closed {
                    flows.remove(at).finish(&mut out);
                }
            }
            (open, segment) => {
                if let Some(at) = open {
                    flows.remove(at).finish(&mut out);
                }
                if let Some(segment) = segment {
                    if flows.len() == FLOWS {
                        flows.remove(0).finish(&mut out);
                    }
                    flows.push(Flow::new(out.len(), segment));
                }
                out.push(packet);
            }
        }
    }
    for flow in flows {
        flow.finish(&mut out);
    }
    *batch = out;
}

/// Where the headers of a TCP packet are that is not joined already.
fn tcp_layout(link: LinkType, packet: &mut Packet) -> Option<Layout> {
    let layout = Layout::of(link, packet)?;
    (layout.protocol == TCP && packet.gso.is_none()).then_some(layout)
}

/// The flow that a packet belongs to by its addresses and ports.
fn flow_of(flows: &mut [Flow], layout: Layout, packet: &mut Packet) -> Option<usize> {
    let headers = packet.front(layout.transport + 4)?;
    flows.iter().position(|flow| {
        let ports = layout.transport..layout.transport + 4;
        flow.layout.version == layout.version
            && flow.layout.transport == layout.transport
            && flow.headers[layout.addresses()] == headers[layout.addresses()]
            && flow.headers[ports.clone()] == headers[ports]
    })
}

type Headers = SmallVec<[u8; 128]>;

/// A segment that may be joined with others.
struct Segment {
    layout: Layout,
    /// All of its headers, without what differs from one segment to the next.
    headers: Headers,
    sequence: u32,
    push: bool,
    payload: usize,
}

impl Segment {
    fn of(layout: Layout, packet: &mut Packet, link: LinkType) -> Option<Segment> {
        let plain = match layout.version {
            Version::V4 => 20,
            Version::V6 => 40,
        };
        if layout.transport - layout.ip != plain || !checksum_holds(link, packet) {
            return None;
        }
        let len = layout.headers(packet)?;
        let payload = layout.end - len;
        let mut headers: Headers = SmallVec::from_slice(packet.front(len)?);
        let flags = headers[layout.transport + 13];
        if payload == 0 || flags & !PSH != ACK {
            return None;
        }
        let sequence = &mut headers[layout.transport + 4..][..4];
        let number = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
        sequence.fill(0);
        headers[layout.transport + 13] = ACK;
        headers[layout.transport + 16..][..2].fill(0);
        match layout.version {
            Version::V4 => {
                headers[layout.ip + 2..][..4].fill(0);
                headers[layout.ip + 10..][..2].fill(0);
            }
            Version::V6 => headers[layout.ip + 4..][..2].fill(0),
        }
        Some(Segment {
            layout,
            headers,
            sequence: number,
            push: flags & PSH != 0,
            payload,
        })
    }
}

/// Segments of one connection, of which there is the first so far or some.
struct Flow {
    /// Where the first one is.
    at: usize,
    layout: Layout,
    headers: Headers,
    /// Bytes of each segment.
    size: usize,
    /// Bytes of all together.
    payload: usize,
    next: u32,
    push: bool,
    joined: bool,
    /// A shorter segment came, or one that asks to be delivered: nothing can follow.
    closed: bool,
}

impl Flow {
    fn new(at: usize, segment: Segment) -> Flow {
        Flow {
            at,
            layout: segment.layout,
            headers: segment.headers,
            size: segment.payload,
            payload: segment.payload,
            next: segment.sequence.wrapping_add(segment.payload as u32),
            push: segment.push,
            joined: false,
            closed: segment.push,
        }
    }

    fn continues(&self, segment: &Segment) -> bool {
        let total = self.headers.len() - self.layout.ip + self.payload + segment.payload;
        !self.closed
            && self.headers == segment.headers
            && self.next == segment.sequence
            && segment.payload <= self.size
            && total <= MAX
    }

    fn join(&mut self, out: &mut [Packet], segment: &Segment, mut packet: Packet) {
        let first = &mut out[self.at];
        if !self.joined {
            // The link's padding, which cannot stand in the middle.
            first.truncate(self.layout.end);
        }
        packet.truncate(segment.layout.end);
        packet.advance(self.headers.len());
        packet
            .into_payload()
            .into_iter()
            .for_each(|piece| first.append(piece));
        self.payload += segment.payload;
        self.next = self.next.wrapping_add(segment.payload as u32);
        self.push |= segment.push;
        self.closed = segment.push || segment.payload < self.size;
        self.joined = true;
    }

    /// Makes the first one's headers those of all together.
    fn finish(self, out: &mut [Packet]) {
        let packet = &mut out[self.at];
        let layout = self.layout;
        let Some(headers) = packet.front_mut(self.headers.len()) else {
            return;
        };
        if !self.joined {
            return;
        }
        let transport_len = self.headers.len() - layout.transport + self.payload;
        let ip = &mut headers[layout.ip..layout.transport];
        match layout.version {
            Version::V4 => {
                let total = (ip.len() + transport_len) as u16;
                ip[2..4].copy_from_slice(&total.to_be_bytes());
                ip[10..12].fill(0);
                let checksum = InternetSum::default().with(ip).checksum();
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            Version::V6 => ip[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes()),
        }
        let pseudo = layout.pseudo(headers, transport_len).folded();
        let tcp = &mut headers[layout.transport..];
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        if self.push {
            tcp[13] |= PSH;
        }
        packet.checksum = Checksum::Partial {
            start: layout.transport as u16,
            offset: 16,
        };
        packet.gso = Some(Gso {
            size: self.size as u16,
            cut: match layout.version {
                Version::V4 => Cut::Tcp4,
                Version::V6 => Cut::Tcp6,
            },
        });
    }
}

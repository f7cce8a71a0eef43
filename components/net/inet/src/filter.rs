//! Where a firewall, address translation and their like hang in: the five points that netfilter has, and what they may have the stack
//! answer.

use std::sync::Arc;

use net::{Ifnet, Packet, Seldom};
use sync::Cpu;
use tcp::{Segment, Tuple};

use crate::Inet;
use crate::icmp::Problem;
use crate::stack::IPPROTO_TCP;

/// Where a packet is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// It came in, and nobody has looked where it goes.
    Prerouting,
    /// It is for this kernel.
    Input,
    /// It is for somebody else.
    Forward,
    /// It comes from this kernel.
    Output,
    /// It leaves.
    Postrouting,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It is gone.
    Drop,
}

/// Where a packet is, and between what.
pub struct Passage<'a> {
    /// The point.
    pub hook: Hook,
    /// Whether its IP header is IPv6's.
    pub v6: bool,
    /// The interface that it came in by.
    pub input: Option<&'a Arc<Ifnet>>,
    /// The interface that it leaves by, where that is known.
    pub output: Option<&'a Arc<Ifnet>>,
    /// The stack.
    pub inet: &'a Inet,
}

/// Somebody who looks at packets.
pub trait Filter: Send + Sync {
    /// A packet that begins with its IP header and may be changed. No lock is held; may be a software interrupt. On the way
    /// in, fragments come as they are unless they are [wanted whole](Self::wants_whole).
    fn packet(&self, cpu: &Cpu<'_>, at: &Passage<'_>, packet: &mut Packet) -> Verdict;

    /// Whether fragments are put together before they come, also those that are forwarded, which are cut again afterwards.
    fn wants_whole(&self) -> bool {
        false
    }
}

/// What the sender of a packet is told by a filter that drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By TCP: there is no such connection.
    Reset,
    /// By ICMP: nobody is at the port.
    Port,
    /// By ICMP: somebody forbids it.
    Prohibited,
}

/// Those who look, by priority. Swapped whole.
#[derive(Default)]
pub(crate) struct Filters(Seldom<Vec<(i32, Arc<dyn Filter>)>>);

impl Filters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load().is_none()
    }

    /// Whether somebody wants packets whole.
    pub(crate) fn want_whole(&self) -> bool {
        let filters = self.0.load();
        let mut all = filters.iter().flat_map(|filters| filters.iter());
        all.any(|(_, filter)| filter.wants_whole())
    }
}

impl Inet {
    /// Has somebody look at every packet. Lower priorities come first; Linux's are -300 (raw) to 300.
    pub fn add_filter(&self, priority: i32, filter: Arc<dyn Filter>) {
        self.filters.0.change(|list| {
            let at = list.partition_point(|(p, _)| *p <= priority);
            list.insert(at, (priority, filter.clone()));
        });
    }

    /// Ends what [`add_filter`](Self::add_filter) began.
    pub fn remove_filter(&self, filter: &Arc<dyn Filter>) {
        self.filters
            .0
            .change(|list| list.retain(|(_, f)| !Arc::ptr_eq(f, filter)));
    }

    /// Tells who sent a packet that it does not go on; at [`Hook::Output`] that is a program of this kernel. `packet` is as the filter
    /// got it, and the filter is to drop it. What must not be answered is not, and ICMP has its rate (RFC 1812 4.3.2.8). A segment
    /// behind IPv6 extension headers is answered by ICMP.
    pub fn refuse(&self, cpu: &Cpu<'_>, at: &Passage<'_>, packet: &Packet, how: Refusal) {
        let mut packet = packet.clone();
        packet.note = None;
        let Some(interface) = at.input.or(at.output) else {
            return;
        };
        let header = match at.v6 {
            true => crate::ipv6::header6(&mut packet, interface),
            false => crate::ipv4::header4(&mut packet, interface),
        };
        let Some(header) = header.filter(|header| header.may_be_answered()) else {
            return;
        };
        packet.advance(header.raw.len());
        let problem = match how {
            Refusal::Reset if header.protocol == IPPROTO_TCP => {
                let tuple = |segment: &Segment| Tuple {
                    local: (header.dst, segment.dst_port).into(),
                    remote: (header.src, segment.src_port).into(),
                };
                if let Some(segment) = segment(packet)
                    && let Some(reset) = segment.reset()
                {
                    self.tcp_reply(cpu, &tuple(&segment), header.interface, reset);
                }
                return;
            }
            Refusal::Reset | Refusal::Prohibited => Problem::Prohibited,
            Refusal::Port => Problem::Port,
        };
        self.icmp_error(cpu, &header, &mut packet, problem);
    }

    /// Whether a packet goes on.
    pub(crate) fn passes(
        &self,
        cpu: &Cpu<'_>,
        hook: Hook,
        v6: bool,
        input: Option<&Arc<Ifnet>>,
        output: Option<&Arc<Ifnet>>,
        packet: &mut Packet,
    ) -> bool {
        let filters = self.filters.0.load();
        let Some(filters) = &*filters else {
            return true;
        };
        let passage = Passage {
            hook,
            v6,
            input,
            output,
            inet: self,
        };
        filters
            .iter()
            .all(|(_, filter)| filter.packet(cpu, &passage, packet) == Verdict::Accept)
    }
}

/// A TCP segment, without the IP header.
fn segment(mut packet: Packet) -> Option<Segment> {
    let len = usize::from(packet.front(20)?[12] >> 4) * 4;
    let (mut segment, len) = Segment::parse_header(packet.front(len.max(20))?).ok()?;
    packet.advance(len);
    segment.payload = packet.into_payload();
    Some(segment)
}

//! How far a connection has got, by the packets of it that pass.
//!
//! For TCP this follows the two ends' windows as Guido van Rooij describes it ("Real Stateful TCP Packet Filtering in IP Filter", 2001):
//! each end may send what the other's window lets it, and acknowledge what the other has sent. Everything else has one question only:
//! whether it was answered.

use hypercall::Nanos;

use crate::wire::{ACK, FIN, RST, SYN, Segment};

const SECOND: Nanos = 1_000_000_000;

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// As its first packet.
    Forward,
    /// As the answers.
    Back,
}

impl Way {
    pub(crate) fn index(self) -> usize {
        match self {
            Way::Forward => 0,
            Way::Back => 1,
        }
    }

    pub(crate) fn other(self) -> Way {
        match self {
            Way::Forward => Way::Back,
            Way::Back => Way::Forward,
        }
    }
}

/// How far a connection has got, the least established first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It was reset, or both ends have closed it.
    Closed,
    /// Nobody has answered.
    Opening,
    /// TCP: the answer has not been acknowledged, so that the address of who opens may be a lie.
    Answered,
    /// TCP: an end has closed it.
    Closing,
    /// Both ends are there.
    Established,
}

impl Phase {
    pub(crate) const ALL: [Phase; 5] = [
        Phase::Closed,
        Phase::Opening,
        Phase::Answered,
        Phase::Closing,
        Phase::Established,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Closed => "closed",
            Phase::Opening => "opening",
            Phase::Answered => "answered",
            Phase::Closing => "closing",
            Phase::Established => "established",
        }
    }

    /// How long it is remembered after its last packet: at least what RFC 5382 (TCP), RFC 4787 (UDP) and RFC 5508 (ICMP) ask for.
    pub(crate) fn patience(self, protocol: Kind) -> Nanos {
        SECOND
            * match (protocol, self) {
                (Kind::Tcp, Phase::Opening | Phase::Answered) => 60,
                (Kind::Tcp, Phase::Established) => 24 * 3600,
                (Kind::Tcp, Phase::Closing) => 240,
                // Long enough for what is still on its way, RFC 9293 3.4.2.
                (Kind::Tcp, Phase::Closed) => 120,
                (Kind::Echo, _) => 60,
                (Kind::Other, Phase::Established) => 300,
                (Kind::Other, _) => 60,
            }
    }
}

/// Which rules a protocol's connections follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Echo,
    Other,
}

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It belongs to it.
    Yes,
    /// It is none that an end of it could have sent.
    No,
    /// It begins another one between the same ends.
    Anew,
}

/// An end of a TCP connection.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// It has sent something: the rest is known.
    known: bool,
    /// One behind the last sequence number that it has sent.
    sent: u32,
    /// One behind the last that the other's window has let it send.
    may: u32,
    /// What the other has acknowledged.
    acked: u32,
    /// Its largest window.
    window: u32,
    /// By which its windows are multiplied, as a power of two; `None` when its SYN said nothing.
    scale: Option<u8>,
    /// It has sent a FIN, whose number is one below this.
    fin: Option<u32>,
}

/// A TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    ends: [End; 2],
    pub(crate) phase: Phase,
    /// Its beginning was not seen, so its windows' scales are not known and its numbers are not looked at.
    midway: bool,
    /// The number that who opens it will reset: the other end still has an older connection and has asked back.
    challenge: Option<u32>,
}

/// How far an acknowledgement may be behind: the largest window without a scale, and some.
const MAX_ACK_WINDOW: u32 = 66_000;

/// Whether a sequence number comes before another, RFC 9293 3.4.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Tcp {
    /// A connection of which this is the first packet.
    pub(crate) fn new(first: &Segment) -> Tcp {
        let mut tcp = Tcp {
            ends: [End::default(); 2],
            phase: Phase::Opening,
            midway: first.flags & (SYN | ACK) != SYN,
            challenge: None,
        };
        tcp.ends[0].begin(first);
        tcp
    }

    /// Another packet. What does not fit changes nothing.
    pub(crate) fn packet(&mut self, way: Way, segment: &Segment) -> Fit {
        let syn = segment.flags & (SYN | ACK | RST) == SYN;
        if syn && self.phase == Phase::Closed {
            return Fit::Anew;
        }
        if self.midway {
            return self.midway(way, segment);
        }
        if segment.flags & SYN != 0 && self.phase <= Phase::Answered {
            return self.syn(way, segment);
        }
        let [mut sender, mut receiver] = self.pair(way);
        if segment.flags & RST != 0 {
            return self.reset(&sender, &receiver, segment);
        }
        if !sender.known {
            // It answers with something that is no SYN: it has an older connection with an end that has started again.
            self.challenge = Some(segment.ack);
            return Fit::Yes;
        }
        if segment.flags & SYN != 0 {
            // Both ends answer it with what they know, RFC 5961 4.
            return Fit::Yes;
        }
        if segment.flags & ACK == 0 || !in_window(&sender, &receiver, segment) {
            return Fit::No;
        }
        sender.send(segment);
        receiver.hear(&sender, segment);
        self.put(way, sender, receiver);
        self.advance(way);
        Fit::Yes
    }

    /// A SYN while the connection opens: from who opens it, the answer, or both ends open at once.
    fn syn(&mut self, way: Way, segment: &Segment) -> Fit {
        let [mut sender, mut receiver] = self.pair(way);
        if segment.flags & ACK != 0 {
            let acks = receiver.known
                && !before(segment.ack, receiver.acked)
                && !before(receiver.sent, segment.ack);
            if !acks {
                return Fit::No;
            }
        }
        if !sender.known || segment.seq.wrapping_add(1) != sender.acked {
            sender = End::default();
            sender.begin(segment);
        } else {
            sender.send(segment);
        }
        if segment.flags & ACK != 0 {
            // Scales are used when both ends have said one, and not in SYNs.
            if receiver.scale.is_none() || sender.scale.is_none() {
                (receiver.scale, sender.scale) = (Some(0), Some(0));
            }
            receiver.hear(&sender, segment);
            self.phase = Phase::Answered;
        }
        if receiver.known {
            let window = u32::from(segment.window).max(1);
            receiver.may = later(receiver.may, receiver.acked.wrapping_add(window));
            sender.may = later(sender.may, sender.acked.wrapping_add(receiver.window));
        }
        self.put(way, sender, receiver);
        Fit::Yes
    }

    /// A reset ends the connection only if it has the number that the other end waits for (RFC 5961 3), or answers a SYN. One that is
    /// merely in the window passes: the end that it is for will ask back.
    fn reset(&mut self, sender: &End, receiver: &End, segment: &Segment) -> Fit {
        let ends = if !sender.known {
            if segment.flags & ACK == 0
                || before(receiver.sent, segment.ack)
                || before(segment.ack, receiver.acked)
            {
                return Fit::No;
            }
            true
        } else if self.challenge == Some(segment.seq) && !receiver.known {
            true
        } else {
            if !in_window(sender, receiver, segment) {
                return Fit::No;
            }
            segment.seq == sender.acked || segment.seq == sender.sent
        };
        if ends {
            self.phase = Phase::Closed;
        }
        Fit::Yes
    }

    /// Without numbers: what is answered is established, what is reset is closed.
    fn midway(&mut self, way: Way, segment: &Segment) -> Fit {
        let [mut sender, receiver] = self.pair(way);
        sender.known = true;
        if segment.flags & FIN != 0 {
            sender.fin = Some(segment.seq);
        }
        self.put(way, sender, receiver);
        self.phase = match self.ends.map(|end| (end.known, end.fin.is_some())) {
            _ if segment.flags & RST != 0 || self.phase == Phase::Closed => Phase::Closed,
            [(_, true), (_, true)] => Phase::Closed,
            [(_, true), _] | [_, (_, true)] => Phase::Closing,
            [(true, _), (true, _)] => Phase::Established,
            _ => self.phase,
        };
        Fit::Yes
    }

    /// How far it has got after a packet that fits.
    fn advance(&mut self, way: Way) {
        let over = |end: &End| end.fin.is_some_and(|fin| !before(end.acked, fin));
        self.phase = match self.phase {
            Phase::Closed => Phase::Closed,
            _ if self.ends.iter().all(over) => Phase::Closed,
            _ if self.ends.iter().any(|end| end.fin.is_some()) => Phase::Closing,
            // Who opened it has the answer's number, which only who is at its address could have seen.
            Phase::Answered if way == Way::Forward => Phase::Established,
            phase => phase,
        };
    }

    /// Sender and receiver of a packet.
    fn pair(&self, way: Way) -> [End; 2] {
        [self.ends[way.index()], self.ends[way.other().index()]]
    }

    fn put(&mut self, way: Way, sender: End, receiver: End) {
        self.ends[way.index()] = sender;
        self.ends[way.other().index()] = receiver;
    }
}

impl End {
    /// Its first packet.
    fn begin(&mut self, segment: &Segment) {
        self.known = true;
        self.sent = segment_end(segment);
        self.may = self.sent;
        // Of a SYN: what answers acknowledges it at least.
        self.acked = segment
            .seq
            .wrapping_add(u32::from(segment.flags & SYN != 0));
        self.window = u32::from(segment.window).max(1);
        self.scale = segment.scale;
    }

    /// It sends.
    fn send(&mut self, segment: &Segment) {
        let end = segment_end(segment);
        self.sent = later(self.sent, end);
        if segment.flags & FIN != 0 {
            self.fin = Some(end);
        }
        let window = self.scaled(segment);
        self.window = self.window.max(window);
    }

    /// The window that it says.
    fn scaled(&self, segment: &Segment) -> u32 {
        let scale = if segment.flags & SYN != 0 {
            0
        } else {
            self.scale.unwrap_or(0)
        };
        u32::from(segment.window) << scale
    }

    /// It hears the other end's acknowledgement and window.
    fn hear(&mut self, other: &End, segment: &Segment) {
        self.acked = later(self.acked, segment.ack);
        self.may = later(
            self.may,
            segment.ack.wrapping_add(other.scaled(segment).max(1)),
        );
    }
}

/// Whether an end may have sent a segment, by what is known of both.
fn in_window(sender: &End, receiver: &End, segment: &Segment) -> bool {
    let end = segment_end(segment);
    // A probe of a shut window is one byte beyond it; a keep-alive one byte before what was sent.
    let not_beyond = !before(sender.may.wrapping_add(1), segment.seq);
    let not_old = !before(
        end,
        sender.sent.wrapping_sub(receiver.window).wrapping_sub(1),
    );
    let acks = segment.flags & ACK == 0 || !receiver.known || {
        let back = sender.window.max(MAX_ACK_WINDOW);
        !before(receiver.sent, segment.ack)
            && !before(segment.ack, receiver.sent.wrapping_sub(back))
    };
    not_beyond && not_old && acks
}

/// One behind a segment's last sequence number.
fn segment_end(segment: &Segment) -> u32 {
    let signs = u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
    segment.seq.wrapping_add(segment.len).wrapping_add(signs)
}

fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

//! What tshark makes of a capture.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use crate::finish;

fn tshark(capture: &Path) -> Command {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(capture);
    // What programs say to each other may look like anything.
    for transport in ["tcp", "udp"] {
        command.args(["-d", &format!("{transport}.port==1024-65535,data")]);
    }
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    command
}

/// The packets that a display filter takes, a line each, with every checksum verified.
pub fn matching(capture: &Path, filter: &str) -> String {
    finish(tshark(capture).args(["-Y", filter])).ok()
}

/// How many packets a display filter takes.
pub fn count(capture: &Path, filter: &str) -> usize {
    matching(capture, filter).lines().count()
}

/// Checks that no packet is malformed or has a wrong checksum.
#[track_caller]
pub fn assert_well_formed(capture: &Path) {
    let packets = packets(capture);
    let wrong = packets.iter().filter_map(broken).collect();
    complain(capture, &packets, wrong);
}

/// Checks the same, and that little was sent again or came out of order, and nothing was reset, but for connections with a port of
/// `resets`. The capture is of a link that loses nothing.
#[track_caller]
pub fn assert_flawless(capture: &Path, resets: &[u16]) {
    let packets = packets(capture);
    let mut wrong: Vec<String> = packets.iter().filter_map(broken).collect();
    wrong.extend(losses(&packets, resets));
    complain(capture, &packets, wrong);
}

#[track_caller]
fn complain(capture: &Path, packets: &[Packet], wrong: Vec<String>) {
    assert!(
        wrong.is_empty(),
        "{}: {} of {} packets are wrong, the first are\n{}",
        capture.display(),
        wrong.len(),
        packets.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(!packets.is_empty(), "{}: no packets", capture.display());
}

/// A packet as tshark sees it.
struct Packet {
    number: u32,
    malformed: bool,
    /// The fields of checksums that are wrong.
    sums: Vec<&'static str>,
    segment: Option<Segment>,
}

struct Segment {
    stream: u32,
    from: u16,
    to: u16,
    fin: bool,
    reset: bool,
    ack: u32,
    /// Where the first block of a selective acknowledgement begins.
    sack: Option<u32>,
    /// It was sent before.
    again: bool,
}

const SUMS: [&str; 5] = [
    "ip.checksum.status",
    "tcp.checksum.status",
    "udp.checksum.status",
    "icmp.checksum.status",
    "icmpv6.checksum.status",
];

const FIELDS: [&str; 11] = [
    "frame.number",
    "_ws.malformed",
    "tcp.checksum",
    "tcp.stream",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags.fin",
    "tcp.flags.reset",
    "tcp.ack_raw",
    "tcp.options.sack_le",
    "tcp.analysis.retransmission",
];

fn packets(capture: &Path) -> Vec<Packet> {
    let mut command = tshark(capture);
    // Then blocks of selective acknowledgements are shown as they are on the wire, as `tcp.ack_raw` is.
    command.args(["-o", "tcp.relative_sequence_numbers:FALSE"]);
    // The first of each: ICMP errors bring headers of other packets along.
    command.args(["-T", "fields", "-E", "occurrence=f"]);
    for field in FIELDS.iter().chain(&SUMS) {
        command.args(["-e", field]);
    }
    finish(&mut command).ok().lines().map(packet).collect()
}

fn packet(line: &str) -> Packet {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |n: usize| fields[n].parse().unwrap_or_default();
    let port = |n: usize| fields[n].parse().unwrap_or_default();
    let is_set = |n: usize| matches!(fields[n], "1" | "True");
    let is_there = |n: usize| !fields[n].is_empty();
    let is_bad = |&(n, _): &(usize, &&str)| matches!(fields[FIELDS.len() + n], "0" | "Bad");
    let mut sums: Vec<_> = SUMS.iter().enumerate().filter(is_bad).collect();
    // An ICMP error brings a part of another packet along, whose checksum may never have been made.
    let is_icmp = is_there(FIELDS.len() + 3) || is_there(FIELDS.len() + 4);
    sums.retain(|&(_, field)| {
        !is_icmp || !matches!(*field, "tcp.checksum.status" | "udp.checksum.status")
    });
    // Linux writes a TCP checksum of zero in its other form (RFC 1624), which is as good.
    sums.retain(|&(n, _)| n != 1 || fields[2] != "0xffff");
    Packet {
        number: number(0),
        malformed: is_there(1),
        sums: sums.into_iter().map(|(_, field)| *field).collect(),
        segment: (is_there(3) && !is_icmp).then(|| Segment {
            stream: number(3),
            from: port(4),
            to: port(5),
            fin: is_set(6),
            reset: is_set(7),
            ack: number(8),
            sack: fields[9].parse().ok(),
            again: is_there(10),
        }),
    }
}

/// What is wrong with a packet by itself.
fn broken(packet: &Packet) -> Option<String> {
    let Packet {
        number,
        malformed,
        sums,
        ..
    } = packet;
    match (malformed, &sums[..]) {
        (true, _) => Some(format!("packet {number}: malformed")),
        (_, []) => None,
        (_, sums) => Some(format!("packet {number}: {} is bad", sums.join(", "))),
    }
}

/// What shows that something was lost or cut off, a line each.
fn losses(packets: &[Packet], resets: &[u16]) -> Vec<String> {
    let (mut wrong, mut again) = (Vec::new(), Vec::new());
    let mut finished: HashMap<u32, Vec<u16>> = HashMap::new();
    for Packet {
        number, segment, ..
    } in packets
    {
        let Some(segment) = segment else {
            continue;
        };
        let mut accuse = |what: &str| wrong.push(format!("packet {number}: {what}"));
        // That something is missing in the capture alone says nothing: there are bounds for those.
        // A duplicate is reported by a block below what is acknowledged (RFC 2883), a hole by one above.
        if segment
            .sack
            .is_some_and(|sack| sack.wrapping_sub(segment.ack).cast_signed() > 0)
        {
            // The host's links may change the order: its processors hand packets on side by side.
            again.push(format!(
                "packet {number}: says that a segment did not arrive"
            ));
        }
        let finished = finished.entry(segment.stream).or_default();
        if segment.fin && !finished.contains(&segment.from) {
            finished.push(segment.from);
        }
        // When both have closed, one may know nothing of the connection any more, and resets what comes late.
        let expected = resets.contains(&segment.from) || resets.contains(&segment.to);
        if segment.reset && finished.len() < 2 && !expected {
            accuse("a reset");
        }
        if segment.again {
            again.push(format!("packet {number}: sent again"));
        }
    }
    // A probe for a tail that is not acknowledged in time (RFC 8985) tells of a busy machine; many would tell of an end that answers late,
    // and many holes of one that loses segments.
    if again.len() > 20 + packets.len() / 20 {
        wrong.append(&mut again);
    }
    wrong
}

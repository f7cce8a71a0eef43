//! Queries and reports as they are on the wire: IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;

use hypercall::Nanos;

use super::reporter::{Message, Record};
use crate::addr::{any, octets};
use crate::checksum;

pub(super) const IGMP_QUERY: u8 = 0x11;
pub(super) const IGMP_REPORTS: [u8; 2] = [0x12, 0x16];
const IGMP_LEAVE: u8 = 0x17;
const IGMP_REPORT_3: u8 = 0x22;
pub(super) const MLD_QUERY: u8 = 130;
pub(super) const MLD_REPORT: u8 = 131;
const MLD_DONE: u8 = 132;
const MLD_REPORT_2: u8 = 143;

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1000 * MILLISECOND;
/// The least time within which an answer may be asked for, so that nobody makes us answer at every packet.
const LEAST: Nanos = 10 * MILLISECOND;
/// The most sources of a query that are looked at: as many as fit into an Ethernet frame.
const SOURCES: usize = 366;

/// Versions of IGMP; MLDv1 and MLDv2 are as its second and third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    One,
    Two,
    Three,
}

/// What a router wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) version: Version,
    /// The group; `None` for all.
    pub(super) group: Option<IpAddr>,
    /// Which of its sources; none for all.
    pub(super) sources: BTreeSet<IpAddr>,
    /// Within which time it shall be answered.
    pub(super) within: Nanos,
    /// How often changes shall be told; 0 when the router does not say.
    pub(super) robustness: u8,
    /// The time between the router's general queries; 0 when it does not say.
    pub(super) interval: Nanos,
}

/// A number of `bits` bits, which from half of what they can say on is a mantissa and an exponent of three bits, RFC 3376 4.1.1.
fn code(value: u16, bits: u32) -> u64 {
    let mantissa_bits = bits - 4;
    if value >> (bits - 1) == 0 {
        return value.into();
    }
    let mantissa = u64::from(value) & ((1 << mantissa_bits) - 1) | 1 << mantissa_bits;
    mantissa << ((value >> mantissa_bits & 7) + 3)
}

fn sources<const N: usize>(bytes: &[u8], count: u16) -> Option<BTreeSet<IpAddr>>
where
    IpAddr: From<[u8; N]>,
{
    let (all, _) = bytes.as_chunks::<N>();
    let asked = all.get(..count.into())?;
    Some(asked.iter().take(SOURCES).map(|&s| s.into()).collect())
}

/// An IGMP query, whose checksum is right.
pub(super) fn igmp_query(message: &[u8]) -> Option<Query> {
    let (head, rest) = message.split_first_chunk::<8>()?;
    let &[_, max, _, _, a, b, c, d] = head;
    let group = Ipv4Addr::new(a, b, c, d);
    let mut query = Query {
        version: Version::Two,
        group: (!group.is_unspecified()).then_some(group.into()),
        sources: BTreeSet::new(),
        within: u64::from(max) * SECOND / 10,
        robustness: 0,
        interval: 0,
    };
    match rest.split_first_chunk::<4>() {
        None if !rest.is_empty() => return None,
        None if max == 0 => {
            query.version = Version::One;
            query.within = 10 * SECOND;
        }
        None => {}
        Some((&[flags, interval, hi, lo], rest)) => {
            query.version = Version::Three;
            query.within = code(max.into(), 8) * SECOND / 10;
            query.robustness = flags & 7;
            query.interval = code(interval.into(), 8) * SECOND;
            query.sources = sources::<4>(rest, u16::from_be_bytes([hi, lo]))?;
        }
    }
    query.within = query.within.max(LEAST);
    query.sensible()
}

/// An MLD query, whose checksum is right.
pub(super) fn mld_query(message: &[u8]) -> Option<Query> {
    let (head, rest) = message.split_first_chunk::<24>()?;
    let max = u16::from_be_bytes([head[4], head[5]]);
    let group: [u8; 16] = head[8..].try_into().ok()?;
    let group = Ipv6Addr::from(group);
    let mut query = Query {
        version: Version::Two,
        group: (!group.is_unspecified()).then_some(group.into()),
        sources: BTreeSet::new(),
        within: u64::from(max) * MILLISECOND,
        robustness: 0,
        interval: 0,
    };
    match rest.split_first_chunk::<4>() {
        None if !rest.is_empty() => return None,
        None => {}
        Some((&[flags, interval, hi, lo], rest)) => {
            query.version = Version::Three;
            query.within = code(max, 16) * MILLISECOND;
            query.robustness = flags & 7;
            query.interval = code(interval.into(), 8) * SECOND;
            query.sources = sources::<16>(rest, u16::from_be_bytes([hi, lo]))?;
        }
    }
    query.within = query.within.max(LEAST);
    query.sensible()
}

impl Query {
    fn sensible(self) -> Option<Query> {
        let group = self.group.is_none_or(|g| g.is_multicast());
        (group && (self.group.is_some() || self.sources.is_empty())).then_some(self)
    }
}

/// The messages that a reporter's message is on the wire, each with where it goes. None is longer than `room` bytes unless that is too
/// little for anything. Checksums of MLD are left at 0.
pub(super) fn emit(v6: bool, message: &Message, room: usize) -> Vec<(IpAddr, Vec<u8>)> {
    let to: [IpAddr; 2] = match v6 {
        false => [[224, 0, 0, 2].into(), [224, 0, 0, 22].into()],
        true => [2u16, 0x16].map(|n| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, n).into()),
    };
    match message {
        Message::Report(version, group) => {
            let kind = match (v6, version) {
                (true, _) => MLD_REPORT,
                (false, Version::One) => IGMP_REPORTS[0],
                (false, _) => IGMP_REPORTS[1],
            };
            vec![(*group, old(kind, group))]
        }
        Message::Leave(group) => vec![(to[0], old(if v6 { MLD_DONE } else { IGMP_LEAVE }, group))],
        Message::Records(records) => reports(v6, records, room)
            .into_iter()
            .map(|r| (to[1], r))
            .collect(),
    }
}

/// A message of the older versions.
fn old(kind: u8, group: &IpAddr) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    if group.is_ipv6() {
        message.extend_from_slice(&[0; 4]);
    }
    message.extend_from_slice(&octets(group));
    sum_up(message)
}

/// Reports of the last version.
fn reports(v6: bool, records: &[Record], room: usize) -> Vec<Vec<u8>> {
    let len = octets(&any(v6)).len();
    let fitting = (room.saturating_sub(8 + 4 + len) / len).max(1);
    let mut out: Vec<(u16, Vec<u8>)> = Vec::new();
    for record in records {
        // A list that does not fit is cut: for "all but those" that means more than is wanted, for others there are more records.
        let most = if record.kind.excludes() {
            1
        } else {
            usize::MAX
        };
        let parts = record.sources.chunks(fitting).take(most);
        let none = record.sources.is_empty().then_some(&[][..]);
        for part in parts.chain(none) {
            let mut bytes = vec![record.kind as u8, 0];
            bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
            bytes.extend_from_slice(&octets(&record.group));
            part.iter()
                .for_each(|s| bytes.extend_from_slice(&octets(s)));
            match out.last_mut() {
                Some((count, last)) if last.len() + bytes.len() <= room => {
                    *count += 1;
                    last.extend_from_slice(&bytes);
                }
                _ => {
                    let kind = if v6 { MLD_REPORT_2 } else { IGMP_REPORT_3 };
                    let mut report = vec![kind, 0, 0, 0, 0, 0, 0, 0];
                    report.extend_from_slice(&bytes);
                    out.push((1, report));
                }
            }
        }
    }
    let finish = |(count, mut report): (u16, Vec<u8>)| {
        report[6..8].copy_from_slice(&count.to_be_bytes());
        sum_up(report)
    };
    out.into_iter().map(finish).collect()
}

/// Fills in the checksum of IGMP. That of MLD has the addresses of the IP header in it and is filled in later.
fn sum_up(mut message: Vec<u8>) -> Vec<u8> {
    if message[0] < MLD_QUERY {
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::reporter::Kind;
    use super::*;
    use proptest::prelude::{any, *};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn queries_of_all_versions_are_told_apart_by_length_and_time() {
        let general = |max| [0x11, max, 0, 0, 0, 0, 0, 0];
        let one = igmp_query(&general(0)).unwrap();
        assert_eq!((one.version, one.within), (Version::One, 10 * SECOND));
        let two = igmp_query(&general(100)).unwrap();
        assert_eq!((two.version, two.within), (Version::Two, 10 * SECOND));
        assert_eq!(igmp_query(&[&general(100)[..], &[0; 3]].concat()), None);
        let sources = [0x0a, 125, 0, 2, 10, 0, 0, 1, 10, 0, 0, 2];
        let three = igmp_query(&[&[0x11, 0x8a, 0, 0, 224, 1, 2, 3][..], &sources].concat());
        let three = three.unwrap();
        assert_eq!(
            (three.version, three.group),
            (Version::Three, Some(ip("224.1.2.3")))
        );
        assert_eq!(three.within, ((0x1a << 3) * SECOND) / 10);
        assert_eq!((three.robustness, three.interval), (2, 125 * SECOND));
        assert_eq!(three.sources, [ip("10.0.0.1"), ip("10.0.0.2")].into());
        let short = [&[0x11, 1, 0, 0, 224, 1, 2, 3][..], &sources[..11]].concat();
        assert_eq!(igmp_query(&short), None, "fewer sources than it says");
        assert_eq!(igmp_query(&[0x11, 1, 0, 0, 10, 1, 2, 3]), None, "no group");
        let mut mld = vec![130, 0, 0, 0, 0x90, 1, 0, 0];
        mld.extend_from_slice(&octets(&ip("ff02::77")));
        assert_eq!(mld_query(&mld).unwrap().within, 0x9001 * MILLISECOND);
        mld.extend_from_slice(&[2, 125, 0, 0]);
        let two = mld_query(&mld).unwrap();
        assert_eq!(two.within, (0x1001 << 4) * MILLISECOND);
        assert_eq!(
            (two.version, two.group),
            (Version::Three, Some(ip("ff02::77")))
        );
    }

    proptest! {
        #[test]
        fn reports_fit_and_say_all_that_must_be_said(
            lists in proptest::collection::vec((any::<bool>(), 0usize..200), 1..30),
            room in 100usize..1500,
        ) {
            let source = |n: usize| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
            let records: Vec<Record> = lists.iter().enumerate().map(|(i, &(exclude, n))| Record {
                kind: if exclude { Kind::IsExclude } else { Kind::IsInclude },
                group: [224, 0, 1, i as u8].into(),
                sources: (0..n).map(source).collect(),
            }).collect();
            let mut said = vec![0; records.len()];
            for (to, report) in emit(false, &Message::Records(records), room) {
                prop_assert_eq!(to, ip("224.0.0.22"));
                prop_assert!(report.len() <= room);
                let mut sum = checksum::Sum::default();
                sum.add(&report);
                prop_assert!(sum.is_valid());
                let mut rest = &report[8..];
                for _ in 0..u16::from_be_bytes([report[6], report[7]]) {
                    let n = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
                    said[usize::from(rest[7])] += n;
                    rest = &rest[8 + n * 4..];
                }
                prop_assert!(rest.is_empty());
            }
            for (&(exclude, n), said) in lists.iter().zip(said) {
                prop_assert!(said == n || exclude && said < n);
            }
        }

        #[test]
        fn any_bytes_are_a_query_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            for query in [igmp_query(&bytes), mld_query(&bytes)].into_iter().flatten() {
                prop_assert!(query.within >= LEAST);
            }
        }
    }
}

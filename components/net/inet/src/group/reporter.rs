//! What the routers of one link are told of one family's groups, and when: RFC 3376 5 and 7.2, RFC 3810 6 and 8.2. No I/O: time is a number,
//! and what is to be sent is handed out.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypercall::Nanos;

use super::source::SourceFilter;
use super::wire::{Query, Version};

const SECOND: Nanos = 1_000_000_000;
/// Within which time a change is told again, by version.
const AGAIN: [Nanos; 3] = [10 * SECOND, 10 * SECOND, SECOND];
/// How often a change is told when no router says otherwise.
const ROBUSTNESS: u8 = 2;
/// The time between a router's queries when it does not say.
const INTERVAL: Nanos = 125 * SECOND;
/// The longest that a router of an older version is minded.
const LONGEST: Nanos = 3600 * SECOND;
/// The most groups whose changes are told again, of those that are told at once; and sources that one is asked for.
const MOST_CHANGES: usize = 4096;
const MOST_SOURCES: usize = 1024;

/// Groups and who of those who send to them is wanted.
pub(super) type Joined = BTreeMap<IpAddr, Arc<SourceFilter>>;

/// What a record says, in the numbers of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    IsInclude = 1,
    IsExclude,
    ToInclude,
    ToExclude,
    Allow,
    Block,
}

impl Kind {
    /// Whether its sources are those that are not wanted.
    pub(super) fn excludes(self) -> bool {
        matches!(self, Kind::IsExclude | Kind::ToExclude)
    }
}

/// A group record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) group: IpAddr,
    pub(super) sources: Vec<IpAddr>,
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Records(Vec<Record>),
    /// In the words of an older version: a group is wanted.
    Report(Version, IpAddr),
    /// A group is not wanted any more.
    Leave(IpAddr),
}

/// A change that has to be told: when, and how often still.
#[derive(Default)]
struct Change {
    at: Nanos,
    /// That the mode has changed.
    mode: u8,
    /// That these came or went.
    sources: BTreeMap<IpAddr, u8>,
}

/// A question about a group: when it will be answered, and for which sources; none for all.
struct Answer {
    at: Nanos,
    sources: BTreeSet<IpAddr>,
}

/// The state for one link and family.
#[derive(Default)]
pub(super) struct Reporter {
    /// Until when there are routers that understand no more than the first and the second version.
    older: [Nanos; 2],
    /// As the last query said; 0 for none.
    robustness: u8,
    interval: Nanos,
    changes: BTreeMap<IpAddr, Change>,
    /// When everything is told, because a router asked.
    all_at: Option<Nanos>,
    answers: BTreeMap<IpAddr, Answer>,
}

impl Reporter {
    fn version(&self, now: Nanos) -> Version {
        match self.older {
            [one, _] if now < one => Version::One,
            [_, two] if now < two => Version::Two,
            _ => Version::Three,
        }
    }

    fn robustness(&self) -> u8 {
        match self.robustness {
            0 => ROBUSTNESS,
            n => n,
        }
    }

    /// What is wanted of a group has changed.
    pub(super) fn changed(
        &mut self,
        now: Nanos,
        group: IpAddr,
        old: &SourceFilter,
        new: &SourceFilter,
    ) {
        let (version, times) = (self.version(now), self.robustness());
        let mode = match version {
            Version::Three => old.exclude != new.exclude,
            // Older routers know of groups only.
            _ if old.is_nobody() == new.is_nobody() => return,
            _ => true,
        };
        let change = self.changes.entry(group).or_default();
        change.at = now;
        if mode {
            change.mode = times;
            change.sources.clear();
        } else {
            let sources = old.sources.symmetric_difference(&new.sources);
            change.sources.extend(sources.map(|&s| (s, times)));
        }
    }

    /// A router asks. `chance` makes a random time of less than what it is given.
    pub(super) fn asked(
        &mut self,
        now: Nanos,
        chance: &mut dyn FnMut(Nanos) -> Nanos,
        query: &Query,
        joined: &Joined,
    ) {
        let before = self.version(now);
        if query.version == Version::Three {
            self.robustness = query.robustness;
            self.interval = query.interval;
        } else {
            let interval = if self.interval == 0 {
                INTERVAL
            } else {
                self.interval
            };
            let span = u64::from(self.robustness()) * interval + query.within;
            self.older[query.version as usize] = now + span.min(LONGEST);
        }
        let version = self.version(now);
        if version != before {
            self.changes.clear();
            self.answers.clear();
            self.all_at = None;
        }
        let at = now + chance(query.within);
        if self.all_at.is_some_and(|all| all <= at) {
            return;
        }
        match query.group {
            None if version == Version::Three => self.all_at = Some(at),
            None => {
                // Each for itself: somebody else may be the first to report it.
                for &group in joined.keys() {
                    let at = now + chance(query.within);
                    self.answer(group, at, BTreeSet::new());
                }
            }
            Some(group) => {
                if let Some(filter) = joined.get(&group) {
                    let all = query.sources.is_empty() || version != Version::Three;
                    let wanted = query.sources.iter().filter(|s| filter.accepts(s));
                    let sources: BTreeSet<_> = wanted.copied().collect();
                    if all || !sources.is_empty() {
                        self.answer(group, at, if all { BTreeSet::new() } else { sources });
                    }
                }
            }
        }
    }

    /// Plans an answer, or adds to one that is planned; for all sources when `sources` has none.
    fn answer(&mut self, group: IpAddr, at: Nanos, sources: BTreeSet<IpAddr>) {
        match self.answers.get_mut(&group) {
            None => drop(self.answers.insert(group, Answer { at, sources })),
            Some(planned) => {
                planned.at = planned.at.min(at);
                let all = planned.sources.is_empty() || sources.is_empty();
                planned.sources.extend(sources);
                if all || planned.sources.len() > MOST_SOURCES {
                    planned.sources.clear();
                }
            }
        }
    }

    /// Somebody else has reported a group in an older version's words: once is enough for its routers.
    pub(super) fn heard(&mut self, now: Nanos, group: &IpAddr) {
        if self.version(now) != Version::Three {
            self.answers.remove(group);
        }
    }

    /// When [`turn`](Self::turn) has something to do.
    pub(super) fn due(&self) -> Option<Nanos> {
        let changes = self.changes.values().map(|c| c.at);
        let answers = self.answers.values().map(|a| a.at);
        changes.chain(answers).chain(self.all_at).min()
    }

    /// What is to be sent now.
    pub(super) fn turn(
        &mut self,
        now: Nanos,
        chance: &mut dyn FnMut(Nanos) -> Nanos,
        joined: &Joined,
    ) -> Vec<Message> {
        let nobody = SourceFilter::NOBODY;
        let version = self.version(now);
        let mut out = Vec::new();
        let mut records = Vec::new();
        for (&group, change) in self.changes.iter_mut().filter(|(_, c)| c.at <= now) {
            let filter = joined.get(&group).map_or(&nobody, |f| f);
            match version {
                Version::Three => change.tell(group, filter, &mut records),
                _ => change.tell_older(version, group, filter, &mut out),
            }
            change.at = now + 1 + chance(AGAIN[version as usize]);
        }
        self.changes
            .retain(|_, c| c.mode != 0 || !c.sources.is_empty());
        if self.changes.len() > MOST_CHANGES {
            self.changes.clear();
        }
        let mut answers = Vec::new();
        if self.all_at.is_some_and(|at| at <= now) {
            self.all_at = None;
            answers.extend(joined.iter().map(|(&group, filter)| current(group, filter)));
        }
        self.answers.retain(|&group, answer| {
            if answer.at > now {
                return true;
            }
            match joined.get(&group) {
                None => {}
                Some(_) if version != Version::Three => out.push(Message::Report(version, group)),
                Some(filter) if answer.sources.is_empty() => answers.push(current(group, filter)),
                Some(filter) => answers.push(Record {
                    kind: Kind::IsInclude,
                    group,
                    sources: answer
                        .sources
                        .iter()
                        .filter(|s| filter.accepts(s))
                        .copied()
                        .collect(),
                }),
            }
            false
        });
        // A list of those wanted that has none says nothing.
        answers.retain(|r| r.kind != Kind::IsInclude || !r.sources.is_empty());
        for records in [records, answers] {
            if !records.is_empty() {
                out.push(Message::Records(records));
            }
        }
        out
    }
}

impl Change {
    /// The records of this change, once more, RFC 3376 5.1.
    fn tell(&mut self, group: IpAddr, filter: &SourceFilter, records: &mut Vec<Record>) {
        if self.mode > 0 {
            self.mode -= 1;
            records.push(Record {
                kind: if filter.exclude {
                    Kind::ToExclude
                } else {
                    Kind::ToInclude
                },
                group,
                sources: filter.sources.iter().copied().collect(),
            });
            return;
        }
        for (kind, wanted) in [(Kind::Allow, true), (Kind::Block, false)] {
            let sources = self.sources.keys().filter(|s| filter.accepts(s) == wanted);
            let sources: Vec<_> = sources.copied().collect();
            if !sources.is_empty() {
                records.push(Record {
                    kind,
                    group,
                    sources,
                });
            }
        }
        self.sources.retain(|_, times| {
            *times -= 1;
            *times > 0
        });
    }

    /// The same for routers of an older version.
    fn tell_older(
        &mut self,
        version: Version,
        group: IpAddr,
        filter: &SourceFilter,
        out: &mut Vec<Message>,
    ) {
        self.sources.clear();
        self.mode = self.mode.saturating_sub(1);
        if !filter.is_nobody() {
            return out.push(Message::Report(version, group));
        }
        // That a group is left is told once, and in the first version's words not at all.
        self.mode = 0;
        if version == Version::Two {
            out.push(Message::Leave(group));
        }
    }
}

/// What is wanted of a group, for who has asked.
fn current(group: IpAddr, filter: &SourceFilter) -> Record {
    Record {
        kind: if filter.exclude {
            Kind::IsExclude
        } else {
            Kind::IsInclude
        },
        group,
        sources: filter.sources.iter().copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(n: u8) -> IpAddr {
        [224, 0, 1, n].into()
    }

    fn list(numbers: &[u8]) -> BTreeSet<IpAddr> {
        numbers.iter().map(|&n| [10, 0, 0, n].into()).collect()
    }

    fn filter(exclude: bool, numbers: &[u8]) -> SourceFilter {
        let sources = list(numbers);
        SourceFilter { exclude, sources }
    }

    fn record(kind: Kind, n: u8, numbers: &[u8]) -> Record {
        let sources = list(numbers).into_iter().collect();
        Record {
            kind,
            group: group(n),
            sources,
        }
    }

    fn query(version: Version, group: Option<IpAddr>, numbers: &[u8]) -> Query {
        Query {
            version,
            group,
            sources: list(numbers),
            within: SECOND,
            robustness: 0,
            interval: 0,
        }
    }

    /// A reporter with its groups and its clock; chance always says the half.
    #[derive(Default)]
    struct Link {
        reporter: Reporter,
        joined: Joined,
        now: Nanos,
    }

    fn half(of: Nanos) -> Nanos {
        of / 2
    }

    impl Link {
        fn want(&mut self, n: u8, new: SourceFilter) {
            let old = self
                .joined
                .get(&group(n))
                .map_or(SourceFilter::NOBODY, |f| (**f).clone());
            if new.is_nobody() {
                self.joined.remove(&group(n));
            } else {
                self.joined.insert(group(n), Arc::new(new.clone()));
            }
            self.reporter.changed(self.now, group(n), &old, &new);
        }

        fn asked(&mut self, query: &Query) {
            self.reporter
                .asked(self.now, &mut half, query, &self.joined);
        }

        fn turn(&mut self) -> Vec<Message> {
            self.reporter.turn(self.now, &mut half, &self.joined)
        }

        /// What is sent from now on until there is nothing more to send.
        fn rest(&mut self) -> Vec<Message> {
            let mut out = Vec::new();
            while let Some(due) = self.reporter.due() {
                self.now = self.now.max(due);
                out.extend(self.turn());
            }
            out
        }

        fn records(&mut self) -> Vec<Record> {
            self.rest()
                .into_iter()
                .flat_map(|m| match m {
                    Message::Records(records) => records,
                    other => panic!("{other:?}"),
                })
                .collect()
        }
    }

    #[test]
    fn rfc3376_changes_are_told_twice_and_as_what_changed() {
        let mut link = Link::default();
        for (new, told) in [
            (filter(true, &[]), vec![record(Kind::ToExclude, 1, &[])]),
            (filter(true, &[1, 2]), vec![record(Kind::Block, 1, &[1, 2])]),
            (
                filter(true, &[2, 3]),
                vec![record(Kind::Allow, 1, &[1]), record(Kind::Block, 1, &[3])],
            ),
            (filter(false, &[7]), vec![record(Kind::ToInclude, 1, &[7])]),
            (filter(false, &[7, 8]), vec![record(Kind::Allow, 1, &[8])]),
            (filter(false, &[]), vec![record(Kind::Block, 1, &[7, 8])]),
        ] {
            link.want(1, new);
            assert_eq!(link.records(), [&told[..], &told].concat());
        }
    }

    #[test]
    fn rfc3376_a_change_before_the_last_was_told_again_goes_with_it() {
        let mut link = Link::default();
        link.want(1, filter(true, &[]));
        assert_eq!(link.turn().len(), 1);
        link.want(1, filter(true, &[5]));
        let to_exclude = record(Kind::ToExclude, 1, &[5]);
        let block = record(Kind::Block, 1, &[5]);
        assert_eq!(link.records(), [to_exclude, block.clone(), block]);
        link.want(1, filter(true, &[6]));
        assert_eq!(link.turn().len(), 1);
        link.want(1, filter(false, &[]));
        let left = record(Kind::ToInclude, 1, &[]);
        assert_eq!(link.records(), [left.clone(), left]);
    }

    #[test]
    fn rfc3376_a_router_says_how_often_changes_are_told() {
        let mut link = Link::default();
        link.asked(&Query {
            robustness: 5,
            ..query(Version::Three, None, &[])
        });
        assert_eq!(link.rest(), [], "nothing is joined");
        link.want(1, filter(true, &[]));
        assert_eq!(link.records().len(), 5);
    }

    #[test]
    fn rfc3376_queries_are_answered_within_their_time() {
        let mut link = Link::default();
        link.want(1, filter(true, &[1]));
        link.want(2, filter(false, &[1, 2]));
        link.rest();
        let asked = link.now;
        link.asked(&query(Version::Three, None, &[]));
        assert_eq!(link.turn(), []);
        let all = [
            record(Kind::IsExclude, 1, &[1]),
            record(Kind::IsInclude, 2, &[1, 2]),
        ];
        assert_eq!(link.records(), all);
        assert_eq!(link.now - asked, SECOND / 2);
        link.asked(&query(Version::Three, Some(group(1)), &[]));
        link.asked(&query(Version::Three, Some(group(9)), &[]));
        assert_eq!(link.records(), all[..1]);
        // Of sources: those that are wanted; two questions together.
        link.asked(&query(Version::Three, Some(group(1)), &[1, 2]));
        link.asked(&query(Version::Three, Some(group(1)), &[1, 3]));
        link.asked(&query(Version::Three, Some(group(2)), &[2, 3]));
        link.asked(&query(Version::Three, Some(group(2)), &[4]));
        let wanted = [
            record(Kind::IsInclude, 1, &[2, 3]),
            record(Kind::IsInclude, 2, &[2]),
        ];
        assert_eq!(link.records(), wanted);
        // Who will tell all needs not tell of one.
        link.asked(&query(Version::Three, None, &[]));
        link.asked(&query(Version::Three, Some(group(1)), &[2]));
        assert_eq!(link.records(), all);
    }

    #[test]
    fn rfc3376_older_routers_are_spoken_to_in_their_words_until_they_are_gone() {
        let mut link = Link::default();
        link.want(1, filter(true, &[]));
        link.rest();
        link.asked(&query(Version::Two, None, &[]));
        assert_eq!(link.rest(), [Message::Report(Version::Two, group(1))]);
        link.want(1, filter(true, &[4]));
        assert_eq!(link.rest(), [], "of sources they know nothing");
        link.want(2, filter(false, &[1]));
        let report = Message::Report(Version::Two, group(2));
        assert_eq!(link.rest(), [report.clone(), report]);
        link.want(2, filter(false, &[]));
        assert_eq!(link.rest(), [Message::Leave(group(2))]);
        link.asked(&query(Version::One, None, &[]));
        assert_eq!(link.rest(), [Message::Report(Version::One, group(1))]);
        link.want(1, SourceFilter::NOBODY);
        assert_eq!(link.rest(), []);
        link.now += 2 * INTERVAL + SECOND;
        link.want(1, filter(true, &[]));
        assert_eq!(link.records().len(), 2);
    }

    #[test]
    fn rfc2236_who_hears_a_report_of_another_keeps_silent() {
        let mut link = Link::default();
        link.asked(&query(Version::Two, None, &[]));
        link.want(1, filter(true, &[]));
        link.rest();
        link.asked(&query(Version::Two, None, &[]));
        link.reporter.heard(link.now, &group(1));
        assert_eq!(link.rest(), []);
    }

    #[test]
    fn changes_and_questions_without_end_take_bounded_memory() {
        let mut link = Link::default();
        link.want(1, filter(true, &[]));
        link.rest();
        for n in 0..3000u32 {
            let mut asked = query(Version::Three, Some(group(1)), &[]);
            asked.sources = (0..300)
                .map(|i| (n * 300 + i).to_be_bytes().into())
                .collect();
            link.asked(&asked);
        }
        assert!(
            link.reporter
                .answers
                .values()
                .all(|a| a.sources.len() <= MOST_SOURCES)
        );
        assert_eq!(link.records(), [record(Kind::IsExclude, 1, &[])]);
        for n in 0..3 * MOST_CHANGES as u32 {
            let group = (0xe100_0000 + n).to_be_bytes().into();
            let (old, new) = (SourceFilter::NOBODY, SourceFilter::ALL);
            link.reporter.changed(link.now, group, &old, &new);
            assert_eq!(link.turn().len(), 1, "told at once");
            assert!(link.reporter.changes.len() <= MOST_CHANGES);
        }
    }

    fn filters() -> impl Strategy<Value = SourceFilter> {
        (any::<bool>(), proptest::collection::vec(0u8..5, 0..4))
            .prop_map(|(exclude, numbers)| filter(exclude, &numbers))
    }

    proptest! {
        /// A router that loses any one report of a change and gets the next knows what is wanted, RFC 3376 6.4.
        #[test]
        fn rfc3376_what_routers_are_told_is_what_is_wanted(
            wishes in proptest::collection::vec((0u8..3, filters(), any::<bool>()), 1..20),
        ) {
            let mut link = Link::default();
            let mut router: BTreeMap<IpAddr, SourceFilter> = BTreeMap::new();
            let mut hear = |messages: Vec<Message>| {
                for message in messages {
                    let Message::Records(records) = message else { unreachable!() };
                    for r in records {
                        let known = router.entry(r.group).or_insert(SourceFilter::NOBODY);
                        let sources: BTreeSet<_> = r.sources.into_iter().collect();
                        match r.kind {
                            Kind::ToExclude => *known = SourceFilter { exclude: true, sources },
                            Kind::ToInclude => *known = SourceFilter { exclude: false, sources },
                            kind if (kind == Kind::Allow) == known.exclude => {
                                sources.iter().for_each(|s| { known.sources.remove(s); });
                            }
                            _ => known.sources.extend(sources),
                        }
                    }
                }
            };
            for (n, wish, wait) in wishes {
                link.want(n, wish);
                hear(link.turn());
                if wait {
                    hear(link.rest());
                }
            }
            for n in 0..3 {
                let nobody = SourceFilter::NOBODY;
                let wanted = link.joined.get(&group(n)).map_or(&nobody, |f| f);
                prop_assert_eq!(router.get(&group(n)).unwrap_or(&nobody), wanted);
            }
        }
    }
}

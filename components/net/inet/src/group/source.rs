//! Source filters, RFC 3376 3: whose messages to a group are wanted.

use core::net::IpAddr;
use std::collections::BTreeSet;

/// Whom of those who send to a group somebody wants to hear: the sources of a list, or all but those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFilter {
    /// All but the listed ones, mode EXCLUDE; else the listed ones alone, mode INCLUDE.
    pub exclude: bool,
    /// The list.
    pub sources: BTreeSet<IpAddr>,
}

impl SourceFilter {
    /// Wants to hear all: EXCLUDE nobody.
    pub const ALL: SourceFilter = SourceFilter {
        exclude: true,
        sources: BTreeSet::new(),
    };

    /// Wants to hear nobody, which is as not being a member: INCLUDE nobody.
    pub const NOBODY: SourceFilter = SourceFilter {
        exclude: false,
        sources: BTreeSet::new(),
    };

    /// Whether a source is heard.
    pub fn accepts(&self, source: &IpAddr) -> bool {
        self.sources.contains(source) != self.exclude
    }

    /// Whether none is heard.
    pub fn is_nobody(&self) -> bool {
        !self.exclude && self.sources.is_empty()
    }

    /// The filter that lets through what any of these wants, RFC 3376 3.2.
    pub(crate) fn merged<'a>(
        filters: impl Iterator<Item = &'a SourceFilter> + Clone,
    ) -> SourceFilter {
        match filters.clone().find(|f| f.exclude) {
            Some(first) => SourceFilter {
                exclude: true,
                // Only what this one refuses can be refused by all.
                sources: first
                    .sources
                    .iter()
                    .filter(|s| !filters.clone().any(|f| f.accepts(s)))
                    .copied()
                    .collect(),
            },
            None => SourceFilter {
                exclude: false,
                sources: filters.flat_map(|f| &f.sources).copied().collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn source(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn filter() -> impl Strategy<Value = SourceFilter> {
        let sources = proptest::collection::btree_set((0u8..6).prop_map(source), 0..5);
        (any::<bool>(), sources).prop_map(|(exclude, sources)| SourceFilter { exclude, sources })
    }

    proptest! {
        #[test]
        fn rfc3376_an_interface_hears_what_any_of_its_sockets_wants(
            filters in proptest::collection::vec(filter(), 0..5),
        ) {
            let merged = SourceFilter::merged(filters.iter());
            for n in 0..7 {
                let wanted = filters.iter().any(|f| f.accepts(&source(n)));
                prop_assert_eq!(merged.accepts(&source(n)), wanted);
            }
        }
    }
}

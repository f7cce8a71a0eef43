//! Where a firewall, address translation and their like hang in: the five points that netfilter has.

use std::sync::Arc;

use arc_swap::ArcSwap;
use net::{Ifnet, Packet};
use sync::Cpu;

use crate::Inet;

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
    /// in, fragments come as they are.
    fn packet(&self, cpu: &Cpu<'_>, at: &Passage<'_>, packet: &mut Packet) -> Verdict;
}

/// Those who look, by priority. Swapped whole.
#[derive(Default)]
pub(crate) struct Filters(ArcSwap<Vec<(i32, Arc<dyn Filter>)>>);

impl Filters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }
}

impl Inet {
    /// Has somebody look at every packet. Lower priorities come first; Linux's are -300 (raw) to 300.
    pub fn add_filter(&self, priority: i32, filter: Arc<dyn Filter>) {
        self.filters.0.rcu(|list| {
            let mut list = Vec::clone(list);
            let at = list.partition_point(|(p, _)| *p <= priority);
            list.insert(at, (priority, filter.clone()));
            list
        });
    }

    /// Ends what [`add_filter`](Self::add_filter) began.
    pub fn remove_filter(&self, filter: &Arc<dyn Filter>) {
        self.filters.0.rcu(|list| {
            let mut list = Vec::clone(list);
            list.retain(|(_, f)| !Arc::ptr_eq(f, filter));
            list
        });
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
        if filters.is_empty() {
            return true;
        }
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

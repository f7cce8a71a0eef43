//! A link between programs or kernels of a run: messages that are dropped, delayed, doubled, or cut off by a partition.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::{SimHost, lock};
use crate::{Clock, Host, Nanos, WakeReason};

/// What a link does to messages. Chances are in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// The least time a message takes, in nanoseconds.
    pub delay: Nanos,
    /// Up to so much more, by chance: with it messages overtake each other.
    pub jitter: Nanos,
    /// Messages that are lost.
    pub drop: u32,
    /// Messages that come twice.
    pub duplicate: u32,
}

impl Default for LinkConfig {
    /// 100 us, nothing lost, in order.
    fn default() -> Self {
        LinkConfig {
            delay: 100_000,
            jitter: 0,
            drop: 0,
            duplicate: 0,
        }
    }
}

/// One end of a link. What is sent here comes out at the other end.
///
/// The inbox is a host lock for the type system's sake: one thread takes it, never over a switch.
pub struct LinkEnd {
    host: Arc<SimHost>,
    shared: Arc<Shared>,
    side: usize,
}

struct Shared {
    config: Mutex<(LinkConfig, bool)>,
    inboxes: [Inbox; 2],
}

#[derive(Default)]
struct Inbox {
    queue: Mutex<VecDeque<Vec<u8>>>,
    /// Counts arrivals; receivers park on it.
    arrived: AtomicU32,
}

impl SimHost {
    /// A link, as its two ends.
    pub fn link(self: &Arc<Self>, config: LinkConfig) -> (LinkEnd, LinkEnd) {
        let shared = Arc::new(Shared {
            config: Mutex::new((config, false)),
            inboxes: Default::default(),
        });
        let end = |side| LinkEnd {
            host: self.clone(),
            shared: shared.clone(),
            side,
        };
        (end(0), end(1))
    }
}

impl LinkEnd {
    /// Changes what the link does, in both directions.
    pub fn configure(&self, config: LinkConfig) {
        lock(&self.shared.config).0 = config;
    }

    /// Cuts the link, or mends it. What is under way when it is cut still comes.
    pub fn partition(&self, cut: bool) {
        lock(&self.shared.config).1 = cut;
    }

    /// Sends a message, which may or may not come.
    pub fn send(&self, message: &[u8]) {
        let (config, cut) = *lock(&self.shared.config);
        let chance = |percent: u32| self.host.draw(100) < u64::from(percent);
        if cut || chance(config.drop) {
            return;
        }
        for _ in 0..1 + u32::from(chance(config.duplicate)) {
            let delay = config.delay + self.host.draw(config.jitter + 1);
            let (shared, host) = (self.shared.clone(), Arc::downgrade(&self.host));
            let (message, to) = (message.to_vec(), 1 - self.side);
            let arrive = move || {
                let inbox = &shared.inboxes[to];
                lock(&inbox.queue).push_back(message);
                inbox.arrived.fetch_add(1, Ordering::SeqCst);
                if let Some(host) = host.upgrade() {
                    host.unpark(&inbox.arrived, u32::MAX);
                }
            };
            lock(&self.host.sched).after(delay, Box::new(arrive));
        }
    }

    /// The next message; `None` when none has come by the deadline on the monotonic clock.
    pub fn receive(&self, deadline: Option<Nanos>) -> Option<Vec<u8>> {
        let inbox = &self.shared.inboxes[self.side];
        loop {
            let seen = inbox.arrived.load(Ordering::SeqCst);
            if let Some(message) = lock(&inbox.queue).pop_front() {
                return Some(message);
            }
            self.host.waits_for("link");
            if self.host.park(&inbox.arrived, seen, deadline) == WakeReason::TimedOut {
                return lock(&inbox.queue).pop_front();
            }
        }
    }

    /// The next message that comes within a span of time, in nanoseconds.
    pub fn receive_within(&self, span: Nanos) -> Option<Vec<u8>> {
        self.receive(Some(self.host.now(Clock::Monotonic).saturating_add(span)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimConfig;

    /// Sends 1,000 numbered messages over a link and answers what came, in order.
    fn through(config: LinkConfig) -> Vec<u32> {
        let run = SimHost::run(SimConfig::new(3), move |host| {
            let (a, b) = host.link(config);
            for i in 0..1000u32 {
                a.send(&i.to_le_bytes());
            }
            let mut got = Vec::new();
            while let Some(message) = b.receive_within(10_000_000_000) {
                got.push(u32::from_le_bytes(message.try_into().expect("4 bytes")));
            }
            got
        });
        run.result.expect("a value")
    }

    #[test]
    fn a_good_link_keeps_everything_in_order() {
        assert_eq!(
            through(LinkConfig::default()),
            (0..1000).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_bad_link_loses_doubles_and_mixes() {
        let lossy = through(LinkConfig {
            drop: 10,
            ..LinkConfig::default()
        });
        assert!((800..980).contains(&lossy.len()), "{}", lossy.len());
        let doubling = through(LinkConfig {
            duplicate: 50,
            ..LinkConfig::default()
        });
        assert!((1400..1600).contains(&doubling.len()), "{}", doubling.len());
        let mixed = through(LinkConfig {
            jitter: 1_000_000,
            ..LinkConfig::default()
        });
        assert_eq!(mixed.len(), 1000);
        assert!(!mixed.is_sorted());
    }

    #[test]
    fn a_partition_lets_nothing_through_until_it_is_mended() {
        let run = SimHost::run(SimConfig::new(1), |host| {
            let (a, b) = host.link(LinkConfig::default());
            b.partition(true);
            a.send(b"lost");
            assert_eq!(b.receive_within(1_000_000_000), None);
            a.partition(false);
            a.send(b"comes");
            b.receive(None)
        });
        assert_eq!(run.result.expect("a value").as_deref(), Some(&b"comes"[..]));
    }
}

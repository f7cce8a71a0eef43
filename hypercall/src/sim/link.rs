//! A link between programs or kernels of a run: messages that are dropped, delayed, doubled, or cut off by a partition.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use abi::Errno;

use super::{SimHost, lock};
use crate::{Clock, Host, InFrame, Nanos, OutFrame, WakeReason, Wire, WireInfo};

/// What a link does to messages. Chances are in thousandths.
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
    /// Messages of which one bit comes wrong.
    pub corrupt: u32,
    /// Messages that are overtaken by those of the next [`reorder_by`](Self::reorder_by) nanoseconds.
    pub reorder: u32,
    /// See [`reorder`](Self::reorder).
    pub reorder_by: Nanos,
    /// Bits that go through in a second each way; 0 for any number.
    pub bandwidth: u64,
    /// Bytes that may wait for the bandwidth; what comes on top is lost.
    pub queue: u64,
}

impl Default for LinkConfig {
    /// 100 us, nothing lost, in order.
    fn default() -> Self {
        LinkConfig {
            delay: 100_000,
            jitter: 0,
            drop: 0,
            duplicate: 0,
            corrupt: 0,
            reorder: 0,
            reorder_by: 1_000_000,
            bandwidth: 0,
            queue: 1 << 20,
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
    info: WireInfo,
    woken: AtomicBool,
}

struct Shared {
    config: Mutex<(LinkConfig, bool)>,
    /// When the bandwidth of each direction is free again.
    free_at: Mutex<[Nanos; 2]>,
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
            free_at: Mutex::default(),
            inboxes: Default::default(),
        });
        let end = |side| LinkEnd {
            host: self.clone(),
            shared: shared.clone(),
            side,
            info: WireInfo {
                name: "link".into(),
                frame_max: 65_550,
                ..WireInfo::default()
            },
            woken: AtomicBool::new(false),
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
        let chance = |per_mille: u32| self.host.draw(1000) < u64::from(per_mille);
        if cut || chance(config.drop) {
            return;
        }
        let Some(queued) = self.queued(&config, message.len() as u64) else {
            return;
        };
        for _ in 0..1 + u32::from(chance(config.duplicate)) {
            let mut delay = queued + config.delay + self.host.draw(config.jitter + 1);
            if chance(config.reorder) {
                delay += config.reorder_by;
            }
            let (shared, host) = (self.shared.clone(), Arc::downgrade(&self.host));
            let (mut message, to) = (message.to_vec(), 1 - self.side);
            if chance(config.corrupt) && !message.is_empty() {
                let bit = self.host.draw(message.len() as u64 * 8);
                message[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
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

    /// How long a message waits for the bandwidth and takes of it; `None` when too many wait already.
    fn queued(&self, config: &LinkConfig, len: u64) -> Option<Nanos> {
        const SECOND: u128 = 1_000_000_000;
        if config.bandwidth == 0 {
            return Some(0);
        }
        let bandwidth = u128::from(config.bandwidth);
        let now = self.host.now(Clock::Monotonic);
        let free_at = &mut lock(&self.shared.free_at)[self.side];
        let waits = free_at.saturating_sub(now);
        if u128::from(waits) * bandwidth / (8 * SECOND) > u128::from(config.queue) {
            return None;
        }
        let takes = (u128::from(len) * 8 * SECOND / bandwidth) as Nanos;
        *free_at = now + waits + takes;
        Some(waits + takes)
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

impl Wire for LinkEnd {
    fn info(&self) -> &WireInfo {
        &self.info
    }

    fn send(&self, frames: &[OutFrame<'_>]) -> usize {
        for frame in frames {
            LinkEnd::send(self, &frame.pieces.concat());
        }
        frames.len()
    }

    fn receive(&self, into: &mut Vec<InFrame>, max: usize) -> Result<(), Errno> {
        let inbox = &self.shared.inboxes[self.side];
        loop {
            let seen = inbox.arrived.load(Ordering::SeqCst);
            let mut queue = lock(&inbox.queue);
            let count = queue.len().min(max);
            into.extend(queue.drain(..count).map(|message| InFrame {
                bytes: message.into(),
                ..InFrame::default()
            }));
            drop(queue);
            if count > 0 || self.woken.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            self.host.waits_for("link");
            self.host.park(&inbox.arrived, seen, None);
        }
    }

    fn wake(&self) {
        let inbox = &self.shared.inboxes[self.side];
        self.woken.store(true, Ordering::SeqCst);
        inbox.arrived.fetch_add(1, Ordering::SeqCst);
        self.host.unpark(&inbox.arrived, u32::MAX);
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
            drop: 100,
            ..LinkConfig::default()
        });
        assert!((800..980).contains(&lossy.len()), "{}", lossy.len());
        let doubling = through(LinkConfig {
            duplicate: 500,
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
    fn bits_turn_and_some_are_overtaken() {
        let wrong = through(LinkConfig {
            corrupt: 200,
            ..LinkConfig::default()
        });
        assert_eq!(wrong.len(), 1000);
        let good = (0..1000).zip(&wrong).filter(|(a, b)| a == *b).count();
        assert!((700..900).contains(&good), "{good}");
        let mixed = through(LinkConfig {
            reorder: 100,
            ..LinkConfig::default()
        });
        assert_eq!(mixed.len(), 1000);
        assert!(!mixed.is_sorted());
    }

    #[test]
    fn bandwidth_takes_its_time_and_its_queue_is_bounded() {
        let config = LinkConfig {
            bandwidth: 8_000_000,
            queue: 100_000,
            ..LinkConfig::default()
        };
        let run = SimHost::run(SimConfig::new(1), move |host| {
            let (a, b) = host.link(config);
            let began = host.now(Clock::Monotonic);
            (0..1000).for_each(|_| a.send(&[0; 1000]));
            let mut got = 0;
            while b.receive_within(10_000_000).is_some() {
                got += 1;
            }
            (got, host.now(Clock::Monotonic) - began)
        });
        let (got, took) = run.result.expect("a value");
        // A megabyte in a second: 100 of them wait, and each takes a millisecond.
        assert!((100..=103).contains(&got), "{got}");
        assert!(took > 100_000_000, "{took}");
    }

    #[test]
    fn a_wire_is_found_by_its_name_carries_batches_and_is_woken() {
        let run = SimHost::run(SimConfig::new(1), |host| {
            let (a, b) = host.link(LinkConfig::default());
            host.put_wire("cable", Arc::new(b));
            let named = |name: &str| host.open_wire(&crate::WireSpec::Named(name.into()));
            assert_eq!(named("other").err(), Some(Errno::ENODEV));
            let b = named("cable").expect("a wire");
            let frame = OutFrame {
                pieces: smallvec::smallvec![&b"he"[..], &b"llo"[..]],
                ..OutFrame::default()
            };
            assert_eq!(Wire::send(&a, &[frame.clone(), frame]), 2);
            let mut got = Vec::new();
            while got.len() < 2 {
                b.receive(&mut got, 10).expect("frames");
            }
            assert!(got.iter().all(|frame| &frame.bytes[..] == b"hello"));
            b.wake();
            b.receive(&mut got, 10).expect("woken");
            assert_eq!(got.len(), 2);
        });
        run.result.expect("no panic");
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

//! Event counters, as evcnt(9) has them: a group and a name, and a count for each virtual CPU that is added to
//! without a lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sync::{Cpu, Cpus, Mutex};

use crate::Curlwp;

/// The most counters of a kernel.
pub const MAX: usize = 256;

/// A counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evcnt(u16);

/// What a counter stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvcntValue {
    /// Who counts, such as `vfs`.
    pub group: &'static str,
    /// What is counted, such as `namecache hit`.
    pub name: &'static str,
    /// How often, on all CPUs together.
    pub count: u64,
}

/// The counters of a kernel. `names` is a leaf; the counts of a CPU are written by who holds it. A CPU's counts come
/// into being with its first event.
pub struct Evcnts {
    names: Mutex<Vec<(&'static str, &'static str)>>,
    counts: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Evcnts {
    pub(crate) fn new(cpus: &Cpus) -> Evcnts {
        Evcnts {
            names: Mutex::default(),
            counts: (0..cpus.count()).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Makes a counter. The same group and name answer the same one. Beyond [`MAX`], all share the last.
    pub fn attach(&self, cx: &Curlwp<'_>, group: &'static str, name: &'static str) -> Evcnt {
        let mut names = self.names.lock(cx.cpu());
        let known = names.iter().position(|&n| n == (group, name));
        let at = known.unwrap_or_else(|| {
            if names.len() < MAX - 1 {
                names.push((group, name));
            } else if names.len() == MAX - 1 {
                names.push(("evcnt", "overflow"));
            }
            names.len() - 1
        });
        Evcnt(at as u16)
    }

    /// Counts one event.
    #[inline]
    pub fn count(&self, cpu: &Cpu<'_>, counter: Evcnt) {
        self.add(cpu, counter, 1);
    }

    /// Counts several events.
    #[inline]
    pub fn add(&self, cpu: &Cpu<'_>, counter: Evcnt, events: u64) {
        let counts =
            self.counts[cpu.index()].get_or_init(|| (0..MAX).map(|_| AtomicU64::new(0)).collect());
        let count = &counts[usize::from(counter.0)];
        // Only who holds the CPU writes here.
        count.store(
            count.load(Ordering::Relaxed).wrapping_add(events),
            Ordering::Relaxed,
        );
    }

    /// What all counters stand at, in the order of their making.
    pub fn values(&self, cx: &Curlwp<'_>) -> Vec<EvcntValue> {
        let names = self.names.lock(cx.cpu()).clone();
        let sum = |at: usize| {
            let each = self.counts.iter().filter_map(OnceLock::get);
            each.fold(0, |sum: u64, cpu| {
                sum.wrapping_add(cpu[at].load(Ordering::Relaxed))
            })
        };
        let value = |(at, (group, name))| EvcntValue {
            group,
            name,
            count: sum(at),
        };
        names.into_iter().enumerate().map(value).collect()
    }

    /// A line for each counter that has counted, as vmstat -e shows it.
    pub fn text(&self, cx: &Curlwp<'_>) -> String {
        let values = self.values(cx);
        let lines = values.iter().filter(|v| v.count != 0);
        lines
            .map(|v| format!("{} {} {}\n", v.group, v.name, v.count))
            .collect()
    }
}

impl Curlwp<'_> {
    /// Writes what every event counter stands at to the console.
    pub fn print_evcnts(&self) {
        let text = self.kernel().evcnts().text(self);
        self.kernel().host().console_write(text.as_bytes());
    }
}

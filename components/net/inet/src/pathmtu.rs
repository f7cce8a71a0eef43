//! Path MTUs that routers have told of, RFC 1191 and RFC 8201.

use core::net::IpAddr;
use std::collections::BTreeMap;

use hypercall::Nanos;
use net::Seldom;
use sync::{Cpu, Mutex};

use crate::{Inet, leaf};

/// How long one is believed.
const LIFETIME: Nanos = 600 * 1_000_000_000;
/// The most that are kept.
const MOST: usize = 1024;
/// Below this nobody may push IPv4 (Linux's `min_pmtu`).
const LEAST4: u32 = 552;
const LEAST6: u32 = 1280;

/// What is known; read without a lock, `changing` is a leaf.
#[derive(Default)]
pub(crate) struct PathMtu {
    known: Seldom<BTreeMap<IpAddr, (u32, Nanos)>>,
    changing: Mutex<()>,
}

impl PathMtu {
    /// The MTU of the path to an address, if it is less than the interface's.
    pub(crate) fn get(&self, dst: &IpAddr) -> Option<u32> {
        self.known.load().as_ref()?.get(dst).map(|(mtu, _)| *mtu)
    }

    /// Forgets all paths.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn forget(&self, cpu: &Cpu<'_>) {
        let leaf = leaf(cpu);
        let _guard = self.changing.lock(&leaf);
        self.known.store(None);
    }

    /// What is not too old.
    fn young(&self, now: Nanos) -> BTreeMap<IpAddr, (u32, Nanos)> {
        let mut known = match &*self.known.load() {
            Some(known) => BTreeMap::clone(known),
            None => BTreeMap::new(),
        };
        known.retain(|_, (_, until)| *until > now);
        known
    }
}

impl Inet {
    /// A router says how long a packet to an address may be, about a packet that may have been ours. Answers what is believed of it.
    pub(crate) fn learn_path_mtu(&self, cpu: &Cpu<'_>, dst: IpAddr, mtu: u32) -> u32 {
        let mtu = mtu.max(if dst.is_ipv4() { LEAST4 } else { LEAST6 });
        let now = self.now();
        {
            let leaf = leaf(cpu);
            let _guard = self.path_mtu.changing.lock(&leaf);
            let mut known = self.path_mtu.young(now);
            match known.get(&dst) {
                Some((old, _)) if *old < mtu => return *old,
                None if known.len() >= MOST => {
                    // The one that is forgotten soonest anyway.
                    let oldest = known.iter().min_by_key(|(_, (_, until))| *until);
                    if let Some(oldest) = oldest.map(|(dst, _)| *dst) {
                        known.remove(&oldest);
                    }
                }
                _ => {}
            }
            known.insert(dst, (mtu, now.saturating_add(LIFETIME)));
            self.path_mtu.known.store(Some(known));
        }
        self.fib.changed();
        mtu
    }

    /// Forgets what is too old.
    pub(crate) fn age_path_mtus(&self, cpu: &Cpu<'_>) {
        let now = self.now();
        let known = self.path_mtu.known.load();
        let mut all = known.iter().flat_map(|known| known.values());
        if all.all(|(_, until)| *until > now) {
            return;
        }
        {
            let leaf = leaf(cpu);
            let _guard = self.path_mtu.changing.lock(&leaf);
            let known = self.path_mtu.young(now);
            self.path_mtu
                .known
                .store((!known.is_empty()).then_some(known));
        }
        self.fib.changed();
    }
}

//! Path MTUs that routers have told of, RFC 1191 and RFC 8201.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hypercall::Nanos;
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
    known: ArcSwap<BTreeMap<IpAddr, (u32, Nanos)>>,
    changing: Mutex<()>,
}

impl PathMtu {
    /// The MTU of the path to an address, if it is less than the interface's.
    pub(crate) fn get(&self, dst: &IpAddr) -> Option<u32> {
        self.known.load().get(dst).map(|(mtu, _)| *mtu)
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
            let mut known = BTreeMap::clone(&self.path_mtu.known.load());
            known.retain(|_, (_, until)| *until > now);
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
            self.path_mtu.known.store(Arc::new(known));
        }
        self.fib.changed();
        mtu
    }

    /// Forgets what is too old.
    pub(crate) fn age_path_mtus(&self, cpu: &Cpu<'_>) {
        let now = self.now();
        if self
            .path_mtu
            .known
            .load()
            .values()
            .all(|(_, until)| *until > now)
        {
            return;
        }
        {
            let leaf = leaf(cpu);
            let _guard = self.path_mtu.changing.lock(&leaf);
            let mut known = BTreeMap::clone(&self.path_mtu.known.load());
            known.retain(|_, (_, until)| *until > now);
            self.path_mtu.known.store(Arc::new(known));
        }
        self.fib.changed();
    }
}

//! Settings that many connections share: what programs set is much the same for all of them.

use std::sync::Arc;

use sync::{Cpu, Mutex};
use tcp::Settings;

use crate::leaf;

/// The most that are known at once; connections with others have theirs for themselves.
const MOST: usize = 32;

/// Settings in use, those used last near the front. A leaf.
#[derive(Default)]
pub(super) struct Profiles(Mutex<Vec<Arc<Settings>>>);

impl Profiles {
    /// These settings, shared with whoever has the same.
    pub(super) fn share(&self, cpu: &Cpu<'_>, settings: Settings) -> Arc<Settings> {
        let leaf = leaf(cpu);
        let mut known = self.0.lock(&leaf);
        if let Some(at) = known.iter().position(|known| **known == settings) {
            known.swap(at, at / 2);
            return known[at / 2].clone();
        }
        if known.len() == MOST {
            known.retain(|known| Arc::strong_count(known) > 1);
            known.truncate(MOST - 1);
        }
        let new = Arc::new(settings);
        known.push(new.clone());
        new
    }
}

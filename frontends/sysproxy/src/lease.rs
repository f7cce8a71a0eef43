//! Which of a process's threads may answer calls ahead of the kernel: see "Posted calls" in `abi::ring`.
//!
//! One ring of a process at a time has leases, given out while no other call of the process is in flight. A call of another
//! thread takes them back first, and has what was posted under them run: so whatever the process has done before a call
//! has been done when the call begins, and what a lease says holds as long as it stands.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use kern::LwpHandle;

use crate::conn::lock;
use crate::ring::{Ran, RingControl};

/// The leases of a process. `holder` is locked before a ring's queue, and held while what is posted there runs; it is never
/// waited for by who has a virtual CPU.
#[derive(Default)]
pub(crate) struct Leases {
    /// Calls in flight, of whichever thread.
    calls: AtomicU32,
    /// Whether there is a holder. A call counts itself and then looks here; who gives leases out sets it and then looks at the
    /// count: one of the two sees the other.
    given: AtomicBool,
    holder: Mutex<Option<Arc<RingControl>>>,
}

/// A call in flight.
pub(crate) struct InFlight<'l>(&'l Leases);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Leases {
    /// A call begins: on that ring, or not on a ring. What the process has posted before it runs first.
    pub(crate) fn enter(
        &self,
        ring: Option<&Arc<RingControl>>,
        handle: &LwpHandle,
    ) -> InFlight<'_> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let call = InFlight(self);
        if let Some(ring) = ring {
            ring.run_posted(handle);
        }
        if self.given.load(Ordering::SeqCst) {
            self.recall_unless(ring, handle);
        }
        call
    }

    /// [`enter`](Self::enter) for a thread that may not sleep; `None` when it would have to, or another ring has leases.
    pub(crate) fn enter_at_once(
        &self,
        ring: &Arc<RingControl>,
        handle: &LwpHandle,
    ) -> Option<InFlight<'_>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let call = InFlight(self);
        if ring.run_posted_at_once(handle) == Ran::Stuck {
            return None;
        }
        if self.given.load(Ordering::SeqCst) {
            let holder = self.holder.try_lock().ok()?;
            if holder.as_ref().is_some_and(|own| !Arc::ptr_eq(own, ring)) {
                return None;
            }
        }
        Some(call)
    }

    /// Takes the leases back, whoever has them.
    pub(crate) fn recall(&self, handle: &LwpHandle) {
        self.recall_unless(None, handle);
    }

    fn recall_unless(&self, own: Option<&Arc<RingControl>>, handle: &LwpHandle) {
        let mut holder = lock(&self.holder);
        let others = |ring: &mut Arc<RingControl>| own.is_none_or(|own| !Arc::ptr_eq(own, ring));
        if let Some(ring) = holder.take_if(others) {
            self.given.store(false, Ordering::SeqCst);
            ring.recall();
            ring.run_posted(handle);
        }
    }

    /// Takes the leases back if that ring has them.
    pub(crate) fn recall_from(&self, ring: &Arc<RingControl>, handle: &LwpHandle) {
        let mut holder = lock(&self.holder);
        if holder.take_if(|own| Arc::ptr_eq(own, ring)).is_some() {
            self.given.store(false, Ordering::SeqCst);
        }
        ring.recall();
        ring.run_posted(handle);
    }

    /// Whether the present call, which is on that ring, may give out leases. What it finds from here on holds until
    /// [`give`](Self::give), if that agrees.
    pub(crate) fn offer(&self, ring: &Arc<RingControl>) -> bool {
        let Ok(mut holder) = self.holder.try_lock() else {
            return false;
        };
        if holder.as_ref().is_some_and(|own| !Arc::ptr_eq(own, ring)) {
            return false;
        }
        *holder = Some(ring.clone());
        self.given.store(true, Ordering::SeqCst);
        if self.calls.load(Ordering::SeqCst) == 1 {
            return true;
        }
        *holder = None;
        self.given.store(false, Ordering::SeqCst);
        ring.recall();
        false
    }

    /// Gives the ring what it was offered; false when another call has come in between, or comes just now.
    pub(crate) fn give(&self, ring: &Arc<RingControl>) -> bool {
        let Ok(holder) = self.holder.try_lock() else {
            return false;
        };
        let offered = holder.as_ref().is_some_and(|own| Arc::ptr_eq(own, ring));
        if offered {
            ring.lend();
        }
        offered
    }
}

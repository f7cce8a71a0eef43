//! The timer wheel: when connections and listening sockets want to be called.
//!
//! A turn costs the same however many timers there are, and what is idle has none. An entry is not taken out when its
//! timer moves: who is called looks what is due and enters itself again.

use std::sync::{Arc, OnceLock, Weak};

use hypercall::Nanos;
use kern::Curlwp;
use kern::callout::Callout;
use sync::{Cpu, Mutex};

use crate::{Inet, leaf};

/// Time of one slot, as a power of two in nanoseconds: about 4 ms.
const TICK: u32 = 22;
/// How many slots: what is further away is looked at once a turn.
const SLOTS: usize = 512;

/// Who is called.
pub(crate) trait Timed: Send + Sync {
    /// The time has come, or another one that was entered before.
    fn timer(self: Arc<Self>, cpu: &Cpu<'_>);
}

/// The wheel. `state` is held over the callout's own leaf.
pub(crate) struct Wheel {
    callout: OnceLock<Callout>,
    state: Mutex<State>,
}

struct State {
    slots: Vec<Vec<Weak<dyn Timed>>>,
    count: usize,
    /// The last tick whose slot has been emptied.
    done: u64,
    /// The tick that the callout is set for.
    next: u64,
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel {
            callout: OnceLock::new(),
            state: Mutex::new(State {
                slots: Vec::new(),
                count: 0,
                done: 0,
                next: u64::MAX,
            }),
        }
    }
}

impl Wheel {
    pub(crate) fn start(&self, cx: &Curlwp<'_>, inet: &Arc<Inet>) {
        let weak = Arc::downgrade(inet);
        let callout = Callout::new(cx.kernel(), move |cx| {
            if let Some(inet) = weak.upgrade() {
                inet.tcp.wheel.turn(cx, inet.now());
            }
        });
        let _ = self.callout.set(callout);
    }

    /// Has somebody called at a time, or shortly after. Answers when that will be at the latest.
    pub(crate) fn enter(
        &self,
        cpu: &Cpu<'_>,
        now: Nanos,
        at: Nanos,
        who: Weak<dyn Timed>,
    ) -> Nanos {
        let leaf = leaf(cpu);
        let mut state = self.state.lock(&leaf);
        let state = &mut *state;
        if state.slots.is_empty() {
            state.slots.resize_with(SLOTS, Vec::new);
        }
        if state.count == 0 {
            state.done = state.done.max((now >> TICK).saturating_sub(1));
        }
        let first = state.done + 1;
        let tick = ((at >> TICK) + 1).clamp(first, first + SLOTS as u64 - 1);
        state.slots[tick as usize % SLOTS].push(who);
        state.count += 1;
        if tick < state.next {
            state.next = tick;
            self.set(&leaf, tick);
        }
        tick << TICK
    }

    fn set(&self, leaf: &sync::OffCpu<'_>, tick: u64) {
        if let Some(callout) = self.callout.get() {
            callout.schedule(leaf, tick << TICK);
        }
    }

    /// Calls those whose time has come.
    fn turn(&self, cx: &Curlwp<'_>, now: Nanos) {
        let due = {
            let leaf = leaf(cx.cpu());
            let mut state = self.state.lock(&leaf);
            let state = &mut *state;
            let mut due = Vec::new();
            let until = now >> TICK;
            // After a long sleep one turn of the wheel empties all of it.
            for tick in (state.done + 1..=until).take(SLOTS) {
                due.append(&mut state.slots[tick as usize % SLOTS]);
            }
            state.done = state.done.max(until);
            state.count -= due.len();
            let ahead = |n: &u64| !state.slots[*n as usize % SLOTS].is_empty();
            let next = (state.done + 1..=state.done + SLOTS as u64).find(ahead);
            state.next = next.unwrap_or(u64::MAX);
            if let Some(tick) = next {
                self.set(&leaf, tick);
            }
            due
        };
        for who in due.into_iter().filter_map(|who| who.upgrade()) {
            who.timer(cx.cpu());
        }
    }
}

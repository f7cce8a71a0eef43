//! What a filter tells of itself, as text.

use core::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use hypercall::Clock;
use sync::OffCpu;

use crate::firewall::Firewall;
use crate::lang::{DEFAULT_STATES, protocol};
use crate::log::end;
use crate::rules::Counter;
use crate::state::State;
use crate::track::Way;
use crate::wire::Key;

const SECOND: u64 = 1_000_000_000;

impl Firewall {
    /// The rules with their counters as comments, so that the text can be loaded again.
    pub(crate) fn rules(&self) -> String {
        let loaded = self.loaded.load();
        let text = &loaded.text;
        let mut out = String::new();
        let dropped = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "# {} of {} states; dropped without a rule: {} invalid, {} for want of room",
            loaded.states.count(),
            text.states,
            dropped(&self.dropped.invalid),
            dropped(&self.dropped.no_room),
        );
        if text.states != DEFAULT_STATES {
            let _ = writeln!(out, "set states {}", text.states);
        }
        for table in &text.tables {
            let _ = writeln!(out, "{table}");
        }
        let translations = loaded.rdr.iter().map(|rule| &*rule.counter);
        text.rdr
            .iter()
            .zip(translations)
            .for_each(|(rule, counter)| line(&mut out, rule, counter));
        let translations = loaded.nat.iter().map(|rule| &*rule.counter);
        text.nat
            .iter()
            .zip(translations)
            .for_each(|(rule, counter)| line(&mut out, rule, counter));
        let decisions = loaded.rules.iter().map(|rule| &*rule.counter);
        text.rules
            .iter()
            .zip(decisions)
            .for_each(|(rule, counter)| line(&mut out, rule, counter));
        line(&mut out, &"# passed by no rule", &loaded.others);
        out
    }

    /// The connections.
    pub(crate) fn list(&self) -> String {
        let now = self.host.now(Clock::Monotonic);
        let mut all = self.loaded.load().states.list(&OffCpu(&*self.host), now);
        all.sort_by_key(|state| {
            let key = &state.keys[0];
            (key.protocol, key.src, key.sport, key.dst, key.dport)
        });
        let mut out = String::new();
        for state in all {
            state_line(&mut out, &state, now);
        }
        out
    }
}

fn line(out: &mut String, rule: &dyn Display, counter: &Counter) {
    let (packets, bytes) = figures(counter);
    let _ = writeln!(out, "{rule} # {packets} packets {bytes} bytes");
}

fn figures(counter: &Counter) -> (u64, u64) {
    (
        counter.packets.load(Ordering::Relaxed),
        counter.bytes.load(Ordering::Relaxed),
    )
}

fn state_line(out: &mut String, state: &State, now: u64) {
    let ends = |key: &Key| (end(key.src, key.sport), end(key.dst, key.dport));
    let (src, dst) = ends(&state.keys[0]);
    let (new_src, new_dst) = ends(&state.keys[1].reversed());
    let left = state.expires().saturating_sub(now) / SECOND;
    let [(packets, bytes), (packets_back, bytes_back)] =
        [Way::Forward, Way::Back].map(|way| figures(&state.traffic[way.index()]));
    let _ = writeln!(
        out,
        "{} {src} {dst} {new_src} {new_dst} {} {left} {packets} {bytes} {packets_back} {bytes_back}",
        protocol(state.keys[0].protocol),
        state.phase().name(),
    );
}

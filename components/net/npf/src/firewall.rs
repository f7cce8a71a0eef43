//! What happens to a packet at each of the stack's five points.
//!
//! A packet is looked up when it comes in (Prerouting) or is sent (Output). What is of a known connection gets its new destination
//! there, and its new source where it ends (Input) or leaves (Postrouting): in between it has the addresses that routes and the stack's
//! own answers are about. What is of none is asked of the rules, at Input, Forward or Output; its state is made when it has passed all
//! of them. Between the points a packet carries a note ([`Packet::note`]) of what is known of it.

use core::net::IpAddr;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use hypercall::{Clock, Host, Nanos};
use inet::{Filter, Hook, Inet, Passage, Refusal, Verdict};
use net::{Ifnet, Packet};
use sync::{Cpu, OffCpu};

use crate::lang::{Action, Direction};
use crate::log::Log;
use crate::nat;
use crate::rules::{Addresses, Counter, Loaded, Place};
use crate::state::{NoRoom, State};
use crate::track::{Fit, Way};
use crate::wire::{Key, RST, Seen, Side, What};

/// A kernel's packet filter: rules, and the connections that are known.
pub(crate) struct Firewall {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) loaded: ArcSwap<Loaded>,
    pub(crate) dropped: Dropped,
    pub(crate) log: Log,
}

/// Packets that no rule has dropped.
#[derive(Default)]
pub(crate) struct Dropped {
    /// Cut off, or what no end of their connection can have sent.
    pub(crate) invalid: AtomicU64,
    /// For which there was no room in the table, or no port.
    pub(crate) no_room: AtomicU64,
}

/// An error about a packet of a known connection that has not been translated: there is nothing to do to it.
struct Related;

/// What a packet of no known connection carries from one point to the next.
struct Newcomer {
    /// As it came.
    key: Key,
    counter: Arc<Counter>,
}

/// A note's word: which way a packet of a known connection goes, and whether it is an error about it.
const BACK: u32 = 1;
const ERROR: u32 = 2;

impl Addresses for Inet {
    fn has(&self, interface: u32, addr: &IpAddr) -> bool {
        self.addresses()
            .iter()
            .any(|a| a.interface == interface && a.addr == *addr)
    }

    fn first(&self, interface: u32, v6: bool) -> Option<IpAddr> {
        let addresses = self.addresses();
        let of = addresses
            .iter()
            .filter(|a| a.interface == interface && a.addr.is_ipv6() == v6);
        // The scope that reaches furthest.
        let usable = of.filter(|a| !a.tentative && !a.duplicate);
        usable.min_by_key(|a| a.scope()).map(|a| a.addr)
    }
}

impl Filter for Firewall {
    fn packet(&self, cpu: &Cpu<'_>, at: &Passage<'_>, packet: &mut Packet) -> Verdict {
        // What stays in the kernel is not looked at.
        let inside = |interface: Option<&Arc<Ifnet>>| interface.is_some_and(|i| i.is_loopback());
        if inside(at.input) || inside(at.output) {
            return Verdict::Accept;
        }
        let visit = Visit {
            firewall: self,
            cpu,
            at,
            loaded: self.loaded.load(),
            leaf: OffCpu(&*self.host),
            now: self.host.now(Clock::Monotonic),
        };
        let passes = match at.hook {
            Hook::Prerouting => visit.arrives(packet),
            Hook::Input => visit.ends(packet, Direction::In),
            Hook::Forward => visit.asks(packet, Direction::Forward),
            Hook::Output => visit.begins(packet),
            Hook::Postrouting => visit.leaves(packet),
        };
        match passes {
            true => Verdict::Accept,
            false => Verdict::Drop,
        }
    }

    fn wants_whole(&self) -> bool {
        true
    }
}

/// A packet at one of the points. The methods answer whether it goes on.
pub(crate) struct Visit<'a> {
    pub(crate) firewall: &'a Firewall,
    cpu: &'a Cpu<'a>,
    pub(crate) at: &'a Passage<'a>,
    pub(crate) loaded: Guard<Arc<Loaded>>,
    pub(crate) leaf: OffCpu<'a>,
    pub(crate) now: Nanos,
}

impl Visit<'_> {
    /// Prerouting.
    fn arrives(&self, packet: &mut Packet) -> bool {
        packet.note = None;
        let Some(mut seen) = self.look(packet) else {
            return false;
        };
        match self.recognize(packet, &mut seen) {
            Some(passes) => passes,
            None => self.redirect(packet, &mut seen).is_some(),
        }
    }

    /// Output.
    fn begins(&self, packet: &mut Packet) -> bool {
        packet.note = None;
        let Some(mut seen) = self.look(packet) else {
            return false;
        };
        if let Some(passes) = self.recognize(packet, &mut seen) {
            return passes;
        }
        // What the kernel answers to what it takes for nobody's.
        let answer = match seen.what {
            What::Tcp(segment) => segment.flags & RST != 0,
            What::Error(..) => true,
            _ => false,
        };
        answer || self.decide(packet, &seen, Direction::Out)
    }

    /// Forward.
    fn asks(&self, packet: &mut Packet, direction: Direction) -> bool {
        let decided =
            |note: &Arc<dyn Any + Send + Sync>| note.is::<State>() || note.is::<Related>();
        if packet.note.as_ref().is_some_and(|(note, _)| decided(note)) {
            return true;
        }
        match self.look(packet) {
            Some(seen) => self.decide(packet, &seen, direction),
            None => false,
        }
    }

    /// Input.
    fn ends(&self, packet: &mut Packet, direction: Direction) -> bool {
        self.asks(packet, direction) && self.leaves(packet)
    }

    /// Postrouting, and where a packet ends.
    fn leaves(&self, packet: &mut Packet) -> bool {
        let known = self.known(packet);
        let Some((note, _)) = packet.note.take() else {
            return true;
        };
        let Some(mut seen) = self.look(packet) else {
            return false;
        };
        if let Some((state, way, error)) = known {
            return self
                .turn(packet, &mut seen, &state, way, error, Side::Src)
                .is_some();
        }
        match note.downcast::<Newcomer>() {
            Ok(newcomer) => self.settle(packet, &mut seen, &newcomer),
            Err(_) => true,
        }
    }

    fn look(&self, packet: &mut Packet) -> Option<Seen> {
        let seen = Seen::of(packet);
        if seen.is_none() {
            self.firewall
                .dropped
                .invalid
                .fetch_add(1, Ordering::Relaxed);
        }
        seen
    }

    /// The known connection that a packet's note is about.
    fn known(&self, packet: &Packet) -> Option<(Arc<State>, Way, bool)> {
        let (note, word) = packet.note.as_ref()?;
        let state = Arc::clone(note).downcast::<State>().ok()?;
        let way = if word & BACK != 0 {
            Way::Back
        } else {
            Way::Forward
        };
        Some((state, way, word & ERROR != 0))
    }

    /// Finds the connection that a packet is of, or that an error is about. `None` when there is none.
    fn recognize(&self, packet: &mut Packet, seen: &mut Seen) -> Option<bool> {
        let states = &self.loaded.states;
        let find = |key: &Key| states.find(&self.leaf, key, self.now);
        let (state, way, error) = if let What::Error(_, inner) = seen.what {
            match find(&inner.key.reversed()) {
                Some((state, way)) => (state, way, true),
                None => {
                    find(&inner.key)?;
                    packet.note = Some((Arc::new(Related), 0));
                    return Some(true);
                }
            }
        } else {
            let (state, way) = find(&seen.key)?;
            match state.packet(&self.leaf, way, seen, self.now) {
                Fit::Yes => (state, way, false),
                Fit::Anew => {
                    states.remove(&self.leaf, &state);
                    return None;
                }
                Fit::No => {
                    self.firewall
                        .dropped
                        .invalid
                        .fetch_add(1, Ordering::Relaxed);
                    return Some(false);
                }
            }
        };
        if error {
            state.count(way, seen.len);
        }
        let passes = self
            .turn(packet, seen, &state, way, error, Side::Dst)
            .is_some();
        let mut word = if way == Way::Back { BACK } else { 0 };
        word |= if error { ERROR } else { 0 };
        packet.note = Some((state as Arc<dyn Any + Send + Sync>, word));
        Some(passes)
    }

    /// Translates an end of a packet of a known connection.
    fn turn(
        &self,
        packet: &mut Packet,
        seen: &mut Seen,
        state: &State,
        way: Way,
        error: bool,
        side: Side,
    ) -> Option<()> {
        let to = state.target(way, side);
        if !error {
            return seen.rewrite(packet, side, to);
        }
        // Who tells of the error may be a router: its address is hidden only where the end's is.
        let outer = match state.translates(way, side) {
            true => to.0,
            false => seen.key.end(side).0,
        };
        seen.rewrite_error(packet, side, outer, to)
    }

    /// Gives a packet of no known connection the destination that a rule says.
    fn redirect(&self, packet: &mut Packet, seen: &mut Seen) -> Option<()> {
        let loaded = &self.loaded;
        if loaded.rdr.is_empty() || !seen.may_begin() {
            return Some(());
        }
        let interface = self.at.input.map_or(0, |i| i.index());
        let find = |rule| nat::target(rule, interface, seen, self.at.inet);
        let Some((rule, (to, port))) = loaded.rdr.iter().find_map(|rule| Some((rule, find(rule)?)))
        else {
            return Some(());
        };
        rule.counter.count(seen.len);
        let key = seen.key;
        seen.rewrite(packet, Side::Dst, (to, port.unwrap_or(key.dport)))?;
        let newcomer = Newcomer {
            key,
            counter: loaded.others.clone(),
        };
        packet.note = Some((Arc::new(newcomer), 0));
        Some(())
    }

    /// Has the rules decide about a packet of no known connection.
    fn decide(&self, packet: &mut Packet, seen: &Seen, direction: Direction) -> bool {
        let loaded = &self.loaded;
        let index = |interface: Option<&Arc<Ifnet>>| interface.map_or(0, |i| i.index());
        let place = Place {
            direction,
            input: index(self.at.input),
            output: index(self.at.output),
        };
        let (action, counter) = match loaded.decide(place, seen, self.at.inet) {
            Some((number, rule)) => {
                if rule.log {
                    self.firewall
                        .log
                        .packet(self, &loaded.text.rules[number], direction, seen);
                }
                (rule.action, &rule.counter)
            }
            None => (Action::Pass { stateless: false }, &loaded.others),
        };
        match action {
            Action::Pass { stateless } => {
                // A redirected packet needs its state: the answers are translated by it.
                let key = packet
                    .note
                    .as_ref()
                    .and_then(|(note, _)| note.downcast_ref::<Newcomer>());
                let key = key.map(|newcomer| newcomer.key);
                if stateless && key.is_none() || !seen.may_begin() {
                    counter.count(seen.len);
                    return true;
                }
                let newcomer = Newcomer {
                    key: key.unwrap_or(seen.key),
                    counter: counter.clone(),
                };
                packet.note = Some((Arc::new(newcomer), 0));
                true
            }
            Action::Block => {
                counter.count(seen.len);
                false
            }
            Action::Reject { prohibited } => {
                counter.count(seen.len);
                // Who sent it does not know where it was redirected to.
                let newcomer = packet
                    .note
                    .take()
                    .and_then(|(note, _)| note.downcast::<Newcomer>().ok());
                if let Some(newcomer) = newcomer {
                    let mut seen = *seen;
                    let _ = seen.rewrite(packet, Side::Dst, newcomer.key.end(Side::Dst));
                }
                let how = match (prohibited, &seen.what) {
                    (true, _) => Refusal::Prohibited,
                    (false, What::Tcp(_)) => Refusal::Reset,
                    (false, _) => Refusal::Port,
                };
                self.at.inet.refuse(self.cpu, self.at, packet, how);
                false
            }
        }
    }

    /// Makes the state of a packet that has passed everything, and gives it its new source.
    fn settle(&self, packet: &mut Packet, seen: &mut Seen, newcomer: &Newcomer) -> bool {
        let loaded = &self.loaded;
        let source = match self.at.hook {
            Hook::Postrouting => {
                let interface = self.at.output.map_or(0, |i| i.index());
                let find = |rule| nat::target(rule, interface, seen, self.at.inet);
                let found = loaded.nat.iter().find_map(|rule| Some((rule, find(rule)?)));
                found.map(|(rule, (to, _))| {
                    rule.counter.count(seen.len);
                    to
                })
            }
            _ => None,
        };
        let make = |keys| {
            let state = State::new(keys, &seen.what, newcomer.counter.clone(), self.now);
            Arc::new(state)
        };
        let settled = nat::settle(
            &loaded.states,
            &*self.firewall.host,
            self.now,
            newcomer.key,
            seen.key,
            source,
            make,
        );
        match settled {
            Ok(state) => {
                state.count(Way::Forward, seen.len);
                self.turn(packet, seen, &state, Way::Forward, false, Side::Src)
                    .is_some()
            }
            // The same packet twice at once, or both ends' first ones: the other one was first.
            Err(NoRoom::Known(state, way)) => self
                .turn(packet, seen, &state, way, false, Side::Src)
                .is_some(),
            Err(_) => {
                self.firewall
                    .dropped
                    .no_room
                    .fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Firewall {
    pub(crate) fn new(host: Arc<dyn Host>, log: Log, loaded: Arc<Loaded>) -> Firewall {
        Firewall {
            loaded: ArcSwap::new(loaded),
            dropped: Dropped::default(),
            log,
            host,
        }
    }
}

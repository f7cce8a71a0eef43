//! The table and the translation's ports against a list of connections that is searched from end to end.

use core::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hypercall::{Host, Nanos, PosixHost};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use sync::OffCpu;

use super::{NoRoom, State, States};
use crate::nat;
use crate::track::{Fit, Phase, Way};
use crate::wire::{ACK, FIN, Key, RST, SYN, Seen, Segment, What};

const SECOND: Nanos = 1_000_000_000;
/// Whose address sources get.
const ROUTER: [u8; 4] = [10, 0, 9, 1];
/// What an end offers.
const WINDOW: u32 = 1000;

/// A TCP connection whose packets arrive at once and in order, by what its ends know.
#[derive(Clone, Copy, Default)]
struct Ends {
    next: [u32; 2],
    acked: [u32; 2],
    fin: [bool; 2],
    fin_acked: [bool; 2],
    answered: bool,
    established: bool,
    reset: bool,
}

/// What happens in a connection.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Some bytes, or the next step of its opening.
    Data(u8),
    Fin,
    Reset,
    /// A reset by somebody who does not know the number.
    BlindReset,
}

impl Ends {
    fn new(isn: u32) -> (Ends, Segment) {
        let other = isn.wrapping_mul(7).wrapping_add(99);
        let ends = Ends {
            next: [isn.wrapping_add(1), other],
            acked: [isn, other],
            ..Ends::default()
        };
        (ends, segment(SYN, isn, 0, 0))
    }

    /// How far it has got.
    fn phase(&self) -> Phase {
        match self {
            _ if self.reset || self.fin_acked == [true; 2] => Phase::Closed,
            _ if self.fin != [false; 2] => Phase::Closing,
            _ if self.established => Phase::Established,
            _ if self.answered => Phase::Answered,
            _ => Phase::Opening,
        }
    }

    /// The segment by which an end does something, and what becomes of it.
    fn step(&mut self, way: Way, event: Event) -> (Segment, Fit) {
        let (me, other) = (way.index(), way.other().index());
        let syn = segment(SYN, self.next[0].wrapping_sub(1), 0, 0);
        if let Event::BlindReset = event {
            let far = self.next[me].wrapping_add(1 << 28);
            return (segment(RST, far, 0, 0), Fit::No);
        }
        let first = way == Way::Back && !self.answered;
        if let Event::Reset = event {
            self.reset = true;
            let segment = match first {
                true => segment(RST | ACK, 0, self.next[0], 0),
                false => segment(RST, self.next[me], self.next[other], 0),
            };
            return (segment, Fit::Yes);
        }
        if self.phase() == Phase::Closed {
            // What was on its way: it changes nothing.
            return (segment(ACK, self.next[me], self.next[other], 0), Fit::Yes);
        }
        if !self.answered && way == Way::Forward {
            return (syn, Fit::Yes);
        }
        if first {
            self.answered = true;
            self.acked[0] = self.next[0];
            let isn = self.next[1];
            self.next[1] = isn.wrapping_add(1);
            return (segment(SYN | ACK, isn, self.next[0], 0), Fit::Yes);
        }
        self.established |= way == Way::Forward;
        self.acked[other] = self.next[other];
        self.fin_acked[other] |= self.fin[other];
        let (seq, ack) = (self.next[me], self.next[other]);
        let waiting = seq.wrapping_sub(self.acked[me]);
        match event {
            Event::Data(len) if !self.fin[me] && waiting + u32::from(len) <= WINDOW => {
                self.next[me] = seq.wrapping_add(len.into());
                (segment(ACK, seq, ack, len.into()), Fit::Yes)
            }
            Event::Fin if !self.fin[me] && waiting < WINDOW => {
                self.fin[me] = true;
                self.next[me] = seq.wrapping_add(1);
                (segment(FIN | ACK, seq, ack, 0), Fit::Yes)
            }
            _ => (segment(ACK, seq, ack, 0), Fit::Yes),
        }
    }
}

fn segment(flags: u8, seq: u32, ack: u32, len: u32) -> Segment {
    Segment {
        flags,
        seq,
        ack,
        window: WINDOW as u16,
        len,
        scale: None,
    }
}

/// How long a connection is remembered, in seconds.
fn patience(protocol: u8, phase: Phase) -> Nanos {
    SECOND
        * match (protocol, phase) {
            (6, Phase::Opening | Phase::Answered) => 60,
            (6, Phase::Closing) => 240,
            (6, Phase::Closed) => 120,
            (6, Phase::Established) => 24 * 3600,
            (1, _) => 60,
            (_, Phase::Established) => 300,
            _ => 60,
        }
}

/// A connection as the model knows it.
struct Flow {
    state: Arc<State>,
    phase: Phase,
    expires: Nanos,
    /// Of TCP.
    ends: Ends,
}

impl Flow {
    fn keys(&self) -> [Key; 2] {
        self.state.keys
    }
}

/// What the model says of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    In,
    Known,
    Taken,
    Full,
}

/// The table beside the list.
struct Both {
    host: Arc<dyn Host>,
    states: States,
    limit: usize,
    flows: Vec<Flow>,
    now: Nanos,
    /// So that each connection has numbers of its own.
    opened: u32,
}

impl Both {
    fn new(limit: usize) -> Both {
        let host: Arc<dyn Host> = PosixHost::new();
        Both {
            states: States::new(&*host, limit),
            host,
            limit,
            flows: Vec::new(),
            now: SECOND,
            opened: 0,
        }
    }

    /// A first packet: the state that it makes, and the numbers that go on from it.
    fn begin(&mut self, protocol: u8) -> (What, Ends) {
        self.opened += 1;
        let (ends, syn) = Ends::new(self.opened.wrapping_mul(0x3779_b9f9));
        let what = match protocol {
            6 => What::Tcp(syn),
            17 => What::Udp,
            1 => What::Echo(8),
            _ => What::Other,
        };
        (what, ends)
    }

    fn find(&self, key: &Key) -> Option<(&Flow, Way)> {
        let of = |way: Way| move |flow: &&Flow| flow.keys()[way.index()] == *key;
        let forward = self.flows.iter().find(of(Way::Forward));
        let back = || self.flows.iter().find(of(Way::Back));
        forward
            .map(|flow| (flow, Way::Forward))
            .or_else(|| Some((back()?, Way::Back)))
    }

    /// What becomes of a connection with these keys while there is room.
    fn fate(&self, keys: [Key; 2]) -> Fate {
        match keys.map(|key| self.find(&key).is_some()) {
            [true, _] => Fate::Known,
            [_, true] => Fate::Taken,
            // A packet from an end to itself is its own answer.
            _ if keys[0] == keys[1] => Fate::Known,
            _ => Fate::In,
        }
    }

    /// When the table is full a newcomer takes the place of one of the least. The table says which one; that it may have gone, the
    /// model says. False when nobody may.
    fn somebody_goes(&mut self) -> Result<bool, TestCaseError> {
        let rank = |flow: &Flow| (flow.phase, flow.expires);
        let Some(least) = self.flows.iter().map(rank).min() else {
            return Ok(false);
        };
        if self.flows.len() < self.limit || least.0 == Phase::Established {
            return Ok(false);
        }
        let there = self.states.list(&OffCpu(&*self.host), self.now);
        let is_there = |flow: &Flow| there.iter().any(|state| Arc::ptr_eq(state, &flow.state));
        let gone: Vec<usize> = (0..self.flows.len())
            .filter(|&at| !is_there(&self.flows[at]))
            .collect();
        prop_assert_eq!(gone.len(), 1, "one goes for one");
        let gone = self.flows.swap_remove(gone[0]);
        prop_assert_eq!(rank(&gone), least);
        Ok(true)
    }

    /// Compares what has become of a newcomer with what should have.
    fn check(
        &mut self,
        state: Result<Arc<State>, NoRoom>,
        fate: impl Fn(&Both) -> Fate,
        ends: Ends,
    ) -> TestCaseResult {
        let full = self.flows.len() >= self.limit;
        let room = self.somebody_goes()? || !full;
        let expected = if room { fate(self) } else { Fate::Full };
        let got = match &state {
            Ok(_) => Fate::In,
            Err(NoRoom::Known(..)) => Fate::Known,
            Err(NoRoom::Taken) => Fate::Taken,
            Err(NoRoom::Full) => Fate::Full,
        };
        prop_assert_eq!(got, expected);
        match state {
            Ok(state) => {
                let expires = self.now + patience(state.keys[0].protocol, Phase::Opening);
                self.flows.push(Flow {
                    state,
                    phase: Phase::Opening,
                    expires,
                    ends,
                });
            }
            Err(NoRoom::Known(known, way)) => {
                if let Some((flow, model_way)) = self.find(&known.keys[way.index()]) {
                    prop_assert!(Arc::ptr_eq(&flow.state, &known));
                    prop_assert_eq!(way, model_way);
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn insert(&mut self, keys: [Key; 2]) -> TestCaseResult {
        let (what, ends) = self.begin(keys[0].protocol);
        let state = Arc::new(State::new(keys, &what, Arc::default(), self.now));
        let result = self.states.insert(&OffCpu(&*self.host), &state, self.now);
        self.check(result.map(|()| state), |both| both.fate(keys), ends)
    }

    /// A connection whose source the router hides, if it is told to.
    fn settle(&mut self, original: Key, current: Key, hidden: bool) -> TestCaseResult {
        let (what, ends) = self.begin(original.protocol);
        let source = hidden.then(|| IpAddr::from(ROUTER));
        let make = |keys| Arc::new(State::new(keys, &what, Arc::default(), self.now));
        let result = nat::settle(
            &self.states,
            &*self.host,
            self.now,
            original,
            current,
            source,
            make,
        );
        let mut wanted = current;
        wanted.src = source.unwrap_or(current.src);
        let got = result.as_ref().ok().map(|state| state.keys);
        let has_ports = matches!(original.protocol, 1 | 6 | 17);
        self.check(
            result,
            |both| match both.fate([original, wanted.reversed()]) {
                // Another port is found.
                Fate::Taken if has_ports => Fate::In,
                fate => fate,
            },
            ends,
        )?;
        let Some([first, answer]) = got else {
            return Ok(());
        };
        prop_assert_eq!(first, original);
        let sent = answer.reversed();
        prop_assert_eq!(Key { sport: 0, ..sent }, Key { sport: 0, ..wanted });
        let others = &self.flows[..self.flows.len() - 1];
        let clashes = |key: Key| others.iter().any(|flow| flow.keys().contains(&key));
        prop_assert!(!clashes(answer) && !clashes(first), "given away twice");
        if sent.sport != wanted.sport {
            prop_assert!(clashes(wanted.reversed()), "its own port was free");
            prop_assert!(sent.sport >= nat::FIRST);
        }
        Ok(())
    }

    /// A packet of whatever connection the key is of.
    fn packet(&mut self, key: Key, event: Event) -> TestCaseResult {
        let leaf = OffCpu(&*self.host);
        let found = self.states.find(&leaf, &key, self.now);
        let model = self.find(&key).map(|(flow, way)| (flow.state.clone(), way));
        prop_assert_eq!(found.is_some(), model.is_some());
        let (Some((state, way)), Some((flow, model_way))) = (found, model) else {
            return Ok(());
        };
        prop_assert!(Arc::ptr_eq(&state, &flow));
        prop_assert_eq!(way, model_way);
        let now = self.now;
        let Some(flow) = self
            .flows
            .iter_mut()
            .find(|flow| Arc::ptr_eq(&flow.state, &state))
        else {
            return Ok(());
        };
        let (what, fit) = match key.protocol {
            6 => {
                let (segment, fit) = flow.ends.step(way, event);
                (What::Tcp(segment), fit)
            }
            17 => (What::Udp, Fit::Yes),
            1 => (
                What::Echo(if way == Way::Forward { 8 } else { 0 }),
                Fit::Yes,
            ),
            _ => (What::Other, Fit::Yes),
        };
        let seen = Seen::only(key, what);
        prop_assert_eq!(state.packet(&leaf, way, &seen, now), fit, "{:?}", what);
        if fit == Fit::Yes {
            flow.phase = match key.protocol {
                6 => flow.ends.phase(),
                _ if way == Way::Back => Phase::Established,
                _ => flow.phase,
            };
            flow.expires = now + patience(key.protocol, flow.phase);
        }
        prop_assert_eq!(state.phase(), flow.phase);
        prop_assert_eq!(state.expires(), flow.expires);
        Ok(())
    }

    /// A SYN between ends that have a connection: one that is closed makes room for it.
    fn again(&mut self, key: Key) -> TestCaseResult {
        let leaf = OffCpu(&*self.host);
        let Some((flow, way)) = self.find(&key) else {
            return Ok(());
        };
        if flow.phase != Phase::Closed || key.protocol != 6 {
            return Ok(());
        }
        let state = flow.state.clone();
        let seen = Seen::only(key, What::Tcp(segment(SYN, 1, 0, 0)));
        prop_assert_eq!(state.packet(&leaf, way, &seen, self.now), Fit::Anew);
        prop_assert!(self.states.remove(&leaf, &state));
        prop_assert!(!self.states.remove(&leaf, &state), "it is gone already");
        self.flows.retain(|flow| !Arc::ptr_eq(&flow.state, &state));
        self.insert([key, key.reversed()])
    }

    fn wait(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
        let now = self.now;
        self.flows.retain(|flow| flow.expires > now);
    }

    fn clear(&mut self) -> TestCaseResult {
        let gone = self.states.clear(&OffCpu(&*self.host));
        prop_assert!(gone >= self.flows.len() && gone <= self.limit);
        self.flows.clear();
        prop_assert_eq!(self.states.count(), 0);
        Ok(())
    }

    /// What holds after each step.
    fn invariant(&self) -> TestCaseResult {
        let listed = self.states.list(&OffCpu(&*self.host), self.now);
        prop_assert_eq!(listed.len(), self.flows.len());
        for flow in &self.flows {
            prop_assert!(listed.iter().any(|state| Arc::ptr_eq(state, &flow.state)));
        }
        let count = self.states.count();
        prop_assert!(count >= self.flows.len() && count <= self.limit);
        Ok(())
    }
}

/// What is done to the table.
#[derive(Clone, Debug)]
enum Op {
    Insert(Key, Option<u16>),
    Settle(Key, Option<(u8, u16)>, bool),
    Packet(Key, Event),
    /// A packet of a connection that there is, so that some get far.
    Go(prop::sample::Index, bool, Event),
    Again(prop::sample::Index, bool),
    Wait(u64),
    Clear,
}

/// Few ends, so that they meet.
fn key() -> impl Strategy<Value = Key> {
    let end = prop::sample::select(vec![[10, 0, 1, 2], [10, 0, 1, 3], [10, 0, 2, 2], ROUTER]);
    let port = prop::sample::select(vec![80u16, 5000]);
    let protocol = prop::sample::select(vec![6u8, 6, 17, 1, 47]);
    (protocol, end.clone(), end, port.clone(), port).prop_map(
        |(protocol, src, dst, sport, dport)| {
            let (sport, dport) = match protocol {
                47 => (0, 0),
                1 => (sport, 0),
                _ => (sport, dport),
            };
            Key {
                protocol,
                src: src.into(),
                dst: dst.into(),
                sport,
                dport,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..200).prop_map(Event::Data),
        3 => Just(Event::Fin),
        1 => Just(Event::Reset),
        1 => Just(Event::BlindReset),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>();
    let inside = (2u8..4, prop::sample::select(vec![80u16, 5000]));
    prop_oneof![
        4 => (key(), prop::option::of(1000u16..1003)).prop_map(|(key, port)| Op::Insert(key, port)),
        6 => (key(), prop::option::weighted(0.3, inside), any::<bool>())
            .prop_map(|(key, inside, hidden)| Op::Settle(key, inside, hidden)),
        2 => (key(), event()).prop_map(|(key, event)| Op::Packet(key, event)),
        16 => (index.clone(), any::<bool>(), event()).prop_map(|(at, back, event)| Op::Go(at, back, event)),
        1 => (index, any::<bool>()).prop_map(|(at, back)| Op::Again(at, back)),
        3 => prop_oneof![0u64..70, 0u64..400, Just(24 * 3600)].prop_map(Op::Wait),
        1 => Just(Op::Clear),
    ]
}

impl Both {
    fn run(&mut self, op: Op) -> TestCaseResult {
        let pick = |flows: &[Flow], at: prop::sample::Index, back: bool| {
            (!flows.is_empty()).then(|| at.get(flows).keys()[usize::from(back)])
        };
        match op {
            Op::Insert(key, port) => {
                let mut sent = key;
                sent.sport = port.unwrap_or(key.sport);
                self.insert([key, sent.reversed()])
            }
            Op::Settle(key, inside, hidden) => {
                let mut current = key;
                if let Some((host, port)) = inside {
                    current.dst = [10, 0, 1, host].into();
                    if matches!(key.protocol, 6 | 17) {
                        current.dport = port;
                    }
                }
                self.settle(key, current, hidden)
            }
            Op::Packet(key, event) => self.packet(key, event),
            Op::Go(at, back, event) => match pick(&self.flows, at, back) {
                Some(key) => self.packet(key, event),
                None => Ok(()),
            },
            Op::Again(at, back) => match pick(&self.flows, at, back) {
                Some(key) => self.again(key),
                None => Ok(()),
            },
            Op::Wait(seconds) => {
                self.wait(seconds);
                Ok(())
            }
            Op::Clear => self.clear(),
        }?;
        self.invariant()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The limits are such that all buckets are looked into for somebody who can go.
    #[test]
    fn the_table_is_a_list_of_connections(
        limit in 1usize..=32,
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut both = Both::new(limit);
        for op in ops {
            both.run(op)?;
        }
    }
}

/// Whatever is taken out while it is put in: no key stays behind alone, under which nobody would be found or which nobody could have.
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "threads of the host are what meets here"
)]
fn a_connection_has_both_keys_in_the_table_or_none() {
    const ROUNDS: usize = 20_000;
    let host: Arc<dyn Host> = PosixHost::new();
    let leaf = OffCpu(&*host);
    let states = States::new(&*host, 4);
    // Two threads go on when both have come to a step: so they do meet.
    let steps = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let meet = |me: usize| {
        let step = steps[me].fetch_add(1, Ordering::SeqCst) + 1;
        for turn in 0.. {
            if steps[1 - me].load(Ordering::SeqCst) >= step {
                break;
            }
            match turn < 1000 {
                true => std::hint::spin_loop(),
                false => std::thread::yield_now(),
            }
        }
    };
    let key = |round: usize| Key {
        protocol: 17,
        src: [10, 0, 0, 1].into(),
        dst: [10, 0, 1, 1].into(),
        sport: round as u16,
        dport: 7,
    };
    let alone = std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                meet(0);
                if round % 2 == 0 {
                    states.clear(&leaf);
                } else if let Some((state, _)) = states.find(&leaf, &key(round).reversed(), 0) {
                    states.remove(&leaf, &state);
                }
                meet(0);
            }
        });
        let mut alone = 0;
        for round in 0..ROUNDS {
            let keys = [key(round), key(round).reversed()];
            let state = Arc::new(State::new(keys, &What::Udp, Arc::default(), 0));
            meet(1);
            let _ = states.insert(&leaf, &state, 0);
            meet(1);
            let there = |way: Way| {
                let bucket = states.bucket(&keys[way.index()]).lock(&leaf);
                bucket.iter().any(|slot| Arc::ptr_eq(&slot.state, &state))
            };
            let both = [Way::Forward, Way::Back].map(there);
            let counted = states.count() == usize::from(both[0]);
            alone += usize::from(both[0] != both[1] || !counted);
            states.clear(&leaf);
        }
        alone
    });
    assert_eq!(alone, 0);
}

//! Translation: which rule, and which port.
//!
//! A connection keeps its source's port if that is free at the new address towards the same peer; else it gets one by chance (RFC 6056).
//! What is free is what the table of states does not have, so that none is given away twice.

use core::net::IpAddr;
use std::sync::Arc;

use hypercall::{Host, Nanos};
use inet::Inet;
use sync::OffCpu;

use crate::lang::{ICMP, ICMP6, TCP, UDP};
use crate::rules::Translation;
use crate::state::{NoRoom, State, States};
use crate::wire::{Key, Seen};

/// How many ports are tried.
const TRIES: usize = 128;
/// The ports that are given away. Lower ones are of servers.
pub(crate) const FIRST: u16 = 1024;

/// What a rule makes of an end of a packet.
pub(crate) fn target(
    rule: &Translation,
    interface: u32,
    seen: &Seen,
    inet: &Inet,
) -> Option<(IpAddr, Option<u16>)> {
    seen.may_begin()
        .then(|| rule.target(interface, seen, inet))?
}

/// Puts a connection into the table: `original` is its first packet as it came, `current` as it is now. It gets the new source if there
/// is one, and another port where that is taken. `make` makes the state for its two keys.
pub(crate) fn settle(
    states: &States,
    host: &dyn Host,
    now: Nanos,
    original: Key,
    current: Key,
    source: Option<IpAddr>,
    make: impl Fn([Key; 2]) -> Arc<State>,
) -> Result<Arc<State>, NoRoom> {
    let mut key = current;
    key.src = source.unwrap_or(current.src);
    for _ in 0..TRIES {
        let state = make([original, key.reversed()]);
        match states.insert(&OffCpu(host), &state, now) {
            Ok(()) => return Ok(state),
            // Others have no ports.
            Err(NoRoom::Taken) if matches!(key.protocol, TCP | UDP | ICMP | ICMP6) => {
                key.sport = random_port(host);
            }
            Err(why) => return Err(why),
        }
    }
    Err(NoRoom::Taken)
}

fn random_port(host: &dyn Host) -> u16 {
    let mut bytes = [0; 4];
    host.random(&mut bytes);
    let range = u32::from(u16::MAX - FIRST) + 1;
    FIRST + (u32::from_ne_bytes(bytes) % range) as u16
}

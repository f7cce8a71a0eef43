//! Neighbours: the link-layer addresses of who is on the link, and finding them out. One table and one set of states for
//! both families (RFC 4861 7.3; RFC 1122 2.3.2 for ARP): `arp` and `ndp` ask and answer.

mod arp;
mod autoconf;
mod dad;
mod ndp;

use core::net::IpAddr;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use abi::Errno;
use hypercall::Nanos;
use net::{EtherAddr, Ifnet, LinkType, Packet};
use sync::{Cpu, Mutex};

use crate::icmp::{Trouble, returned};
use crate::route::Hop;
use crate::{Event, Inet, leaf};

pub(crate) use autoconf::Autoconf;

const SECOND: Nanos = 1_000_000_000;
/// How long an address is believed after the neighbour was heard of, `REACHABLE_TIME`.
const REACHABLE: Nanos = 30 * SECOND;
/// How long is waited for a sign of life before the neighbour is asked, `DELAY_FIRST_PROBE_TIME`.
const DELAY: Nanos = 5 * SECOND;
/// Between two questions, `RETRANS_TIMER`.
const RETRANSMIT: Nanos = SECOND;
/// Questions without an answer, `MAX_UNICAST_SOLICIT` and `MAX_MULTICAST_SOLICIT`.
const PROBES: u8 = 3;
/// The most neighbours; strangers that nobody speaks to go first.
const MOST: usize = 1024;
/// The most packets that wait for one neighbour's address (RFC 4861 7.2.2 asks for one at least), and the most bytes of them for all.
const WAITING: usize = 64;
const WAITING_BYTES: usize = 4 << 20;
/// What a packet that waits takes besides its bytes.
const OVERHEAD: usize = 512;

/// What is known of a neighbour, `NUD_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// It was asked for and has not answered yet.
    Incomplete,
    /// It was heard of a short while ago.
    Reachable,
    /// Nobody knows whether it is still there.
    Stale,
    /// It is used, and will be asked for unless it gives a sign of life.
    Delay,
    /// It is asked.
    Probe,
    /// It did not answer.
    Failed,
    /// Somebody said so, for good.
    Permanent,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The index of the interface whose link it is on.
    pub interface: u32,
    /// Its address.
    pub addr: IpAddr,
    /// Its link-layer address, when it is known.
    pub mac: Option<EtherAddr>,
    /// What is known of it.
    pub state: NeighbourState,
    /// It forwards packets.
    pub router: bool,
}

struct Entry {
    mac: Option<EtherAddr>,
    state: NeighbourState,
    /// When the state ends; 0 for never.
    until: Nanos,
    /// Questions since the last answer.
    probes: u8,
    router: bool,
    /// When it was last sent to.
    used: Nanos,
    /// Packets with their Ethernet types.
    waiting: VecDeque<(u16, Packet)>,
}

impl Entry {
    fn new(now: Nanos) -> Entry {
        Entry {
            mac: None,
            state: NeighbourState::Failed,
            until: 0,
            probes: 0,
            router: false,
            used: now,
            waiting: VecDeque::new(),
        }
    }

    fn become_(&mut self, state: NeighbourState, until: Nanos) {
        self.state = state;
        self.until = until;
        self.probes = 0;
    }
}

/// The neighbours of a stack. `table` is a leaf.
#[derive(Default)]
pub(crate) struct Neighbours {
    table: Mutex<Table>,
}

/// The neighbours, and what the packets take that wait for them.
#[derive(Default)]
struct Table {
    entries: HashMap<(u32, IpAddr), Entry>,
    waiting: usize,
}

impl Table {
    /// The neighbour, a new one if there is none; `None` when all places are taken by those that are there for good.
    fn get_or_make(&mut self, key: (u32, IpAddr), now: Nanos) -> Option<&mut Entry> {
        if !self.entries.contains_key(&key) && !self.make_room() {
            return None;
        }
        Some(self.entries.entry(key).or_insert_with(|| Entry::new(now)))
    }

    /// Makes room for one more; whether there is any. The one that was not sent to for the longest time goes.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < MOST {
            return true;
        }
        let oldest = self
            .entries
            .iter()
            .filter(|(_, e)| e.state != NeighbourState::Permanent)
            .min_by_key(|(_, e)| {
                (
                    !matches!(e.state, NeighbourState::Failed | NeighbourState::Stale),
                    e.used,
                )
            })
            .map(|(key, _)| *key);
        oldest.is_some_and(|key| self.remove(&key).is_some())
    }

    fn remove(&mut self, key: &(u32, IpAddr)) -> Option<Entry> {
        let gone = self.entries.remove(key)?;
        self.waiting -= gone.waiting.iter().map(weight).sum::<usize>();
        Some(gone)
    }
}

/// What a packet that waits takes.
fn weight((_, packet): &(u16, Packet)) -> usize {
    packet.len() + OVERHEAD
}

/// What is to be done about a packet for a neighbour.
#[expect(clippy::large_enum_variant, reason = "it lives for one call")]
enum Next {
    Send(EtherAddr, Packet),
    Ask,
    Wait,
}

/// What somebody's message says of a neighbour.
struct News {
    mac: Option<EtherAddr>,
    /// It answers a question of ours, so the neighbour hears us too.
    solicited: bool,
    /// It shall count even if something else is known.
    overrides: bool,
    router: Option<bool>,
    /// A neighbour that is not known yet is remembered.
    creates: bool,
}

impl Inet {
    /// Sends a packet to a neighbour, as soon as its link-layer address is known.
    pub(crate) fn resolve_and_send(
        &self,
        cpu: &Cpu<'_>,
        hop: &Hop,
        ethertype: u16,
        packet: Packet,
    ) -> Result<(), Errno> {
        let next = self.look_up(cpu, hop, ethertype, packet);
        match next {
            Next::Send(mac, packet) => {
                return self.ether_output(cpu, &hop.interface, mac, ethertype, packet);
            }
            Next::Ask => self.solicit(cpu, &hop.interface, &hop.next, None),
            Next::Wait => {}
        }
        Ok(())
    }

    fn look_up(&self, cpu: &Cpu<'_>, hop: &Hop, ethertype: u16, packet: Packet) -> Next {
        let now = self.now();
        let key = (hop.interface.index(), hop.next);
        let leaf = leaf(cpu);
        let mut guard = self.neighbours.table.lock(&leaf);
        let table = &mut *guard;
        let all = table.waiting;
        let Some(entry) = table.get_or_make(key, now) else {
            return Next::Wait;
        };
        entry.used = now;
        if entry.state == NeighbourState::Reachable && now >= entry.until {
            entry.become_(NeighbourState::Stale, 0);
        }
        let starts = match (entry.state, entry.mac) {
            (NeighbourState::Stale, Some(mac)) => {
                entry.become_(NeighbourState::Delay, now + DELAY);
                drop(guard);
                self.want_slow_timer(cpu);
                return Next::Send(mac, packet);
            }
            (NeighbourState::Failed | NeighbourState::Stale, _) => true,
            (NeighbourState::Incomplete, _) | (_, None) => false,
            (_, Some(mac)) => return Next::Send(mac, packet),
        };
        if starts {
            entry.become_(NeighbourState::Incomplete, now + RETRANSMIT);
            entry.probes = 1;
        }
        let gone = match entry.waiting.len() >= WAITING {
            true => entry.waiting.pop_front(),
            false => None,
        };
        let packet = (ethertype, packet);
        let left = all - gone.as_ref().map_or(0, weight);
        // Beyond the bound the neighbour is asked for, and the packet is lost.
        let with_it = left + weight(&packet);
        let keep = with_it <= WAITING_BYTES;
        if keep {
            entry.waiting.push_back(packet);
        }
        table.waiting = if keep { with_it } else { left };
        if !starts {
            return Next::Wait;
        }
        drop(guard);
        self.want_slow_timer(cpu);
        Next::Ask
    }

    /// Asks a neighbour for its link-layer address: everybody, or the one at `mac`.
    fn solicit(
        &self,
        cpu: &Cpu<'_>,
        interface: &Arc<Ifnet>,
        addr: &IpAddr,
        mac: Option<EtherAddr>,
    ) {
        match addr {
            IpAddr::V4(ip) => self.arp_request(cpu, interface, *ip, mac),
            IpAddr::V6(ip) => self.neighbour_solicitation(cpu, interface, *ip, mac.is_some()),
        }
    }

    /// Learns of a neighbour, and sends what waited for it.
    fn heard_of(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, addr: IpAddr, news: &News) {
        let now = self.now();
        let key = (interface.index(), addr);
        let (waiting, mac) = {
            let leaf = leaf(cpu);
            let mut guard = self.neighbours.table.lock(&leaf);
            let table = &mut *guard;
            if !news.creates && !table.entries.contains_key(&key) {
                return;
            }
            let Some(entry) = table.get_or_make(key, now) else {
                return;
            };
            if entry.state == NeighbourState::Permanent {
                return;
            }
            entry.router = news.router.unwrap_or(entry.router);
            let known = entry
                .mac
                .filter(|_| entry.state != NeighbourState::Incomplete);
            let mac = match (known, news.mac) {
                // RFC 4861 7.2.5: without the override flag another address does not replace a known one, but casts doubt.
                (Some(old), Some(new)) if old != new && !news.overrides => {
                    if entry.state == NeighbourState::Reachable {
                        entry.become_(NeighbourState::Stale, 0);
                    }
                    return;
                }
                (old, new) => match new.or(old) {
                    Some(mac) => mac,
                    None => return,
                },
            };
            let changed = entry.mac != Some(mac);
            entry.mac = Some(mac);
            match news.solicited {
                true => entry.become_(NeighbourState::Reachable, now + REACHABLE),
                false
                    if changed
                        || matches!(
                            entry.state,
                            NeighbourState::Incomplete | NeighbourState::Failed
                        ) =>
                {
                    entry.become_(NeighbourState::Stale, 0);
                }
                false => {}
            }
            let waiting = std::mem::take(&mut entry.waiting);
            table.waiting -= waiting.iter().map(weight).sum::<usize>();
            (waiting, mac)
        };
        for (ethertype, packet) in waiting {
            let _ = self.ether_output(cpu, interface, mac, ethertype, packet);
        }
        self.tell(cpu, &Event::Neighbour(key.0, addr));
    }

    /// A transport has heard from the other end by way of this neighbour: it is there (RFC 4861 7.3.1).
    pub(crate) fn confirm_neighbour(&self, cpu: &Cpu<'_>, hop: &Hop) {
        if hop.interface.link() != LinkType::Ethernet {
            return;
        }
        let now = self.now();
        let leaf = leaf(cpu);
        let mut table = self.neighbours.table.lock(&leaf);
        if let Some(entry) = table.entries.get_mut(&(hop.interface.index(), hop.next))
            && matches!(
                entry.state,
                NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe
            )
        {
            entry.become_(NeighbourState::Reachable, now + REACHABLE);
        }
    }

    /// Goes on with those that were asked for; answers whether there are any left.
    pub(crate) fn age_neighbours(&self, cpu: &Cpu<'_>) -> bool {
        let now = self.now();
        let mut ask = Vec::new();
        let mut failed = Vec::new();
        let more = {
            let leaf = leaf(cpu);
            let mut guard = self.neighbours.table.lock(&leaf);
            let table = &mut *guard;
            let mut more = false;
            for (&(interface, addr), entry) in &mut table.entries {
                let busy = matches!(
                    entry.state,
                    NeighbourState::Incomplete | NeighbourState::Delay | NeighbourState::Probe
                );
                more |= busy;
                if !busy || now < entry.until {
                    continue;
                }
                if entry.state == NeighbourState::Delay {
                    entry.become_(NeighbourState::Probe, now);
                }
                if entry.probes < PROBES {
                    entry.probes += 1;
                    entry.until = now + RETRANSMIT;
                    let probing = entry.state == NeighbourState::Probe;
                    ask.push((interface, addr, entry.mac.filter(|_| probing)));
                } else {
                    entry.become_(NeighbourState::Failed, 0);
                    entry.mac = None;
                    let waiting = std::mem::take(&mut entry.waiting);
                    table.waiting -= waiting.iter().map(weight).sum::<usize>();
                    failed.push((interface, addr, waiting));
                }
            }
            more
        };
        for (index, addr, mac) in ask {
            if let Some(interface) = self.interfaces.by_index(index) {
                self.solicit(cpu, &interface, &addr, mac);
            }
        }
        for (index, addr, waiting) in failed {
            for (_, packet) in waiting {
                self.no_neighbour(cpu, index, packet);
            }
            self.tell(cpu, &Event::Neighbour(index, addr));
        }
        more
    }

    /// A packet's next hop did not answer: whoever sent it is told.
    fn no_neighbour(&self, cpu: &Cpu<'_>, interface: u32, mut packet: Packet) {
        let Some((src, dst, protocol, len)) = ends(&mut packet) else {
            return;
        };
        if !self.is_local(&src) {
            return;
        }
        packet.advance(len);
        let trouble = Trouble {
            errno: Errno::EHOSTUNREACH,
            hard: false,
            kind: if src.is_ipv4() { (3, 1) } else { (1, 3) },
            info: 0,
            offender: src,
            returned: returned(packet),
        };
        self.transport_error(cpu, protocol, src, dst, interface, trouble);
    }

    /// Forgets all neighbours on an interface.
    pub(crate) fn forget_neighbours(&self, cpu: &Cpu<'_>, interface: u32) {
        let leaf = leaf(cpu);
        let mut guard = self.neighbours.table.lock(&leaf);
        let table = &mut *guard;
        table.entries.retain(|key, entry| {
            let stays = key.0 != interface;
            if !stays {
                table.waiting -= entry.waiting.iter().map(weight).sum::<usize>();
            }
            stays
        });
    }

    /// All neighbours.
    pub fn neighbours(&self, cpu: &Cpu<'_>) -> Vec<Neighbour> {
        let now = self.now();
        let leaf = leaf(cpu);
        let table = self.neighbours.table.lock(&leaf);
        let mut all: Vec<_> = table
            .entries
            .iter()
            .map(|(&(interface, addr), entry)| Neighbour {
                interface,
                addr,
                mac: entry.mac,
                state: match entry.state {
                    NeighbourState::Reachable if now >= entry.until => NeighbourState::Stale,
                    state => state,
                },
                router: entry.router,
            })
            .collect();
        drop(table);
        all.sort_by_key(|n| (n.interface, n.addr));
        all
    }

    /// Says which link-layer address a neighbour has, for good or until it is asked. `ENODEV`, `EINVAL` for an address that is nobody's, `ENOBUFS` when
    /// there are too many that are there for good.
    pub fn set_neighbour(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        addr: IpAddr,
        mac: EtherAddr,
        permanent: bool,
    ) -> Result<(), Errno> {
        let ifnet = self.interfaces.by_index(interface).ok_or(Errno::ENODEV)?;
        if addr.is_multicast() || addr.is_unspecified() {
            return Err(Errno::EINVAL);
        }
        let now = self.now();
        let waiting = {
            let leaf = leaf(cpu);
            let mut table = self.neighbours.table.lock(&leaf);
            let entry = table
                .get_or_make((interface, addr), now)
                .ok_or(Errno::ENOBUFS)?;
            entry.mac = Some(mac);
            match permanent {
                true => entry.become_(NeighbourState::Permanent, 0),
                false => entry.become_(NeighbourState::Stale, 0),
            }
            let waiting = std::mem::take(&mut entry.waiting);
            table.waiting -= waiting.iter().map(weight).sum::<usize>();
            waiting
        };
        for (ethertype, packet) in waiting {
            let _ = self.ether_output(cpu, &ifnet, mac, ethertype, packet);
        }
        self.tell(cpu, &Event::Neighbour(interface, addr));
        Ok(())
    }

    /// Forgets a neighbour. `ENOENT`.
    pub fn delete_neighbour(
        &self,
        cpu: &Cpu<'_>,
        interface: u32,
        addr: &IpAddr,
    ) -> Result<(), Errno> {
        let leaf = leaf(cpu);
        let gone = self
            .neighbours
            .table
            .lock(&leaf)
            .remove(&(interface, *addr));
        gone.map(drop).ok_or(Errno::ENOENT)
    }
}

/// Source, destination, protocol and header length of a packet of ours.
fn ends(packet: &mut Packet) -> Option<(IpAddr, IpAddr, u8, usize)> {
    match packet.front(1)?[0] >> 4 {
        4 => {
            let head = packet.front(20)?;
            let ip = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = head.get(at..at + 4)?.try_into().ok()?;
                Some(octets.into())
            };
            Some((ip(12)?, ip(16)?, head[9], usize::from(head[0] & 0xf) * 4))
        }
        6 => {
            let head = packet.front(40)?;
            let ip = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = head.get(at..at + 16)?.try_into().ok()?;
                Some(octets.into())
            };
            Some((ip(8)?, ip(24)?, head[6], 40))
        }
        _ => None,
    }
}

//! Ports: which sockets are bound to them, who may be bound beside whom, and whom a packet is for.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::Host;
use sync::{Cpu, Mutex};

use crate::addr::Endpoint;
use crate::{Inet, leaf};

const SHARDS: usize = 64;

/// What a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    /// Unspecified for any.
    pub(crate) local: IpAddr,
    pub(crate) port: u16,
    /// It hears this peer only.
    pub(crate) remote: Option<Endpoint>,
    /// It hears this interface only; 0 for all.
    pub(crate) device: u32,
    /// A socket of IPv6 that wants no IPv4.
    pub(crate) v6only: bool,
    pub(crate) reuseaddr: bool,
    pub(crate) reuseport: bool,
    pub(crate) uid: u32,
    /// Nobody may be bound beside a listening socket because of `SO_REUSEADDR`.
    pub(crate) listening: bool,
}

impl Binding {
    fn hears_all(&self, v6: bool) -> bool {
        match self.local {
            IpAddr::V6(ip) if ip.is_unspecified() => v6 || !self.v6only,
            IpAddr::V4(ip) if ip.is_unspecified() => !v6,
            _ => false,
        }
    }

    /// Whether it hears an address.
    pub(crate) fn hears(&self, addr: &IpAddr) -> bool {
        self.local == *addr || self.hears_all(addr.is_ipv6())
    }

    /// Whether two hear the same address.
    fn overlaps(&self, other: &Binding) -> bool {
        if self.device != 0 && other.device != 0 && self.device != other.device {
            return false;
        }
        let either = |a: &Binding, b: &Binding| match b.local.is_unspecified() {
            true => [false, true]
                .iter()
                .any(|&v6| a.hears_all(v6) && b.hears_all(v6)),
            false => a.hears_all(b.local.is_ipv6()),
        };
        self.local == other.local || either(self, other) || either(other, self)
    }

    /// Whether two cannot be bound at once, as Linux decides it.
    fn conflicts(&self, other: &Binding) -> bool {
        // Two that are bound for their connections to different peers.
        if let (Some(a), Some(b)) = (self.remote, other.remote)
            && a != b
        {
            return false;
        }
        let both_address = self.reuseaddr && other.reuseaddr && !self.listening && !other.listening;
        let both_port = self.reuseport && other.reuseport && self.uid == other.uid;
        self.overlaps(other) && !both_address && !both_port
    }

    /// How well it fits a packet; `None` when it does not.
    fn score(&self, dst: &IpAddr, src: &Endpoint, interface: u32) -> Option<u32> {
        let mut score = match self.local.is_unspecified() {
            true => self.hears_all(dst.is_ipv6()).then_some(1)?,
            false => (self.local == *dst).then_some(4)?,
        };
        // A socket of the packet's own family before one of both.
        score += u32::from(self.local.is_ipv6() == dst.is_ipv6());
        if let Some(remote) = self.remote {
            if remote.addr != src.addr || remote.port != src.port && remote.port != 0 {
                return None;
            }
            score += 8;
        }
        if self.device != 0 {
            if self.device != interface {
                return None;
            }
            score += 4;
        }
        Some(score)
    }
}

struct Slot<T> {
    binding: Binding,
    id: u64,
    owner: Weak<T>,
}

type Shard<T> = Mutex<BTreeMap<u16, Vec<Slot<T>>>>;

/// The sockets of one protocol by their ports. The shards are leaves, of which one is held at a time.
pub(crate) struct Ports<T> {
    shards: Box<[Shard<T>]>,
    /// Makes the choice among sockets that share a port unforeseeable.
    secret: u64,
}

impl<T> Ports<T> {
    pub(crate) fn new(host: &dyn Host) -> Ports<T> {
        let mut secret = [0; 8];
        host.random(&mut secret);
        Ports {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            secret: u64::from_ne_bytes(secret),
        }
    }

    fn shard(&self, port: u16) -> &Shard<T> {
        &self.shards[usize::from(port) % SHARDS]
    }

    /// Binds a socket with the number `id`; port 0 for one that is free. Answers the port. `EADDRINUSE`.
    pub(crate) fn bind(
        &self,
        cpu: &Cpu<'_>,
        inet: &Inet,
        binding: Binding,
        id: u64,
        owner: &Weak<T>,
    ) -> Result<u16, Errno> {
        if binding.port != 0 {
            return self.try_bind(cpu, binding, id, owner);
        }
        let (first, last) = (inet.config.first_port(), inet.config.last_port());
        let count = (last - first + 1).max(1) as u32;
        let start = inet.random() % count;
        for i in 0..count {
            // An even stride first would find free ones no sooner: most ports are free.
            let port = first as u32 + (start + i) % count;
            let alone = Binding {
                port: port as u16,
                reuseaddr: false,
                reuseport: false,
                ..binding
            };
            if self.is_free(cpu, &alone) {
                let exact = Binding {
                    port: port as u16,
                    ..binding
                };
                if let Ok(port) = self.try_bind(cpu, exact, id, owner) {
                    return Ok(port);
                }
            }
        }
        Err(Errno::EADDRINUSE)
    }

    fn is_free(&self, cpu: &Cpu<'_>, binding: &Binding) -> bool {
        let leaf = leaf(cpu);
        let shard = self.shard(binding.port).lock(&leaf);
        let slots = shard.get(&binding.port);
        slots.is_none_or(|slots| !slots.iter().any(|s| s.binding.conflicts(binding)))
    }

    fn try_bind(
        &self,
        cpu: &Cpu<'_>,
        binding: Binding,
        id: u64,
        owner: &Weak<T>,
    ) -> Result<u16, Errno> {
        let leaf = leaf(cpu);
        let mut shard = self.shard(binding.port).lock(&leaf);
        let slots = shard.entry(binding.port).or_default();
        slots.retain(|s| s.owner.strong_count() != 0);
        if slots
            .iter()
            .any(|s| s.id != id && s.binding.conflicts(&binding))
        {
            return Err(Errno::EADDRINUSE);
        }
        slots.reserve_exact(1);
        slots.push(Slot {
            binding,
            id,
            owner: owner.clone(),
        });
        Ok(binding.port)
    }

    /// Changes what a socket is bound to, not its port. `EADDRINUSE` when `check` and others are in the way.
    pub(crate) fn rebind(
        &self,
        cpu: &Cpu<'_>,
        id: u64,
        binding: Binding,
        check: bool,
    ) -> Result<(), Errno> {
        let leaf = leaf(cpu);
        let mut shard = self.shard(binding.port).lock(&leaf);
        let Some(slots) = shard.get_mut(&binding.port) else {
            return Ok(());
        };
        if check
            && slots
                .iter()
                .any(|s| s.id != id && s.binding.conflicts(&binding))
        {
            return Err(Errno::EADDRINUSE);
        }
        if let Some(slot) = slots.iter_mut().find(|s| s.id == id) {
            slot.binding = binding;
        }
        Ok(())
    }

    /// Gives a port back.
    pub(crate) fn release(&self, cpu: &Cpu<'_>, port: u16, id: u64) {
        let leaf = leaf(cpu);
        let mut shard = self.shard(port).lock(&leaf);
        if let Some(slots) = shard.get_mut(&port) {
            slots.retain(|s| s.id != id);
            if slots.is_empty() {
                shard.remove(&port);
            }
        }
    }

    /// The socket that a packet is for; of several that share a port always the same for one peer.
    pub(crate) fn find(
        &self,
        cpu: &Cpu<'_>,
        dst: &Endpoint,
        src: &Endpoint,
        interface: u32,
        fits: impl Fn(&Binding) -> bool,
    ) -> Option<Arc<T>> {
        let leaf = leaf(cpu);
        let shard = self.shard(dst.port).lock(&leaf);
        let slots = shard.get(&dst.port)?;
        let mut best: Option<(u32, &Slot<T>)> = None;
        let mut equals = 0;
        for slot in slots.iter().filter(|s| fits(&s.binding)) {
            let Some(score) = slot.binding.score(&dst.addr, src, interface) else {
                continue;
            };
            match best {
                Some((most, _)) if score < most => {}
                Some((most, first)) if score == most => {
                    if slot.binding.reuseport && first.binding.reuseport {
                        equals += 1;
                    } else {
                        // Without sharing the last one that came hears it.
                        best = Some((score, slot));
                        equals = 0;
                    }
                }
                _ => {
                    best = Some((score, slot));
                    equals = 0;
                }
            }
        }
        let (score, slot) = best?;
        if equals == 0 {
            return slot.owner.upgrade();
        }
        let choice = self.hash(src) % (equals + 1);
        slots
            .iter()
            .filter(|s| fits(&s.binding) && s.binding.reuseport)
            .filter(|s| s.binding.score(&dst.addr, src, interface) == Some(score))
            .nth(choice)
            .and_then(|s| s.owner.upgrade())
    }

    /// All sockets that a packet is for, of a group or a broadcast.
    pub(crate) fn find_all(
        &self,
        cpu: &Cpu<'_>,
        dst: &Endpoint,
        src: &Endpoint,
        interface: u32,
    ) -> Vec<Arc<T>> {
        let leaf = leaf(cpu);
        let shard = self.shard(dst.port).lock(&leaf);
        let slots = shard.get(&dst.port).into_iter().flatten();
        slots
            .filter(|s| s.binding.score(&dst.addr, src, interface).is_some())
            .filter_map(|s| s.owner.upgrade())
            .collect()
    }

    /// All sockets.
    pub(crate) fn all(&self, cpu: &Cpu<'_>) -> Vec<Arc<T>> {
        let mut out = Vec::new();
        for shard in &self.shards {
            let leaf = leaf(cpu);
            let shard = shard.lock(&leaf);
            out.extend(shard.values().flatten().filter_map(|s| s.owner.upgrade()));
        }
        out
    }

    fn hash(&self, src: &Endpoint) -> usize {
        let mut hash = self.secret ^ u64::from(src.port);
        for byte in crate::addr::octets(&src.addr) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        (hash ^ hash >> 32) as usize >> 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(local: &str) -> Binding {
        Binding {
            local: local.parse().unwrap(),
            port: 80,
            remote: None,
            device: 0,
            v6only: false,
            reuseaddr: false,
            reuseport: false,
            uid: 0,
            listening: false,
        }
    }

    #[test]
    fn who_is_bound_to_any_is_in_the_way_of_all_that_it_hears() {
        let only = |local| Binding {
            v6only: true,
            ..binding(local)
        };
        for (a, b, conflict) in [
            (binding("0.0.0.0"), binding("10.0.0.1"), true),
            (binding("10.0.0.2"), binding("10.0.0.1"), false),
            (binding("10.0.0.1"), binding("10.0.0.1"), true),
            (binding("::"), binding("10.0.0.1"), true),
            (binding("::"), binding("0.0.0.0"), true),
            (only("::"), binding("0.0.0.0"), false),
            (only("::"), binding("::1"), true),
            (only("::"), binding("::"), true),
            (binding("::1"), binding("0.0.0.0"), false),
        ] {
            assert_eq!(a.conflicts(&b), conflict, "{a:?} {b:?}");
            assert_eq!(b.conflicts(&a), conflict, "{b:?} {a:?}");
        }
    }

    #[test]
    fn sharing_takes_both() {
        let shared = Binding {
            reuseaddr: true,
            ..binding("0.0.0.0")
        };
        let listening = Binding {
            listening: true,
            ..shared
        };
        assert!(!shared.conflicts(&shared));
        assert!(shared.conflicts(&binding("0.0.0.0")));
        assert!(shared.conflicts(&listening));
        let port = Binding {
            reuseport: true,
            ..binding("0.0.0.0")
        };
        let other = Binding { uid: 5, ..port };
        assert!(!port.conflicts(&port));
        assert!(port.conflicts(&other), "another user");
    }
}

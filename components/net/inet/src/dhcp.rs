//! A DHCPv4 client, RFC 2131: asks for an address, gives it to the interface, and keeps it.

use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::Errno;
use hypercall::Nanos;
use kern::callout::Callout;
use kern::workqueue::Workqueue;
use kern::{Curlwp, Uio};
use net::{Common, EtherAddr, Ifnet, Incoming, Outgoing, Protocol, Wait};
use sync::Cpu;

use crate::addr::Endpoint;
use crate::dgram::{Dgram, Flavour};
use crate::route::{IfThere, PROTO_DHCP, Prefix, Route};
use crate::{IfAddr, Inet, leaf};

const SECOND: Nanos = 1_000_000_000;
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Bytes before the options, and of the shortest message that relays take.
const FIXED: usize = 240;
const SHORTEST: usize = 300;
/// How long an answer is waited for at first; each time twice as long.
const PATIENCE: Nanos = 2 * SECOND;
const TRIES: u32 = 4;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// What a server has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix.
    pub prefix_len: u8,
    /// Routers, the best first.
    pub routers: Vec<Ipv4Addr>,
    /// Name servers, the best first.
    pub servers: Vec<Ipv4Addr>,
    /// The domain's name; empty for none.
    pub domain: String,
    /// The link's MTU in bytes; 0 when it is not said.
    pub mtu: u16,
    /// How long it holds, in seconds.
    pub seconds: u32,
    /// Who gave it.
    pub server: Ipv4Addr,
}

/// A message that was received, as far as it matters.
struct Message {
    kind: u8,
    lease: Lease,
}

/// What the client says.
struct Said<'a> {
    kind: u8,
    id: u32,
    mac: EtherAddr,
    /// The address that it has.
    has: Ipv4Addr,
    /// The address that it wants, and of whom.
    wants: Option<(Ipv4Addr, Ipv4Addr)>,
    hostname: &'a str,
}

fn emit(said: &Said<'_>) -> Vec<u8> {
    let mut out = vec![0; FIXED];
    out[..4].copy_from_slice(&[1, 1, 6, 0]);
    out[4..8].copy_from_slice(&said.id.to_be_bytes());
    if said.has.is_unspecified() {
        // Answers come as broadcasts: we have no address that they could be sent to.
        out[10] = 0x80;
    }
    out[12..16].copy_from_slice(&said.has.octets());
    out[28..34].copy_from_slice(&said.mac);
    out[236..240].copy_from_slice(&COOKIE);
    let mut option = |kind: u8, data: &[u8]| {
        out.extend_from_slice(&[kind, data.len() as u8]);
        out.extend_from_slice(data);
    };
    option(53, &[said.kind]);
    option(61, &[&[1], &said.mac[..]].concat());
    if let Some((address, server)) = said.wants {
        option(50, &address.octets());
        option(54, &server.octets());
    }
    if !said.hostname.is_empty() && said.hostname.len() < 64 {
        option(12, said.hostname.as_bytes());
    }
    option(55, &[1, 3, 6, 15, 26, 51, 54]);
    out.push(255);
    out.resize(out.len().max(SHORTEST), 0);
    out
}

/// Reads a server's message; `None` for what is none, or not for us.
fn parse(bytes: &[u8], id: u32, mac: &EtherAddr) -> Option<Message> {
    let head = bytes.get(..FIXED)?;
    let ours = head[0] == 2
        && head[4..8] == id.to_be_bytes()
        && head[28..34] == mac[..]
        && head[236..] == COOKIE;
    if !ours {
        return None;
    }
    let ip = |b: &[u8]| b.first_chunk::<4>().map(|o| Ipv4Addr::from(*o));
    let mut message = Message {
        kind: 0,
        lease: Lease {
            address: ip(&head[16..])?,
            prefix_len: 0,
            routers: Vec::new(),
            servers: Vec::new(),
            domain: String::new(),
            mtu: 0,
            seconds: 0,
            server: Ipv4Addr::UNSPECIFIED,
        },
    };
    let lease = &mut message.lease;
    let mut mask = None;
    let mut rest = &bytes[FIXED..];
    while let [kind, tail @ ..] = rest {
        if *kind == 255 {
            break;
        }
        if *kind == 0 {
            rest = tail;
            continue;
        }
        let len = usize::from(*tail.first()?);
        let data = tail.get(1..1 + len)?;
        rest = &tail[1 + len..];
        let all = || data.chunks_exact(4).filter_map(ip);
        match kind {
            53 => message.kind = *data.first()?,
            1 => mask = ip(data),
            3 => lease.routers.extend(all()),
            6 => lease.servers.extend(all()),
            15 => lease.domain = String::from_utf8_lossy(data).trim_end_matches('\0').into(),
            26 => lease.mtu = data.first_chunk().map_or(0, |b| u16::from_be_bytes(*b)),
            51 => lease.seconds = data.first_chunk().map_or(0, |b| u32::from_be_bytes(*b)),
            54 => lease.server = ip(data)?,
            _ => {}
        }
    }
    let given = lease.address;
    let nobodys = given.is_unspecified()
        || given.is_loopback()
        || given.is_multicast()
        || given.is_broadcast();
    if nobodys && message.kind != NAK {
        return None;
    }
    let mask = u32::from(mask.unwrap_or(Ipv4Addr::new(255, 255, 255, 0)));
    lease.prefix_len = mask.leading_ones() as u8;
    Some(message)
}

/// For the fuzz target: reads bytes as a server's message.
#[cfg(feature = "fuzz")]
pub fn fuzz_message(bytes: &[u8]) {
    let id = bytes
        .get(4..8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes);
    let mac = bytes
        .get(28..34)
        .and_then(|b| b.try_into().ok())
        .unwrap_or_default();
    let _ = parse(bytes, id, &mac);
}

/// A conversation with servers on one link.
struct Client {
    socket: Arc<Dgram>,
    mac: EtherAddr,
    id: u32,
    hostname: String,
}

impl Client {
    fn open(cx: &Curlwp<'_>, inet: &Arc<Inet>, interface: u32) -> Result<Client, Errno> {
        let ifnet = inet.interfaces.by_index(interface).ok_or(Errno::ENODEV)?;
        let common = Arc::new(Common::default());
        common.broadcast.store(true, Ordering::Relaxed);
        common.reuseaddr.store(true, Ordering::Relaxed);
        let socket = Dgram::open(inet, false, Flavour::Udp, &common);
        socket.state.lock(&leaf(cx.cpu())).device = interface;
        let client = Client {
            mac: ifnet.address(cx.cpu()),
            id: inet.random(),
            hostname: cx.kernel().hostname(cx),
            socket,
        };
        let any = Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), CLIENT);
        client.socket.bind(cx, &any.to_addr(false))?;
        Ok(client)
    }

    fn send(
        &self,
        cx: &Curlwp<'_>,
        kind: u8,
        to: Ipv4Addr,
        has: Ipv4Addr,
        wants: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Result<(), Errno> {
        let said = Said {
            kind,
            id: self.id,
            mac: self.mac,
            has,
            wants,
            hostname: &self.hostname,
        };
        let bytes = emit(&said);
        let to = Endpoint::new(to.into(), SERVER).to_addr(false);
        let mut message = Outgoing {
            uio: &mut Uio::drain(&bytes, 0),
            to: Some(&to),
            control: &mut Vec::new(),
            flags: 0,
            wait: Wait::new(false, 0),
        };
        self.socket.send(cx, &mut message)
    }

    /// The next message of one of these kinds. `EAGAIN` after a time.
    fn receive(&self, cx: &Curlwp<'_>, kinds: &[u8], patience: Nanos) -> Result<Message, Errno> {
        let deadline = cx.now(hypercall::Clock::Monotonic) + patience;
        let mut buf = vec![0; 2048];
        loop {
            let left = deadline.saturating_sub(cx.now(hypercall::Clock::Monotonic));
            if left == 0 {
                return Err(Errno::EAGAIN);
            }
            let mut uio = Uio::fill(&mut buf, 0);
            let received = self.socket.receive(
                cx,
                &mut Incoming {
                    uio: &mut uio,
                    flags: 0,
                    wait: Wait::new(false, left),
                    wants_control: false,
                },
            )?;
            let len = received.len.unwrap_or(0).min(2048);
            if let Some(message) = parse(&buf[..len], self.id, &self.mac)
                && kinds.contains(&message.kind)
            {
                return Ok(message);
            }
        }
    }

    /// Sends and waits, several times.
    fn ask(
        &self,
        cx: &Curlwp<'_>,
        kinds: &[u8],
        send: impl Fn() -> Result<(), Errno>,
    ) -> Result<Message, Errno> {
        for turn in 0..TRIES {
            send()?;
            match self.receive(cx, kinds, PATIENCE << turn) {
                Err(Errno::EAGAIN) => {}
                answer => return answer,
            }
        }
        Err(Errno::ETIMEDOUT)
    }

    fn acquire(&self, cx: &Curlwp<'_>) -> Result<Lease, Errno> {
        let nobody = Ipv4Addr::UNSPECIFIED;
        for _ in 0..TRIES {
            let offer = self
                .ask(cx, &[OFFER], || {
                    self.send(cx, DISCOVER, Ipv4Addr::BROADCAST, nobody, None)
                })?
                .lease;
            let wants = Some((offer.address, offer.server));
            let answer = self.ask(cx, &[ACK, NAK], || {
                self.send(cx, REQUEST, Ipv4Addr::BROADCAST, nobody, wants)
            })?;
            if answer.kind == ACK {
                return Ok(answer.lease);
            }
        }
        Err(Errno::EADDRNOTAVAIL)
    }

    /// Asks the server that gave a lease, or at last all of them, for more time.
    fn renew(&self, cx: &Curlwp<'_>, lease: &Lease) -> Result<Lease, Errno> {
        for to in [lease.server, Ipv4Addr::BROADCAST] {
            match self.ask(cx, &[ACK, NAK], || {
                self.send(cx, REQUEST, to, lease.address, None)
            }) {
                Ok(answer) if answer.kind == ACK => return Ok(answer.lease),
                Ok(_) => return Err(Errno::EADDRNOTAVAIL),
                Err(Errno::ETIMEDOUT) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::ETIMEDOUT)
    }
}

/// Keeps a lease of one interface.
pub(crate) struct Keeper {
    interface: u32,
    callout: Callout,
}

impl Inet {
    /// Asks the servers of an interface's link for an address, gives it to the interface with the routes that come with it, and
    /// keeps it as long as the interface is there. Waits for the answer: `ETIMEDOUT` when nobody answers, `ENODEV`, `ENETDOWN`.
    pub fn dhcp(self: &Arc<Self>, cx: &Curlwp<'_>, interface: u32) -> Result<Lease, Errno> {
        let ifnet = self.interfaces.by_index(interface).ok_or(Errno::ENODEV)?;
        if !ifnet.is_up() {
            return Err(Errno::ENETDOWN);
        }
        let client = Client::open(cx, self, interface)?;
        self.asking.fetch_add(1, Ordering::Relaxed);
        let lease = client.acquire(cx);
        self.asking.fetch_sub(1, Ordering::Relaxed);
        client.socket.close(cx);
        let lease = lease?;
        self.take_lease(cx, interface, &lease)?;
        self.keep_lease(cx, interface, &lease);
        Ok(lease)
    }

    /// Whether an interface without an address may be waiting for one. Servers send their answer to the address that they offer, whatever
    /// they were asked, RFC 2131 4.1.
    pub(crate) fn asks_for_address(&self, interface: &Ifnet) -> bool {
        let index = interface.index();
        self.asking.load(Ordering::Relaxed) > 0
            && !self
                .addresses()
                .iter()
                .any(|a| a.interface == index && a.addr.is_ipv4())
    }

    fn take_lease(&self, cx: &Curlwp<'_>, interface: u32, lease: &Lease) -> Result<(), Errno> {
        let cpu = cx.cpu();
        let until = self
            .now()
            .saturating_add(u64::from(lease.seconds.max(60)).saturating_mul(SECOND));
        let forever = lease.seconds == u32::MAX;
        let address = IpAddr::from(lease.address);
        for old in self.addresses().iter() {
            if old.interface == interface && old.protocol == PROTO_DHCP && old.addr != address {
                let _ = self.delete_address(cpu, interface, &old.addr);
            }
        }
        let new = IfAddr {
            protocol: PROTO_DHCP,
            valid_until: if forever { 0 } else { until },
            ..IfAddr::new(interface, address, lease.prefix_len)
        };
        match self.add_address(cpu, new) {
            Err(Errno::EEXIST) => {
                self.change_address(cpu, interface, &address, |a| {
                    a.valid_until = if forever { 0 } else { until }
                });
            }
            added => added?,
        }
        self.want_slow_timer(cpu);
        if let Some(router) = lease.routers.first() {
            let default = Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0)?;
            let route = Route {
                prefsrc: Some(address),
                protocol: PROTO_DHCP,
                ..Route::via(default, (*router).into(), interface)
            };
            self.add_route(cpu, route, IfThere::Replace)?;
        }
        if let Some(ifnet) = self.interfaces.by_index(interface)
            && lease.mtu >= 576
            && u32::from(lease.mtu) < ifnet.mtu()
        {
            let _ = ifnet.set_mtu(cx, lease.mtu.into());
        }
        self.learn_name_servers(cpu, lease.servers.iter().map(|s| IpAddr::from(*s)));
        Ok(())
    }

    /// Renews a lease when half of its time is over.
    fn keep_lease(self: &Arc<Self>, cx: &Curlwp<'_>, interface: u32, lease: &Lease) {
        if lease.seconds == u32::MAX {
            return;
        }
        let weak = Arc::downgrade(self);
        let kept = lease.clone();
        let queue = Workqueue::new(cx, "dhcp");
        let callout = Callout::new(cx.kernel(), move |cx| {
            let (weak, kept) = (weak.clone(), kept.clone());
            queue.enqueue(cx.cpu(), move |cx| {
                if let Some(inet) = weak.upgrade() {
                    inet.renew_lease(cx, interface, &kept);
                }
            });
        });
        let at = self.now() + u64::from(lease.seconds.max(60)) * SECOND / 2;
        callout.schedule(cx.cpu(), at);
        let leaf = leaf(cx.cpu());
        let old = {
            let mut keepers = self.leases.lock(&leaf);
            let old: Vec<_> = keepers
                .extract_if(.., |k| k.interface == interface)
                .collect();
            keepers.push(Keeper { interface, callout });
            old
        };
        drop(old);
    }

    fn renew_lease(self: &Arc<Self>, cx: &Curlwp<'_>, interface: u32, lease: &Lease) {
        let renewed = Client::open(cx, self, interface).and_then(|client| {
            let renewed = client.renew(cx, lease);
            client.socket.close(cx);
            renewed
        });
        let renewed = renewed.and_then(|new| {
            self.take_lease(cx, interface, &new)?;
            Ok(new)
        });
        match renewed {
            Ok(new) => self.keep_lease(cx, interface, &new),
            Err(error) => {
                cx.log(format_args!(
                    "dhcp: {} cannot be renewed: {error}; it ends with its time",
                    lease.address
                ));
            }
        }
    }

    /// An interface is gone: nothing of it is renewed. What is answered is to be dropped without a lock.
    pub(crate) fn end_lease(&self, cpu: &Cpu<'_>, interface: u32) -> Vec<Keeper> {
        let leaf = leaf(cpu);
        let mut keepers = self.leases.lock(&leaf);
        keepers
            .extract_if(.., |k| k.interface == interface)
            .collect()
    }

    /// Whether an interface's address is kept by us.
    pub fn keeps_lease(&self, cpu: &Cpu<'_>, interface: u32) -> bool {
        let leaf = leaf(cpu);
        let keepers = self.leases.lock(&leaf);
        keepers
            .iter()
            .any(|k| k.interface == interface && k.callout.pending())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EtherAddr = [2, 0, 0, 0, 0, 9];

    fn answer(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[0] = 2;
        bytes[4..8].copy_from_slice(&77u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 0, 5]);
        bytes[28..34].copy_from_slice(&MAC);
        bytes[236..240].copy_from_slice(&COOKIE);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn a_servers_message_is_read() {
        let options = [
            53, 1, 2, 0, 1, 4, 255, 255, 240, 0, 3, 8, 10, 0, 0, 1, 10, 0, 0, 2, 6, 4, 9, 9, 9, 9,
            51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 0, 1, 26, 2, 5, 220, 15, 3, b'l', b'a', b'n', 255,
            99,
        ];
        let message = parse(&answer(&options), 77, &MAC).expect("an offer");
        assert_eq!(message.kind, OFFER);
        let ip = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        let expected = Lease {
            address: ip("10.0.0.5"),
            prefix_len: 20,
            routers: vec![ip("10.0.0.1"), ip("10.0.0.2")],
            servers: vec![ip("9.9.9.9")],
            domain: "lan".into(),
            mtu: 1500,
            seconds: 3600,
            server: ip("10.0.0.1"),
        };
        assert_eq!(message.lease, expected);
    }

    #[test]
    fn what_is_cut_off_or_not_for_us_is_nothing() {
        assert!(
            parse(&answer(&[53, 1, 2, 255]), 78, &MAC).is_none(),
            "another's"
        );
        assert!(
            parse(&answer(&[53, 1, 2, 3, 200, 1]), 77, &MAC).is_none(),
            "an option over the end"
        );
        assert!(parse(&answer(&[])[..200], 77, &MAC).is_none());
        assert!(parse(&[], 77, &MAC).is_none());
    }

    #[test]
    fn what_is_no_hosts_address_is_not_taken() {
        for address in [[0; 4], [127, 0, 0, 9], [224, 0, 0, 1], [255; 4]] {
            let mut bytes = answer(&[53, 1, ACK, 1, 4, 0, 0, 0, 0, 26, 2, 255, 255, 255]);
            bytes[16..20].copy_from_slice(&address);
            assert!(parse(&bytes, 77, &MAC).is_none(), "{address:?}");
            bytes[FIXED + 2] = NAK;
            assert!(parse(&bytes, 77, &MAC).is_some(), "a refusal gives none");
        }
    }

    #[test]
    fn what_we_say_is_understood() {
        let said = Said {
            kind: REQUEST,
            id: 77,
            mac: MAC,
            has: Ipv4Addr::UNSPECIFIED,
            wants: Some((Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1))),
            hostname: "rump",
        };
        let bytes = emit(&said);
        assert!(bytes.len() >= SHORTEST);
        assert_eq!(bytes[10], 0x80, "broadcast answers");
        let find = |wanted: &[u8]| bytes.windows(wanted.len()).any(|w| w == wanted);
        assert!(
            find(&[53, 1, 3])
                && find(&[50, 4, 10, 0, 0, 5])
                && find(&[12, 4, b'r', b'u', b'm', b'p'])
        );
    }
}

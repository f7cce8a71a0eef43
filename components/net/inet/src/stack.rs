//! The stack: everything that one kernel's inet and inet6 domains know.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use arc_swap::ArcSwap;
use hypercall::{Clock, Host, Nanos};
use kern::Curlwp;
use net::consts::{AF_INET, AF_INET6};
use net::{Common, Domain, Ifnet, Interfaces, Kind, LinkEvent, Net, Protocol};
use sync::{Cpu, Mutex};

use crate::config::Config;
use crate::dhcp::Keeper;
use crate::filter::Filters;
use crate::frag::Reassembly;
use crate::group::Groups;
use crate::ifaddr::{Addrs, IfAddr};
use crate::limit::Limits;
use crate::link::{Netisr, Uplink};
use crate::neigh::{Autoconf, Neighbours};
use crate::pathmtu::PathMtu;
use crate::ports::Ports;
use crate::route::{Fib, Route};
use crate::slow::SlowTimer;
use crate::{dgram, leaf, raw, tcp};

pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_IGMP: u8 = 2;
pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;

/// What changed in a stack.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Event {
    /// There is a new address, or it changed.
    AddressAdded(Arc<IfAddr>),
    AddressDeleted(Arc<IfAddr>),
    RouteAdded(Arc<Route>),
    RouteDeleted(Arc<Route>),
    /// What is known of the neighbour of this address on this interface changed.
    Neighbour(u32, IpAddr),
}

/// Who is told of changes. No lock is held; may be a software interrupt.
pub type Listener = Box<dyn Fn(&Cpu<'_>, &Event) + Send + Sync>;

/// The stack of one kernel.
pub struct Inet {
    pub(crate) me: Weak<Inet>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) interfaces: Arc<Interfaces>,
    pub(crate) config: Config,
    pub(crate) fib: Fib,
    pub(crate) addrs: Addrs,
    pub(crate) path_mtu: PathMtu,
    pub(crate) neighbours: Neighbours,
    pub(crate) autoconf: Autoconf,
    /// A leaf.
    up: Mutex<Up>,
    pub(crate) groups: Groups,
    pub(crate) reassembly: Reassembly,
    pub(crate) filters: Filters,
    pub(crate) limits: Limits,
    pub(crate) netisr: Netisr,
    pub(crate) slow: SlowTimer,
    pub(crate) udp: Ports<dgram::Dgram>,
    pub(crate) pings: Ports<dgram::Dgram>,
    pub(crate) raw: raw::Table,
    pub(crate) tcp: tcp::State,
    /// A leaf.
    pub(crate) leases: Mutex<Vec<Keeper>>,
    /// Interfaces that are asking for an address.
    pub(crate) asking: AtomicU32,
    pub(crate) next_socket: AtomicU64,
    /// The next IPv4 identification.
    pub(crate) ident: AtomicU32,
    listeners: ArcSwap<Vec<Arc<Listener>>>,
}

/// Starts the component.
pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let faction = Net::of(cx)?;
    let interfaces = faction.interfaces();
    let host = cx.kernel().host();
    let netisr = Netisr::new(cx);
    let mut seed = [0; 4];
    host.random(&mut seed);
    let inet = Arc::new_cyclic(|me| Inet {
        me: me.clone(),
        host: host.clone(),
        interfaces: interfaces.clone(),
        config: Config::default(),
        fib: Fib::default(),
        addrs: Addrs::default(),
        path_mtu: PathMtu::default(),
        neighbours: Neighbours::default(),
        autoconf: Autoconf::default(),
        up: Mutex::default(),
        groups: Groups::default(),
        reassembly: Reassembly::default(),
        filters: Filters::default(),
        limits: Limits::default(),
        netisr,
        slow: SlowTimer::default(),
        udp: Ports::new(&**host),
        pings: Ports::new(&**host),
        next_socket: AtomicU64::new(1),
        raw: raw::Table::default(),
        tcp: tcp::State::new(&**host),
        leases: Mutex::default(),
        asking: AtomicU32::new(0),
        ident: AtomicU32::new(u32::from_ne_bytes(seed)),
        listeners: ArcSwap::default(),
    });
    inet.netisr.start(cx, &inet)?;
    inet.slow.start(cx, &inet);
    inet.start_groups(cx);
    crate::report::attach(cx, &inet);
    inet.tcp.start(cx, &inet);
    inet.config.attach(cx, &inet)?;
    inet.config.share_memory(cx.kernel().memory_limit());
    interfaces.add_layer(Arc::new(Uplink(Arc::downgrade(&inet))));
    let weak = Arc::downgrade(&inet);
    interfaces.listen(Box::new(move |cpu, event| {
        if let Some(inet) = weak.upgrade() {
            inet.link_event(cpu, event);
        }
    }));
    faction.register(
        cx,
        AF_INET,
        Arc::new(Sockets {
            inet: inet.clone(),
            v6: false,
        }),
    )?;
    faction.register(
        cx,
        AF_INET6,
        Arc::new(Sockets {
            inet: inet.clone(),
            v6: true,
        }),
    )?;
    faction.offer(cx, inet);
    cx.kernel().at_shutdown(cx, "inet", shut_down);
    Ok(())
}

/// Ends what is under way: peers are told, and nothing refers to itself any more.
fn shut_down(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let inet = Inet::of(cx)?;
    inet.abort_connections(cx.cpu());
    drop(std::mem::take(&mut *inet.leases.lock(&leaf(cx.cpu()))));
    Ok(())
}

/// One of the two domains.
struct Sockets {
    inet: Arc<Inet>,
    v6: bool,
}

impl Domain for Sockets {
    fn socket(
        &self,
        cx: &Curlwp<'_>,
        kind: Kind,
        protocol: i32,
        common: &Arc<Common>,
    ) -> Result<Arc<dyn Protocol>, Errno> {
        let inet = &self.inet;
        let icmp = if self.v6 {
            IPPROTO_ICMPV6
        } else {
            IPPROTO_ICMP
        };
        let number = u8::try_from(protocol).map_err(|_| match protocol {
            // IPPROTO_MPTCP: programs that ask for it take TCP instead.
            256.. => Errno::EPROTONOSUPPORT,
            _ => Errno::EINVAL,
        })?;
        let open = |flavour| dgram::Dgram::open(inet, self.v6, flavour, common);
        match (kind, number) {
            (Kind::Stream, 0 | IPPROTO_TCP) => Ok(tcp::Tcp::open(inet, self.v6, common)),
            (Kind::Dgram, 0 | IPPROTO_UDP) => Ok(open(dgram::Flavour::Udp)),
            (Kind::Dgram, n) if n == icmp => Ok(open(dgram::Flavour::Ping)),
            (Kind::Raw, 0) => Err(Errno::EPROTONOSUPPORT),
            (Kind::Raw, n) => {
                if !cx.cred().is_superuser() {
                    return Err(Errno::EPERM);
                }
                let socket = open(dgram::Flavour::Raw(n));
                inet.raw.add(&socket);
                Ok(socket)
            }
            (Kind::Seqpacket, _) => Err(Errno::ESOCKTNOSUPPORT),
            _ => Err(Errno::EPROTONOSUPPORT),
        }
    }
}

impl Inet {
    /// The stack of a kernel; `EAFNOSUPPORT` when it has none.
    pub fn of(cx: &Curlwp<'_>) -> Result<Arc<Inet>, Errno> {
        Net::of(cx)?.service(cx).ok_or(Errno::EAFNOSUPPORT)
    }

    /// The interfaces below it.
    pub fn interfaces(&self) -> &Arc<Interfaces> {
        &self.interfaces
    }

    /// Has somebody be told of changes from now on.
    pub fn listen(&self, listener: Listener) {
        let listener = Arc::new(listener);
        self.listeners.rcu(|listeners| {
            let mut listeners = Vec::clone(listeners);
            listeners.push(listener.clone());
            listeners
        });
    }

    pub(crate) fn tell(&self, cpu: &Cpu<'_>, event: &Event) {
        for listener in self.listeners.load().iter() {
            listener(cpu, event);
        }
    }

    /// The monotonic clock.
    pub(crate) fn now(&self) -> Nanos {
        self.host.now(Clock::Monotonic)
    }

    /// Four bytes by chance.
    pub(crate) fn random(&self) -> u32 {
        let mut bytes = [0; 4];
        self.host.random(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    /// The loopback interface that is up.
    pub(crate) fn loopback(&self) -> Option<Arc<Ifnet>> {
        let list = self.interfaces.list();
        list.iter().find(|i| i.is_loopback() && i.is_up()).cloned()
    }

    pub(crate) fn next_ident(&self) -> u16 {
        self.ident.fetch_add(1, Ordering::Relaxed) as u16
    }

    /// An interface came, went or changed.
    fn link_event(&self, cpu: &Cpu<'_>, event: &LinkEvent) {
        self.fib.changed();
        match *event {
            LinkEvent::Attached(index) | LinkEvent::Changed(index) => {
                let Some(interface) = self.interfaces.by_index(index) else {
                    return;
                };
                let up = interface.is_up();
                let was_up = self.up.lock(&leaf(cpu)).set(index, up);
                match (was_up, up) {
                    (false, true) => self.link_came_up(cpu, &interface),
                    (true, false) => {
                        self.forget_reports(cpu, index);
                        self.link_down(cpu, index);
                    }
                    _ => {}
                }
            }
            LinkEvent::Detached(index) => {
                for addr in self.addresses().iter().filter(|a| a.interface == index) {
                    let _ = self.delete_address(cpu, index, &addr.addr);
                }
                self.flush_routes(cpu, |r| r.oif == index);
                self.up.lock(&leaf(cpu)).set(index, false);
                self.forget_reports(cpu, index);
                self.link_down(cpu, index);
                drop(self.end_lease(cpu, index));
            }
        }
    }

    fn link_came_up(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>) {
        if !interface.is_loopback() {
            self.tell_groups(cpu, interface.index());
            return self.link_up(cpu, interface);
        }
        let local = |ip: IpAddr, len| {
            let addr = IfAddr {
                broadcast: None,
                ..IfAddr::new(interface.index(), ip, len)
            };
            let _ = self.add_address(cpu, addr);
        };
        local(Ipv4Addr::LOCALHOST.into(), 8);
        local(Ipv6Addr::LOCALHOST.into(), 128);
    }
}

/// Which interfaces were up when they were last looked at.
#[derive(Default)]
pub(crate) struct Up(BTreeSet<u32>);

impl Up {
    /// Notes how it is; answers how it was.
    fn set(&mut self, index: u32, up: bool) -> bool {
        match up {
            true => !self.0.insert(index),
            false => self.0.remove(&index),
        }
    }
}

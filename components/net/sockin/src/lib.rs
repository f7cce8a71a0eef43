//! sockin: the inet and inet6 domains on the host's own sockets.
//!
//! A kernel with this component has kernel descriptors whose network is its host's: stream, datagram and ping sockets in one table
//! with the kernel's files, for programs on this machine and remote ones. There are no interfaces, routes or raw sockets; what they
//! are is the host's business. It takes the place of the `inet` component, and a kernel has one of the two.
//!
//! A call is tried on the host's socket, which never blocks. What cannot be done yet waits in the kernel (`Ready`); one thread
//! of the kernel (`Poller`), started by the first wait, asks the host for all sockets and wakes who waits. `O_NONBLOCK`,
//! timeouts and signals are therefore the kernel's.
//!
//! The host sees checked values only: addresses, flags and options that are known, with as many bytes as they have. A client of the
//! kernel gets no more of the host than the kernel's superuser lets it: ports below 1024 are for the superuser.
//!
//! It may use the net faction and what is below it. Start reading at `socket`, then `ready`.
#![forbid(unsafe_code)]

mod addr;
mod control;
mod options;
mod ready;
mod socket;
mod transfer;

use std::sync::Arc;

use abi::Errno;
use hypercall::{SocketFamily, SocketKind, Sockets};
use kern::{Component, Curlwp, Stage};
use net::consts::{AF_INET, AF_INET6};
use net::{Common, Domain, Kind, Net, Protocol};

use crate::ready::Poller;
use crate::socket::HostBacked;

const IPPROTO_ICMP: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
const IPPROTO_ICMPV6: i32 = 58;

/// The component, for the list of components.
pub static SOCKIN: Component = Component {
    name: "sockin",
    stage: Stage::Net,
    requires: &["net"],
    init: attach,
};

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let net = Net::of(cx)?;
    let host = cx.kernel().host().sockets()?;
    let poller = Arc::new(Poller::new(host.clone()));
    for (family, on_host) in [
        (AF_INET, SocketFamily::Inet),
        (AF_INET6, SocketFamily::Inet6),
    ] {
        let domain = Sockin {
            family: on_host,
            host: host.clone(),
            poller: poller.clone(),
        };
        net.register(cx, family, Arc::new(domain))?;
    }
    net.offer(cx, poller);
    cx.kernel().at_shutdown(cx, "sockin", |cx| {
        if let Some(poller) = Net::of(cx)?.service::<Poller>(cx) {
            poller.leave();
        }
        Ok(())
    });
    Ok(())
}

/// A domain of a kernel.
struct Sockin {
    family: SocketFamily,
    host: Arc<dyn Sockets>,
    poller: Arc<Poller>,
}

impl Domain for Sockin {
    fn socket(
        &self,
        cx: &Curlwp<'_>,
        kind: Kind,
        protocol: i32,
        common: &Arc<Common>,
    ) -> Result<Arc<dyn Protocol>, Errno> {
        let ping = match self.family {
            SocketFamily::Inet => IPPROTO_ICMP,
            SocketFamily::Inet6 => IPPROTO_ICMPV6,
        };
        let kind = match (kind, protocol) {
            (Kind::Stream, 0 | IPPROTO_TCP) => SocketKind::Stream,
            (Kind::Dgram, 0 | IPPROTO_UDP) => SocketKind::Datagram,
            (Kind::Dgram, number) if number == ping => SocketKind::Ping,
            (Kind::Raw, _) if !cx.cred().is_superuser() => return Err(Errno::EPERM),
            (Kind::Raw | Kind::Seqpacket, _) => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EPROTONOSUPPORT),
        };
        let host = self.host.open(self.family, kind)?;
        Ok(HostBacked::new(
            self.family,
            kind,
            common.clone(),
            self.poller.clone(),
            host,
        ))
    }
}

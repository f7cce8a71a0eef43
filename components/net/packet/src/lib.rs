//! Packet sockets, packet(7): what an interface sends and receives, as it is on the link. tcpdump, arping and DHCP clients
//! speak through them.
//!
//! A socket is a [`net::Tap`] on its interface, or on all of them; what the socket's filter lets pass waits in
//! its queue, by reference to the packet's own bytes. Only the superuser may open one.
//!
//! It may use the net faction and what is below it. Start reading at `socket`.
#![forbid(unsafe_code)]

mod addr;
mod queue;
mod ring;
mod socket;

use std::sync::{Arc, Weak};

use abi::Errno;
use kern::{Component, Curlwp, Stage};
use net::consts::AF_PACKET;
use net::{Common, Domain, Interfaces, Kind, LinkEvent, Net, Protocol, SocketEntry};
use sync::{Cpu, Mutex};

use crate::socket::PacketSocket;

/// The component, for the list of components.
pub static PACKET: Component = Component {
    name: "packet",
    stage: Stage::Net,
    requires: &["net"],
    init: attach,
};

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let net = Net::of(cx)?;
    let domain = Arc::new(Packets {
        interfaces: net.interfaces().clone(),
        sockets: Arc::default(),
    });
    let (interfaces, sockets) = (Arc::downgrade(&domain.interfaces), domain.sockets.clone());
    net.interfaces().listen(Box::new(move |cpu, event| {
        if let Some(interfaces) = interfaces.upgrade() {
            follow(cpu, &interfaces, &sockets, event);
        }
    }));
    net.register(cx, AF_PACKET, domain)
}

/// The sockets of a kernel; a leaf.
type Sockets = Mutex<Vec<Weak<PacketSocket>>>;

/// Has the sockets that listen everywhere listen on a new interface too, and tells those of one that went.
fn follow(cpu: &Cpu<'_>, interfaces: &Interfaces, sockets: &Sockets, event: &LinkEvent) {
    let all: Vec<_> = sockets.lock(cpu).iter().filter_map(Weak::upgrade).collect();
    for socket in all {
        match event {
            LinkEvent::Attached(index) => {
                if let Some(interface) = interfaces.by_index(*index) {
                    socket.interface_came(cpu, &interface);
                }
            }
            LinkEvent::Changed(_) => {}
            LinkEvent::Detached(index) => socket.interface_went(cpu, *index),
        }
    }
}

/// The domain of a kernel.
struct Packets {
    interfaces: Arc<Interfaces>,
    sockets: Arc<Sockets>,
}

impl Domain for Packets {
    fn socket(
        &self,
        cx: &Curlwp<'_>,
        kind: Kind,
        protocol: i32,
        common: &Arc<Common>,
    ) -> Result<Arc<dyn Protocol>, Errno> {
        if !cx.cred().is_superuser() {
            return Err(Errno::EPERM);
        }
        if !matches!(kind, Kind::Raw | Kind::Dgram) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        // The protocol of socket(2) is in network byte order.
        let protocol = u16::from_be(protocol as u16);
        let socket = PacketSocket::new(kind, self.interfaces.clone(), common.clone());
        {
            let mut sockets = self.sockets.lock(cx.cpu());
            sockets.retain(|socket| socket.strong_count() > 0);
            sockets.push(Arc::downgrade(&socket));
        }
        socket.bind_to(cx.cpu(), protocol, 0)?;
        Ok(socket)
    }

    fn sockets(&self, cx: &Curlwp<'_>) -> Vec<SocketEntry> {
        let all: Vec<_> = {
            let sockets = self.sockets.lock(cx.cpu());
            sockets.iter().filter_map(Weak::upgrade).collect()
        };
        let numbered = (1..).zip(&all);
        numbered
            .filter_map(|(number, socket)| socket.entry(cx, number))
            .collect()
    }
}

//! Kernels with interfaces and nothing above them, for the tests of interfaces: what comes in is kept to be looked at.
//!
//! It may use the net faction and what is below it. Start reading at [`Station`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use hypercall::Host;
use kern::usermem::KernelMemory;
use kern::{Component, Curlwp, Kernel};
use net::consts::ETHERTYPE_ARP;
use net::{EtherAddr, IfError, Ifnet, Interfaces, NET, Net, NetworkLayer, Packet, Params};
use sync::{Condvar, Cpu, Mutex};

/// The Ethernet address that stands for all.
pub const BROADCAST: EtherAddr = [0xff; 6];

/// A kernel whose network layer keeps what it gets.
pub struct Station {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    inbox: Arc<Inbox>,
}

/// What came in, in order: the name of the interface and the frame. `list` is a leaf.
struct Inbox {
    list: Mutex<Vec<(String, Packet)>>,
    arrived: Condvar,
}

impl NetworkLayer for Inbox {
    fn input(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, packet: Packet) {
        let name = interface.name(cpu);
        self.list.lock(cpu).push((name, packet));
        self.arrived.broadcast(cpu);
    }
}

impl Station {
    /// Boots a kernel with the net faction and these components.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn boot(host: Arc<dyn Host>, components: &[&'static Component]) -> Station {
        let builder = components
            .iter()
            .fold(Kernel::builder(host).component(&NET), |b, c| b.component(c));
        let kernel = builder.boot().expect("boots");
        let inbox = Arc::new(Inbox {
            list: Mutex::default(),
            arrived: Condvar::new("frame"),
        });
        let station = Station { kernel, inbox };
        station.run(|cx| station.interfaces(cx).add_layer(station.inbox.clone()));
        station
    }

    /// Runs something in the kernel.
    pub fn run<R>(&self, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
        self.kernel.implicit(&KernelMemory, f)
    }

    /// Its interfaces.
    ///
    /// # Panics
    /// Never: there is a net faction.
    pub fn interfaces(&self, cx: &Curlwp<'_>) -> Arc<Interfaces> {
        Net::of(cx).expect("a net faction").interfaces().clone()
    }

    /// Makes an interface by name, and brings it up.
    pub fn create(&self, name: &str, params: &str) -> Result<Arc<Ifnet>, IfError> {
        self.run(|cx| {
            let params = Params::parse(params)?;
            let interface = self.interfaces(cx).create_named(cx, name, &params)?;
            interface.set_up(cx, true)?;
            Ok(interface)
        })
    }

    /// Sends a packet by an interface.
    pub fn send(&self, interface: &Ifnet, packet: Packet) -> Result<(), abi::Errno> {
        self.run(|cx| interface.output(cx.cpu(), packet))
    }

    /// The next packet that comes in, with the name of its interface; waits for it.
    pub fn next(&self) -> (String, Packet) {
        self.run(|cx| {
            let mut list = self.inbox.list.lock(cx.cpu());
            while list.is_empty() {
                list = self.inbox.arrived.wait(cx.cpu(), list);
            }
            list.remove(0)
        })
    }

    /// The next packet that is wanted; others are thrown away.
    pub fn next_that(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        loop {
            let frame = self.next().1.to_vec();
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// What has come in and not been taken yet.
    pub fn pending(&self) -> Vec<(String, Packet)> {
        self.run(|cx| std::mem::take(&mut *self.inbox.list.lock(cx.cpu())))
    }

    /// Ends the kernel.
    ///
    /// # Panics
    /// When it does not end in order.
    pub fn end(self) {
        self.kernel.shutdown(true).expect("ends");
    }
}

/// An Ethernet frame.
pub fn ether(to: EtherAddr, from: EtherAddr, kind: u16, payload: &[u8]) -> Packet {
    let bytes = [&to[..], &from, &kind.to_be_bytes(), payload].concat();
    Packet::new(bytes.into())
}

/// An ARP request, RFC 826: who has an IPv4 address?
pub fn arp_request(from: EtherAddr, ip: [u8; 4], wanted: [u8; 4]) -> Packet {
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &from, &ip, &[0; 6], &wanted].concat();
    ether(BROADCAST, from, ETHERTYPE_ARP, &arp)
}

/// Whether a frame is the answer to an ARP request for an address.
pub fn is_arp_reply(frame: &[u8], wanted: [u8; 4]) -> bool {
    frame.len() >= 42
        && frame[12..14] == ETHERTYPE_ARP.to_be_bytes()
        && frame[20..22] == [0, 2]
        && frame[28..32] == wanted
}

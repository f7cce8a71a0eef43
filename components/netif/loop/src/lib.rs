//! The loopback interface, lo(4): what is sent comes in again, on the same virtual CPU, by a software interrupt.
//!
//! It takes whole packets of up to 64 KiB and needs no checksums, so a packet goes from one socket to the other by
//! reference. The component makes `lo` and brings it up; the network layer gives it its addresses.
//!
//! It may use the net faction and what is below it.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::softint::Softint;
use kern::{Component, Curlwp};
use net::{
    Checksum, Config, Driver, EtherAddr, Features, Ifnet, LinkType, Net, Packet,
    interface_component,
};
use sync::{Cpu, PerCpu};

/// The MTU, in bytes: Linux's.
pub const MTU: u32 = 65_536;
/// The most packets that wait on one virtual CPU. One system call can send that many and no more come in between.
const QUEUE: usize = 4096;

/// The component, for the list of components.
pub static LOOP: Component = interface_component("loop", attach);

/// The driver. Its queues are per virtual CPU, so it has no lock.
struct Loop {
    queues: PerCpu<VecDeque<Packet>>,
    softint: OnceLock<Softint>,
    interface: OnceLock<Weak<Ifnet>>,
}

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let driver = Arc::new(Loop {
        queues: PerCpu::new(cx.kernel().cpus(), |_| VecDeque::new()),
        softint: OnceLock::new(),
        interface: OnceLock::new(),
    });
    let weak = Arc::downgrade(&driver);
    let softint = Softint::establish(cx, move |cpu| {
        if let Some(driver) = weak.upgrade() {
            driver.deliver(cpu);
        }
    })?;
    let _ = driver.softint.set(softint);
    let config = Config {
        name: "lo".into(),
        link: LinkType::Loopback,
        mtu: MTU,
        address: EtherAddr::default(),
        features: Features {
            checksum: true,
            gso_max: MTU,
        },
        point_to_point: false,
    };
    let interface = Net::of(cx)?
        .interfaces()
        .attach(cx, config, driver.clone())?;
    let _ = driver.interface.set(Arc::downgrade(&interface));
    interface.set_up(cx, true)
}

impl Loop {
    /// Hands up what waits on this virtual CPU. What is sent meanwhile waits for the next turn.
    fn deliver(&self, cpu: &Cpu<'_>) {
        let Some(interface) = self.interface.get().and_then(Weak::upgrade) else {
            return;
        };
        let mut arrived = self.queues.with(cpu, std::mem::take);
        for packet in arrived.drain(..) {
            interface.input(cpu, packet);
        }
        // The buffer is kept for the next ones.
        self.queues.with(cpu, |queue| {
            if queue.is_empty() {
                *queue = arrived;
            }
        });
    }
}

impl Driver for Loop {
    fn transmit(&self, cpu: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        if packet.checksum == Checksum::None {
            // It never leaves this memory.
            packet.checksum = Checksum::Valid;
        }
        self.queues.with(cpu, |queue| {
            if queue.len() >= QUEUE {
                return Err(Errno::ENOBUFS);
            }
            queue.push_back(packet);
            Ok(())
        })?;
        if let Some(softint) = self.softint.get() {
            softint.schedule(cpu);
        }
        Ok(())
    }
}

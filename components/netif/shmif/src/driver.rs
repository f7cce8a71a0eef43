//! The driver: a port of a bus below an interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use abi::Errno;
use hypercall::Host;
use kern::Curlwp;
use net::consts::IFF_PROMISC;
use net::{
    Config, Driver, EtherAddr, Features, IfError, Ifnet, Interfaces, LinkType, Packet, Receiver,
    Source,
};
use sync::{Cpu, Mutex, OffCpu};

use crate::bus::Bus;
use crate::layout::{Filter, Geometry};
use crate::reader::Reader;
use crate::writer::Writer;

/// Frames that are taken from one ring before others have their turn.
const BATCH: usize = 64;
/// The longest IP packet.
const IP_MAX: u32 = 65_535;

/// What a new interface is to be.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: EtherAddr,
    pub(crate) mtu: u32,
    pub(crate) as_new: Geometry,
}

pub(crate) fn open(
    cx: &Curlwp<'_>,
    interfaces: &Arc<Interfaces>,
    path: &str,
    wanted: &Wanted<'_>,
) -> Result<Arc<Ifnet>, IfError> {
    let host = cx.kernel().host();
    let bus = cx.unscheduled(|| Bus::attach(&**host, path, wanted.as_new))?;
    let driver = Shmif {
        writer: Mutex::new(Writer::new(&bus)),
        port: Arc::new(Port {
            reader: Mutex::new(Reader::new(&bus)),
            bus,
            filter: AtomicU64::new(0),
            woken: AtomicBool::new(false),
            host: host.clone(),
        }),
        receiver: Arc::default(),
    };
    let config = Config {
        name: wanted.name.into(),
        link: LinkType::Ethernet,
        mtu: wanted.mtu,
        address: wanted.address,
        features: Features {
            checksum: true,
            gso_max: IP_MAX,
        },
        point_to_point: false,
    };
    interfaces
        .attach(cx, config, Arc::new(driver))
        .map_err(|errno| IfError::new(errno, format!("{}: {errno}", wanted.name)))
}

/// An interface on a bus. `writer` is a leaf, held while a frame is copied into the ring.
struct Shmif {
    writer: Mutex<Writer>,
    port: Arc<Port>,
    receiver: Arc<Receiver>,
}

/// Our port as a source of packets. `reader` is a leaf, held by the receiving thread while it copies frames.
struct Port {
    bus: Bus,
    reader: Mutex<Reader>,
    /// The [`Filter`] that is in the bus for others to see.
    filter: AtomicU64,
    woken: AtomicBool,
    host: Arc<dyn Host>,
}

impl Port {
    fn set_filter(&self, filter: Filter) {
        self.filter.store(filter.0, Ordering::Relaxed);
        self.bus.set_filter(filter);
    }

    /// Says that we are going to sleep, unless there is something to be done.
    fn fall_asleep(&self) -> bool {
        let word = self.bus.sleep_word(self.bus.port());
        word.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let parker = OffCpu(&*self.host);
        let reader = self.reader.lock(&parker);
        if reader.has_news(&self.bus) || self.woken.load(Ordering::SeqCst) {
            word.store(0, Ordering::SeqCst);
            return false;
        }
        true
    }
}

impl Source for Port {
    fn receive(&self, batch: &mut Vec<Packet>) -> Result<(), Errno> {
        loop {
            let filter = Filter(self.filter.load(Ordering::Relaxed));
            self.reader
                .lock(&OffCpu(&*self.host))
                .read(&self.bus, filter, BATCH, batch);
            if !batch.is_empty() || self.woken.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            if self.fall_asleep() {
                let at = self.bus.sleep_word_at(self.bus.port());
                self.host.waits_for("shmif");
                self.bus.map().wait(at, 1, None);
                self.bus
                    .sleep_word(self.bus.port())
                    .store(0, Ordering::SeqCst);
            }
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.bus.wake(1 << self.bus.port());
    }
}

fn filter_of(cpu: &Cpu<'_>, interface: &Ifnet) -> Filter {
    let promiscuous = interface.flags() & IFF_PROMISC != 0;
    Filter::new(interface.address(cpu), promiscuous)
}

impl Driver for Shmif {
    fn transmit(&self, cpu: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        let bus = &self.port.bus;
        let readers = self.writer.lock(cpu).put(bus, &mut packet)?;
        bus.wake(readers);
        Ok(())
    }

    fn set_up(&self, cx: &Curlwp<'_>, interface: &Arc<Ifnet>, up: bool) -> Result<(), Errno> {
        let port = &self.port;
        if !up {
            port.bus.leave();
            self.receiver.stop(cx);
            return Ok(());
        }
        *port.reader.lock(cx.cpu()) = Reader::new(&port.bus);
        let filter = filter_of(cx.cpu(), interface);
        port.set_filter(filter);
        port.bus.join(filter);
        let started = self.receiver.start(cx, interface, port.clone());
        if started.is_err() {
            port.bus.leave();
        }
        started
    }

    fn set_mtu(&self, _: &Curlwp<'_>, mtu: u32) -> Result<(), Errno> {
        if mtu > IP_MAX {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn changed(&self, cpu: &Cpu<'_>, interface: &Ifnet) {
        if interface.is_up() {
            self.port.set_filter(filter_of(cpu, interface));
        }
    }

    fn detach(&self, cx: &Curlwp<'_>) {
        self.receiver.stop(cx);
    }
}

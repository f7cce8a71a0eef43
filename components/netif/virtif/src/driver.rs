//! The driver: a wire of the host's below an interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use arc_swap::ArcSwap;
use hypercall::{Offload, OutFrame, Wire, WireSpec};
use kern::Curlwp;
use net::{
    Config, Cut, Driver, EtherAddr, Features, IfError, Ifnet, Interfaces, LinkType, Packet,
    Receiver, Source, complete_checksum, segment,
};
use sync::Cpu;

use crate::spec;

/// Frames that are taken from the host at a time.
const BATCH: usize = 64;
/// The longest IP packet that the host cuts.
const GSO_MAX: u32 = 65_535;

/// Makes an interface on a wire of the host's. It is down, but the wire is open already, so that what is wrong with it is found now.
pub fn open(
    cx: &Curlwp<'_>,
    interfaces: &Arc<Interfaces>,
    name: &str,
    spec: WireSpec,
    address: EtherAddr,
    mtu: u32,
) -> Result<Arc<Ifnet>, IfError> {
    let wire = open_wire(cx, &spec)?;
    let info = wire.info().clone();
    let driver = Virtif {
        spec,
        udp: info.udp,
        current: ArcSwap::new(Port::new(wire)),
        receiver: Arc::default(),
    };
    let config = Config {
        name: name.into(),
        link: LinkType::Ethernet,
        mtu,
        address,
        features: Features {
            checksum: info.checksum,
            gso_max: if info.tcp { GSO_MAX } else { 0 },
        },
        point_to_point: false,
    };
    let interface = interfaces.attach(cx, config, Arc::new(driver));
    interface.map_err(|errno| IfError::new(errno, format!("{name}: {errno}")))
}

fn open_wire(cx: &Curlwp<'_>, spec: &WireSpec) -> Result<Arc<dyn Wire>, IfError> {
    let host = cx.kernel().host();
    cx.unscheduled(|| host.open_wire(spec))
        .map_err(|errno| spec::failed(spec, errno))
}

/// An interface on a wire.
///
/// No lock: the wire is swapped for a new one when the interface goes up and the old one has ended.
struct Virtif {
    spec: WireSpec,
    /// The host cuts UDP.
    udp: bool,
    current: ArcSwap<Port>,
    receiver: Arc<Receiver>,
}

/// A wire as a source of packets.
struct Port {
    wire: Arc<dyn Wire>,
    /// It has ended: the other end is gone.
    ended: AtomicBool,
}

impl Port {
    fn new(wire: Arc<dyn Wire>) -> Arc<Port> {
        Arc::new(Port {
            wire,
            ended: AtomicBool::new(false),
        })
    }

    fn send(&self, packet: &Packet) -> Result<(), Errno> {
        if packet.len() > self.wire.info().frame_max {
            return Err(Errno::EMSGSIZE);
        }
        match self.wire.send(&[frame(packet)]) {
            0 => Err(Errno::ENOBUFS),
            _ => Ok(()),
        }
    }

    /// Sends packets in one call of the host; how many went.
    fn send_all(&self, packets: &[Packet]) -> usize {
        let max = self.wire.info().frame_max;
        let fit = packets.iter().take_while(|p| p.len() <= max);
        let frames: Vec<_> = fit.map(frame).collect();
        self.wire.send(&frames)
    }
}

/// A packet as the host gets it. That its checksum was right here says nothing to who gets it from a wire.
fn frame(packet: &Packet) -> OutFrame<'_> {
    OutFrame {
        pieces: packet.pieces().collect(),
        offload: Offload {
            valid: false,
            ..packet.offload()
        },
    }
}

impl Source for Port {
    fn receive(&self, batch: &mut Vec<Packet>) -> Result<(), Errno> {
        let mut frames = Vec::with_capacity(BATCH);
        let received = self.wire.receive(&mut frames, BATCH);
        let packets = frames
            .into_iter()
            .filter_map(|frame| Packet::from_wire(frame.bytes, &frame.offload));
        batch.extend(packets);
        if received.is_err() {
            self.ended.store(true, Ordering::SeqCst);
        }
        received
    }

    fn wake(&self) {
        self.wire.wake();
    }
}

impl Driver for Virtif {
    fn transmit(&self, _: &Cpu<'_>, packet: Packet) -> Result<(), Errno> {
        let port = self.current.load();
        match packet.gso {
            Some(gso) if gso.cut == Cut::Udp && !self.udp => {
                let mut parts: Vec<_> = segment(LinkType::Ethernet, packet)?.collect();
                parts.iter_mut().try_for_each(complete_checksum)?;
                match port.send_all(&parts) {
                    sent if sent < parts.len() => Err(Errno::ENOBUFS),
                    _ => Ok(()),
                }
            }
            _ => port.send(&packet),
        }
    }

    fn transmit_all(&self, _: &Cpu<'_>, packets: Vec<Packet>) -> usize {
        self.current.load().send_all(&packets)
    }

    fn set_up(&self, cx: &Curlwp<'_>, interface: &Arc<Ifnet>, up: bool) -> Result<(), Errno> {
        if !up {
            self.receiver.stop(cx);
            return Ok(());
        }
        let mut port = self.current.load_full();
        if port.ended.load(Ordering::SeqCst) {
            let wire = open_wire(cx, &self.spec).map_err(|error| {
                cx.log(format_args!("{error}"));
                error.errno
            })?;
            port = Port::new(wire);
            self.current.store(port.clone());
        }
        self.receiver.start(cx, interface, port)
    }

    fn set_mtu(&self, _: &Curlwp<'_>, mtu: u32) -> Result<(), Errno> {
        if mtu > spec::MTU_MAX {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn detach(&self, cx: &Curlwp<'_>) {
        self.receiver.stop(cx);
    }
}

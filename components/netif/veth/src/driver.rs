//! The driver of an end, and how pairs are made.

use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::Curlwp;
use net::{
    Config, Driver, EtherAddr, Features, IfError, Ifnet, Interfaces, LinkType, Net, Packet,
    Receiver,
};
use sync::Cpu;

use crate::MTU_MAX;
use crate::delivery::Delivery;
use crate::queue::Queue;

/// One end of a cable, to be plugged into a kernel.
pub struct End {
    /// What comes to this end.
    pub(crate) inbound: Arc<Queue>,
    /// What goes to the other.
    outbound: Arc<Queue>,
}

/// What an end is to be when it is plugged in.
#[derive(Clone, Debug)]
pub struct Plug {
    /// The interface's name; one that ends in `%d` gets the first number that is free.
    pub name: String,
    /// Its address.
    pub address: EtherAddr,
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// A cable, as its two ends.
pub fn cable() -> (End, End) {
    let (a, b) = (Arc::<Queue>::default(), Arc::<Queue>::default());
    let end = |inbound: &Arc<Queue>, outbound: &Arc<Queue>| End {
        inbound: inbound.clone(),
        outbound: outbound.clone(),
    };
    (end(&a, &b), end(&b, &a))
}

/// Plugs an end into a kernel: the interface, which is down. The other end may be in another kernel of this process, on the same host.
pub fn plug(cx: &Curlwp<'_>, end: End, plug: Plug) -> Result<Arc<Ifnet>, Errno> {
    attach(cx, Net::of(cx)?.interfaces(), end, plug, None).map(|(interface, _)| interface)
}

/// Makes both ends in one kernel.
pub(crate) fn pair(
    cx: &Curlwp<'_>,
    interfaces: &Arc<Interfaces>,
    near: Plug,
    far: Plug,
    delivery: &Arc<Delivery>,
) -> Result<Arc<Ifnet>, IfError> {
    let (a, b) = cable();
    let make = |end, plug: Plug| {
        let name = plug.name.clone();
        attach(cx, interfaces, end, plug, Some(delivery))
            .map_err(|errno| IfError::new(errno, format!("{name}: {errno}")))
    };
    let (near, near_end) = make(a, near)?;
    match make(b, far) {
        Ok((far, far_end)) => {
            let _ = near_end.peer.set(Arc::downgrade(&far));
            let _ = far_end.peer.set(Arc::downgrade(&near));
            Ok(near)
        }
        Err(error) => {
            interfaces.detach(cx, &near)?;
            Err(error)
        }
    }
}

fn attach(
    cx: &Curlwp<'_>,
    interfaces: &Arc<Interfaces>,
    end: End,
    plug: Plug,
    delivery: Option<&Arc<Delivery>>,
) -> Result<(Arc<Ifnet>, Arc<Veth>), Errno> {
    end.inbound.set_host(cx.kernel().host());
    let driver = Arc::new(Veth {
        end,
        delivery: delivery.cloned(),
        receiver: Arc::default(),
        peer: OnceLock::new(),
    });
    let config = Config {
        name: plug.name,
        link: LinkType::Ethernet,
        mtu: plug.mtu,
        address: plug.address,
        features: Features {
            checksum: true,
            gso_max: MTU_MAX,
        },
        point_to_point: false,
    };
    let interface = interfaces.attach(cx, config, driver.clone())?;
    Ok((interface, driver))
}

/// An end of a pair.
pub(crate) struct Veth {
    end: End,
    /// What hands up on this kernel, when the other end is here too.
    delivery: Option<Arc<Delivery>>,
    /// What waits for packets, when it is not.
    receiver: Arc<Receiver>,
    /// The other end, when it is here.
    peer: OnceLock<Weak<Ifnet>>,
}

impl Driver for Veth {
    fn transmit(&self, cpu: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        packet.timestamp = 0;
        packet.link_multicast = false;
        let queue = &self.end.outbound;
        if !queue.put(cpu, packet)? {
            return Ok(());
        }
        match (&self.delivery, self.peer.get()) {
            (Some(delivery), Some(peer)) => delivery.schedule(cpu, (queue.clone(), peer.clone())),
            _ => queue.rouse(&**cpu.cpus().host()),
        }
        Ok(())
    }

    fn set_up(&self, cx: &Curlwp<'_>, interface: &Arc<Ifnet>, up: bool) -> Result<(), Errno> {
        let inbound = &self.end.inbound;
        if !up {
            inbound.set_open(cx.cpu(), false);
            self.receiver.stop(cx);
            return Ok(());
        }
        if self.delivery.is_none() {
            self.receiver.start(cx, interface, inbound.clone())?;
        }
        inbound.set_open(cx.cpu(), true);
        Ok(())
    }

    fn set_mtu(&self, _: &Curlwp<'_>, mtu: u32) -> Result<(), Errno> {
        if mtu > MTU_MAX {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "veth"
    }

    fn partner(&self) -> u32 {
        let peer = self.peer.get().and_then(Weak::upgrade);
        peer.map_or(0, |peer| peer.index())
    }

    /// Takes the other end along.
    fn detach(&self, cx: &Curlwp<'_>) {
        let peer = self.peer.get().and_then(Weak::upgrade);
        if let (Some(peer), Ok(net)) = (peer, Net::of(cx))
            && net.interfaces().by_index(peer.index()).is_some()
        {
            // It cannot fail to go down, and there is nobody to be told.
            let _ = net.interfaces().detach(cx, &peer);
        }
    }
}

//! VLAN interfaces, IEEE 802.1Q: `vlan0` with `parent=virt0,id=5`.
//!
//! What goes out by one gets a tag and goes out by its parent; frames of the parent that have the tag come in by it, without. Frames with the
//! tag of no VLAN stay the parent's, and those of VLAN 0, which have a priority only, lose it.
//!
//! It may use the net faction and what is below it. Start reading at `Vlan`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

#[cfg(test)]
mod tests;
mod trunk;

use std::sync::{Arc, Weak};

use abi::Errno;
use kern::{Component, Curlwp};
use net::consts::ETHERTYPE_VLAN;
use net::{
    Cloner, Config, Driver, ETHER_HEADER, HEIGHT_MAX, IfError, Ifnet, Interfaces, LinkType, Net,
    Packet, Params, interface_component,
};
use sync::Cpu;

use trunk::Trunks;

/// Bytes of a tag.
const TAG: usize = 4;
/// The highest number of a VLAN.
const ID_MAX: u32 = 4094;

/// The component, for the list of components.
pub static VLAN: Component = interface_component("vlan", attach);

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let interfaces = Net::of(cx)?.interfaces();
    interfaces.add_cloner(cx, "vlan", Arc::new(Vlans(Arc::default())))
}

struct Vlans(Arc<Trunks>);

impl Cloner for Vlans {
    fn create(
        &self,
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let id = params.number("id", 1..=ID_MAX)?.ok_or_else(|| {
            let text = format!("vlan: say id=N, from 1 to {ID_MAX}");
            IfError::new(Errno::EINVAL, text)
        })? as u16;
        let parent_name = params.required("vlan", "parent")?;
        let parent = interfaces
            .by_name(cx.cpu(), parent_name)
            .filter(|parent| parent.link() == LinkType::Ethernet)
            .ok_or_else(|| {
                let text =
                    format!("{parent_name}: no Ethernet interface; make it before its VLANs");
                IfError::new(Errno::ENODEV, text)
            })?;
        if parent.height() >= HEIGHT_MAX {
            let text = format!(
                "{parent_name}: {HEIGHT_MAX} interfaces stand on one another already; take one below"
            );
            return Err(IfError::new(Errno::ELOOP, text));
        }
        let fail = |errno: Errno| {
            let text = format!("{name}: VLAN {id} of {parent_name}: {errno}");
            IfError::new(errno, text)
        };
        let config = Config {
            name: name.into(),
            link: LinkType::Ethernet,
            mtu: parent.mtu(),
            address: parent.address(cx.cpu()),
            features: parent.features(),
            point_to_point: false,
        };
        let driver = Vlan {
            id,
            parent: Arc::downgrade(&parent),
            trunks: self.0.clone(),
        };
        let interface = interfaces
            .attach(cx, config, Arc::new(driver))
            .map_err(fail)?;
        if let Err(errno) = self.0.add(cx.cpu(), &parent, id, &interface) {
            interfaces.detach(cx, &interface)?;
            return Err(fail(errno));
        }
        Ok(interface)
    }

    fn params(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("parent=NAME", "the interface whose frames are tagged"),
            ("id=N", "the VLAN's number"),
        ]
    }
}

/// A VLAN on an interface.
struct Vlan {
    id: u16,
    parent: Weak<Ifnet>,
    trunks: Arc<Trunks>,
}

impl Driver for Vlan {
    fn transmit(&self, cpu: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        let parent = self.parent.upgrade().ok_or(Errno::ENETDOWN)?;
        let header: [u8; ETHER_HEADER] = packet
            .front(ETHER_HEADER)
            .and_then(|header| header.try_into().ok())
            .ok_or(Errno::EINVAL)?;
        packet.advance(ETHER_HEADER);
        let tagged = packet.push(ETHER_HEADER + TAG).ok_or(Errno::ENOBUFS)?;
        tagged[..12].copy_from_slice(&header[..12]);
        tagged[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        tagged[14..16].copy_from_slice(&self.id.to_be_bytes());
        tagged[16..].copy_from_slice(&header[12..]);
        parent.output(cpu, packet)
    }

    fn set_mtu(&self, _: &Curlwp<'_>, mtu: u32) -> Result<(), Errno> {
        match self.parent.upgrade() {
            Some(parent) if mtu > parent.mtu() => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }

    fn kind(&self) -> &'static str {
        "vlan"
    }

    fn lowers(&self) -> Vec<Arc<Ifnet>> {
        self.parent.upgrade().into_iter().collect()
    }

    fn partner(&self) -> u32 {
        self.parent.upgrade().map_or(0, |parent| parent.index())
    }

    fn vlan(&self) -> Option<u16> {
        Some(self.id)
    }

    fn detach(&self, cx: &Curlwp<'_>) {
        if let Some(parent) = self.parent.upgrade() {
            self.trunks.remove(cx.cpu(), &parent, self.id);
        }
    }
}

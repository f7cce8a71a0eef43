//! Which VLANs an interface has.

use std::sync::{Arc, Weak};

use abi::Errno;
use arc_swap::ArcSwap;
use net::{ETHER_HEADER, Ifnet, Packet, Trunk};
use sync::{Cpu, Mutex};

use crate::TAG;

/// The interfaces of a kernel that have VLANs. `list` is held while a VLAN comes or goes, and is a leaf.
#[derive(Default)]
pub(crate) struct Trunks {
    list: Mutex<Vec<(Weak<Ifnet>, Arc<Members>)>>,
}

/// The VLANs of an interface, by number. Swapped whole, so that a frame takes no lock.
#[derive(Default)]
struct Members(ArcSwap<Vec<(u16, Weak<Ifnet>)>>);

impl Trunks {
    /// Adds a VLAN to an interface. `EEXIST` when it has one of that number.
    pub(crate) fn add(
        &self,
        cpu: &Cpu<'_>,
        parent: &Arc<Ifnet>,
        id: u16,
        vlan: &Arc<Ifnet>,
    ) -> Result<(), Errno> {
        let mut list = self.list.lock(cpu);
        list.retain(|(parent, _)| parent.strong_count() != 0);
        let members = match find(&list, parent) {
            Some(members) => members,
            None => {
                let members: Arc<Members> = Arc::default();
                list.push((Arc::downgrade(parent), members.clone()));
                parent.set_trunk(Some(Box::new(Tags(members.clone()))));
                members
            }
        };
        let mut all = Vec::clone(&members.0.load());
        match all.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(at) => all.insert(at, (id, Arc::downgrade(vlan))),
        }
        members.0.store(Arc::new(all));
        Ok(())
    }

    /// Takes a VLAN off an interface.
    pub(crate) fn remove(&self, cpu: &Cpu<'_>, parent: &Arc<Ifnet>, id: u16) {
        let mut list = self.list.lock(cpu);
        let Some(members) = find(&list, parent) else {
            return;
        };
        let mut all = Vec::clone(&members.0.load());
        all.retain(|(other, _)| *other != id);
        if all.is_empty() {
            parent.set_trunk(None);
            list.retain(|(_, other)| !Arc::ptr_eq(other, &members));
        }
        members.0.store(Arc::new(all));
    }
}

fn find(list: &[(Weak<Ifnet>, Arc<Members>)], parent: &Arc<Ifnet>) -> Option<Arc<Members>> {
    let found = list
        .iter()
        .find(|(other, _)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(parent)));
    found.map(|(_, members)| members.clone())
}

/// Takes tagged frames for the VLANs that they are of.
struct Tags(Arc<Members>);

impl Trunk for Tags {
    fn tagged(&self, cpu: &Cpu<'_>, _: &Arc<Ifnet>, mut packet: Packet) -> Option<Packet> {
        let header: [u8; ETHER_HEADER + TAG] = packet
            .front(ETHER_HEADER + TAG)
            .and_then(|header| header.try_into().ok())?;
        let id = u16::from_be_bytes([header[14], header[15]]) & 0xfff;
        if id == 0 {
            return strip(packet, &header);
        }
        let all = self.0.0.load();
        let Ok(at) = all.binary_search_by_key(&id, |(id, _)| *id) else {
            return Some(packet);
        };
        if let (Some(vlan), Some(packet)) = (all[at].1.upgrade(), strip(packet, &header)) {
            vlan.input(cpu, packet);
        }
        None
    }
}

fn strip(mut packet: Packet, header: &[u8; ETHER_HEADER + TAG]) -> Option<Packet> {
    packet.advance(ETHER_HEADER + TAG);
    let plain = packet.push(ETHER_HEADER)?;
    plain[..12].copy_from_slice(&header[..12]);
    plain[12..].copy_from_slice(&header[16..]);
    Some(packet)
}

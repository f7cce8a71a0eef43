//! The groups that a socket of messages has joined.

use core::net::IpAddr;

use abi::Errno;
use kern::Curlwp;
use sync::Cpu;

use super::Dgram;
use crate::ipv4::Header;
use crate::leaf;
use crate::route::RouteKind;

impl Dgram {
    /// Whether a message to a group is for it.
    pub(crate) fn hears_group(&self, cpu: &Cpu<'_>, header: &Header) -> bool {
        if header.kind != RouteKind::Multicast {
            return true;
        }
        let leaf = leaf(cpu);
        let state = self.state.lock(&leaf);
        state.options.all_groups || state.groups.contains(&(header.interface, header.dst))
    }

    pub(super) fn join(&self, cx: &Curlwp<'_>, interface: u32, group: IpAddr) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        self.inet
            .interfaces
            .by_index(interface)
            .ok_or(Errno::ENODEV)?;
        if self.state.lock(&leaf).groups.contains(&(interface, group)) {
            return Err(Errno::EADDRINUSE);
        }
        self.inet.join_group(cx.cpu(), interface, group)?;
        self.state.lock(&leaf).groups.push((interface, group));
        Ok(())
    }

    pub(super) fn leave(
        &self,
        cx: &Curlwp<'_>,
        interface: u32,
        group: IpAddr,
    ) -> Result<(), Errno> {
        {
            let leaf = leaf(cx.cpu());
            let mut state = self.state.lock(&leaf);
            let at = state.groups.iter().position(|g| *g == (interface, group));
            state.groups.remove(at.ok_or(Errno::EADDRNOTAVAIL)?);
        }
        self.inet.leave_group(cx.cpu(), interface, group);
        Ok(())
    }
}

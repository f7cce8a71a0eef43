//! Netlink, netlink(7): how programs learn of and change interfaces, addresses, routes and neighbours (rtnetlink(7), which
//! iproute2 and getifaddrs(3) speak), and list sockets (sock_diag(7), for ss).
//!
//! A socket's requests are answered at once, into its own queue; changes, whoever made them, go to the sockets that
//! joined the group for them.
//!
//! It may use the net faction, inet and what is below them. Start reading at `socket`, then `route`.
#![forbid(unsafe_code)]

mod diag;
mod groups;
mod message;
mod route;
mod socket;

use std::sync::Arc;

use abi::Errno;
use inet::Inet;
use kern::{Component, Curlwp, Stage};
use net::consts::AF_NETLINK;
use net::{Common, Domain, Kind, Net, Protocol};

use crate::groups::Members;
use crate::socket::{Family, NetlinkSocket};

/// The component, for the list of components.
pub static NETLINK: Component = Component {
    name: "netlink",
    stage: Stage::Net,
    requires: &["inet"],
    init: attach,
};

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let net = Net::of(cx)?;
    let inet = Inet::of(cx)?;
    let members = Arc::new(Members::default());
    groups::announce(&inet, &members);
    net.register(cx, AF_NETLINK, Arc::new(Netlink { inet, members }))
}

/// The domain of a kernel.
struct Netlink {
    inet: Arc<Inet>,
    members: Arc<Members>,
}

impl Domain for Netlink {
    fn socket(
        &self,
        cx: &Curlwp<'_>,
        kind: Kind,
        protocol: i32,
        common: &Arc<Common>,
    ) -> Result<Arc<dyn Protocol>, Errno> {
        if !matches!(kind, Kind::Raw | Kind::Dgram) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        let family = Family::from_protocol(protocol).ok_or(Errno::EPROTONOSUPPORT)?;
        let socket = NetlinkSocket::new(family, &self.inet, &self.members, common);
        self.members.add(cx.cpu(), &socket);
        Ok(socket)
    }
}

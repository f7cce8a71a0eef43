//! Pairs of Ethernet interfaces, veth(4): what goes out by one comes in by the other.
//!
//! `veth0` with `peer=veth1` makes both ends in one kernel; [`cable`] and [`plug`] put one end into each of two kernels of a process. Packets of
//! up to 64 KiB go over by reference, with their checksums undone. On one kernel a software interrupt hands them up; between two the
//! receiving side has a thread, which is woken once for a batch.
//!
//! It may use the net faction and what is below it. Start reading at `queue`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod delivery;
mod driver;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::Errno;
use kern::{Component, Curlwp};
use net::{Cloner, IfError, Ifnet, Interfaces, Net, Params, interface_component};

use delivery::Delivery;

pub use driver::{End, Plug, cable, plug};

/// The largest MTU, and the one unless told otherwise, in bytes.
const MTU_MAX: u32 = 65_535;
const MTU: u32 = 1500;

/// The component, for the list of components.
pub static VETH: Component = interface_component("veth", attach);

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let pairs = Pairs {
        delivery: Delivery::establish(cx)?,
    };
    let interfaces = Net::of(cx)?.interfaces();
    interfaces.add_cloner(cx, "veth", Arc::new(pairs))
}

/// Makes pairs in one kernel.
struct Pairs {
    delivery: Arc<Delivery>,
}

impl Cloner for Pairs {
    fn create(
        &self,
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let host = &**cx.kernel().host();
        let mtu = params.number("mtu", 68..=MTU_MAX)?.unwrap_or(MTU);
        let plug = |name: &str, address| Plug {
            name: name.into(),
            address,
            mtu,
        };
        let near = plug(name, params.address(host)?);
        let far = plug(
            params.get("peer").unwrap_or("veth%d"),
            net::random_address(host),
        );
        driver::pair(cx, interfaces, near, far, &self.delivery)
    }

    fn params(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "peer=NAME",
                "the name of the other end; without, the next free one",
            ),
            ("mac=ADDRESS", "the Ethernet address; a random one without"),
            ("mtu=BYTES", "the MTU; 1500 without"),
        ]
    }
}

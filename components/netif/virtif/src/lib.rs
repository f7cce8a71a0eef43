//! Network interfaces on what the host has: `virt0`, `virt1`, ...
//!
//! One is made by name with one of
//!
//! - `tap=NAME`: a tap device of the host; made if it does not exist and the host lets us.
//! - `packet=NAME`: a network interface of the host, raw.
//! - `unix=PATH`: QEMU's stream network protocol on a unix socket, which passt(1) speaks; with `listen` we wait there for a peer.
//! - `dgram=PATH,peer=PATH`: QEMU's datagram network protocol.
//! - `wire=NAME`: what the host knows under a name; a simulated host's links.
//!
//! and perhaps `mac=ADDRESS` and `mtu=BYTES`. [`open`] does the same from code. Frames that the host cuts and sums up itself go to it whole.
//!
//! It may use the net faction and what is below it. Start reading at `Virtif`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod driver;
mod spec;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use abi::Errno;
use kern::{Component, Curlwp};
use net::{Cloner, IfError, Ifnet, Interfaces, Net, Params, interface_component};

pub use driver::open;

/// A frame of the host's as a packet; `None` when what it says of itself cannot be.
#[cfg(feature = "fuzz")]
pub fn fuzz_packet(frame: hypercall::InFrame) -> Option<net::Packet> {
    net::Packet::from_wire(frame.bytes, &frame.offload)
}

/// The component, for the list of components.
pub static VIRTIF: Component = interface_component("virtif", attach);

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let interfaces = Net::of(cx)?.interfaces();
    interfaces.add_cloner(cx, "virt", Arc::new(Virt))
}

struct Virt;

impl Cloner for Virt {
    fn create(
        &self,
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let spec = spec::of(params)?;
        let address = params.address(&**cx.kernel().host())?;
        let mtu = params.number("mtu", 68..=spec::MTU_MAX)?;
        open(cx, interfaces, name, spec, address, mtu.unwrap_or(1500))
    }

    fn params(&self) -> &'static [(&'static str, &'static str)] {
        spec::PARAMS
    }

    fn link(&self) -> Option<&'static str> {
        Some("tap")
    }
}

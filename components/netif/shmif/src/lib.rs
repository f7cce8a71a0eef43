//! The shared-memory Ethernet bus on a file, shmif(4): `shmif0` with `bus=FILE`.
//!
//! Kernels that name the same file, in one process or in many, are on one Ethernet segment. The file is mapped, and each port has a ring in it
//! that only it writes, so there is no lock that a process could take to its grave: what somebody was writing when he was killed nobody ever sees,
//! and his port is free for the next. Everybody reads everybody else's rings and takes what is for him; who sleeps is woken by a futex in the
//! file, and only for what he wants. Writing does not wait: a frame for somebody who has not read what he got is lost, as on a wire.
//! Frames of up to 64 KiB go through whole, with their checksums undone.
//!
//! Best on a file system in memory (`/dev/shm`): a disk would be written all the time. Who may write the file can read and forge frames, and
//! end those who use it by cutting it off; as always, its permissions say who that is.
//!
//! It may use the net faction and what is below it. Start reading at `layout`, then `bus`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod bus;
mod driver;
#[cfg(feature = "fuzz")]
mod fuzz;
mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use abi::Errno;
use kern::{Component, Curlwp};
use net::{Cloner, IfError, Ifnet, Interfaces, Net, Params, interface_component};

#[cfg(feature = "fuzz")]
pub use fuzz::fuzz_bus;

use driver::Wanted;
use layout::{Geometry, PORTS_MAX, RING_MAX, RING_MIN};

/// The MTU unless told otherwise, and the largest.
const MTU: u32 = 1500;
const MTU_MAX: u32 = 65_535;

/// The component, for the list of components.
pub static SHMIF: Component = interface_component("shmif", attach);

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let interfaces = Net::of(cx)?.interfaces();
    interfaces.add_cloner(cx, "shmif", Arc::new(Shmifs))
}

struct Shmifs;

impl Cloner for Shmifs {
    fn create(
        &self,
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let mut as_new = Geometry::default();
        if let Some(ports) = params.number("ports", 2..=PORTS_MAX)? {
            as_new.ports = ports;
        }
        if let Some(kib) = params.number("ring", RING_MIN >> 10..=RING_MAX >> 10)? {
            as_new.ring = (kib << 10).next_power_of_two();
        }
        let wanted = Wanted {
            name,
            address: params.address(&**cx.kernel().host())?,
            mtu: params.number("mtu", 68..=MTU_MAX)?.unwrap_or(MTU),
            as_new,
        };
        driver::open(cx, interfaces, params.required("shmif", "bus")?, &wanted)
    }

    fn params(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("bus=FILE", "the bus; made if there is none"),
            ("mac=ADDRESS", "the Ethernet address; a random one without"),
            ("mtu=BYTES", "the MTU; 1500 without"),
            ("ports=N", "of a new bus: how many may be on it; 64 without"),
            (
                "ring=KIB",
                "of a new bus: what each may have under way; 4096 without",
            ),
        ]
    }

    fn link(&self) -> Option<&'static str> {
        Some("bus")
    }
}

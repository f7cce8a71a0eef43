//! Learning Ethernet bridges, bridge(4), IEEE 802.1D without the spanning tree: `bridge0` with `ports=veth0+virt0`.
//!
//! A bridge is an interface of its own, by which this kernel takes part, and the [`Master`](net::Master) of its ports. It remembers by which
//! port an address was seen last, in a bounded table, and forgets it after a while.
//!
//! It may use the net faction and what is below it. Start reading at `bridge`.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod bridge;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use abi::Errno;
use kern::{Component, Curlwp};
use net::{Cloner, IfError, Ifnet, Interfaces, LinkEvent, Net, Params, interface_component};
use sync::{Cpu, Mutex};

use bridge::Bridge;
use table::Limits;

/// The component, for the list of components.
pub static BRIDGE: Component = interface_component("bridge", attach);

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let bridges: Arc<Bridges> = Arc::default();
    let interfaces = Net::of(cx)?.interfaces();
    let all = bridges.clone();
    interfaces.listen(Box::new(move |cpu, event| {
        if let LinkEvent::Detached(index) = event {
            all.port_is_gone(cpu, *index);
        }
    }));
    interfaces.add_cloner(cx, "bridge", bridges)
}

/// The bridges of a kernel. `list` is a leaf.
#[derive(Default)]
struct Bridges {
    list: Mutex<Vec<Weak<Bridge>>>,
}

impl Bridges {
    fn port_is_gone(&self, cpu: &Cpu<'_>, index: u32) {
        let list: Vec<_> = self
            .list
            .lock(cpu)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for bridge in list {
            bridge.forget_port(cpu, index);
        }
    }
}

impl Cloner for Bridges {
    fn create(
        &self,
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let defaults = Limits::default();
        let limits = Limits {
            age: params
                .number("age", 1..=1_000_000)?
                .map_or(defaults.age, |seconds| u64::from(seconds) * 1_000_000_000),
            max: params
                .number("max", 0..=1 << 20)?
                .map_or(defaults.max, |max| max as usize),
        };
        let mut ports = Vec::new();
        let named = params.get("ports").unwrap_or_default().split('+');
        for port in named.filter(|port| !port.is_empty()) {
            let found = interfaces.by_name(cx.cpu(), port);
            ports.push(found.ok_or_else(|| {
                let text = format!("{port}: no such interface; make it before its bridge");
                IfError::new(Errno::ENODEV, text)
            })?);
        }
        let address = params.address(&**cx.kernel().host())?;
        let (interface, bridge) = Bridge::attach(cx, interfaces, name, address, limits)
            .map_err(|errno| IfError::new(errno, format!("{name}: {errno}")))?;
        {
            let mut list = self.list.lock(cx.cpu());
            list.retain(|bridge| bridge.strong_count() != 0);
            list.push(Arc::downgrade(&bridge));
        }
        for port in ports {
            if let Err(errno) = net::Driver::add_port(&*bridge, cx, &port) {
                let text = format!(
                    "{}: cannot be a port of {}: {errno}",
                    port.name(cx.cpu()),
                    interface.name(cx.cpu())
                );
                interfaces.detach(cx, &interface)?;
                return Err(IfError::new(errno, text));
            }
        }
        Ok(interface)
    }

    fn params(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("ports=A+B", "interfaces that are to be its ports"),
            (
                "age=SECONDS",
                "how long an address is remembered; 300 without",
            ),
            ("max=COUNT", "how many are remembered; 4096 without"),
            ("mac=ADDRESS", "the Ethernet address; a random one without"),
        ]
    }
}

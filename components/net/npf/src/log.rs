//! Packets that rules say are to be told of, in the kernel's messages.

use std::sync::Weak;

use hypercall::Nanos;
use kern::Kernel;
use sync::Mutex;

use crate::firewall::Visit;
use crate::lang::{Direction, Rule, protocol};
use crate::wire::Seen;

const SECOND: Nanos = 1_000_000_000;
/// Lines a second: strangers decide how many packets there are.
const RATE: u32 = 10;

/// Where lines go. The count is a leaf.
pub(crate) struct Log {
    kernel: Weak<Kernel>,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    since: Nanos,
    lines: u32,
}

impl Log {
    pub(crate) fn new(kernel: Weak<Kernel>) -> Log {
        Log {
            kernel,
            window: Mutex::default(),
        }
    }

    /// A packet that a rule fits.
    pub(crate) fn packet(&self, visit: &Visit<'_>, rule: &Rule, direction: Direction, seen: &Seen) {
        let lines = {
            let mut window = self.window.lock(&visit.leaf);
            if visit.now.saturating_sub(window.since) >= SECOND {
                *window = Window {
                    since: visit.now,
                    lines: 0,
                };
            }
            window.lines = window.lines.saturating_add(1);
            window.lines
        };
        let Some(kernel) = self.kernel.upgrade().filter(|_| lines <= RATE) else {
            return;
        };
        let name = |interface: Option<&std::sync::Arc<net::Ifnet>>| match interface {
            Some(interface) => interface.name(&visit.leaf),
            None => "-".into(),
        };
        let more = if lines == RATE {
            "; others of this second are not shown"
        } else {
            ""
        };
        kernel.log(format_args!(
            "npf: {direction} {} {} {} > {} {} bytes: {rule}{more}",
            match direction {
                Direction::Out => name(visit.at.output),
                _ => name(visit.at.input),
            },
            protocol(seen.key.protocol),
            end(seen.key.src, seen.key.sport),
            end(seen.key.dst, seen.key.dport),
            seen.len,
        ));
    }
}

/// An address, and its port if it has one.
pub(crate) fn end(addr: std::net::IpAddr, port: u16) -> String {
    match (addr, port) {
        (addr, 0) => addr.to_string(),
        (std::net::IpAddr::V6(addr), port) => format!("[{addr}]:{port}"),
        (addr, port) => format!("{addr}:{port}"),
    }
}

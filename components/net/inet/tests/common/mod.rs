//! Kernels with the inet domains.
#![allow(dead_code, unreachable_pub)]

use std::net::IpAddr;
use std::sync::Arc;

use hypercall::sim::{SimConfig, SimHost};
use hypercall::{Host, PosixHost};
use inet::{IfAddr, IfThere, Inet, Prefix, Route};
use kern::{Curlwp, Kernel, KernelMemory, LwpHandle, RforkFds};
use net::Ifnet;
pub use testing::sockets::*;

pub fn boot_on(host: Arc<dyn Host>) -> Arc<Kernel> {
    Kernel::builder(host)
        .component(&net::NET)
        .component(&inet::INET)
        .component(&netloop::LOOP)
        .boot()
        .expect("boots")
}

pub fn process() -> (Arc<Kernel>, LwpHandle) {
    let kernel = boot_on(PosixHost::new());
    let process = process_of(&kernel);
    (kernel, process)
}

pub fn run<R>(kernel: &Arc<Kernel>, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
    kernel.implicit(&KernelMemory, f)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Puts an end of a cable into a kernel, with its addresses.
pub fn plug(
    kernel: &Arc<Kernel>,
    end: veth::End,
    name: &str,
    mtu: u32,
    last: u8,
    addrs: &[&str],
) -> Arc<Ifnet> {
    run(kernel, |cx| {
        let with = veth::Plug {
            name: name.into(),
            address: [2, 0, 0, 0, 0, last],
            mtu,
        };
        let interface = veth::plug(cx, end, with).expect("plugged");
        interface.set_up(cx, true).expect("up");
        let inet = Inet::of(cx).expect("a stack");
        for addr in addrs {
            let (addr, len) = addr.split_once('/').expect("with a prefix");
            let mut addr = IfAddr::new(interface.index(), ip(addr), len.parse().expect("a length"));
            addr.nodad = true;
            inet.add_address(cx.cpu(), addr).expect("added");
        }
        interface
    })
}

/// Runs on a simulated host under each seed.
pub fn simulated(seeds: std::ops::Range<u64>, body: fn(&Arc<SimHost>, &Arc<Kernel>)) {
    for seed in seeds {
        let leftover = kernels(seed, move |host, [kernel]| body(host, kernel));
        assert!(leftover.is_empty(), "seed {seed} leaves {leftover:?}");
    }
}

/// Runs a body with kernels on one simulated host, and halts them. Answers what threads are left.
pub fn kernels<const N: usize>(
    seed: u64,
    body: impl FnOnce(&Arc<SimHost>, [&Arc<Kernel>; N]) + Send + 'static,
) -> Vec<String> {
    let run = SimHost::run(SimConfig::new(seed), move |host| {
        let kernels = [(); N].map(|()| boot_on(host.clone()));
        body(host, kernels.each_ref());
        for kernel in kernels {
            kernel.shutdown(true).expect("halts");
        }
    });
    if let Err(failure) = &run.result {
        panic!(
            "seed {seed}: {failure:?}\n{}",
            String::from_utf8_lossy(&run.console)
        );
    }
    run.leftover
}

/// A process without descriptors.
pub fn process_of(kernel: &Arc<Kernel>) -> LwpHandle {
    kernel.rfork(RforkFds::Clear).expect("a process")
}

/// A route to everywhere else.
pub fn default_route(kernel: &Arc<Kernel>, via: &str) {
    run(kernel, |cx| {
        let inet = Inet::of(cx).expect("a stack");
        let all = match ip(via) {
            IpAddr::V4(_) => ip("0.0.0.0"),
            IpAddr::V6(_) => ip("::"),
        };
        let route = Route::via(Prefix::new(all, 0).expect("a prefix"), ip(via), 0);
        inet.add_route(cx.cpu(), route, IfThere::Fail)
            .expect("added");
    });
}

/// Packets that an interface has sent.
pub fn sent_packets(kernel: &Arc<Kernel>, name: &str) -> u64 {
    run(kernel, |cx| {
        let inet = Inet::of(cx).expect("a stack");
        let interface = inet.interfaces().by_name(cx.cpu(), name);
        let interface = interface.expect("an interface");
        interface
            .stats
            .tx_packets
            .load(std::sync::atomic::Ordering::Relaxed)
    })
}

//! A kernel that is attacked, and a cable.

use std::sync::Arc;

use abi::Syscalls;
use inet::Inet;
use kern::{Curlwp, Kernel, LwpHandle};
use net::{Ifnet, Packet};
use testing::Memory;

use crate::common::*;

/// A kernel that is attacked, on a cable with a neighbour that behaves.
pub(crate) struct Link {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) friend: Arc<Kernel>,
    /// A program on the attacked kernel.
    pub(crate) us: LwpHandle,
    /// One on the other.
    pub(crate) them: LwpHandle,
    pub(crate) eth0: Arc<Ifnet>,
}

/// Runs a test between `10.0.0.1` and `fd00::1`, which is attacked, and `10.0.0.2` and `fd00::2`, where everything else is behind.
pub(crate) fn attacked(body: fn(&Link)) {
    kernels(7, move |_, [kernel, friend]| {
        let (a, b) = veth::cable();
        let near = ["10.0.0.1/16", "fd00::1/64"];
        let eth0 = plug(kernel, a, "eth0", 1500, 1, &near);
        plug(friend, b, "eth0", 1500, 2, &["10.0.0.2/16", "fd00::2/64"]);
        for via in ["10.0.0.2", "fd00::2"] {
            default_route(kernel, via);
        }
        let link = Link {
            us: process_of(kernel),
            them: process_of(friend),
            kernel: kernel.clone(),
            friend: friend.clone(),
            eth0,
        };
        // They know each other before it begins.
        link.greet();
        body(&link);
    });
}

impl Link {
    /// Frames as they come in from the cable, from anybody.
    pub(crate) fn inject(&self, frames: impl IntoIterator<Item = Packet>) {
        run(&self.kernel, |cx| {
            for frame in frames {
                self.eth0.input(cx.cpu(), frame);
                cx.cpu().run_pending();
            }
        });
    }

    pub(crate) fn stack<R>(&self, f: impl FnOnce(&Curlwp<'_>, &Inet) -> R) -> R {
        run(&self.kernel, |cx| f(cx, &Inet::of(cx).expect("a stack")))
    }

    pub(crate) fn sysctl(&self, name: &str, value: i64) {
        run(&self.kernel, |cx| {
            cx.kernel()
                .sysctl()
                .write(cx, name, &value.to_le_bytes())
                .expect("set");
        });
    }

    /// Lets time pass.
    pub(crate) fn wait(&self, seconds: u64) {
        let memory = Memory::new(16);
        memory.put(0, &seconds.to_ne_bytes());
        let time = Memory::at(0);
        self.us
            .syscall(&memory, abi::nr::nanosleep, &[time, 0, 0, 0, 0, 0])
            .expect("slept");
    }

    /// A datagram there and back in each family.
    pub(crate) fn greet(&self) {
        for (family, at) in [(INET, "10.0.0.1:7"), (INET6, "[fd00::1]:7")] {
            let (server, _) = bound(&self.us, family, DGRAM, at);
            let client = socket(&self.them, family, DGRAM, 0);
            connect(&self.them, client, at).expect("connected");
            write(&self.them, client, b"hello").expect("sent");
            let (data, from) = recvfrom(&self.us, server, 0).expect("received");
            sendto(&self.us, server, &data, &from).expect("answered");
            assert_eq!(read(&self.them, client, 100), Ok(b"hello".to_vec()));
            self.us.close(server).expect("closed");
            self.them.close(client).expect("closed");
        }
    }

    /// Packets that the attacked kernel has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.eth0
            .stats
            .tx_packets
            .load(std::sync::atomic::Ordering::Relaxed)
    }
}

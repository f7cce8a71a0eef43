//! Two hosts behind a router that filters, and a server behind another router:
//!
//! ```text
//! a 10.0.1.2, fd01::2 --- eth0 r eth1 10.0.9.1, fd09::1 --- 10.0.9.2, fd09::2 q 10.0.2.1, fd02::1 --- s 10.0.2.2, fd02::2
//! b 10.0.3.2, fd03::2 --- eth2 r
//! ```
//!
//! Every kernel knows the way to every other one.
#![allow(dead_code, unreachable_pub)]

use std::net::IpAddr;
use std::sync::Arc;

use hypercall::Host;
use hypercall::sim::{SimConfig, SimHost};
use inet::{IfAddr, IfThere, Inet, Prefix, Route};
use kern::{Curlwp, Kernel, KernelMemory, LwpHandle, RforkFds};
use npf::Npf;

pub use testing::sockets::*;

pub const MSG_DONTWAIT: i32 = 0x40;
pub const MSG_ERRQUEUE: i32 = 0x2000;

pub fn boot_on(host: Arc<dyn Host>) -> Arc<Kernel> {
    Kernel::builder(host)
        .component(&vfs::VFS)
        .component(&net::NET)
        .component(&inet::INET)
        .component(&npf::NPF)
        .component(&netloop::LOOP)
        .boot()
        .expect("boots")
}

pub fn run<R>(kernel: &Arc<Kernel>, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
    kernel.implicit(&KernelMemory, f)
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A kernel and a process of it.
pub struct Node {
    pub p: LwpHandle,
    pub kernel: Arc<Kernel>,
}

impl Node {
    fn new(host: &Arc<SimHost>) -> Node {
        let kernel = boot_on(host.clone());
        let p = kernel.rfork(RforkFds::Clear).expect("a process");
        Node { p, kernel }
    }

    pub fn load(&self, rules: &str) {
        run(&self.kernel, |cx| {
            Npf::of(cx).expect("a filter").load(cx, rules)
        })
        .expect("good rules");
    }

    /// The rules with what they have counted.
    pub fn rules(&self) -> String {
        run(&self.kernel, |cx| Npf::of(cx).expect("a filter").rules())
    }

    pub fn states(&self) -> Vec<String> {
        let text = run(&self.kernel, |cx| {
            Npf::of(cx).expect("a filter").connections()
        });
        text.lines().map(str::to_owned).collect()
    }

    /// How many packets a rule has counted, which is found by its text.
    pub fn counted(&self, rule: &str) -> u64 {
        let rules = self.rules();
        let line = rules
            .lines()
            .find_map(|line| line.strip_prefix(rule)?.strip_prefix(" # "));
        let figure = line
            .and_then(|line| line.split(' ').next())
            .and_then(|n| n.parse().ok());
        figure.unwrap_or_else(|| panic!("{rule}: not in\n{rules}"))
    }

    fn plug(&self, end: veth::End, name: &str, mtu: u32, last: u8, addrs: [&str; 2]) {
        run(&self.kernel, |cx| {
            let with = veth::Plug {
                name: name.into(),
                address: [2, 0, 0, 0, 0, last],
                mtu,
            };
            let interface = veth::plug(cx, end, with).expect("plugged");
            interface.set_up(cx, true).expect("up");
            let inet = Inet::of(cx).expect("a stack");
            for addr in addrs {
                let len = if addr.contains(':') { 64 } else { 24 };
                let mut addr = IfAddr::new(interface.index(), ip(addr), len);
                addr.nodad = true;
                inet.add_address(cx.cpu(), addr).expect("added");
            }
        });
    }

    fn route(&self, to: &str, len: u8, via: &str) {
        run(&self.kernel, |cx| {
            let prefix = Prefix::new(ip(to), len).expect("a prefix");
            let inet = Inet::of(cx).expect("a stack");
            inet.add_route(cx.cpu(), Route::via(prefix, ip(via), 0), IfThere::Fail)
                .expect("added");
        });
    }

    fn default_routes(&self, v4: &str, v6: &str) {
        self.route("0.0.0.0", 0, v4);
        self.route("::", 0, v6);
    }

    fn forwards(&self) {
        run(&self.kernel, |cx| {
            for name in ["net.inet.ip.forwarding", "net.inet6.ip6.forwarding"] {
                let sysctl = cx.kernel().sysctl();
                sysctl.write(cx, name, &1i64.to_le_bytes()).expect("set");
            }
        });
    }
}

pub struct World {
    pub host: Arc<SimHost>,
    pub a: Node,
    pub b: Node,
    pub r: Node,
    pub q: Node,
    pub s: Node,
}

impl World {
    fn new(host: &Arc<SimHost>, far_mtu: u32) -> World {
        let [a, b, r, q, s] = [(); 5].map(|()| Node::new(host));
        let join =
            |near: (&Node, &str, [&str; 2]), far: (&Node, &str, [&str; 2]), mtu, number: u8| {
                let (near_end, far_end) = veth::cable();
                near.0.plug(near_end, near.1, mtu, number, near.2);
                far.0.plug(far_end, far.1, mtu, number + 1, far.2);
            };
        join(
            (&a, "eth0", ["10.0.1.2", "fd01::2"]),
            (&r, "eth0", ["10.0.1.1", "fd01::1"]),
            1500,
            1,
        );
        join(
            (&r, "eth1", ["10.0.9.1", "fd09::1"]),
            (&q, "eth0", ["10.0.9.2", "fd09::2"]),
            1500,
            3,
        );
        join(
            (&b, "eth0", ["10.0.3.2", "fd03::2"]),
            (&r, "eth2", ["10.0.3.1", "fd03::1"]),
            1500,
            5,
        );
        join(
            (&q, "eth1", ["10.0.2.1", "fd02::1"]),
            (&s, "eth0", ["10.0.2.2", "fd02::2"]),
            far_mtu,
            7,
        );
        a.default_routes("10.0.1.1", "fd01::1");
        b.default_routes("10.0.3.1", "fd03::1");
        r.default_routes("10.0.9.2", "fd09::2");
        q.default_routes("10.0.9.1", "fd09::1");
        s.default_routes("10.0.2.1", "fd02::1");
        r.forwards();
        q.forwards();
        World {
            host: host.clone(),
            a,
            b,
            r,
            q,
            s,
        }
    }
}

/// Under some seeds, with an MTU of the server's link.
pub fn worlds(seeds: u64, far_mtu: u32, body: fn(&World)) {
    for seed in 0..seeds {
        let sim = SimHost::run(SimConfig::new(seed), move |host| {
            let world = World::new(host, far_mtu);
            body(&world);
            let World { a, b, r, q, s, .. } = world;
            for Node { p, kernel } in [a, b, r, q, s] {
                drop(p);
                kernel.shutdown(true).expect("halts");
            }
        });
        if let Err(failure) = &sim.result {
            panic!(
                "seed {seed}: {failure:?}\n{}",
                String::from_utf8_lossy(&sim.console)
            );
        }
    }
}

/// A connection between two processes, to a listening socket of the second; answers both ends.
pub fn connection(
    from: &LwpHandle,
    to: &LwpHandle,
    family: i32,
    name: &str,
    at: &str,
) -> (i32, i32) {
    use abi::Syscalls;
    let l = socket(to, family, STREAM, 0);
    set(to, l, 1, 2, 1).expect("SO_REUSEADDR");
    bind(to, l, at).expect("bound");
    to.listen(l, 5).expect("listens");
    let fd = socket(from, family, STREAM, 0);
    connect(from, fd, name).expect("connected");
    let served = to.accept4(l, &mut [], &mut [], 0).expect("accepted") as i32;
    to.close(l).expect("closed");
    (fd, served)
}

/// Sends bytes one way over a connection.
pub fn transfer(from: (&LwpHandle, i32), to: (&LwpHandle, i32), len: usize) {
    let data: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    assert_eq!(write(from.0, from.1, &data), Ok(len as i64));
    let mut got = Vec::new();
    while got.len() < len {
        let more = read(to.0, to.1, 100_000).expect("read");
        assert!(!more.is_empty(), "the end after {} bytes", got.len());
        got.extend(more);
    }
    assert!(got == data, "the bytes that were sent");
}

//! Links that the kernel shares with the host: addresses from the host's DHCP server and router, MTUs, narrow paths and black holes behind
//! routers, bridges and tagged frames, and the bus between processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use support::{Ended, Namespace, Server, finish, judge, scratch, signal};
use tempfile::TempDir;

/// A namespace of the host, with kernels in it.
struct Net {
    dir: TempDir,
    host: Namespace,
}

/// A server of `interop/streams.py`, ended with its test.
struct Streams(Child);

impl Drop for Streams {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

impl Net {
    fn new(setup: &str) -> Option<Net> {
        let net = Net {
            dir: scratch(),
            host: Namespace::new()?,
        };
        fs::write(net.path("streams.py"), include_str!("interop/streams.py")).expect("written");
        net.host.run(setup).ok();
        Some(net)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir.path().display())
    }

    fn kernel(&self, nets: &[&str]) -> Server {
        let options: Vec<&str> = nets.iter().flat_map(|net| ["--net", net]).collect();
        Server::start_in(&self.host, &options)
    }

    /// A program, on a kernel or on the host.
    fn program(&self, on: Option<&Server>, program: &[&str]) -> Command {
        match on {
            Some(kernel) => {
                let args = [&["exec", &kernel.url, "--"], program].concat();
                self.host.enter(kernel.command(&args))
            }
            None => self.host.shell(&format!("exec {}", program.join(" "))),
        }
    }

    fn run(&self, on: Option<&Server>, program: &[&str]) -> Ended {
        finish(&mut self.program(on, program))
    }

    fn serve(&self, on: Option<&Server>, address: &str) -> Streams {
        self.serve_by(on, &[], address)
    }

    /// A server, started by a command that says where.
    fn serve_by(&self, on: Option<&Server>, by: &[&str], address: &str) -> Streams {
        let script = self.path("streams.py");
        let python = ["/usr/bin/python3", &script, "serve", address];
        let mut server = self.program(on, &[by, &python].concat());
        let mut server = server.stdout(Stdio::piped()).spawn().expect("it starts");
        let out = server.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("reads");
        assert_eq!(line, "serving\n", "{address}");
        Streams(server)
    }

    /// A large transfer each way.
    fn transfer(&self, on: Option<&Server>, address: &str) {
        let script = self.path("streams.py");
        let ended = self.run(on, &["/usr/bin/python3", &script, "send", address]);
        assert_eq!(ended.ok(), "sent\n", "{address}");
    }
}

/// A tap device with an address of each family on the host.
const TAP: &str = "\
ip tuntap add dev host0 mode tap; ip addr add 10.9.0.1/24 dev host0; ip addr add fd00:9::1/64 dev host0 nodad; ip link set host0 up
";

#[test]
fn addresses_router_and_name_server_come_from_dnsmasq() {
    let Some(net) = Net::new(TAP) else {
        return;
    };
    let script = "dnsmasq --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts --interface=host0 --bind-dynamic \
                  --dhcp-range=10.9.0.50,10.9.0.60,1h --dhcp-option=26,1400 --dhcp-option=6,10.9.0.1 --dhcp-leasefile=$DIR/leases \
                  --enable-ra --dhcp-range=fd00:9::,ra-only,64 --host-record=host.example,10.9.0.1,fd00:9::1";
    net.host.run(&script.replace("$DIR", &net.path(""))).ok();
    let spec = format!("tap:host0,dhcp,name=eth0,pcap={}", net.path("x.pcapng"));
    let kernel = net.kernel(&[&spec]);
    let told = "ip -brief -4 addr show dev eth0 | grep -c ' 10.9.0.[56][0-9]/24'; ip -4 route | grep -c 'default via 10.9.0.1'\n\
                ip link show dev eth0 | grep -c 'mtu 1400'; dig +short host.example\n\
                until ip -brief -6 addr show dev eth0 -tentative | grep -q ' fd00:9:'; do :; done\n\
                ip -6 route | grep -c 'default via fe80:.* proto ra'; ping -n -c 1 -W 60 fd00:9::1 | grep -o '1 received'";
    let ended = net.run(Some(&kernel), &["timeout", "60", "/bin/sh", "-uc", told]);
    assert_eq!(ended.ok(), "1\n1\n1\n10.9.0.1\n1\n1 received\n");
    kernel.halt();
    judge::assert_well_formed(net.path("x.pcapng").as_ref());
}

#[test]
fn every_mtu_carries_full_packets_and_streams() {
    for (ours, hosts) in [
        (1500, 1500),
        (9000, 9000),
        (65_520, 65_520),
        (1500, 9000),
        (9000, 1500),
    ] {
        let Some(net) = Net::new(&format!("{TAP}ip link set host0 mtu {hosts}")) else {
            return;
        };
        let capture = net.path("x.pcapng");
        let spec = format!("tap:host0,10.9.0.2/24,fd00:9::2/64,mtu={ours},pcap={capture}");
        let kernel = net.kernel(&[&spec]);
        let both = ours.min(hosts);
        for (address, headers) in [("10.9.0.1", 28), ("fd00:9::1", 48)] {
            let len = (both - headers).to_string();
            let ping = [
                "ping", "-n", "-c", "1", "-W", "60", "-M", "do", "-s", &len, address,
            ];
            net.run(Some(&kernel), &ping).ok();
            let _server = net.serve(None, address);
            net.transfer(Some(&kernel), address);
        }
        kernel.halt();
        judge::assert_flawless(capture.as_ref(), &[]);
    }
}

/// The kernel, the host as a router, and behind it another namespace, 10.8.0.2. Packets through the router are at most 1300 bytes long.
const NARROW: &str = "\
unshare -n sleep 300 > /dev/null 2>&1 & echo $! > $DIR/far; far=$!
until test $(readlink /proc/$far/ns/net) != $(readlink /proc/$$/ns/net); do :; done
ip link add host1 type veth peer name far0 netns $far
ip addr add 10.8.0.1/24 dev host1; ip addr add fd00:8::1/64 dev host1 nodad; ip link set host1 up
nsenter -n -t $far /bin/sh -euc 'ip addr add 10.8.0.2/24 dev far0; ip addr add fd00:8::2/64 dev far0 nodad; ip link set far0 up
  ip route add default via 10.8.0.1; ip -6 route add default via fd00:8::1'
for family in 4 6; do
  ip -$family route show | grep -E '^(10|fd00:)' | while read net rest; do ip -$family route change $net ${rest%linkdown*} mtu lock 1300; done
done
echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
";

/// The number of the process that keeps the namespace of [`NARROW`].
struct Far(String);

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.trim()).status();
    }
}

/// Nobody is told that a packet was too long.
const SILENT: &str = "\
nft add table inet t; nft add chain inet t o '{ type filter hook output priority 0; }'
nft add rule inet t o icmp type destination-unreachable drop; nft add rule inet t o icmpv6 type packet-too-big drop
";

fn through_a_narrow_path(silent: &str) {
    let dir = scratch();
    let narrow = NARROW.replace("$DIR", &dir.path().display().to_string());
    let Some(net) = Net::new(&format!("{TAP}{narrow}{silent}")) else {
        return;
    };
    let far = Far(fs::read_to_string(dir.path().join("far")).expect("a number"));
    let capture = net.path("x.pcapng");
    let spec =
        format!("tap:host0,10.9.0.2/24,fd00:9::2/64,gw=10.9.0.1,gw=fd00:9::1,pcap={capture}");
    let kernel = net.kernel(&[&spec]);
    for address in ["10.8.0.2", "fd00:8::2"] {
        let _server = net.serve_by(None, &["nsenter", "-n", "-t", far.0.trim()], address);
        let script = net.path("streams.py");
        let send = ["/usr/bin/python3", &script, "put", address];
        assert_eq!(net.run(Some(&kernel), &send).ok(), "put\n", "{address}");
    }
    kernel.halt();
    drop(far);
    judge::assert_well_formed(capture.as_ref());
    let told = judge::count(capture.as_ref(), "icmp.code == 4 || icmpv6.type == 2");
    assert_eq!(told > 0, silent.is_empty());
    let long = judge::count(capture.as_ref(), "tcp.dstport == 9000 && tcp.len > 1300");
    assert!(long > 0, "it begins with what the link carries");
}

#[test]
fn routers_tell_of_a_narrow_path() {
    through_a_narrow_path("");
}

#[test]
fn a_narrow_path_that_nobody_tells_of_is_found() {
    through_a_narrow_path(SILENT);
}

#[test]
fn kernels_on_a_bridge_of_the_host_reach_each_other_also_with_tags() {
    let setup = "ip link add bridge0 type bridge; ip link set bridge0 up\n\
                 for n in 1 2; do ip tuntap add dev port$n mode tap; ip link set port$n master bridge0 up; done";
    let Some(net) = Net::new(setup) else {
        return;
    };
    let capture = net.path("x.pcapng");
    let first = format!("tap:port1,10.9.0.1/24,fd00:9::1/64,name=eth0,pcap={capture}");
    let kernels = [
        net.kernel(&[&first]),
        net.kernel(&["tap:port2,10.9.0.2/24,fd00:9::2/64,name=eth0"]),
    ];
    for (n, kernel) in kernels.iter().enumerate() {
        let script = format!(
            "ip addr add 10.5.0.{0}/24 dev vlan5; ip addr add fd00:5::{0}/64 dev vlan5 nodad; ip link set vlan5 up",
            n + 1
        );
        kernel
            .rump(&["ifconfig", "vlan5", "create", "parent=eth0,id=5"])
            .ok();
        net.run(Some(kernel), &["/bin/sh", "-euc", &script]).ok();
    }
    let [one, two] = &kernels;
    for address in ["10.9.0.2", "fd00:9::2", "10.5.0.2", "fd00:5::2"] {
        let _server = net.serve(Some(two), address);
        net.transfer(Some(one), address);
    }
    for kernel in kernels {
        kernel.halt();
    }
    judge::assert_flawless(capture.as_ref(), &[]);
    assert!(judge::count(capture.as_ref(), "vlan.id == 5 && tcp") > 0);
}

#[test]
fn kernels_of_two_processes_meet_on_a_bus() {
    for mtu in [1500, 9000, 65_520] {
        let Some(net) = Net::new("") else {
            return;
        };
        let capture = net.path("x.pcapng");
        let bus = net.path("bus");
        let kernels = [
            net.kernel(&[&format!(
                "bus:{bus},10.9.0.1/24,fd00:9::1/64,mtu={mtu},pcap={capture}"
            )]),
            net.kernel(&[&format!("bus:{bus},10.9.0.2/24,fd00:9::2/64,mtu={mtu}")]),
        ];
        let [one, two] = &kernels;
        for address in ["10.9.0.2", "fd00:9::2"] {
            let _server = net.serve(Some(two), address);
            net.transfer(Some(one), address);
        }
        for kernel in kernels {
            kernel.halt();
        }
        judge::assert_flawless(capture.as_ref(), &[]);
    }
}

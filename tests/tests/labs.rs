//! Labs: two hosts and a router between them, unmodified programs across it, captures judged by tshark, and nothing left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use support::judge::{assert_well_formed, count};
use support::lab::{HTTP, Lab};
use support::{scratch, signal};

const TWO_HOSTS: &str = include_str!("../../examples/labs/two-hosts.toml");

fn with_captures() -> String {
    format!(
        "{TWO_HOSTS}\n[link.left]\npcap = \"left.pcapng\"\n[link.right]\npcap = \"right.pcapng\"\n"
    )
}

/// Answers each datagram with what it was, and says when it is there.
const UDP_ECHO: &str = "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 7))
print('ready')
while True:
    data, peer = s.recvfrom(70000)
    s.sendto(data, peer)
";

const UDP_ASK: &str = "
import socket, sys
for host in sys.argv[1:]:
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(30)
    s.connect((host, 7))
    for size in (0, 1, 1400, 9000):
        s.send(b'u' * size)
        assert s.recv(70000) == b'u' * size, (host, size)
print('all came back')
";

#[test]
fn programs_reach_each_other_across_a_router() {
    let lab = Lab::up(&with_captures());
    let kernels = lab.ps();
    assert_eq!(kernels.len(), 3);
    assert_eq!(kernels[0]["kernel"], "alice");
    assert_eq!(kernels[0]["addresses"][0], "10.0.1.2/24");

    for bob in ["10.0.2.2", "fd00:2::2"] {
        let said = lab
            .on("alice", &["ping", "-n", "-c", "3", "-i", "0.2", bob])
            .ok();
        assert!(
            said.contains("3 received") && said.contains("ttl=63"),
            "{said}"
        );
        let said = lab.run(&["ping", "-s", "alice", "-c", "1", bob]).ok();
        assert!(said.contains("1 received"), "{said}");
    }
    let mut udp = lab.serve("bob", UDP_ECHO);
    let mut http = lab.serve("bob", HTTP);
    let said = lab.on(
        "alice",
        &["/usr/bin/python3", "-c", UDP_ASK, "10.0.2.2", "fd00:2::2"],
    );
    assert_eq!(said.ok(), "all came back\n");
    let body: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(4096);
    // By name, as every kernel knows the others.
    for url in ["http://10.0.2.2/", "http://[fd00:2::2]/", "http://bob/"] {
        let file = lab.dir.path().join("got");
        lab.on(
            "alice",
            &[
                "curl",
                "-sS",
                "-m",
                "60",
                "-o",
                file.to_str().expect("text"),
                url,
            ],
        )
        .ok();
        assert!(fs::read(&file).expect("a file") == body, "{url}");
    }
    // The host knows nothing of it.
    assert!(
        std::net::TcpStream::connect("[::1]:80").map(drop).is_err()
            || !Path::new("/proc/net/tcp6").exists()
    );

    lab.run(&["down"]).ok();
    for server in [&mut udp, &mut http] {
        server.wait().expect("it has ended with its kernel");
    }
    for name in ["left", "right"] {
        let capture = lab.dir.path().join(format!("{name}.pcapng"));
        assert_well_formed(&capture);
        for seen in [
            "icmp.type == 0 && ip.src == 10.0.2.2",
            "icmpv6.type == 129 && ipv6.src == fd00:2::2",
            "udp.port == 7 && ip.dst == 10.0.2.2",
            "tcp.flags.syn == 1 && tcp.flags.ack == 1 && ipv6.src == fd00:2::2",
            "tcp.flags.fin == 1 && ip",
        ] {
            assert!(count(&capture, seen) > 0, "{name}: {seen}");
        }
    }
}

#[test]
fn traceroute_shows_the_router() {
    if !Path::new("/usr/sbin/traceroute").exists() && !Path::new("/usr/bin/traceroute").exists() {
        println!("traceroute: not tested: install the package traceroute");
        return;
    }
    let lab = Lab::up(TWO_HOSTS);
    for (bob, router) in [("10.0.2.2", "10.0.1.1"), ("fd00:2::2", "fd00:1::1")] {
        let said = lab
            .on("alice", &["traceroute", "-n", "-q", "1", "-w", "10", bob])
            .ok();
        let hops: Vec<&str> = said
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(hops, [router, bob], "{said}");
    }
    lab.down();
}

#[test]
fn down_ends_programs_and_leaves_nothing() {
    let lab = Lab::up(TWO_HOSTS);
    let pid = lab.ps()[0]["pid"].as_u64().expect("a number");
    let mut server = lab.serve("bob", UDP_ECHO);
    lab.down();
    assert!(!server.wait().expect("a child").success());
    assert!(!Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid));
    lab.on("alice", &["true"]).fails(125, &["alice", "rump ps"]);
    lab.run(&["down"]).fails(125, &["no lab runs"]);
}

fn is_zombie(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") Z ")
}

#[test]
fn servers_that_become_other_users_work_and_end() {
    let root = Command::new("id").arg("-u").output();
    let root = root.is_ok_and(|out| out.stdout == b"0\n");
    if !root || !Path::new("/usr/sbin/nginx").exists() {
        println!("nginx: not tested: it needs root and the package nginx");
        return;
    }
    let lab = Lab::up(TWO_HOSTS);
    let dir = lab.dir.path().display();
    let config = format!(
        "user www-data; worker_processes 2; daemon off; pid {dir}/pid; error_log stderr; events {{}}\n\
         http {{ access_log off; server {{ listen 80; listen [::]:80; return 200 \"by a worker\"; }} }}\n"
    );
    fs::write(lab.dir.path().join("nginx.conf"), config).expect("written");
    // Programs under the shim reach what is on the way to the sockets of the kernels.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(lab.dir.path(), open).expect("mode");
    let mut nginx = lab.command(&["exec", "bob", "--", "nginx", "-p", ".", "-c", "nginx.conf"]);
    let mut nginx = nginx.spawn().expect("it starts");
    let ask = [
        "curl",
        "-sS",
        "--retry",
        "20",
        "--retry-connrefused",
        "http://bob/",
    ];
    assert_eq!(lab.on("alice", &ask).ok(), "by a worker");
    let kernels = lab.ps();
    let url = kernels[1]["url"].as_str().expect("text");
    assert!(url.ends_with("/bob.sock"), "{url}");
    lab.down();
    assert!(nginx.wait().is_ok());
}

#[test]
fn a_killed_lab_is_cleared_away_and_can_be_started_again() {
    let lab = Lab::up(TWO_HOSTS);
    lab.run(&["up", "lab.toml"])
        .fails(125, &["runs already", "rump down lab"]);
    let pid = lab.ps()[0]["pid"].as_u64().expect("a number");
    let mut server = lab.serve("bob", UDP_ECHO);
    signal(pid as u32, "KILL");
    // The next look waits for nothing: either it still ends, or it is gone.
    while !lab.ps().is_empty() {}
    assert!(!server.wait().expect("a child").success());
    lab.run(&["up", "lab.toml"]).ok();
    assert_eq!(lab.ps().len(), 3);
    lab.down();
}

#[test]
fn many_on_one_link_are_joined_by_a_switch() {
    let lab = Lab::up(
        "name = \"lan\"\n[link.lan]\nmtu = 9000\n[kernel.a]\nnet.eth0 = \"link:lan,10.0.0.1/24\"\n\
         [kernel.b]\nnet.eth0 = \"link:lan,10.0.0.2/24\"\n[kernel.c]\nnet.eth0 = \"link:lan,10.0.0.3/24\"\n\
         sysctls = { \"net.ipv4.ip_default_ttl\" = 9 }\nmounts = [\"tmpfs::/scratch\"]\n",
    );
    let said = lab.on("a", &["ping", "-n", "-c", "1", "10.0.0.3"]).ok();
    assert!(said.contains("ttl=9"), "{said}");
    lab.on(
        "lan/b",
        &["ping", "-n", "-c", "1", "-s", "8900", "-M", "do", "c"],
    )
    .ok();
    let mounts = lab.run(&["mount", "-s", "c"]).ok();
    assert!(mounts.contains("/scratch"), "{mounts}");
    lab.run(&["halt", "c"]).ok();
    let left: Vec<_> = lab.ps().iter().map(|k| k["kernel"].clone()).collect();
    assert_eq!(left, ["a", "b"]);
    lab.down();
}

#[test]
fn what_cannot_be_started_is_told_with_file_and_line() {
    let lab = Lab { dir: scratch() };
    for (text, words) in [
        (
            "[kernel.a]\nnet.eth0 = \"tap:no-such-device-name\"\n",
            ["lab.toml:2: ", "kernel a: ", "tap device"],
        ),
        (
            "[kernel.a]\nroutes = [\n  \"10.0.0.0/8 via 10.1.0.1\",\n]\n",
            ["lab.toml:3: ", "10.1.0.1", "on no link of a"],
        ),
        (
            "[kernel.a]\nsysctls = { \"no.such\" = 1 }\n",
            ["lab.toml:2: ", "no.such", "rump sysctl"],
        ),
        (
            "[kernel.a]\nmounts = [\"ext4:none.img:/d\"]\n",
            ["lab.toml:2: ", "none.img", "mkfs.ext4"],
        ),
        (
            "[kernel.a]\nadresses = []\n",
            ["lab.toml:2: ", "unknown field", "expected one of"],
        ),
    ] {
        lab.write(text);
        lab.run(&["up", "lab.toml"]).fails(125, &words);
    }
    lab.run(&["up", "none.toml"])
        .fails(125, &["none.toml", "rump up --help"]);
    assert!(lab.ps().is_empty());
}

/// passt takes its side's address for the host's loopback; where the host has no IPv6, IPv4 stays alone.
#[test]
fn passt_brings_both_families_where_the_host_has_them() {
    if !Path::new("/usr/bin/passt").exists() {
        println!("passt: not tested: install the package passt");
        return;
    }
    use std::io::Write;
    let outside = || {
        let socket = std::net::UdpSocket::bind("[::]:0")?;
        socket.connect("[2001:db8::1]:9")
    };
    let mut ways = vec![("127.0.0.1:0", "10.0.2.2")];
    match outside() {
        Ok(()) => ways.push(("[::1]:0", "fd00:10:0:2::2")),
        Err(error) => println!("IPv6: not tested: the host has none: {error}"),
    }
    for (here, gateway) in ways {
        let listener = std::net::TcpListener::bind(here).expect("listens");
        let port = listener.local_addr().expect("a name").port();
        let server = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("a client");
            peer.write_all(b"from the host").expect("sent");
        });
        let ask = format!(
            "import socket; s = socket.create_connection(('{gateway}', {port})); print(s.recv(100).decode(), s.getsockname()[0])"
        );
        let words = [
            "run",
            "--net",
            "passt",
            "--",
            "/usr/bin/python3",
            "-c",
            &ask,
        ];
        let own = gateway.replace("2.2", "2.15").replace("::2", "::15");
        assert_eq!(support::run(words).ok(), format!("from the host {own}\n"));
        server.join().expect("served");
    }
}

#[test]
fn dhcp_and_capture_are_settings_of_an_interface() {
    if !Path::new("/usr/bin/passt").exists() {
        println!("passt: not tested: install the package passt");
        return;
    }
    let dir = scratch();
    let file = dir.path().join("x.pcapng");
    let net = format!("passt,dhcp,name=eth0,pcap={}", file.display());
    let show = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9)); print(s.getsockname()[0])";
    let said = support::run(["run", "--net", &net, "--", "/usr/bin/python3", "-c", show]).ok();
    assert!(
        said.trim()
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|ip| !ip.is_unspecified()),
        "{said}"
    );
    for kind in [1, 2, 3, 5] {
        assert!(
            count(&file, &format!("dhcp.option.dhcp == {kind}")) > 0,
            "DHCP message {kind}"
        );
    }
}

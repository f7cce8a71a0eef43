//! Interfaces against the host's own stack: tap devices, raw interfaces, passt.
//!
//! Each test that makes interfaces of the host does so in a network namespace of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use hypercall::PosixHost;
use net::consts::ETHERTYPE_IP;
use net::{EtherAddr, InternetSum, Packet};
use netif_testing::{BROADCAST, Station, arp_request, ether, is_arp_reply};
use shmif::SHMIF;
use support::Namespace;
use virtif::VIRTIF;

const MAC: EtherAddr = [2, 0, 0, 0, 0, 0x77];

fn boot() -> Station {
    Station::boot(PosixHost::new(), &[&VIRTIF])
}

/// Has a test run in a network namespace of its own, in a process that starts for it: whether this is that process.
fn in_a_namespace(test: &str) -> bool {
    const INSIDE: &str = "RUMPKIT_IN_NAMESPACE";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Some(namespace) = Namespace::new() {
        let this = std::env::current_exe().expect("a path");
        let again = format!("{INSIDE}=1 exec '{}' --exact {test}", this.display());
        let said = namespace.run(&again).ok();
        assert!(said.contains("1 passed"), "{test} is no test: {said}");
    }
    false
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    assert!(status.expect("ip runs").success(), "ip {args}");
}

/// An IPv4 packet in a frame.
fn ipv4(to: EtherAddr, from: [u8; 4], dest: [u8; 4], protocol: u8, body: &[u8]) -> Packet {
    let len = (20 + body.len()) as u16;
    let mut header = [
        0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&dest);
    let sum = InternetSum::default().with(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    ether(to, MAC, ETHERTYPE_IP, &[&header[..], body].concat())
}

/// An ICMP echo request with so much data.
fn echo_request(len: usize) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
    icmp.extend((0..len).map(|i| i as u8));
    let sum = InternetSum::default().with(&icmp).checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    icmp
}

/// Asks for the address of the host at the other end, and pings it, with little data and with as much as goes into a packet.
fn arp_and_ping(station: &Station, interface: &net::Ifnet, me: [u8; 4], host: [u8; 4], mtu: usize) {
    station
        .send(interface, arp_request(MAC, me, host))
        .expect("sent");
    let reply = station.next_that(|frame| is_arp_reply(frame, host));
    let at: EtherAddr = reply[22..28].try_into().expect("six bytes");
    for len in [56, mtu - 28] {
        let request = echo_request(len);
        station
            .send(interface, ipv4(at, me, host, 1, &request))
            .expect("sent");
        let is_echo_reply = |frame: &[u8]| {
            frame.len() >= 34 && frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 0
        };
        let reply = station.next_that(is_echo_reply);
        assert_eq!(reply[42..], request[8..], "{len} bytes come back");
        assert_eq!(InternetSum::default().with(&reply[34..]).checksum(), 0);
    }
}

#[test]
fn the_host_answers_arp_and_ping_over_a_tap_device_at_every_mtu() {
    if !in_a_namespace("the_host_answers_arp_and_ping_over_a_tap_device_at_every_mtu") {
        return;
    }
    for (n, mtu) in [(1u8, 1500usize), (2, 9000), (3, 65_520)] {
        let name = format!("host{n}");
        let station = boot();
        let params = format!("tap={name},mac=02:00:00:00:00:77,mtu={mtu}");
        let tap = station.create("virt0", &params).expect("made");
        ip(&format!("link set {name} mtu {mtu} up"));
        ip(&format!("addr add 198.18.{n}.1/24 dev {name}"));
        arp_and_ping(&station, &tap, [198, 18, n, 2], [198, 18, n, 1], mtu);
        let busy = boot();
        let error = busy.create("virt0", &params).err().expect("it is in use");
        assert!(error.text.contains(&name), "{error}");
        busy.end();
        station.end();
    }
}

#[test]
fn the_host_cuts_what_is_too_long_and_completes_checksums() {
    use net::{Checksum, Cut, Gso};
    if !in_a_namespace("the_host_cuts_what_is_too_long_and_completes_checksums") {
        return;
    }
    let station = boot();
    let tap = station
        .create("virt0", "tap=host0,mac=02:00:00:00:00:77")
        .expect("made");
    assert!(tap.features().checksum && tap.features().gso_max >= 65_000);
    ip("link set host0 up");
    ip("addr add 198.18.4.1/24 dev host0");
    let (me, host) = ([198, 18, 4, 2], [198, 18, 4, 1]);
    station
        .send(&tap, arp_request(MAC, me, host))
        .expect("sent");
    let reply = station.next_that(|frame| is_arp_reply(frame, host));
    let at: EtherAddr = reply[22..28].try_into().expect("six bytes");
    let server = std::net::UdpSocket::bind("198.18.4.1:0").expect("binds");
    let port = server.local_addr().expect("an address").port();
    // 20,000 bytes that are twenty datagrams, the checksum left to the host or to our own software, as the host can.
    let mut udp = [
        &[0x30, 0x39][..],
        &port.to_be_bytes(),
        &20_008u16.to_be_bytes(),
        &[0, 0],
    ]
    .concat();
    let pseudo = InternetSum::pseudo(&[me, host].concat(), 17, 20_008).folded();
    udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
    udp.extend((0..20_000).map(|i| (i / 1000) as u8));
    let mut packet = ipv4(at, me, host, 17, &udp);
    packet.checksum = Checksum::Partial {
        start: 34,
        offset: 6,
    };
    packet.gso = Some(Gso {
        size: 1000,
        cut: Cut::Udp,
    });
    station.send(&tap, packet).expect("sent");
    let mut buf = [0; 2000];
    for n in 0..20u8 {
        let len = server.recv(&mut buf).expect("a datagram");
        assert_eq!(buf[..len], [n; 1000]);
    }
    station.end();
}

#[test]
fn the_host_answers_over_a_raw_interface() {
    if !in_a_namespace("the_host_answers_over_a_raw_interface") {
        return;
    }
    ip("link add kernel0 type veth peer name host0");
    ip("link set kernel0 up");
    ip("link set host0 up");
    ip("addr add 198.18.5.1/24 dev host0");
    let station = boot();
    let raw = station
        .create("virt0", "packet=kernel0,mac=02:00:00:00:00:77")
        .expect("made");
    arp_and_ping(&station, &raw, [198, 18, 5, 2], [198, 18, 5, 1], 1500);
    station.end();
}

/// The host takes tags out of frames before a packet socket sees them, and says beside them which: the kernel gets them in their place.
#[test]
fn tags_that_the_host_takes_out_are_in_the_frames() {
    if !in_a_namespace("tags_that_the_host_takes_out_are_in_the_frames") {
        return;
    }
    ip("link add one type veth peer name other");
    ip("link set one up");
    ip("link set other up");
    let station = boot();
    let raw = |params: &str| station.create("virt", params).expect("made");
    let (from, _to) = (raw("packet=one"), raw("packet=other"));
    for tag in [[0x81, 0, 0x60, 5], [0x88, 0xa8, 0, 7]] {
        let body = [&tag[..], &[0x88, 0xb5], &[tag[3]; 60]].concat();
        let mut frame = [&BROADCAST[..], &MAC, &body].concat();
        station
            .send(&from, Packet::new(frame.clone().into()))
            .expect("sent");
        let got = station.next_that(|frame| frame.ends_with(&[tag[3]; 60]));
        assert_eq!(got, frame);
        // And without one.
        frame.drain(12..16);
        station
            .send(&from, Packet::new(frame.clone().into()))
            .expect("sent");
        let got = station.next_that(|frame| frame.ends_with(&[tag[3]; 60]));
        assert_eq!(got, frame);
    }
    station.end();
}

/// Frames of a VLAN of the kernel's have their tag in its packet sockets, and so in what tcpdump says.
#[test]
fn tcpdump_on_a_kernel_shows_the_vlan() {
    if !Path::new("/usr/bin/tcpdump").exists() {
        println!("tcpdump: not tested: install the package tcpdump");
        return;
    }
    let kernel = support::Server::start(&["--net", "loop"]);
    for words in [
        "veth0 create peer=veth1",
        "veth0 up",
        "veth1 up",
        "vlan0 create parent=veth0,id=5",
        "vlan0 up",
        "vlan0 10.77.0.1/24",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        kernel.rump(&[&["ifconfig"], &words[..]].concat()).ok();
    }
    let text = "rm -f said; mkfifo said\n\
        tcpdump -e -n -l -c 1 -i veth1 vlan 5 > shown 2> said & dump=$!\n\
        exec 9< said; grep -q -m1 'listening on' <&9\n\
        echo x > /dev/udp/10.77.0.2/9; wait $dump; cat shown";
    let dir = support::scratch();
    let mut command = kernel.command(&["exec", &kernel.url, "--", "/bin/bash", "-euc", text]);
    let shown = support::finish(command.current_dir(dir.path())).ok();
    assert!(
        shown.contains("vlan 5") && shown.contains("who-has 10.77.0.2"),
        "{shown}"
    );
    kernel.halt();
}

/// A passt that ends with the test.
struct Passt {
    child: Child,
    dir: tempfile::TempDir,
}

impl Passt {
    /// Starts one. As root it changes to another user, who must be able to make its socket.
    fn start() -> Option<Passt> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open).expect("may");
        let mut command = Command::new("passt");
        command
            .args(["--foreground", "--quiet", "--one-off", "--socket"])
            .arg(dir.path().join("passt"))
            .args(["-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        match command.spawn() {
            Ok(child) => Some(Passt { child, dir }),
            Err(error) => {
                println!("passt: not tested: {error}; install the package passt");
                None
            }
        }
    }
}

impl Drop for Passt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn passt_answers_arp_and_dhcp() {
    let Some(mut passt) = Passt::start() else {
        return;
    };
    let station = boot();
    let socket = passt.dir.path().join("passt");
    let params = format!("unix={},mac=02:00:00:00:00:77,mtu=65520", socket.display());
    // Until it listens there is nobody there; that it ends instead is a failure.
    let wan = loop {
        match station.create("virt0", &params) {
            Ok(interface) => break interface,
            Err(error) => {
                assert!(error.text.contains("passt"), "{error}");
                let ended = passt.child.try_wait().expect("a child");
                assert!(ended.is_none(), "passt ended: {ended:?}");
                std::thread::yield_now();
            }
        }
    };
    let mut bootp = vec![0; 240];
    bootp[..4].copy_from_slice(&[1, 1, 6, 0]);
    bootp[4..8].copy_from_slice(b"rump");
    bootp[10] = 0x80;
    bootp[28..34].copy_from_slice(&MAC);
    bootp[236..].copy_from_slice(&[99, 130, 83, 99]);
    bootp.extend([53, 1, 1, 255]);
    let mut udp = vec![0, 68, 0, 67, 0, 0, 0, 0];
    udp[4..6].copy_from_slice(&(8 + bootp.len() as u16).to_be_bytes());
    udp.extend(&bootp);
    let discover = ipv4(BROADCAST, [0; 4], [255; 4], 17, &udp);
    station.send(&wan, discover).expect("sent");
    let offer = station.next_that(|frame| {
        frame.len() > 282 && frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0, 68]
    });
    assert_eq!(offer[46..50], *b"rump", "the answer to our question");
    assert_eq!(
        offer[58..62],
        [10, 0, 2, 15],
        "the address that passt was given"
    );
    let (me, gateway) = ([10, 0, 2, 15], [10, 0, 2, 2]);
    station
        .send(&wan, arp_request(MAC, me, gateway))
        .expect("sent");
    station.next_that(|frame| is_arp_reply(frame, gateway));
    station.end();
}

#[test]
fn a_process_that_is_killed_while_it_writes_to_a_bus_stops_nobody() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().expect("a directory");
    let bus = dir.path().join("bus");
    let boot = || Station::boot(PosixHost::new(), &[&SHMIF]);
    let (a, b) = (boot(), boot());
    let on = |station: &Station, n: u8| {
        let params = format!("bus={},mac=02:00:00:00:00:0{n},ports=4", bus.display());
        station.create("shmif0", &params).expect("on the bus")
    };
    let (a_if, _b_if) = (on(&a, 1), on(&b, 2));
    for round in 0..5u8 {
        let mut load = Command::new(env!("CARGO_BIN_EXE_busload"))
            .arg(&bus)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut told = String::new();
        let out = load.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut told).expect("reads");
        assert_eq!(told, "sending\n");
        // Killed in the middle of something: it does nothing but write.
        load.kill().expect("killed");
        load.wait().expect("gone");
        let to = [2, 0, 0, 0, 0, 2];
        a.send(&a_if, ether(to, MAC, 0x88b6, &[round; 1000]))
            .expect("sent");
        // What came from the dead one is whole.
        b.next_that(|frame| {
            let number = frame.get(21).copied().unwrap_or_default();
            let dead = frame[12..14] == [0x88, 0xb5];
            assert!(!dead || frame[22..].iter().all(|&byte| byte == number));
            frame[12..14] == [0x88, 0xb6] && frame[14..] == [round; 1000]
        });
    }
    a.end();
    b.end();
}

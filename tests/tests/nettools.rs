//! Unmodified tools for networks on a kernel: iproute2, net-tools, and programs that read `/proc/net`.

use std::io::BufRead;

use support::{Ended, Packaged, Server, have, script};

const IP: Packaged = ("/usr/sbin/ip", "iproute2");

/// Runs a script on a kernel with a loopback interface.
fn on_loop(text: &str) -> Ended {
    script(&["--net", "loop"], support::scratch().path(), text)
}

#[test]
fn ip_makes_shows_and_takes_away() {
    if !have(&[IP]) {
        return;
    }
    let out = on_loop(
        "PATH=/usr/sbin:$PATH\n\
         ip link add v0 type veth peer name v1\n\
         ip link add br0 type bridge\n\
         ip link add link v1 name v1.7 type vlan id 7\n\
         ip link set v0 master br0\n\
         for i in v0 v1 br0 v1.7; do ip link set $i up; done\n\
         ip addr add 10.1.0.1/24 dev v1\n\
         ip -br link | sed 's/@.*//; s/ .*//' | xargs\n\
         ip -d link show v1.7 | grep -o 'v1.7@v1:\\|vlan protocol 802.1Q id 7'\n\
         ip -d link show v0 | grep -o 'master br0\\|veth\\|promiscuity 1' | xargs\n\
         ip -s link show v1 | grep -c 'RX:\\|TX:'\n\
         ip rule | sed 's/\\t/ /' | head -2\n\
         ip route get 10.1.0.77 | xargs\n\
         ip route get 127.0.0.1 | xargs\n\
         ip route get ::1 | grep -o 'local ::1 dev lo table local proto kernel.* src ::1'\n\
         ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 nud reachable dev v1\n\
         ip neigh show 10.1.0.9 | grep -o lladdr; ip neigh flush dev v1; ip neigh show 10.1.0.9\n\
         ip maddr show dev v1 | grep -o '224.0.0.1\\|01:00:5e:00:00:01' | xargs\n\
         mkfifo $DIR/news; ip monitor address > $DIR/news & MONITOR=$!\n\
         exec 9< $DIR/news\n\
         until ip -br addr show dev v1 | grep -q 10.2.0.1; do ip addr add 10.2.0.1/24 dev v1; done\n\
         ip addr del 10.2.0.1/24 dev v1\n\
         grep -m1 -o 'Deleted.*10.2.0.1/24' <&9 | sed 's/ *inet//; s/: / /' | tr -s ' '; kill $MONITOR\n\
         ip addr flush dev v1; ip -4 -br addr show dev v1 | xargs\n\
         ip link del v1.7; ip link set v0 nomaster; ip link del v0; ip link del br0\n\
         ip -br link | sed 's/ .*//' | xargs\n",
    );
    assert_eq!(
        out.ok(),
        "lo v0 v1 br0 v1.7\n\
         v1.7@v1:\n\
         vlan protocol 802.1Q id 7\n\
         master br0 promiscuity 1 veth\n\
         2\n\
         0: from all lookup local\n\
         32766: from all lookup main\n\
         10.1.0.77 dev v1 src 10.1.0.1 uid 0 cache\n\
         local 127.0.0.1 dev lo src 127.0.0.1 uid 0 cache <local>\n\
         local ::1 dev lo table local proto kernel scope host src ::1\n\
         lladdr\n\
         01:00:5e:00:00:01 224.0.0.1\n\
         Deleted 3 v1 10.2.0.1/24\n\
         \n\
         lo\n"
    );
}

#[test]
fn net_tools_show_the_kernels_network_and_not_the_hosts() {
    if !have(&[("/usr/sbin/ifconfig", "net-tools"), IP]) {
        return;
    }
    let out = on_loop(
        "PATH=/usr/sbin:$PATH\n\
         ip link add v0 type veth peer name v1\n\
         ifconfig v0 10.1.0.1 netmask 255.255.255.0 up; ifconfig v1 up\n\
         ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev v0\n\
         route add -net 10.9.0.0/16 gw 10.1.0.9; route add -host 10.8.0.1 dev v1\n\
         arp -i v0 -s 10.1.0.7 02:00:00:00:00:07; arp -i v0 -d 10.1.0.7\n\
         ifconfig -a | grep -o '^[a-z0-9]*\\|inet [0-9.]*\\|inet6 ::1' | xargs\n\
         route -n | grep '^10' | tr -s ' '\n\
         netstat -rn | grep -c '^10'\n\
         arp -an\n\
         netstat -i | tail -n +3 | cut -d' ' -f1 | xargs\n\
         netstat -g | grep -c '224.0.0.1'\n\
         python3 -c 'import socket,subprocess\n\
s = socket.create_server((\"127.0.0.1\", 4711)); u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind((\"::1\", 4712))\n\
print(subprocess.run([\"netstat\", \"-an\"], stdout=subprocess.PIPE, text=True).stdout)' |\n\
         grep '^tcp\\|^udp' | tr -s ' '\n",
    );
    assert_eq!(
        out.ok(),
        "lo inet 127.0.0.1 inet6 ::1 v0 inet 10.1.0.1 v1\n\
         10.1.0.0 0.0.0.0 255.255.255.0 U 0 0 0 v0\n\
         10.8.0.1 0.0.0.0 255.255.255.255 UH 0 0 0 v1\n\
         10.9.0.0 10.1.0.9 255.255.0.0 UG 0 0 0 v0\n\
         3\n\
         ? (10.1.0.9) at 02:00:00:00:00:09 [ether] PERM on v0\n\
         lo v0 v1\n\
         3\n\
         tcp 0 0 127.0.0.1:4711 0.0.0.0:* LISTEN \n\
         udp6 0 0 ::1:4712 :::* \n"
    );
}

#[test]
fn programs_read_and_set_what_proc_has_of_the_network() {
    let out = on_loop(
        "cat > $DIR/look.py <<'END'\n\
import os, socket\n\
s = socket.create_server(('127.0.0.1', 4711))\n\
c = socket.create_connection(('127.0.0.1', 4711))\n\
c.send(b'x' * 1000)\n\
lines = open('/proc/net/tcp').read().split('\\n')[1:-1]\n\
words = [l.split() for l in lines]\n\
print(sorted((w[1].split(':')[1], w[3]) for w in words if w[1].endswith(':1267')))\n\
dev = dict(l.split(':') for l in open('/proc/net/dev').read().split('\\n')[2:-1])\n\
lo = [int(n) for n in dev['    lo'].split()]\n\
print(len(lo), lo[0] > 1000 and lo[0] == lo[8])\n\
print(open('/proc/net/if_inet6').read().split())\n\
print(os.path.exists('/proc/net/none'), sorted(os.listdir('/proc/sys/net')))\n\
print(open('/proc/sys/net/core/somaxconn').read().strip())\n\
open('/proc/sys/net/ipv4/ip_forward', 'w').write('1\\n')\n\
print(open('/proc/sys/net/ipv4/ip_forward').read().strip())\n\
END\n\
         /usr/bin/python3 $DIR/look.py\n\
         PATH=/usr/sbin:$PATH; cat /proc/sys/net/ipv4/ip_default_ttl; echo 32 > /proc/sys/net/ipv4/ip_default_ttl\n\
         cat /proc/sys/net/ipv4/ip_default_ttl\n",
    );
    assert_eq!(
        out.ok(),
        "[('1267', '01'), ('1267', '0A')]\n\
         16 True\n\
         ['00000000000000000000000000000001', '01', '80', '10', '80', 'lo']\n\
         False ['core', 'inet', 'inet6', 'ipv4', 'ipv6']\n\
         4096\n1\n64\n32\n"
    );
}

/// Answers queries for names as a server does: `www.lab` is 10.0.0.7's, every other is not known.
const NAME_SERVER: &str = "\
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 53))
print('ready', flush=True)
while True:
    query, client = s.recvfrom(512)
    known = query[12:].startswith(b'\\x03www\\x03lab\\x00\\x00\\x01')
    flags = b'\\x81\\x80' if known else b'\\x81\\x83'
    answer = b'\\xc0\\x0c\\x00\\x01\\x00\\x01\\x00\\x00\\x00\\x3c\\x00\\x04\\x7f\\x00\\x00\\x07' if known else b''
    s.sendto(query[:2] + flags + query[4:6] + bytes([0, len(answer) // 16, 0, 0, 0, 0]) + query[12:] + answer, client)
";

#[test]
fn rump_finds_names_as_the_kernels_programs_do() {
    let dir = support::scratch();
    std::fs::write(dir.path().join("server.py"), NAME_SERVER).unwrap();
    let server = Server::start(&["--net", "loop,dns=127.0.0.1"]);
    let hosts = server.rump(&["ping", "-c", "1", "localhost"]).ok();
    assert!(hosts.starts_with("PING localhost (127.0.0.1)"), "{hosts}");
    let none = ["127.0.0.1: no answer", "127.0.0.1: Connection refused"];
    let ended = server.rump(&["ping", "-c", "1", "www.lab"]);
    assert!(
        ended.status != 0 && none.iter().any(|n| ended.stderr.contains(n)),
        "{}",
        ended.stderr
    );
    let program = dir.path().join("server.py");
    let mut names = server
        .command(&[
            "exec",
            &server.url,
            "--",
            "/usr/bin/python3",
            program.to_str().unwrap(),
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let mut ready = String::new();
    std::io::BufReader::new(names.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert_eq!(ready, "ready\n");
    let asked = server.rump(&["ping", "-c", "1", "www.lab"]).ok();
    assert!(asked.starts_with("PING www.lab (127.0.0.7)"), "{asked}");
    assert!(asked.contains("1 received"), "{asked}");
    let unknown = server.rump(&["ping", "-c", "1", "nobody.lab"]);
    unknown.fails(125, &["nobody.lab", "127.0.0.1 knows no address"]);
    support::signal(names.id(), "TERM");
    names.wait().expect("ended");
    server.halt();
}

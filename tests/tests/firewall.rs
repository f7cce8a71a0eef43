//! A packet filter between unmodified programs: what passes, what is translated, and what is refused, as tshark saw it on the links.

use std::fs;

use support::judge::{assert_well_formed, count, matching};
use support::lab::{HTTP, Lab};
use support::scratch;

const HOME: &str = include_str!("../../examples/labs/firewall.toml");

/// Connects and says what comes of it.
const CONNECT: &str = "
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
    print('connected')
except OSError as error:
    print(error.strerror)
";

fn get(lab: &Lab, kernel: &str, url: &str) {
    let file = lab.dir.path().join("got");
    let out = file.to_str().expect("text");
    lab.on(kernel, &["curl", "-sS", "-m", "60", "-o", out, url])
        .ok();
    let body: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(4096);
    assert!(fs::read(&file).expect("a file") == body, "{kernel}: {url}");
}

#[test]
fn two_at_home_share_an_address_and_one_serves_the_world() {
    let captures =
        "[link.home]\npcap = \"home.pcapng\"\n[link.internet]\npcap = \"internet.pcapng\"\n";
    let lab = Lab::up(&format!("{HOME}\n{captures}"));
    let mut servers = [lab.serve("web", HTTP), lab.serve("phone", HTTP)];
    for kernel in ["laptop", "phone"] {
        for url in ["http://192.0.2.80/", "http://[2001:db8::80]/"] {
            get(&lab, kernel, url);
        }
        for web in ["192.0.2.80", "2001:db8::80"] {
            let said = lab
                .on(kernel, &["ping", "-n", "-c", "2", "-i", "0.2", web])
                .ok();
            assert!(
                said.contains("2 received") && said.contains("ttl=63"),
                "{said}"
            );
        }
    }
    get(&lab, "web", "http://192.0.2.1:8080/");
    let python = |args: &[&str]| {
        lab.on(
            "web",
            &[&["/usr/bin/python3", "-c", CONNECT], args].concat(),
        )
        .ok()
    };
    for router in ["192.0.2.1", "2001:db8::1"] {
        assert_eq!(python(&[router, "22"]), "Connection refused\n", "{router}");
    }
    let states = lab
        .run(&["firewall", "states", "-s", "router", "--json"])
        .ok();
    let states: Vec<serde_json::Value> = serde_json::from_str(&states).expect("an array");
    let forwarded = states
        .iter()
        .find(|state| state["destination"] == "192.0.2.1:8080");
    let forwarded = forwarded.expect("the connection to the phone");
    assert_eq!(forwarded["new_destination"], "10.0.0.3:80");
    let rules = lab.run(&["firewall", "-s", "router"]).ok();
    assert!(
        rules.contains("\nblock forward # 0 packets 0 bytes\n"),
        "{rules}"
    );
    assert!(rules.contains(" 0 invalid, 0 for want of room"), "{rules}");

    lab.run(&["down"]).ok();
    for server in &mut servers {
        server.wait().expect("it has ended with its kernel");
    }
    for name in ["home", "internet"] {
        let capture = lab.dir.path().join(format!("{name}.pcapng"));
        assert_well_formed(&capture);
    }
    let internet = lab.dir.path().join("internet.pcapng");
    let home = "ip.addr == 10.0.0.0/24 || ipv6.addr == fd00::/64";
    assert_eq!(
        matching(&internet, home),
        "",
        "an address of home on the Internet"
    );
    for seen in [
        "tcp.flags.syn == 1 && tcp.flags.ack == 0 && ip.src == 192.0.2.1 && tcp.dstport == 80",
        "tcp.flags.syn == 1 && tcp.flags.ack == 0 && ipv6.src == 2001:db8::1 && tcp.dstport == 80",
        "tcp.flags.syn == 1 && tcp.flags.ack == 1 && ip.src == 192.0.2.1 && tcp.srcport == 8080",
        "tcp.flags.reset == 1 && ip.src == 192.0.2.1 && tcp.srcport == 22",
        "icmp.type == 8 && ip.src == 192.0.2.1",
    ] {
        assert!(count(&internet, seen) > 0, "{seen}");
    }
}

#[test]
fn rules_are_loaded_and_refused_by_the_command() {
    let lab = Lab::up("[kernel.a]\n");
    let dir = lab.dir.path();
    fs::write(dir.join("good.npf"), "pass out\nblock in\n").expect("written");
    fs::write(dir.join("bad.npf"), "pass out\n\nblock inn\n").expect("written");
    assert_eq!(lab.run(&["firewall", "-s", "a"]).ok(), "");
    lab.run(&["firewall", "load", "good.npf", "-s", "a"]).ok();
    lab.run(&["npf", "load", "bad.npf", "-s", "a"])
        .fails(125, &["bad.npf:3:7: ", "unknown word"]);
    let shown = lab.run(&["firewall", "show", "-s", "a", "--json"]).ok();
    let rules: Vec<serde_json::Value> = serde_json::from_str(&shown).expect("an array");
    assert_eq!(rules[1]["rule"], "block in");
    lab.run(&["firewall", "flush", "-s", "a"]).ok();
    let words = [
        "firewall", "flush", "proto", "tcp", "to", "port", "22", "-s", "a",
    ];
    lab.run(&words).ok();
    lab.run(&["firewall", "flush", "via", "eth0", "-s", "a"])
        .fails(125, &["flush: 1:7: \"via\": unknown word"]);
    lab.run(&["firewall", "list", "-s", "a"])
        .fails(125, &["list: want show"]);
    lab.run(&["firewall", "load", "none.npf", "-s", "a"])
        .fails(125, &["none.npf: the rules cannot be read"]);
    lab.down();
}

#[test]
fn a_run_may_begin_with_rules() {
    let dir = scratch();
    let file = dir.path().join("rules.npf");
    let file = file.to_str().expect("text");
    fs::write(file, "pass out\nblock in\n").expect("written");
    let args = [
        "run",
        "--net",
        "loop",
        "--firewall",
        file,
        "--",
        "cat",
        "/rump/dev/npf",
    ];
    let shown = support::run(args).ok();
    assert!(
        shown.contains("\npass out # 0 packets") && shown.contains("\nblock in # 0"),
        "{shown}"
    );
    fs::write(file, "pass\nblock from here\n").expect("written");
    support::run(args).fails(
        125,
        &["--firewall", "rules.npf:2:12: ", "\"here\" is no address"],
    );
    support::run(["run", "--firewall", file, "--", "true"]).fails(125, &["--firewall", "--net"]);
}

//! What is written reads as what it was, and what cannot be meant is refused where it stands.

use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn net() -> impl Strategy<Value = Net> {
    prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(ip, len)| Net::new(IpAddr::V4(ip.into()), len)),
        (any::<u128>(), 0u8..=128).prop_map(|(ip, len)| Net::new(IpAddr::V6(ip.into()), len)),
    ]
}

fn interface() -> impl Strategy<Value = String> {
    select(vec!["eth0", "virt0", "a-b.c", "in", "any", "port"]).prop_map(str::to_owned)
}

fn addr() -> impl Strategy<Value = IpAddr> {
    net().prop_map(|net| net.addr)
}

fn hosts() -> impl Strategy<Value = Hosts> {
    let host = prop_oneof![
        net().prop_map(Host::Net),
        interface().prop_map(Host::Interface),
        select(vec!["good", "bad"]).prop_map(|name| Host::Table(name.into())),
    ];
    (any::<bool>(), vec(host, 0..4)).prop_map(|(negated, list)| Hosts {
        negated: negated && !list.is_empty(),
        list,
    })
}

fn ports() -> impl Strategy<Value = Ports> {
    let range = (any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    (any::<bool>(), vec(range, 0..3)).prop_map(|(negated, ranges)| Ports {
        negated: negated && !ranges.is_empty(),
        ranges,
    })
}

fn family() -> impl Strategy<Value = Option<Family>> {
    option::of(select(vec![Family::Inet, Family::Inet6]))
}

prop_compose! {
    fn matches()(
        family in family(),
        protocols in select(vec![vec![], vec![TCP], vec![UDP, TCP], vec![47, 0], vec![ICMP], vec![ICMP6]]),
        hosts in (hosts(), hosts()),
        ports in (ports(), ports()),
        types in vec(any::<u8>(), 0..3),
    ) -> Match {
        let has_ports = matches!(protocols.first(), Some(&(TCP | UDP)));
        let ports = if has_ports { ports } else { Default::default() };
        let icmp = matches!(protocols.first(), Some(&(ICMP | ICMP6)));
        Match {
            family,
            protocols,
            from: End { hosts: hosts.0, ports: ports.0 },
            to: End { hosts: hosts.1, ports: ports.1 },
            icmp_types: if icmp { types } else { vec![] },
        }
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        any::<bool>().prop_map(|stateless| Action::Pass { stateless }),
        Just(Action::Block),
        any::<bool>().prop_map(|prohibited| Action::Reject { prohibited }),
    ];
    let direction = option::of(select(vec![
        Direction::In,
        Direction::Out,
        Direction::Forward,
    ]));
    let interfaces = (option::of(interface()), option::of(interface()));
    (action, direction, any::<bool>(), interfaces, matches()).prop_map(
        |(action, direction, log, (on, via), matches)| Rule {
            action,
            direction,
            log,
            on,
            via: via.filter(|_| direction == Some(Direction::Forward)),
            matches,
        },
    )
}

prop_compose! {
    fn ruleset()(
        states in 1..=MOST_STATES,
        nets in (vec(net(), 1..4), vec(net(), 1..4)),
        nat in vec((option::of(interface()), matches(), addr(), option::of(interface())), 0..3),
        rdr in vec((option::of(interface()), matches(), addr(), option::of(any::<u16>())), 0..3),
        rules in vec(rule(), 0..5),
    ) -> Ruleset {
        let table = |name: &str, nets| Table { name: name.into(), nets };
        let connections = |matches| Match { icmp_types: vec![], ..matches };
        Ruleset {
            states,
            tables: vec![table("good", nets.0), table("bad", nets.1)],
            nat: nat.into_iter().map(|(on, matches, addr, name)| Nat {
                on,
                matches: connections(matches),
                to: name.map_or(Source::Address(addr), Source::Interface),
            }).collect(),
            rdr: rdr.into_iter().map(|(on, matches, to, port)| Rdr {
                on,
                to,
                port: port.filter(|_| matches!(matches.protocols.first(), Some(&(TCP | UDP)))),
                matches: connections(matches),
            }).collect(),
            rules,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_as_what_it_was(rules in ruleset()) {
        let text = rules.to_string();
        let read = text.parse::<Ruleset>();
        prop_assert_eq!(read.as_ref(), Ok(&rules), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-z0-9 {},!()<>/.:>#\n-]{0,80}") {
        let _ = text.parse::<Ruleset>();
    }
}

#[test]
fn clauses_come_in_any_order_and_lists_over_several_lines() {
    let free = "
        # the web
        table bad {
            10.0.0.1/8,   # somebody
            fd00::1,
        }
        pass to port { 80, 443 } from ! <bad> proto tcp in
        drop all
        nat to any from 10.0.0.0/24 on eth0 -> (eth0)
        rdr on eth0 proto tcp to any port 8080 -> 10.0.0.2 port 80
    ";
    let rules: Ruleset = free.parse().expect("good");
    let text = "table bad { 10.0.0.0/8, fd00::1 }\n\
                rdr on eth0 proto tcp to port 8080 -> 10.0.0.2 port 80\n\
                nat on eth0 from 10.0.0.0/24 -> (eth0)\n\
                pass in proto tcp from ! <bad> to port { 80, 443 }\n\
                block\n";
    assert_eq!(rules.to_string(), text);
}

#[test]
fn types_of_icmp_have_names() {
    let rules =
        "pass proto icmp icmp-type { echo-request, 11 }\npass icmp-type too-big proto icmp6";
    let rules: Ruleset = rules.parse().expect("good");
    assert_eq!(rules.rules[0].matches.icmp_types, [8, 11]);
    assert_eq!(rules.rules[1].matches.icmp_types, [2]);
}

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    for (text, at, says) in [
        ("allow in", (1, 1), "begins with pass, block, reject"),
        ("\n  pass inn", (2, 8), "unknown word"),
        ("pass in out", (1, 9), "beside \"in\""),
        ("pass in in", (1, 9), "twice"),
        ("pass in on", (1, 11), "want an interface"),
        ("pass on a-name-that-is-long", (1, 9), "up to 15"),
        ("pass in via eth0", (1, 9), "write forward"),
        ("pass to port 80", (1, 6), "say proto tcp"),
        (
            "pass proto { tcp, icmp } to port 80",
            (1, 26),
            "say proto tcp",
        ),
        ("pass proto tcp port 80", (1, 16), "behind from or to"),
        ("pass proto tcp to port 80-70", (1, 24), "ends before"),
        ("pass proto tcp to port 70000", (1, 24), "no port"),
        ("pass proto gre", (1, 12), "no protocol"),
        ("pass from 10.0.0.0/33", (1, 11), "0 to 32"),
        ("pass from 10.0.0", (1, 11), "no address"),
        ("pass from <bad>", (1, 12), "there is no table bad"),
        ("pass from { 10.0.0.1", (1, 11), "not closed"),
        ("pass from { 10.0.0.1 10.0.0.2 }", (1, 22), "\",\""),
        ("pass from { { 10.0.0.1 } }", (1, 13), "a list in a list"),
        ("pass from (eth0", (1, 16), "\")\""),
        ("pass icmp-type 8", (1, 6), "proto icmp"),
        ("pass proto icmp icmp-type big", (1, 27), "echo-request"),
        ("block stateless", (1, 7), "for pass"),
        ("pass with prohibited", (1, 6), "for reject"),
        ("reject with rst", (1, 13), "want prohibited"),
        ("nat on eth0", (1, 12), "what sources become"),
        ("nat in -> 10.0.0.1", (1, 5), "say on INTERFACE"),
        ("nat -> eth0", (1, 8), "as (eth0)"),
        ("rdr -> 10.0.0.1 port 80", (1, 17), "say proto tcp"),
        (
            "rdr proto icmp icmp-type 8 -> 10.0.0.1",
            (1, 16),
            "leave icmp-type out",
        ),
        ("pass pass", (1, 6), "unknown word"),
        ("pass -> 10.0.0.1", (1, 6), "should end here"),
        ("table x 10.0.0.1", (1, 9), "in braces"),
        (
            "table x { 10.0.0.1 }\ntable x { 10.0.0.1 }",
            (2, 7),
            "already",
        ),
        ("table x! { 10.0.0.1 }", (1, 8), "in braces"),
        ("set states 0", (1, 12), "from 1 to"),
        ("set limit 5", (1, 5), "states NUMBER"),
    ] {
        let error = text.parse::<Ruleset>().expect_err(text);
        assert_eq!((error.line, error.column), at, "{text}: {error}");
        assert!(error.message.contains(says), "{text}: {error}");
    }
}

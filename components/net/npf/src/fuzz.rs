//! The bodies of the fuzz targets: texts of rules, and packets through a router that filters and translates.

use std::sync::{Arc, OnceLock};

use abi::Errno;
use bytes::Bytes;
use hypercall::{Host, PosixHost};
use inet::{IfAddr, IfThere, Inet, Prefix, Route};
use kern::{Curlwp, Kernel, KernelMemory};
use net::{Config, Driver, Features, Ifnet, InternetSum, LinkType, Net, Packet};
use sync::Cpu;

use crate::Npf;
use crate::lang::{Ruleset, flush};

/// All that a filter can do, in few lines.
const RULES: &str = "set states 64
table bad { 10.0.1.66, fd01::66 }
rdr on out0 proto { tcp, udp } to (out0) port 8080 -> 10.0.1.2 port 80
rdr on out0 inet6 proto { tcp, udp } to port 8080 -> fd01::2 port 80
nat on out0 from { 10.0.1.0/24, fd01::/64 } -> (out0)
block log from <bad>
reject forward proto { tcp, udp } to port { 22, 6000-6010 }
reject forward proto 47 with prohibited
pass forward on in0 via out0
pass forward on out0 proto { tcp, udp } to port 80
pass in proto icmp icmp-type echo-request
pass out stateless proto udp to port 53
block forward";

/// Reads a text of rules; what is read is written, and reads as the same. The same text as clauses of `flush`.
pub fn fuzz_rules(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if let Ok(rules) = text.parse::<Ruleset>() {
        let again = rules.to_string().parse::<Ruleset>();
        assert_eq!(again, Ok(rules));
    }
    let _ = flush(&format!("flush {text}"), &[]);
}

/// Sends packets through a router between two links: each is two bytes of length, a byte of flags, and the packet. The lowest flag says by
/// which link it comes; with the second, the header's checksum is put right first. Nothing may panic, and the headers of what leaves are right.
/// One router serves all inputs of a process, and forgets each when it has ended: what an input takes in memory, it gives back.
pub fn fuzz_packets(mut input: &[u8]) {
    static ROUTER: OnceLock<Router> = OnceLock::new();
    let Router { kernel, links } = ROUTER.get_or_init(router);
    kernel.implicit(&KernelMemory, |cx| {
        let (npf, inet) = parts(cx).expect("a filter");
        npf.load(cx, RULES).expect("rules");
        while let [a, b, flags, rest @ ..] = input {
            let len = usize::from(u16::from_be_bytes([*a, *b])).min(rest.len());
            let (bytes, rest) = rest.split_at(len);
            input = rest;
            let link = &links[usize::from(flags & 1)];
            link.input(cx.cpu(), packet(bytes, flags & 2 != 0));
            cx.cpu().run_pending();
        }
        let (rules, states) = (npf.rules(), npf.connections());
        assert!(rules.parse::<Ruleset>().is_ok() && states.lines().count() <= 64);
        // Connections and counts go with the rules.
        npf.load(cx, "").expect("no rules");
        inet.forget(cx.cpu());
    });
    let log = String::from_utf8_lossy(&kernel.messages()).into_owned();
    kernel.clear_messages();
    assert!(!log.contains("broke down"), "{log}");
}

/// A kernel, and its links.
struct Router {
    kernel: Arc<Kernel>,
    links: [Arc<Ifnet>; 2],
}

fn router() -> Router {
    let host: Arc<dyn Host> = PosixHost::new();
    let kernel = Kernel::builder(host)
        .component(&net::NET)
        .component(&inet::INET)
        .component(&crate::NPF)
        .config(|config| {
            config.threads = false;
            config.verbose = false;
        })
        .boot()
        .expect("boots");
    let links = kernel.implicit(&KernelMemory, set_up).expect("two links");
    Router { kernel, links }
}

fn parts(cx: &Curlwp<'_>) -> Result<(Arc<Npf>, Arc<Inet>), Errno> {
    Ok((Npf::of(cx)?, Inet::of(cx)?))
}

/// A wire that leads nowhere, but where headers are looked at.
struct Wire;

impl Driver for Wire {
    fn transmit(&self, _: &Cpu<'_>, mut packet: Packet) -> Result<(), Errno> {
        if let Some(&[first]) = packet.front(1)
            && first >> 4 == 4
        {
            let len = usize::from(first & 15) * 4;
            let header = packet.front(len).unwrap_or_default();
            assert_eq!(InternetSum::default().with(header).checksum(), 0);
        }
        Ok(())
    }
}

fn set_up(cx: &Curlwp<'_>) -> Result<[Arc<Ifnet>; 2], Errno> {
    let inet = Inet::of(cx)?;
    let attach = |name: &str, addrs: [(&str, u8); 2]| {
        let config = Config {
            name: name.into(),
            link: LinkType::Ip,
            mtu: 1280,
            address: Default::default(),
            features: Features::default(),
            point_to_point: false,
        };
        let link = Net::of(cx)?
            .interfaces()
            .attach(cx, config, Arc::new(Wire))?;
        link.set_up(cx, true)?;
        for (text, len) in addrs {
            let ip = text.parse().map_err(|_| Errno::EINVAL)?;
            let mut addr = IfAddr::new(link.index(), ip, len);
            addr.nodad = true;
            inet.add_address(cx.cpu(), addr)?;
            let Some(any) = (match ip.is_ipv4() {
                true => Prefix::new([0; 4].into(), 0),
                false => Prefix::new([0; 16].into(), 0),
            })
            .ok()
            .filter(|_| name == "out0") else {
                continue;
            };
            inet.add_route(cx.cpu(), Route::on_link(any, link.index()), IfThere::Fail)?;
        }
        Ok::<_, Errno>(link)
    };
    let links = [
        attach("in0", [("10.0.1.1", 24), ("fd01::1", 64)])?,
        attach("out0", [("10.0.9.1", 24), ("fd09::1", 64)])?,
    ];
    // Errors without a limit, so that time decides nothing.
    for (name, value) in [
        ("net.inet.ip.forwarding", 1i64),
        ("net.inet6.ip6.forwarding", 1),
        ("net.ipv4.icmp_msgs_per_sec", 0),
    ] {
        cx.kernel().sysctl().write(cx, name, &value.to_le_bytes())?;
    }
    Ok(links)
}

fn packet(bytes: &[u8], repair: bool) -> Packet {
    let mut bytes = bytes.to_vec();
    if repair
        && let Some(first) = bytes.first()
        && first >> 4 == 4
        && let len = usize::from(first & 15) * 4
        && len >= 20
        && let Some(header) = bytes.get_mut(..len)
    {
        header[10..12].fill(0);
        let sum = InternetSum::default().with(header).checksum();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    Packet::new(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Packets that are nearly right, between few addresses and ports, so that they are of the same connections.
    fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
        let hosts = proptest::sample::select(vec![
            [10, 0, 1, 2],
            [10, 0, 1, 66],
            [10, 0, 9, 1],
            [10, 0, 7, 7],
        ]);
        let protocol = proptest::sample::select(vec![1u8, 6, 17, 47]);
        let port = proptest::sample::select(vec![80u8, 22, 7]);
        let rest = proptest::collection::vec(any::<u8>(), 16..80);
        let change = (any::<u8>(), any::<u8>(), 0u8..4);
        (
            hosts.clone(),
            hosts,
            protocol,
            (port.clone(), port),
            rest,
            change,
            any::<bool>(),
        )
            .prop_map(
                |(src, dst, protocol, (sport, dport), rest, (at, byte, often), v6)| {
                    let mut out = if v6 {
                        let mut out = vec![
                            0x60,
                            0,
                            0,
                            0,
                            0,
                            (4 + rest.len()) as u8,
                            if protocol == 1 { 58 } else { protocol },
                            64,
                        ];
                        for host in [src, dst] {
                            out.extend([
                                0xfd, host[2], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host[3],
                            ]);
                        }
                        out
                    } else {
                        let mut out = vec![
                            0x45,
                            0,
                            0,
                            (24 + rest.len()) as u8,
                            0,
                            1,
                            0,
                            0,
                            64,
                            protocol,
                            0,
                            0,
                        ];
                        out.extend([src, dst].concat());
                        out
                    };
                    out.extend([0, sport, 0, dport]);
                    out.extend(rest);
                    if often == 0 {
                        let at = usize::from(at) % out.len();
                        out[at] = byte;
                    }
                    out
                },
            )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_packets_do_harm(packets in proptest::collection::vec((nearly_right(), 0u8..4), 1..60)) {
            let mut input = Vec::new();
            for (packet, flags) in packets {
                input.extend((packet.len() as u16).to_be_bytes());
                input.push(flags | 2);
                input.extend(packet);
            }
            fuzz_packets(&input);
        }

        #[test]
        fn no_text_does_harm(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            fuzz_rules(&text);
        }
    }
}

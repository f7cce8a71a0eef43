//! Arbitrary frames for a stack that listens, forwards and has joined a group: the body of the fuzz target `inet_frames`.

use std::sync::Arc;

use abi::Errno;
use bytes::Bytes;
use hypercall::{Host, PosixHost};
use kern::{Curlwp, Kernel, KernelMemory};
use net::{
    Checksum, Common, Config, Driver, Features, Ifnet, Kind, LinkType, Net, Packet, Protocol,
};
use sync::Cpu;

use crate::addr::Endpoint;
use crate::{IfAddr, Inet, checksum};

/// The Ethernet address of the stack.
pub const ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A wire that leads nowhere.
struct Nowhere;

impl Driver for Nowhere {
    fn transmit(&self, _: &Cpu<'_>, _: Packet) -> Result<(), Errno> {
        Ok(())
    }
}

/// Feeds a stack with frames: each two bytes of length, a byte of flags, and the frame. Nothing may panic. With the lowest flag
/// set, checksums are put right first, so that what is behind them is reached.
pub fn fuzz_frames(mut input: &[u8]) {
    let host: Arc<dyn Host> = PosixHost::new();
    let kernel = Kernel::builder(host)
        .component(&net::NET)
        .component(&crate::INET)
        .config(|config| {
            config.threads = false;
            config.verbose = false;
        })
        .boot();
    let Ok(kernel) = kernel else {
        return;
    };
    let _ = kernel.implicit(&KernelMemory, |cx| {
        let (inet, interface, sockets) = set_up(cx)?;
        while let [a, b, flags, rest @ ..] = input {
            let len = usize::from(u16::from_be_bytes([*a, *b])).min(rest.len());
            let (frame, rest) = rest.split_at(len);
            input = rest;
            interface.input(cx.cpu(), packet(frame, flags & 1 != 0));
            cx.cpu().run_pending();
        }
        // What waits is received, and everything ends.
        inet.sockets(cx);
        sockets.iter().for_each(|socket| socket.close(cx));
        Ok::<(), Errno>(())
    });
    let log = String::from_utf8_lossy(&kernel.messages()).into_owned();
    assert!(!log.contains("broke down"), "{log}");
}

impl Inet {
    /// Forgets what packets have left in a stack that serves many inputs: parts of packets, and the MTUs of paths.
    pub fn forget(&self, cpu: &Cpu<'_>) {
        self.reassembly.forget(cpu);
        self.path_mtu.forget(cpu);
        self.fib.changed();
    }
}

type Stack = (Arc<Inet>, Arc<Ifnet>, Vec<Arc<dyn Protocol>>);

fn set_up(cx: &Curlwp<'_>) -> Result<Stack, Errno> {
    let config = Config {
        name: "eth0".into(),
        link: LinkType::Ethernet,
        mtu: 1500,
        address: ADDRESS,
        features: Features::default(),
        point_to_point: false,
    };
    let faction = Net::of(cx)?;
    let interface = faction.interfaces().attach(cx, config, Arc::new(Nowhere))?;
    interface.set_up(cx, true)?;
    let inet = Inet::of(cx)?;
    for (text, len) in [("10.0.0.1", 24), ("fd00::1", 64), ("fe80::1", 64)] {
        if let Ok(ip) = text.parse() {
            let mut addr = IfAddr::new(interface.index(), ip, len);
            addr.nodad = true;
            inet.add_address(cx.cpu(), addr)?;
        }
    }
    for name in ["net.inet.ip.forwarding", "net.inet6.ip6.forwarding"] {
        cx.kernel().sysctl().write(cx, name, &1i64.to_le_bytes())?;
    }
    let mut sockets = Vec::new();
    for (family, kind, number, port) in [
        (10, Kind::Dgram, 0, 53),
        (10, Kind::Stream, 0, 80),
        (2, Kind::Raw, 1, 0),
        (10, Kind::Raw, 58, 0),
    ] {
        let socket =
            faction
                .domain(cx, family)?
                .socket(cx, kind, number, &Arc::new(Common::default()))?;
        let v6 = family == 10;
        socket.bind(cx, &Endpoint::new(crate::addr::any(v6), port).to_addr(v6))?;
        if kind == Kind::Stream {
            socket.listen(cx, 8)?;
        }
        sockets.push(socket);
    }
    if let Ok(group) = "224.1.1.1".parse() {
        let member = crate::group::Member::Socket(0);
        let all = crate::SourceFilter::ALL;
        inet.want_group(cx.cpu(), interface.index(), group, member, all);
    }
    Ok((inet, interface, sockets))
}

fn packet(frame: &[u8], repair: bool) -> Packet {
    let mut frame = frame.to_vec();
    if repair
        && frame.len() >= 34
        && frame[12..14] == [8, 0]
        && let len = usize::from(frame[14] & 0xf) * 4
        && len >= 20
        && let Some(header) = frame.get_mut(14..14 + len)
    {
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum);
    }
    let mut packet = Packet::new(Bytes::from(frame));
    if repair {
        packet.checksum = Checksum::Valid;
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames that are nearly right: the address, a type, and the beginning of a header of one of many kinds.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let v4 = |protocol: u8| {
            let mut head = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
            head.extend_from_slice(&[10, 0, 0, 9, 10, 0, 0, 1]);
            (vec![8, 0], head)
        };
        let v6 = |next: u8| {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, next, 255, 0xfd];
            head.resize(23, 0);
            head.extend_from_slice(&[9, 0xfd]);
            head.resize(39, 0);
            head.push(1);
            (vec![0x86, 0xdd], head)
        };
        let arp = (vec![8, 6], vec![0, 1, 8, 0, 6, 4, 0, 1]);
        let starts: Vec<_> = [1, 2, 6, 17, 50, 255]
            .map(v4)
            .into_iter()
            .chain([0, 6, 17, 43, 44, 58, 59, 60].map(v6))
            .chain([arp])
            .collect();
        let payload = proptest::collection::vec(any::<u8>(), 0..120);
        let changes = proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4);
        (
            proptest::sample::select(starts),
            payload,
            changes,
            any::<u8>(),
        )
            .prop_map(|((kind, mut packet), payload, changes, kind_of)| {
                // ICMP types and ports that lead somewhere.
                let mut payload = payload;
                let first = [
                    8, 3, 11, 128, 1, 2, 133, 134, 135, 136, 137, 130, 143, 0x11, 0x16,
                ][usize::from(kind_of) % 15];
                if let Some(byte) = payload.first_mut() {
                    *byte = first;
                }
                if let Some(port) = payload.get_mut(2..4) {
                    port.copy_from_slice(&[0, if kind_of & 1 == 0 { 80 } else { 53 }]);
                }
                packet.extend_from_slice(&payload);
                let total = packet.len() as u16;
                match kind[..] {
                    [8, 0] => packet[2..4].copy_from_slice(&total.to_be_bytes()),
                    [0x86, _] => {
                        packet[4..6].copy_from_slice(&total.saturating_sub(40).to_be_bytes())
                    }
                    _ => {}
                }
                for (at, byte) in changes {
                    let at = usize::from(at) % packet.len();
                    packet[at] = byte;
                }
                [&ADDRESS[..], &[2, 0, 0, 0, 0, 9], &kind, &packet].concat()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_frames_do_harm(frames in proptest::collection::vec((frame(), any::<bool>()), 1..40)) {
            let mut input = Vec::new();
            for (frame, repair) in frames {
                input.extend_from_slice(&(frame.len() as u16).to_be_bytes());
                input.push(repair.into());
                input.extend_from_slice(&frame);
            }
            fuzz_frames(&input);
        }
    }
}

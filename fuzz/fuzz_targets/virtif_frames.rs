//! What a host's wire brings: QEMU's stream of frames, and frames with headers that lie about checksums and segments. They go through a
//! router to an interface that wants them cut and summed up.
#![no_main]

use std::sync::{Arc, OnceLock};

use hypercall::{InFrame, Offload, PosixHost};
use rumpkit_fuzz::Input;
use rumpkit_fuzz::rumpkit::kern::{Curlwp, Kernel, KernelMemory};
use rumpkit_fuzz::rumpkit::net::{
    Config, Driver, Features, Ifnet, LinkType, Net, Packet, coalesce, complete_checksum, segment,
};
use rumpkit_fuzz::rumpkit::{Errno, builder_on};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut input = Input::new(input);
    let step = usize::from(input.byte()) + 1;
    let mut frames = Vec::new();
    match input.below(4) {
        0 => frames
            .extend(hypercall::fuzz_stream(&input.bytes(usize::MAX), step).unwrap_or_default()),
        _ => {
            while !input.is_empty() {
                frames.push(frame(&mut input));
            }
        }
    }
    let mut batch: Vec<Packet> = frames.into_iter().filter_map(virtif::fuzz_packet).collect();
    coalesce(LinkType::Ethernet, &mut batch);
    for packet in batch {
        cut(packet.clone());
        forward(packet);
    }
});

/// A frame that is nearly right, and a header in front that says anything.
fn frame(input: &mut Input) -> InFrame {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
    let mut payload = input.piece();
    payload.resize(payload.len() + input.below(256) * 16, 3);
    match input.below(3) {
        0 => {
            let protocol = [6, 17, 1][input.below(3)];
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((payload.len() as u16 + 20).to_be_bytes());
            bytes.extend([0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 9, 10, 0, 1, 9]);
            let sum = bytes[14..34]
                .chunks(2)
                .map(|b| u32::from(b[0]) << 8 | u32::from(b[1]));
            let sum = sum.sum::<u32>();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        1 => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([[6, 17, 0, 43, 60][input.below(5)], 64]);
            bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            bytes.extend([0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        }
        _ => {}
    }
    // TCP's data offset, mostly.
    if let Some(byte) = payload.get_mut(12)
        && input.below(4) != 0
    {
        *byte = 0x50;
    }
    bytes.extend(payload);
    let mut header = [0; 10];
    for byte in &mut header {
        *byte = input.byte();
    }
    let offload = match input.below(4) {
        0 => Offload::default(),
        _ => hypercall::fuzz_vnet(&header),
    };
    InFrame {
        bytes: bytes.into(),
        offload,
    }
}

fn cut(mut packet: Packet) {
    let len = packet.len();
    if let Ok(parts) = segment(LinkType::Ethernet, packet.clone()) {
        let mut count = 0;
        for mut part in parts {
            assert!(complete_checksum(&mut part).is_ok());
            count += 1;
        }
        assert!(count <= len);
    }
    let _ = complete_checksum(&mut packet);
}

struct Nowhere;

impl Driver for Nowhere {
    fn transmit(&self, _: &sync::Cpu<'_>, packet: Packet) -> Result<(), Errno> {
        assert!(packet.gso.is_none() && packet.len() <= 1514, "not cut");
        Ok(())
    }
}

fn forward(packet: Packet) {
    static ROUTER: OnceLock<(Arc<Kernel>, Arc<Ifnet>)> = OnceLock::new();
    let (kernel, interface) = ROUTER.get_or_init(router);
    kernel.implicit(&KernelMemory, |cx| {
        interface.input(cx.cpu(), packet);
        cx.cpu().run_pending();
    });
}

fn router() -> (Arc<Kernel>, Arc<Ifnet>) {
    let kernel = builder_on(PosixHost::new())
        .config(|config| {
            config.threads = false;
            config.verbose = false;
        })
        .boot()
        .expect("boots");
    let first = kernel
        .implicit(&KernelMemory, |cx| {
            for name in ["net.inet.ip.forwarding", "net.inet6.ip6.forwarding"] {
                cx.kernel().sysctl().write(cx, name, &1i64.to_le_bytes())?;
            }
            let first = attach(cx, 0)?;
            attach(cx, 1)?;
            Ok::<_, Errno>(first)
        })
        .expect("two interfaces");
    (kernel, first)
}

fn attach(cx: &Curlwp<'_>, number: u8) -> Result<Arc<Ifnet>, Errno> {
    let config = Config {
        name: format!("eth{number}"),
        link: LinkType::Ethernet,
        mtu: 1500,
        address: [2, 0, 0, 0, number, 1],
        features: Features::default(),
        point_to_point: false,
    };
    let net = Net::of(cx)?;
    let interface = net.interfaces().attach(cx, config, Arc::new(Nowhere))?;
    interface.set_up(cx, true)?;
    let name = interface.name(cx.cpu());
    inet::netconfig::ipv4_ifaddr_cidr(cx, &name, &format!("10.0.{number}.1"), 24)?;
    inet::netconfig::ipv6_ifaddr(cx, &name, &format!("fd0{number}::1"), 64)?;
    // Who the packets are for.
    let stack = inet::Inet::of(cx)?;
    let mac = [2, 0, 0, 0, number, 9];
    for host in [format!("10.0.{number}.9"), format!("fd0{number}::9")] {
        let host = host.parse().map_err(|_| Errno::EINVAL)?;
        stack.set_neighbour(cx.cpu(), interface.index(), host, mac, true)?;
    }
    Ok(interface)
}

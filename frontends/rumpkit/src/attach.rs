//! Giving a kernel of this process its interfaces, in the order in which it has to happen: made, captured, up, addressed.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, Kernel, KernelMemory};
use net::{IfError, Ifnet, Net, Params};
use sync::Cpu;
use veth::{End, Plug};

use crate::process::error;
use crate::{NetKind, NetSpec, Process};

/// The MTU of an interface on a link unless told otherwise, in bytes.
const MTU: u32 = 1500;

/// Makes the interface that a line asks for and sets it as it says; answers the name servers that it brings. `socket` is where passt
/// listens.
pub fn attach(
    kernel: &Arc<Kernel>,
    spec: &NetSpec,
    socket: Option<&Path>,
) -> io::Result<Vec<IpAddr>> {
    let process = Process::new(kernel)?;
    let index = process.make_interface(spec, socket)?;
    settle(kernel, &process, spec, index)
}

/// Puts the end of a cable into a kernel, as the interface that a line asks for, and sets it as it says; answers the name servers that
/// it brings. The other end may be in another kernel of this process.
pub fn plug_in(kernel: &Arc<Kernel>, spec: &NetSpec, end: End) -> io::Result<Vec<IpAddr>> {
    let process = Process::new(kernel)?;
    // The loopback interface comes up.
    process.make_interface(&NetSpec::of(NetKind::Loop), None)?;
    let index = plug(kernel, spec, end)?;
    settle(kernel, &process, spec, index)
}

/// Puts the end of a cable into a kernel: an interface that is down, with name, address and MTU as a line asks for; answers its index.
pub fn plug(kernel: &Arc<Kernel>, spec: &NetSpec, end: End) -> io::Result<u32> {
    let mac = spec.mac.as_ref().map(|mac| format!("mac={mac}"));
    let address = Params::parse(&mac.unwrap_or_default())
        .and_then(|params| params.address(&**kernel.host()))
        .map_err(refused)?;
    let plug = Plug {
        name: spec.name.clone().unwrap_or_else(|| "veth%d".into()),
        address,
        mtu: spec.mtu.unwrap_or(MTU),
    };
    let made = inside(kernel, |cx| veth::plug(cx, end, plug));
    Ok(made.map_err(error)?.index())
}

fn settle(
    kernel: &Arc<Kernel>,
    process: &Process,
    spec: &NetSpec,
    index: u32,
) -> io::Result<Vec<IpAddr>> {
    if let Some(file) = &spec.pcap {
        capture(kernel, file, &[index])?;
    }
    process.set_interface(spec, index)?;
    let mut servers = spec.dns.clone();
    if spec.dhcp {
        let lease = inside(kernel, |cx| {
            let name = interface(cx, index)?.name(cx.cpu());
            inet::netconfig::dhcp_ipv4(cx, &name)
        });
        let lease = lease.map_err(|errno| match errno {
            Errno::ETIMEDOUT => io::Error::new(
                io::ErrorKind::TimedOut,
                "no DHCP server answers; say the address instead of dhcp",
            ),
            errno => error(errno),
        })?;
        servers.extend(lease.servers.iter().map(|ip| IpAddr::from(*ip)));
    }
    Ok(servers)
}

/// Captures what interfaces send and receive to a file, pcapng, from now to the kernel's end.
pub fn capture(kernel: &Arc<Kernel>, file: &Path, interfaces: &[u32]) -> io::Result<()> {
    capture_by(kernel, file, interfaces, pcap::Capture::add)
}

/// Captures what interfaces receive: what is on the links of a bridge, each packet once.
pub fn capture_incoming(kernel: &Arc<Kernel>, file: &Path, interfaces: &[u32]) -> io::Result<()> {
    capture_by(kernel, file, interfaces, pcap::Capture::add_incoming)
}

fn capture_by(
    kernel: &Arc<Kernel>,
    file: &Path,
    interfaces: &[u32],
    add: fn(&pcap::Capture, &Cpu<'_>, &Arc<Ifnet>),
) -> io::Result<()> {
    let file = std::path::absolute(file)?;
    let name = file.to_str().ok_or_else(|| error(Errno::EILSEQ))?;
    let started = inside(kernel, |cx| {
        let capture = pcap::Capture::start(cx, name, pcap::SNAPLEN)?;
        for index in interfaces {
            add(&capture, cx.cpu(), &interface(cx, *index)?);
        }
        Ok::<_, IfError>(())
    });
    started.map_err(refused)
}

fn refused(error: IfError) -> io::Error {
    io::Error::other(error.text)
}

fn interface(cx: &Curlwp<'_>, index: u32) -> Result<Arc<Ifnet>, Errno> {
    let found = Net::of(cx)?.interfaces().by_index(index);
    found.ok_or(Errno::ENODEV)
}

fn inside<R>(kernel: &Arc<Kernel>, act: impl FnOnce(&Curlwp<'_>) -> R) -> R {
    kernel.implicit(&KernelMemory, act)
}

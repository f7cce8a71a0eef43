//! TCP over interfaces: between two kernels of a process, between two processes, and with the host; 64 KiB a write.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use abi::{Errno, Syscalls};
use anyhow::{Context, Result, anyhow, bail};
use kern::{Kernel, LwpHandle};
use rumpkit::{NetSpec, Process};

use crate::children;
use crate::figure::{Output, Target};
use crate::measure::Effort;

const WRITE: usize = 64 << 10;
const PORT: u16 = 5001;
pub(crate) const AF_INET: i32 = 2;
pub(crate) const SOCK_STREAM: i32 = 1;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let bytes = effort.pick(2 << 30, 16 << 20);
    if output.wants("net.veth_gbit") {
        let rate = veth(bytes)?;
        output.figure("net.veth_gbit", rate, None, Target::Least(8.0));
    }
    if output.wants("net.shmif_gbit") {
        let rate = shmif(bytes)?;
        output.figure("net.shmif_gbit", rate, None, Target::Least(8.0));
    }
    for (mtu, to, from) in [
        (1500, "net.tap_1500_out_gbit", "net.tap_1500_in_gbit"),
        (9000, "net.tap_9000_out_gbit", "net.tap_9000_in_gbit"),
        (65_520, "net.tap_65520_out_gbit", "net.tap_65520_in_gbit"),
    ] {
        for (name, way) in [(to, Way::Out), (from, Way::In)] {
            if output.wants(name) {
                let host = namespace(mtu, bytes)?;
                let rate = tap(mtu, way, bytes)?;
                output.figure(name, rate, Some(host), Target::LeastOfHost(0.5));
            }
        }
    }
    Ok(())
}

/// Which way the bytes go, seen from the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

fn gbit(bytes: u64, began: Instant) -> f64 {
    bytes as f64 * 8.0 / began.elapsed().as_secs_f64() / 1e9
}

/// A kernel with one interface beside the loopback one.
fn kernel(spec: &str) -> Result<Arc<Kernel>> {
    let kernel = rumpkit::builder().boot().map_err(|e| anyhow!("{e}"))?;
    let spec: NetSpec = spec.parse().map_err(|e| anyhow!("{e:?}"))?;
    let p = Process::new(&kernel)?;
    let index = p.make_interface(&spec, None)?;
    p.set_interface(&spec, index)?;
    Ok(kernel)
}

pub(crate) fn address(text: &str) -> Result<[u8; 16]> {
    let address: SocketAddrV4 = text.parse()?;
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(AF_INET as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    bytes[4..8].copy_from_slice(&address.ip().octets());
    Ok(bytes)
}

pub(crate) fn errno(errno: Errno) -> anyhow::Error {
    anyhow!("{errno}")
}

/// Waits for a connection to a kernel and reads it to its end.
fn sink(p: &LwpHandle, ready: impl FnOnce()) -> Result<u64, Errno> {
    let fd = p.socket(AF_INET, SOCK_STREAM, 0)? as i32;
    let any = address("0.0.0.0:5001").map_err(|_| Errno::EINVAL)?;
    p.bind(fd, &any, any.len())?;
    p.listen(fd, 1)?;
    ready();
    let fd = p.accept4(fd, &mut [], &mut [], 0)? as i32;
    let mut buf = vec![0; WRITE * 4];
    let mut got = 0;
    loop {
        match p.read(fd, &mut buf, WRITE * 4)? {
            0 => break,
            n => got += n as u64,
        }
    }
    p.close(fd)?;
    Ok(got)
}

/// Connects from a kernel, writes so much, and waits until the other end has closed too.
fn source(p: &LwpHandle, to: &str, bytes: u64) -> Result<()> {
    let fd = p.socket(AF_INET, SOCK_STREAM, 0).map_err(errno)? as i32;
    let to = address(to)?;
    p.connect(fd, &to, to.len()).map_err(errno)?;
    let data = vec![7; WRITE];
    let mut left = bytes;
    while left > 0 {
        let n = p
            .write(fd, &data, WRITE.min(left as usize))
            .map_err(errno)?;
        left -= n as u64;
    }
    p.shutdown(fd, 1).map_err(errno)?;
    p.read(fd, &mut [0], 1).map_err(errno)?;
    p.close(fd).map_err(errno)?;
    Ok(())
}

fn veth(bytes: u64) -> Result<f64> {
    let (near, far) = rumpkit::veth::cable();
    let boot = |end, ip: &str| -> Result<Arc<Kernel>> {
        let kernel = rumpkit::builder().boot().map_err(|e| anyhow!("{e}"))?;
        let plug = rumpkit::veth::Plug {
            name: "veth0".into(),
            address: [2, 0, 0, 0, 0, ip.as_bytes()[ip.len() - 1]],
            mtu: 1500,
        };
        kernel
            .implicit(&kern::usermem::KernelMemory, |cx| {
                rumpkit::veth::plug(cx, end, plug)
            })
            .map_err(errno)?;
        let p = Process::new(&kernel)?;
        let index = p.interface("veth0")?.index;
        p.add_address(index, ip.parse()?, 24)?;
        let up = rumpkit::InterfaceChange {
            up: Some(true),
            ..Default::default()
        };
        p.change_interface(index, &up)?;
        Ok(kernel)
    };
    let (a, b) = (boot(near, "10.9.0.1")?, boot(far, "10.9.0.2")?);
    let rate = between(&a, "10.9.0.2", bytes, |ready| {
        let p = Process::new(&b).map_err(|_| Errno::EAGAIN)?;
        sink(p.sys(), ready)
    })?;
    let _ = (a.shutdown(true), b.shutdown(true));
    Ok(rate)
}

/// From a kernel to a server that runs in a thread of this process.
fn between(
    from: &Arc<Kernel>,
    to: &str,
    bytes: u64,
    server: impl FnOnce(Box<dyn FnOnce() + Send>) -> Result<u64, Errno> + Send,
) -> Result<f64> {
    let (tell, ready) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            server(Box::new(move || {
                let _ = tell.send(());
            }))
        });
        ready.recv().context("the server does not start")?;
        let began = Instant::now();
        let p = Process::new(from)?;
        source(p.sys(), &format!("{to}:{PORT}"), bytes)?;
        let rate = gbit(bytes, began);
        match server.join() {
            Ok(Ok(got)) if got == bytes => Ok(rate),
            other => bail!("the server got {other:?}"),
        }
    })
}

fn shmif(bytes: u64) -> Result<f64> {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
    let bus = dir.path().join("bus");
    let bus = bus.to_str().context("a name")?;
    let mut child = children::command(&["bus-sink", bus])?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = String::new();
    let out = child.stdout.take().context("its output")?;
    BufReader::new(out).read_line(&mut told)?;
    let a = kernel(&format!("bus:{bus},10.9.1.1/24"))?;
    let began = Instant::now();
    let p = Process::new(&a)?;
    let sent = source(p.sys(), &format!("10.9.1.2:{PORT}"), bytes);
    let rate = gbit(bytes, began);
    let status = child.wait()?;
    sent?;
    if !status.success() {
        bail!("the other process: {status}");
    }
    let _ = a.shutdown(true);
    Ok(rate)
}

/// The other process on a bus.
pub(crate) fn bus_sink(bus: &str) -> Result<()> {
    let kernel = kernel(&format!("bus:{bus},10.9.1.2/24"))?;
    let p = Process::new(&kernel)?;
    sink(p.sys(), || println!("ready")).map_err(errno)?;
    let _ = kernel.shutdown(true);
    Ok(())
}

fn ip(args: &str) -> Result<()> {
    let out = Command::new("ip").args(args.split(' ')).output()?;
    if !out.status.success() {
        bail!("ip {args}: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(())
}

fn tap(mtu: u32, way: Way, bytes: u64) -> Result<f64> {
    let name = format!("rb{}", std::process::id());
    let spec = format!("tap:{name},198.18.9.2/24,mtu={mtu}");
    let kernel = kernel(&spec)?;
    ip(&format!("link set {name} mtu {mtu} up"))?;
    ip(&format!("addr add 198.18.9.1/24 dev {name}"))?;
    let rate = match way {
        Way::Out => {
            let listener = TcpListener::bind(("198.18.9.1", PORT))?;
            between(&kernel, "198.18.9.1", bytes, |ready| {
                ready();
                host_sink(&listener).map_err(|_| Errno::EIO)
            })
        }
        Way::In => thread::scope(|scope| {
            let (tell, ready) = std::sync::mpsc::channel();
            let server = scope.spawn(|| -> Result<u64, Errno> {
                let p = Process::new(&kernel).map_err(|_| Errno::EAGAIN)?;
                sink(p.sys(), move || {
                    let _ = tell.send(());
                })
            });
            ready.recv().context("the server does not start")?;
            let rate = host_source("198.18.9.2", bytes)?;
            match server.join() {
                Ok(Ok(got)) if got == bytes => Ok(rate),
                other => bail!("the kernel got {other:?}"),
            }
        }),
    };
    let _ = kernel.shutdown(true);
    rate
}

fn host_sink(listener: &TcpListener) -> std::io::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let mut buf = vec![0; WRITE * 4];
    let mut got = 0;
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(got),
            n => got += n as u64,
        }
    }
}

fn host_source(to: &str, bytes: u64) -> Result<f64> {
    let data = vec![7; WRITE];
    let began = Instant::now();
    let mut stream = TcpStream::connect((to, PORT))?;
    let mut left = bytes;
    while left > 0 {
        let n = stream.write(&data[..WRITE.min(left as usize)])?;
        left -= n as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The end of the stream says that all has arrived.
    stream.read_to_end(&mut Vec::new())?;
    Ok(gbit(bytes, began))
}

/// The host's own: to a network namespace over a pair of its interfaces.
fn namespace(mtu: u32, bytes: u64) -> Result<f64> {
    let id = std::process::id();
    let (ns, near, far) = (format!("rb{id}"), format!("rb{id}a"), format!("rb{id}b"));
    ip(&format!("netns add {ns}"))?;
    let measured = || -> Result<f64> {
        ip(&format!(
            "link add {near} mtu {mtu} type veth peer name {far} mtu {mtu}"
        ))?;
        ip(&format!("link set {far} netns {ns}"))?;
        ip(&format!("addr add 198.18.10.1/24 dev {near}"))?;
        ip(&format!("link set {near} up"))?;
        ip(&format!("-n {ns} addr add 198.18.10.2/24 dev {far}"))?;
        ip(&format!("-n {ns} link set {far} up"))?;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &ns])
            .arg(std::env::current_exe()?)
            .args(["--child", "host-sink"])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut told = String::new();
        let out = child.stdout.take().context("its output")?;
        BufReader::new(out).read_line(&mut told)?;
        let rate = host_source("198.18.10.2", bytes);
        child.wait()?;
        rate
    };
    let rate = measured();
    let _ = ip(&format!("link del {near}"));
    ip(&format!("netns del {ns}"))?;
    rate
}

/// A server of the host's, in whatever namespace it is started.
pub(crate) fn host_sink_child() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("ready");
    host_sink(&listener)?;
    Ok(())
}

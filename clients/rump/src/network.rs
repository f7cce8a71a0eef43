//! The network of a kernel that is booted here: its interfaces, and the host programs that they need.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use abi::{Errno, Invoke, Syscalls};
use anyhow::{Context, Result, anyhow, bail};
use rumpkit::{Kernel, NetKind, NetSpec, Process};
use tempfile::TempDir;

use crate::cli::Network;
use crate::kernel::news;
use crate::net::load_firewall;
use crate::shim::Sockets;

/// What passt gives the kernel: addresses that are nobody's outside, as other user-mode networks have them.
const PASST_ADDRESS: &str = "10.0.2.15";
const PASST_PREFIX: u8 = 24;
const PASST_GATEWAY: &str = "10.0.2.2";
/// The same of IPv6, where the host has it.
const PASST_ADDRESS6: &str = "fd00:10:0:2::15";
const PASST_PREFIX6: u8 = 64;
const PASST_GATEWAY6: &str = "fd00:10:0:2::2";
/// Queries to this address go to the host's name servers.
const PASST_DNS: &str = "10.0.2.3";

/// The kernel's interfaces, as long as what they need on the host is there.
#[derive(Default)]
pub(crate) struct Networked {
    sockets: Sockets,
    /// passt, each with the directory of its socket.
    helpers: Vec<(Child, TempDir)>,
}

impl Networked {
    /// Makes the interfaces that were asked for. On failure the kernel is halted, and the error says which one and why.
    pub(crate) fn start(kernel: &Arc<Kernel>, options: &Network) -> Result<Networked> {
        let mut networked = Networked::default();
        if let Err(error) = networked.configure(kernel, options) {
            let _ = kernel.shutdown(true);
            return Err(error);
        }
        Ok(networked)
    }

    /// Whose programs' sockets are.
    pub(crate) fn sockets(&self) -> Sockets {
        self.sockets
    }

    fn configure(&mut self, kernel: &Arc<Kernel>, options: &Network) -> Result<()> {
        let specs = options.net.iter();
        let specs: Vec<&NetSpec> = specs.filter(|s| s.kind != NetKind::Host).collect();
        if let Some(rules) = &options.firewall {
            if specs.iter().all(|s| s.kind == NetKind::Sockin) {
                bail!(
                    "--firewall: the sockets are the host's, and so are their packets; give the kernel a network with --net"
                );
            }
            load_firewall(&Process::new(kernel)?, rules).context("--firewall")?;
        }
        if specs.is_empty() {
            return Ok(());
        }
        if specs.iter().any(|s| s.kind == NetKind::Sockin) {
            self.sockets = Sockets::Sockin;
            return Ok(());
        }
        let mut servers: Vec<IpAddr> = Vec::new();
        for spec in specs {
            servers.extend(self.attach(kernel, spec).context("--net")?);
        }
        let process = Process::new(kernel)?;
        process
            .configure_resolver(&servers, &[])
            .context("the resolver's files cannot be written in the kernel")?;
        process
            .mount_proc()
            .context("/proc cannot be mounted in the kernel")?;
        self.sockets = Sockets::Kernel;
        Ok(())
    }

    /// Makes the interface that a line asks for; answers the name servers that it brings.
    pub(crate) fn attach(&mut self, kernel: &Arc<Kernel>, spec: &NetSpec) -> Result<Vec<IpAddr>> {
        let mut spec = spec.clone();
        let mut socket = None;
        if spec.kind == NetKind::Passt {
            let ipv6 = host_has_ipv6();
            socket = Some(self.passt(ipv6)?);
            with_passt_addresses(&mut spec, ipv6);
        }
        let before = kernel.messages();
        rumpkit::attach(kernel, &spec, socket.as_deref())
            .map_err(|error| explain(&spec, &error, &news(&before, &kernel.messages())))
    }

    /// Starts passt(1); answers where it listens.
    fn passt(&mut self, ipv6: bool) -> Result<PathBuf> {
        let dir = tempfile::Builder::new().prefix("rump-passt-").tempdir()?;
        let socket = dir.path().join("socket");
        let mut command = Command::new("passt");
        command
            .args(["--foreground", "--one-off", "--quiet", "--socket"])
            .arg(&socket);
        if ipv6 {
            command.args(["--address", PASST_ADDRESS6, "--gateway", PASST_GATEWAY6]);
        } else {
            command.arg("--ipv4-only");
        }
        command.args([
            "--address",
            PASST_ADDRESS,
            "--netmask",
            &PASST_PREFIX.to_string(),
        ]);
        command.args([
            "--gateway",
            PASST_GATEWAY,
            "--dns-forward",
            PASST_DNS,
            "--dns",
            PASST_DNS,
        ]);
        if rustix::process::getuid().is_root() {
            // It would become nobody, who may not enter the directory.
            command.args(["--runas", "0:0"]);
        }
        // It tells at length how to use it with QEMU; what it says is shown when it fails.
        let said = dir.path().join("said");
        let child = command
            .stdin(Stdio::null())
            .stderr(File::create(&said)?)
            .process_group(0)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => anyhow!("passt: is not installed, and --net passt needs it; see the Debian package passt"),
                _ => anyhow!("passt: cannot be run: {error}"),
            })?;
        self.helpers.push((child, dir));
        let (child, _) = self.helpers.last_mut().context("just pushed")?;
        wait_for(&socket, child).map_err(|error| {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            anyhow!("{error}\n{}", said.trim_end())
        })?;
        Ok(socket)
    }
}

impl Drop for Networked {
    fn drop(&mut self) {
        for (child, _) in &mut self.helpers {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether the host has a way to the world by IPv6, which is when passt has one. Nothing is sent.
fn host_has_ipv6() -> bool {
    /// For documentation (RFC 3849).
    const OUTSIDE: (Ipv6Addr, u16) = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9);
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0));
    socket.is_ok_and(|socket| socket.connect(OUTSIDE).is_ok())
}

fn with_passt_addresses(spec: &mut NetSpec, ipv6: bool) {
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    let four = (PASST_ADDRESS, PASST_PREFIX, PASST_GATEWAY);
    let six = (PASST_ADDRESS6, PASST_PREFIX6, PASST_GATEWAY6);
    let unsaid = spec.addresses.is_empty();
    for ((address, prefix, gateway), wanted) in [(four, !spec.dhcp), (six, ipv6)] {
        if unsaid && wanted {
            spec.addresses.extend(parse(address).map(|a| (a, prefix)));
            spec.gateways.extend(parse(gateway));
        }
    }
    if spec.dns.is_empty() {
        spec.dns.extend(parse(PASST_DNS));
    }
    // The protocol carries frames of any length; long ones are fewer.
    spec.mtu.get_or_insert(65_520);
}

/// Waits until passt listens, or has ended.
fn wait_for(socket: &Path, child: &mut Child) -> Result<()> {
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)?;
    let dir = socket.parent().unwrap_or(Path::new("/"));
    rustix::fs::inotify::add_watch(&inotify, dir, rustix::fs::inotify::WatchFlags::CREATE)?;
    loop {
        if listens(socket) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("passt: did not start ({status}); it said:");
        }
        let mut fds = [rustix::event::PollFd::new(
            &inotify,
            rustix::event::PollFlags::IN,
        )];
        // Nothing tells that it listens, but that comes right behind the socket's name.
        let wait = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: if socket.exists() {
                1_000_000
            } else {
                100_000_000
            },
        };
        let _ = rustix::event::poll(&mut fds, Some(&wait));
    }
}

/// Whether somebody listens at a path. To connect would be to be its only client. Where the host does not say, who is there is taken
/// to listen.
fn listens(socket: &Path) -> bool {
    /// `__SO_ACCEPTCON`, proc_net(5).
    const LISTENS: u32 = 0x1_0000;
    let Ok(table) = std::fs::read("/proc/net/unix") else {
        return socket.exists();
    };
    let path = socket.as_os_str().as_bytes();
    table.split(|&byte| byte == b'\n').any(|line| {
        let flags = line.split(|&byte| byte == b' ').nth(3);
        let flags = flags.and_then(|hex| std::str::from_utf8(hex).ok());
        let flags = flags.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        line.strip_suffix(path)
            .is_some_and(|rest| rest.ends_with(b" "))
            && flags.is_some_and(|flags| flags & LISTENS != 0)
    })
}

/// Whose the sockets of a kernel's programs are. A kernel has a network when its loopback interface is up; one on the host's sockets
/// has sockets but no interfaces that one could ask for.
pub(crate) fn sockets_of<S: Invoke>(process: &Process<S>) -> Sockets {
    let none = Errno::EAFNOSUPPORT.0;
    match process.interface("lo") {
        Ok(lo) if lo.is_up() => Sockets::Kernel,
        Err(error) if error.raw_os_error() == Some(none) && has_sockets(process) => Sockets::Sockin,
        _ => Sockets::Host,
    }
}

fn has_sockets<S: Invoke>(process: &Process<S>) -> bool {
    const AF_INET: i32 = 2;
    const SOCK_STREAM: i32 = 1;
    let socket = process.sys().socket(AF_INET, SOCK_STREAM, 0);
    socket.is_ok_and(|fd| process.sys().close(fd as i32).is_ok())
}

/// What is wrong with which interface.
pub(crate) fn explain(spec: &NetSpec, error: &io::Error, said: &str) -> anyhow::Error {
    let what = match &spec.kind {
        NetKind::Loop => "lo".to_owned(),
        NetKind::Passt => "passt".to_owned(),
        NetKind::Tap(device) => format!("tap {device}"),
        NetKind::Interface(name) => format!("interface {name}"),
        NetKind::Socket { path, .. } => format!("socket {}", path.display()),
        NetKind::Bus(file) => format!("bus {}", file.display()),
        NetKind::Link(link) => format!("link {link}"),
        NetKind::Host => "host".to_owned(),
        NetKind::Sockin => "sockin".to_owned(),
    };
    // What has no errno is in our own words.
    match said
        .lines()
        .last()
        .filter(|_| error.raw_os_error().is_some())
    {
        Some(why) => anyhow!("{what}: {why}"),
        None => anyhow!("{what}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_with_a_name_may_not_listen() {
        use std::os::unix::net::{UnixDatagram, UnixListener};
        let dir = tempfile::tempdir().expect("a directory");
        let [named, path] = ["named", "socket"].map(|name| dir.path().join(name));
        let _named = UnixDatagram::bind(&named).expect("bound");
        assert!(named.exists() && !listens(&named) && !listens(&path));
        let listener = UnixListener::bind(&path).expect("listens");
        assert!(listens(&path) && !listens(&dir.path().join("ocket")));
        drop(listener);
        assert!(path.exists() && !listens(&path));
    }
}

//! A kernel's network in one line: which interface, on what, with which addresses.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use abi::Invoke;

use crate::rtnl::InterfaceChange;
use crate::{MountSpec, Process, SpecError};

/// What an interface is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetKind {
    /// Nothing: only the loopback interface, which every network has.
    Loop,
    /// passt(1), which an unprivileged kernel reaches the outside world by.
    Passt,
    /// The host's tap device of this name.
    Tap(String),
    /// The host's interface of this name, by packet sockets.
    Interface(String),
    /// A socket that QEMU or passt listens at (`connect`) or that is made here.
    Socket {
        /// Where it is.
        path: PathBuf,
        /// Whether others connect to it.
        listen: bool,
    },
    /// The shared-memory bus in this file.
    Bus(PathBuf),
    /// A link of the lab that the kernel is in.
    Link(String),
    /// The host's own sockets.
    Host,
    /// The host's sockets behind the kernel's descriptors, which is the kernel's whole network: it is made of
    /// [`SOCKIN_COMPONENTS`](crate::SOCKIN_COMPONENTS).
    Sockin,
}

/// An interface's address and the length of its network's prefix.
pub type IfAddress = (IpAddr, u8);

/// A kernel's network: `KIND[:WHERE][,SETTING]...`, such as `passt`, `tap:tap0,10.0.0.2/24,gw=10.0.0.1` or
/// `bus:/tmp/bus,10.1.1.1/24,name=eth7,mtu=9000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetSpec {
    /// What the interface is on.
    pub kind: NetKind,
    /// The interface's name; by its kind where none is given.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IfAddress>,
    /// The routers that everything else goes by, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Name servers, for the resolver of programs.
    pub dns: Vec<IpAddr>,
    /// Addresses, router and name servers come from DHCP.
    pub dhcp: bool,
    /// The longest packet, in bytes.
    pub mtu: Option<u32>,
    /// The link-layer address.
    pub mac: Option<String>,
    /// Every packet of the interface goes to this file, in pcapng.
    pub pcap: Option<PathBuf>,
}

const USAGE: &str = "should be KIND[:WHERE][,SETTING]..., as passt, loop, tap:tap0,10.0.0.2/24,gw=10.0.0.1 or bus:/tmp/bus,10.1.1.1/24; \
    kinds are loop, passt, tap:DEVICE, if:INTERFACE, socket:PATH, listen:PATH, bus:FILE, sockin, host, and in a lab link:NAME; \
    settings are ADDRESS/PREFIX, dhcp, gw=, dns=, mtu=, mac=, name= and pcap=";

impl FromStr for NetSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<NetSpec, SpecError> {
        let refuse = |why: String| SpecError(format!("\"{text}\" {why}"));
        let mut words = text.split(',');
        let word = words.next().unwrap_or_default();
        let (kind, place) = word.split_once(':').unwrap_or((word, ""));
        let kind = kind_of(kind, place).ok_or_else(|| refuse(USAGE.into()))?;
        let mut spec = NetSpec::of(kind);
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let address = || {
                value
                    .parse::<IpAddr>()
                    .map_err(|_| refuse(format!("says {word}: \"{value}\" is no address")))
            };
            match key {
                "dhcp" if value.is_empty() => spec.dhcp = true,
                "gw" => spec.gateways.push(address()?),
                "dns" => spec.dns.push(address()?),
                "mtu" => {
                    spec.mtu =
                        Some(value.parse().map_err(|_| {
                            refuse(format!("says {word}: that is no number of bytes"))
                        })?)
                }
                "mac" => spec.mac = Some(value.into()),
                "name" if !is_name(value) => {
                    return Err(refuse(format!(
                        "says {word}: an interface's name has up to {} letters and digits, as eth0",
                        net::NAME_MAX
                    )));
                }
                "name" => spec.name = Some(value.into()),
                "pcap" => spec.pcap = Some(value.into()),
                _ if word.contains('/') => {
                    let address = if_address(word).ok_or_else(|| {
                        refuse(format!(
                            "says {word}: want ADDRESS/PREFIX, as 10.0.0.2/24 or fd00::2/64"
                        ))
                    })?;
                    if spec.addresses.iter().any(|(ip, _)| *ip == address.0) {
                        return Err(refuse(format!("says {word} twice; once is enough")));
                    }
                    spec.addresses.push(address);
                }
                _ => {
                    return Err(refuse(format!(
                        "says {word}: there is no such setting; it {USAGE}"
                    )));
                }
            }
        }
        spec.check().map_err(refuse)?;
        Ok(spec)
    }
}

fn kind_of(kind: &str, place: &str) -> Option<NetKind> {
    let named = !place.is_empty();
    Some(match kind {
        "loop" if !named => NetKind::Loop,
        "passt" if !named => NetKind::Passt,
        "host" if !named => NetKind::Host,
        "sockin" if !named => NetKind::Sockin,
        "tap" if named => NetKind::Tap(place.into()),
        "if" if named => NetKind::Interface(place.into()),
        "socket" | "listen" if named => NetKind::Socket {
            path: place.into(),
            listen: kind == "listen",
        },
        "bus" if named => NetKind::Bus(place.into()),
        "link" if named => NetKind::Link(place.into()),
        _ => return None,
    })
}

/// Whether an interface may be called so.
fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    !text.is_empty() && text.len() <= net::NAME_MAX && text.chars().all(good)
}

/// `10.0.0.2/24`, of one host.
fn if_address(text: &str) -> Option<IfAddress> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let nobody = address.is_multicast() || address.is_unspecified();
    (prefix <= most && !nobody).then_some((address, prefix))
}

impl NetSpec {
    /// A kind without settings.
    pub fn of(kind: NetKind) -> NetSpec {
        NetSpec {
            kind,
            name: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            dns: Vec::new(),
            dhcp: false,
            mtu: None,
            mac: None,
            pcap: None,
        }
    }

    /// What does not go together.
    fn check(&self) -> Result<(), String> {
        let hosts = matches!(self.kind, NetKind::Host | NetKind::Sockin);
        let alone = hosts || self.kind == NetKind::Loop;
        let set = !self.addresses.is_empty()
            || !self.gateways.is_empty()
            || self.dhcp
            || self.mtu.is_some()
            || self.mac.is_some()
            || self.name.is_some();
        if hosts && self.pcap.is_some() {
            return Err(
                "leaves the sockets to the host; capture there, or take another kind".into(),
            );
        }
        if hosts && !self.dns.is_empty() {
            return Err("leaves names to the host's resolver; leave dns= out".into());
        }
        if alone && set {
            return Err("makes no interface that could be set; leave the settings out".into());
        }
        for v4 in [true, false] {
            if self.gateways.iter().filter(|g| g.is_ipv4() == v4).count() > 1 {
                return Err("names two routers of one family for everything; name one".into());
            }
        }
        Ok(())
    }
}

/// An error with the setting that it is about.
fn about(setting: &str, error: io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists => "another has it already; take another".to_owned(),
        _ => format!("the kernel refuses it: {error}"),
    };
    io::Error::new(error.kind(), format!("{setting}: {why}"))
}

impl<S: Invoke> Process<S> {
    /// Makes the interface that a line asks for and gives it its name; answers its index. It is down. The loopback interface comes up.
    /// What speaks for the interface on the host (passt, whoever listens at a socket) is there already.
    pub fn make_interface(&self, spec: &NetSpec, socket: Option<&Path>) -> io::Result<u32> {
        let loopback = self.interface("lo")?.index;
        self.set_up(loopback)?;
        let Some((kind, mut params)) = spec.kind.driver(socket) else {
            return match &spec.kind {
                NetKind::Link(link) => Err(io::Error::other(format!(
                    "{link}: a link is of a lab, which rump up starts; here use bus:FILE"
                ))),
                _ => Ok(loopback),
            };
        };
        for (key, value) in [
            ("mtu", spec.mtu.map(|m| m.to_string())),
            ("mac", spec.mac.clone()),
        ] {
            if let Some(value) = value {
                params.push_str(&format!(",{key}={value}"));
            }
        }
        let index = self.create_interface(kind, params.trim_start_matches(','))?;
        if spec.name.is_some() {
            let rename = InterfaceChange {
                name: spec.name.clone(),
                ..InterfaceChange::default()
            };
            self.change_interface(index, &rename)
                .map_err(|error| about(&spec.name.clone().unwrap_or_default(), error))?;
        }
        Ok(index)
    }

    /// Brings an interface up and gives it the addresses and routes of a line.
    pub fn set_interface(&self, spec: &NetSpec, index: u32) -> io::Result<()> {
        self.set_up(index)?;
        for (address, prefix) in &spec.addresses {
            let added = match spec.kind {
                // There is nobody else.
                NetKind::Passt => self.add_own_address(index, *address, *prefix),
                _ => self.add_address(index, *address, *prefix),
            };
            added.map_err(|error| about(&format!("{address}/{prefix}"), error))?;
        }
        for gateway in &spec.gateways {
            self.add_route(None, Some(*gateway), index)
                .map_err(|error| about(&format!("gw={gateway}"), error))?;
        }
        Ok(())
    }

    fn set_up(&self, index: u32) -> io::Result<()> {
        let up = InterfaceChange {
            up: Some(true),
            ..InterfaceChange::default()
        };
        self.change_interface(index, &up)
    }

    /// Shows the kernel's programs what proc(5) tells of a network, `/proc/net` and `/proc/sys/net`.
    pub fn mount_proc(&self) -> io::Result<()> {
        let spec: MountSpec = "proc::/proc".parse().map_err(io::Error::other)?;
        self.mount(&spec)
    }

    /// Tells the resolver of the kernel's programs where to ask, `/etc/resolv.conf`, and the names that every host knows and these,
    /// `/etc/hosts`.
    pub fn configure_resolver(
        &self,
        servers: &[IpAddr],
        names: &[(IpAddr, String)],
    ) -> io::Result<()> {
        let first = |&(n, server): &(usize, &IpAddr)| !servers[..n].contains(server);
        let lines = servers.iter().enumerate().filter(first);
        let lines = lines.map(|(_, server)| format!("nameserver {server}\n"));
        self.create_dir_all("/etc")?;
        self.write("/etc/resolv.conf", lines.collect::<String>())?;
        let mut hosts =
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
        hosts.extend(names.iter().map(|(ip, name)| format!("{ip}\t{name}\n")));
        self.write("/etc/hosts", hosts)?;
        self.write(
            "/etc/nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files dns\n",
        )
    }
}

impl NetKind {
    /// The kind of interface and its parameters; `None` where none is made.
    fn driver(&self, passt: Option<&Path>) -> Option<(&'static str, String)> {
        let unix = |path: &Path| format!("unix={}", path.display());
        Some(match self {
            NetKind::Loop | NetKind::Host | NetKind::Sockin | NetKind::Link(_) => return None,
            NetKind::Passt => ("virt", unix(passt?)),
            NetKind::Tap(device) => ("virt", format!("tap={device}")),
            NetKind::Interface(name) => ("virt", format!("packet={name}")),
            NetKind::Socket { path, listen } => {
                let listen = if *listen { ",listen" } else { "" };
                ("virt", unix(path) + listen)
            }
            NetKind::Bus(file) => ("shmif", format!("bus={}", file.display())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> NetSpec {
        text.parse().expect(text)
    }

    #[test]
    fn a_network_is_said_in_one_line() {
        assert_eq!(spec("loop").kind, NetKind::Loop);
        assert_eq!(spec("passt").kind, NetKind::Passt);
        assert_eq!(spec("sockin").kind, NetKind::Sockin);
        let tap = spec(
            "tap:tap0,10.0.0.2/24,fd00::2/64,gw=10.0.0.1,gw=fd00::1,dns=9.9.9.9,mtu=9000,name=eth0",
        );
        assert_eq!(tap.kind, NetKind::Tap("tap0".into()));
        assert_eq!(
            tap.addresses,
            [
                ("10.0.0.2".parse().unwrap(), 24),
                ("fd00::2".parse().unwrap(), 64)
            ]
        );
        assert_eq!(tap.gateways.len(), 2);
        assert_eq!((tap.mtu, tap.name.as_deref()), (Some(9000), Some("eth0")));
        let bus = spec("bus:/tmp/bus,dhcp,pcap=/tmp/x.pcapng");
        assert_eq!(bus.kind, NetKind::Bus("/tmp/bus".into()));
        assert!(bus.dhcp && bus.pcap.is_some());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        for (bad, says) in [
            ("", "KIND"),
            ("wifi", "kinds are"),
            ("tap", "tap:DEVICE"),
            ("passt:x", "kinds are"),
            ("tap:t,10.0.0.2", "no such setting"),
            ("tap:t,10.0.0.2/33", "ADDRESS/PREFIX"),
            ("tap:t,224.0.0.1/8", "ADDRESS/PREFIX"),
            ("tap:t,10.0.0.2/24,10.0.0.2/16", "once is enough"),
            ("tap:t,name=", "letters and digits"),
            ("tap:t,name=eth/0", "letters and digits"),
            ("tap:t,name=sixteen-letters-", "letters and digits"),
            ("tap:t,gw=here", "is no address"),
            ("tap:t,gw=10.0.0.1,gw=10.0.0.2", "name one"),
            ("loop,10.0.0.2/24", "no interface"),
            ("tap:t,mtu=big", "number of bytes"),
            ("host,pcap=f", "to the host"),
            ("sockin,10.0.0.2/24", "no interface"),
            ("sockin,dns=9.9.9.9", "host's resolver"),
        ] {
            let error = bad.parse::<NetSpec>().expect_err(bad).to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}

//! The file that describes a lab: TOML, in which every interface is a line as `--net` takes it. What is wrong with it is told with the
//! file's name, the line and the way out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use rumpkit::npf::lang::Ruleset;
use rumpkit::{MountSpec, NetKind, NetSpec};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

/// The longest name of a lab or a kernel: it is part of a socket's path, which is short.
const NAME_MAX: usize = 24;
/// The longest name of an interface.
const INTERFACE_MAX: usize = 15;

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    name: Option<Spanned<String>>,
    #[serde(default)]
    kernel: BTreeMap<Spanned<String>, KernelTable>,
    #[serde(default)]
    link: BTreeMap<Spanned<String>, LinkTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelTable {
    #[serde(default)]
    net: BTreeMap<Spanned<String>, Spanned<Word<NetSpec>>>,
    #[serde(default)]
    forwarding: bool,
    firewall: Option<Spanned<Firewall>>,
    #[serde(default)]
    routes: Vec<Spanned<Word<Route>>>,
    #[serde(default)]
    sysctls: BTreeMap<String, Spanned<Scalar>>,
    #[serde(default)]
    mounts: Vec<Spanned<Word<MountSpec>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkTable {
    mtu: Option<u32>,
    pcap: Option<PathBuf>,
}

/// Something that is written as text.
struct Word<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Word<T>, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Word).map_err(de::Error::custom)
    }
}

/// Rules of a packet filter: a file of them, or the rules.
enum Firewall {
    File(PathBuf),
    Rules(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Firewall {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Firewall, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Firewall;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a file of rules, or a list of rules")
            }

            fn visit_str<E: de::Error>(self, file: &str) -> Result<Firewall, E> {
                Ok(Firewall::File(file.into()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Firewall, A::Error> {
                let mut rules = Vec::new();
                while let Some(rule) = list.next_element()? {
                    rules.push(rule);
                }
                Ok(Firewall::Rules(rules))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A variable's value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Int(i64),
    Bool(bool),
    Text(String),
}

/// `192.168.0.0/16 via 10.0.0.7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: (IpAddr, u8),
    pub(crate) via: IpAddr,
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Route, String> {
        let parse = || {
            let (to, via) = text.split_once(" via ")?;
            let (to, len) = to.trim().split_once('/')?;
            let (to, via): (IpAddr, IpAddr) = (to.parse().ok()?, via.trim().parse().ok()?);
            let len: u8 = len.parse().ok()?;
            let most = if to.is_ipv4() { 32 } else { 128 };
            (len <= most && to.is_ipv4() == via.is_ipv4()).then_some(Route { to: (to, len), via })
        };
        parse().ok_or_else(|| {
            format!(
                "\"{text}\" should be ADDRESS/PREFIX via ROUTER, as 192.168.0.0/16 via 10.0.0.7"
            )
        })
    }
}

/// A lab as it is to be.
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) kernels: Vec<Kernel>,
    /// By name.
    pub(crate) links: BTreeMap<String, Link>,
}

/// Something with the line where it stands.
pub(crate) struct At<T> {
    pub(crate) line: usize,
    pub(crate) what: T,
}

pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) interfaces: Vec<At<NetSpec>>,
    pub(crate) forwarding: bool,
    /// Rules that have been read without an error.
    pub(crate) firewall: Option<String>,
    pub(crate) routes: Vec<At<Route>>,
    pub(crate) sysctls: Vec<At<(String, String)>>,
    /// Outer directories before those in them.
    pub(crate) mounts: Vec<At<MountSpec>>,
}

#[derive(Default)]
pub(crate) struct Link {
    pub(crate) mtu: Option<u32>,
    pub(crate) pcap: Option<PathBuf>,
    /// How many interfaces are on it.
    pub(crate) ports: usize,
}

impl Lab {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Lab> {
        let text = std::fs::read_to_string(file).with_context(|| {
            format!(
                "{}: cannot be read; rump up --help shows a lab's file",
                file.display()
            )
        })?;
        Lab::parse(&text, file)
    }

    pub(crate) fn parse(text: &str, file: &Path) -> Result<Lab> {
        let reader = Reader { text, file };
        let tables: Tables = toml::from_str(text).map_err(|error| {
            let why = error.message().trim().replace('\n', "; ");
            reader.wrong(&error.span().unwrap_or_default(), why)
        })?;
        reader.lab(tables)
    }

    /// The kernels on a link, once for each interface there.
    pub(crate) fn owners<'a>(&'a self, link: &'a str) -> impl Iterator<Item = &'a str> {
        let on = move |i: &At<NetSpec>| matches!(&i.what.kind, NetKind::Link(l) if l == link);
        self.kernels.iter().flat_map(move |kernel| {
            let ports = kernel.interfaces.iter().filter(move |i| on(i));
            ports.map(|_| kernel.name.as_str())
        })
    }

    /// An error about something that stands in the file.
    pub(crate) fn wrong<T>(&self, at: &At<T>, why: impl fmt::Display) -> anyhow::Error {
        anyhow!("{}:{}: {why}", self.file.display(), at.line)
    }
}

struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
}

impl Reader<'_> {
    fn lab(&self, tables: Tables) -> Result<Lab> {
        let name = match tables.name {
            Some(name) => {
                self.check_name(&name)?;
                name.into_inner()
            }
            None => {
                let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
                let name = Spanned::new(0..0, stem.into_owned());
                self.check_name(&name)
                    .context("say another with name = \"...\"")?;
                name.into_inner()
            }
        };
        let mut links = BTreeMap::new();
        for (link, table) in &tables.link {
            self.check_name(link)?;
            let link_of = Link {
                mtu: table.mtu,
                pcap: table.pcap.as_ref().map(|file| self.beside(file)),
                ports: 0,
            };
            links.insert(link.get_ref().clone(), link_of);
        }
        let mut taken = BTreeMap::new();
        let mut kernels = Vec::new();
        for (name, table) in tables.kernel {
            kernels.push(self.kernel(&name, table, &mut links, &mut taken)?);
        }
        if kernels.is_empty() {
            let why = "describes no kernel; it should have [kernel.NAME] at least once";
            return Err(anyhow!("{}: {why}", self.file.display()));
        }
        for link in tables.link.keys() {
            if links.get(link.get_ref()).is_some_and(|l| l.ports == 0) {
                let name = link.get_ref();
                let why = format!(
                    "nobody is on the link {name}; put an interface there with net.eth0 = \"link:{name},...\""
                );
                return Err(self.wrong(&link.span(), why));
            }
        }
        Ok(Lab {
            name,
            file: self.file.to_owned(),
            kernels,
            links,
        })
    }

    fn kernel(
        &self,
        name: &Spanned<String>,
        table: KernelTable,
        links: &mut BTreeMap<String, Link>,
        taken: &mut BTreeMap<(String, IpAddr), String>,
    ) -> Result<Kernel> {
        self.check_name(name)?;
        let mut interfaces = Vec::new();
        for (interface, spec) in table.net {
            let at = self.at(spec, |word| word.0);
            let spec = self.interface(interface.get_ref(), at.what);
            let spec = spec.map_err(|why| self.wrong(&interface.span(), why))?;
            if let NetKind::Link(link) = &spec.kind {
                links.entry(link.clone()).or_default().ports += 1;
                for (address, _) in &spec.addresses {
                    match taken.entry((link.clone(), *address)) {
                        Entry::Vacant(free) => drop(free.insert(name.get_ref().clone())),
                        Entry::Occupied(owner) => {
                            let why = format!(
                                "{address} is {}'s on this link already; take another",
                                owner.get()
                            );
                            return Err(self.wrong(&interface.span(), why));
                        }
                    }
                }
            }
            interfaces.push(At {
                line: at.line,
                what: spec,
            });
        }
        let firewall = table
            .firewall
            .map(|rules| self.firewall(rules))
            .transpose()?;
        let mut mounts: Vec<At<MountSpec>> = Vec::new();
        for mount in table.mounts {
            let mut mount = self.at(mount, |word| word.0);
            mount.what.image = mount.what.image.map(|image| self.beside(&image));
            mounts.push(mount);
        }
        mounts.sort_by_key(|mount| mount.what.dir.components().count());
        let sysctls = table.sysctls.into_iter().map(|(name, value)| {
            self.at(value, |value| {
                let text = match value {
                    Scalar::Int(n) => n.to_string(),
                    Scalar::Bool(b) => u8::from(b).to_string(),
                    Scalar::Text(text) => text,
                };
                (name, text)
            })
        });
        Ok(Kernel {
            name: name.get_ref().clone(),
            interfaces,
            forwarding: table.forwarding,
            firewall,
            routes: table
                .routes
                .into_iter()
                .map(|r| self.at(r, |word| word.0))
                .collect(),
            sysctls: sysctls.collect(),
            mounts,
        })
    }

    /// An interface by the name that it has in the file.
    fn interface(&self, name: &str, mut spec: NetSpec) -> Result<NetSpec, String> {
        if spec.name.is_some() {
            return Err(format!("the interface is called {name}; leave name= out"));
        }
        let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if name.is_empty() || name.len() > INTERFACE_MAX || !name.chars().all(good) {
            return Err(format!(
                "\"{name}\" is no name of an interface; it has up to {INTERFACE_MAX} letters and digits, as eth0"
            ));
        }
        match &mut spec.kind {
            NetKind::Loop | NetKind::Host | NetKind::Sockin => {
                return Err("makes no interface: every kernel has lo, and the host's sockets are there without a kernel; take link:NAME, passt, tap:DEVICE, if:INTERFACE or bus:FILE".into());
            }
            NetKind::Bus(file) | NetKind::Socket { path: file, .. } => *file = self.beside(file),
            NetKind::Link(link) if spec.dhcp => {
                return Err(format!(
                    "asks for an address when nobody on {link} can answer yet; say ADDRESS/PREFIX instead of dhcp"
                ));
            }
            _ => {}
        }
        spec.name = Some(name.into());
        spec.pcap = spec.pcap.map(|file| self.beside(&file));
        Ok(spec)
    }

    /// The rules of a packet filter, which must be without an error.
    fn firewall(&self, rules: Spanned<Firewall>) -> Result<String> {
        let at = rules.span();
        match rules.into_inner() {
            Firewall::File(file) => {
                let file = self.beside(&file);
                let name = file.display();
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    self.wrong(&at, format!("{name}: the rules cannot be read: {error}"))
                })?;
                text.parse::<Ruleset>()
                    .map_err(|error| anyhow!("{name}:{error}"))?;
                Ok(text)
            }
            Firewall::Rules(rules) => {
                if let Some(rule) = rules.iter().find(|rule| rule.get_ref().contains('\n')) {
                    return Err(self.wrong(
                        &rule.span(),
                        "two rules in one text; write each as an item of the list",
                    ));
                }
                let lines: Vec<&str> = rules.iter().map(|rule| rule.get_ref().as_str()).collect();
                let text = lines.join("\n");
                text.parse::<Ruleset>().map_err(|error| {
                    let span = rules.get(error.line - 1).map_or(at, |rule| rule.span());
                    self.wrong(&span, error.message)
                })?;
                Ok(text)
            }
        }
    }

    /// A file that is named from where this file is.
    fn beside(&self, file: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(file)
    }

    fn check_name(&self, name: &Spanned<String>) -> Result<()> {
        let text = name.get_ref();
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(good) {
            let why =
                format!("\"{text}\" is no name; it has up to {NAME_MAX} letters, digits, - and _");
            return Err(self.wrong(&name.span(), why));
        }
        Ok(())
    }

    fn at<S, T>(&self, spanned: Spanned<S>, what: impl FnOnce(S) -> T) -> At<T> {
        At {
            line: self.line(&spanned.span()),
            what: what(spanned.into_inner()),
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|&&b| b == b'\n').count() + 1
    }

    fn wrong(&self, span: &Range<usize>, why: impl fmt::Display) -> anyhow::Error {
        anyhow!("{}:{}: {why}", self.file.display(), self.line(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Lab> {
        Lab::parse(text, Path::new("/labs/small.toml"))
    }

    #[test]
    fn a_lab_is_kernels_with_interfaces_on_links() {
        let lab = parse(
            "[link.lan]\npcap = \"lan.pcapng\"\n\n[kernel.a]\nforwarding = true\nnet.eth0 = \"link:lan,10.0.0.1/24\"\n\
             net.eth1 = \"bus:b\"\n\n[kernel.b]\nroutes = [\"10.9.0.0/16 via 10.0.0.1\"]\nnet.eth0 = \"link:lan,10.0.0.2/24,gw=10.0.0.1\"\n\
             sysctls = { \"net.ipv4.ip_default_ttl\" = 3 }\nmounts = [\"ext4:d.img:/d/e\", \"tmpfs::/d\"]\nfirewall = [\"pass out\", \"block in\"]\n",
        )
        .expect("good");
        assert_eq!(lab.name, "small");
        assert_eq!(lab.links["lan"].ports, 2);
        assert_eq!(
            lab.links["lan"].pcap.as_deref(),
            Some(Path::new("/labs/lan.pcapng"))
        );
        let [a, b] = &lab.kernels[..] else {
            panic!("two kernels")
        };
        assert!(a.forwarding && !b.forwarding);
        assert_eq!(a.interfaces[1].what.kind, NetKind::Bus("/labs/b".into()));
        assert_eq!((a.interfaces[1].line, b.routes[0].line), (7, 10));
        assert_eq!(b.sysctls[0].what.1, "3");
        assert_eq!(b.firewall.as_deref(), Some("pass out\nblock in"));
        assert_eq!(b.mounts[0].what.dir, Path::new("/d"));
        assert_eq!(
            b.mounts[1].what.image.as_deref(),
            Some(Path::new("/labs/d.img"))
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_way_out() {
        for (text, line, says) in [
            (
                "[kernel.a]\nnets.eth0 = \"link:x\"\n",
                ":2: ",
                "unknown field `nets`",
            ),
            ("[kernel.a]\n\nnet.eth0 = \"wire:x\"\n", ":3: ", "kinds are"),
            (
                "[kernel.a]\nnet.eth0 = \"link:x,10.0.0.1/24,name=e\"\n",
                ":2: ",
                "leave name= out",
            ),
            (
                "[kernel.a]\nnet.a-name-that-is-long = \"link:x\"\n",
                ":2: ",
                "no name of an interface",
            ),
            (
                "[kernel.a]\nnet.eth0 = \"link:x,dhcp\"\n",
                ":2: ",
                "instead of dhcp",
            ),
            (
                "[kernel.a]\nnet.eth0 = \"host\"\n",
                ":2: ",
                "take link:NAME",
            ),
            (
                "[kernel.a]\nfirewall = [\n\"pass out\",\n\"blok in\",\n]\n",
                ":4: ",
                "a line begins with pass, block",
            ),
            (
                "[kernel.a]\nfirewall = [\"pass\\nblock\"]\n",
                ":2: ",
                "as an item of the list",
            ),
            (
                "[kernel.a]\nfirewall = \"no-such.npf\"\n",
                ":2: ",
                "/labs/no-such.npf: the rules cannot be read",
            ),
            ("[kernel.a]\nfirewall = 7\n", ":2: ", "or a list of rules"),
            ("[kernel.\"a/b\"]\n", ":1: ", "is no name"),
            ("[link.x]\n[kernel.a]\n", ":1: ", "nobody is on the link x"),
            (
                "[kernel.a]\nroutes = [\"10.0.0.0/8\"]\n",
                ":2: ",
                "via ROUTER",
            ),
            (
                "[kernel.a]\nmounts = [\"disk.img\"]\n",
                ":2: ",
                "TYPE:IMAGE:DIR",
            ),
            ("[kernel.a]\nforwarding = 1\n", ":2: ", "boolean"),
            ("kernel = 3", ":1: ", "invalid type"),
            ("[kernel.a", ":1: ", "table"),
            ("", ": ", "[kernel.NAME]"),
            (
                "[kernel.a]\nnet.e = \"link:x,10.0.0.1/24\"\n[kernel.b]\nnet.e = \"link:x,10.0.0.1/8\"\n",
                ":4: ",
                "is a's on this link already",
            ),
        ] {
            let error = parse(text)
                .err()
                .unwrap_or_else(|| panic!("{text}: is taken"));
            let error = format!("{error:#}");
            assert!(
                error.contains(&format!("/labs/small.toml{line}")),
                "{text}: {error}"
            );
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}

//! What the command is given: words and options, with the help that stands for a manual page.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use rumpkit::{MountSpec, NetKind, NetSpec};

const EXIT_STATUS: &str = "\
Exit status of run, trace and exec:
  that of the program; 128+N when signal N ended it
  125  rump itself failed: the kernel does not boot, an image cannot be mounted
  126  the program cannot be run on a kernel (it is static, setuid, or no program)
  127  there is no such program
Of the other words: 0 when done, 125 on failure, 2 on wrong usage.";

const EXAMPLES: &str = "\
Examples:
  rump run --mount ext4:disk.img:/data -- ls -l /rump/data
  rump run --net passt -- curl https://example.org/
  rump run --tmpfs /scratch:size=64m -- sh -c 'echo hello > /rump/scratch/f; cat /rump/scratch/f'
  rump server unix:///tmp/k && rump exec unix:///tmp/k -- ls /rump; rump halt unix:///tmp/k";

/// An operating-system kernel in an ordinary process: run programs on it, serve it, look into it
///
/// A rump kernel is the file systems and the network of a kernel as a library. `rump run` boots one, runs an unmodified program on it,
/// and leaves when the program ends. The program sees the kernel's files under /rump and the host's everywhere else. No root, no virtual
/// machine, no kernel module.
#[derive(Parser)]
#[command(name = "rump", version, after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
#[command(disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) word: Word,
}

#[derive(Subcommand)]
pub(crate) enum Word {
    Run(Run),
    Trace(Trace),
    Exec(Exec),
    Server(Server),
    Halt(Halt),
    Sysctl(Sysctl),
    Dmesg(Dmesg),
    Mount(Mount),
    Umount(Umount),
    Df(Df),
    Ifconfig(Ifconfig),
    Route(Route),
    Arp(Neighbours),
    Ndp(Neighbours),
    Netstat(Netstat),
    #[command(visible_alias = "npf")]
    Firewall(Firewall),
    Ping(Ping),
    Tcpdump(Tcpdump),
    Up(Up),
    Ps(Ps),
    Down(Down),
    /// Looks after the programs of a run
    #[command(name = crate::guard::WORD, hide = true)]
    Guard {
        url: String,
    },
}

/// Boot a kernel and run a program on it
///
/// The kernel lives in this process and goes with the program: when it has ended, programs that it left behind get SIGTERM, two seconds
/// later SIGKILL; then everything is written to the images and they are unmounted, clean. Signals to rump are passed on to the program.
///
/// The program must be dynamically linked and not setuid; so must what it starts. Other programs are refused with a message.
#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) kernel: KernelOptions,

    #[command(flatten)]
    pub(crate) mounts: Mounts,

    #[command(flatten)]
    pub(crate) network: Network,

    /// At the end, say what the shim did in each program: system calls rewritten, and those it could not
    #[arg(long)]
    pub(crate) explain: bool,

    #[command(flatten)]
    pub(crate) program: Program,
}

/// Run a program as `rump run` does and show the system calls that its kernel serves
///
/// One line a call, as strace(1) prints them, on the standard error output or in a file: process, call, arguments, result. Calls that the
/// host serves are not shown.
#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Trace {
    /// Write the trace to a file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) run: Run,
}

/// Run a program on a kernel that is served
///
/// Becomes the program. Several programs may run on one kernel; each is a process of it.
#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) url: Url,

    #[command(flatten)]
    pub(crate) program: Program,
}

/// Boot a kernel and serve it at a URL
///
/// The URL is unix://PATH or tcp://ADDRESS:PORT. Anybody who can connect is root of the kernel: keep the socket in a directory of yours.
/// The command returns when the kernel serves and goes on in the background, unless -s is given. SIGTERM and SIGINT halt it in order.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rump server unix:///tmp/k
  rump server -d key=/dev/disk,hostpath=disk.img,size=host unix:///tmp/k
  rump server -s -v --mount ext4:disk.img:/data tcp://127.0.0.1:7000")]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) kernel: KernelOptions,

    #[command(flatten)]
    pub(crate) mounts: Mounts,

    #[command(flatten)]
    pub(crate) network: Network,

    /// Make a host file appear in the kernel: key=PATH,hostpath=FILE,size=BYTES|host, if wanted with
    /// offset=BYTES and type=blk|chr|reg
    ///
    /// With size=host all of it (after the offset); of type reg the size may be left out. A file that is missing or too short for a size in
    /// bytes is made or extended. The type is blk where none is given.
    #[arg(short = 'd', value_name = "DRIVE")]
    pub(crate) drives: Vec<String>,

    /// A component library to load: a module that starts with the kernel, whatever the order they are given in
    ///
    /// A path, or a name that is looked for in $RUMP_MODULEBASE as LIB, LIB.so and libLIB.so.
    #[arg(short = 'l', value_name = "LIB")]
    pub(crate) libraries: Vec<String>,

    /// A kernel module to load when the kernel has booted, found as with -l
    ///
    /// What a module requires is loaded before it when $RUMP_MODULEBASE has it. A module that was built for another version is refused.
    #[arg(short = 'm', value_name = "MODULE")]
    pub(crate) modules: Vec<String>,

    /// Stay in the foreground
    #[arg(short = 's')]
    pub(crate) foreground: bool,

    /// Where to serve
    #[arg(value_name = "URL")]
    pub(crate) url: String,
}

/// Halt a served kernel: sync, unmount, end
#[derive(Args)]
pub(crate) struct Halt {
    #[command(flatten)]
    pub(crate) url: Url,
}

/// Show or set a kernel's variables
#[derive(Args)]
pub(crate) struct Sysctl {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// A variable, such as kern.hostname, to show, or with a value to set; all of them where none is given
    #[arg(value_name = "NAME[=VALUE]")]
    pub(crate) variables: Vec<String>,
}

/// Show a kernel's message buffer
#[derive(Args)]
pub(crate) struct Dmesg {
    #[command(flatten)]
    pub(crate) server: ServerOption,
}

/// Mount a file system in a served kernel, or show what is mounted
///
/// The image is a file of the host that the kernel's process can reach.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rump mount ext4:disk.img:/data
  rump mount tmpfs::/scratch:size=64m
  rump mount")]
pub(crate) struct Mount {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// What to mount where; without it, what is mounted is shown
    #[arg(value_name = "TYPE:IMAGE:DIR[:OPTIONS]")]
    pub(crate) spec: Option<MountSpec>,
}

/// Unmount a file system of a served kernel; its image is clean then
#[derive(Args)]
pub(crate) struct Umount {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Where it is mounted
    pub(crate) dir: PathBuf,
}

/// Show the space of a kernel's file systems
#[derive(Args)]
pub(crate) struct Df {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show and set a kernel's network interfaces
///
/// Without words all are shown. After an interface's name come, in any order: create [PARAMETER=VALUE,...], destroy, up, down, mtu N,
/// mac ADDRESS, name NAME, master BRIDGE, nomaster, ADDRESS/PREFIX, ADDRESS/PREFIX delete.
#[derive(Args)]
#[command(after_help = "\
Examples:
  rump ifconfig
  rump ifconfig virt0 create tap=tap7 10.0.0.2/24 up
  rump ifconfig shmif create bus=/tmp/bus 10.1.1.1/24 up
  rump ifconfig virt0 10.0.0.2/24 delete")]
pub(crate) struct Ifconfig {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// The interface, and what shall be done to it
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

/// Show and set a kernel's routes
#[derive(Args)]
#[command(after_help = "\
Examples:
  rump route
  rump route add default 10.0.0.1
  rump route add 192.168.0.0/16 10.0.0.7 dev virt0
  rump route delete default")]
pub(crate) struct Route {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Show those to the kernel's own addresses too
    #[arg(short, long)]
    pub(crate) all: bool,

    #[arg(
        value_name = "WORD",
        help = "show, add DESTINATION [GATEWAY] [dev INTERFACE], or delete DESTINATION [GATEWAY] [dev INTERFACE]"
    )]
    pub(crate) words: Vec<String>,
}

/// Show and set the link-layer addresses of a kernel's neighbours
#[derive(Args)]
pub(crate) struct Neighbours {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// show, add ADDRESS MAC dev INTERFACE, or delete ADDRESS dev INTERFACE
    #[arg(value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

/// Show a kernel's sockets
#[derive(Args)]
pub(crate) struct Netstat {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Only those that listen
    #[arg(short, long)]
    pub(crate) listening: bool,
}

/// Show and set a kernel's packet filter
///
/// show has the rules with what they have counted, states the connections that are known; load replaces all rules by those of a file, or
/// none of them if there is a mistake, and keeps the connections; flush forgets the connections. A file without rules ends the filter.
#[derive(Args)]
#[command(after_help = "\
Example of a file:
  table friends { 192.0.2.0/24, 2001:db8::/32 }
  rdr on eth0 proto tcp to (eth0) port 8080 -> 10.0.0.2 port 80
  nat on eth0 from 10.0.0.0/24 -> (eth0)
  pass forward on eth1 via eth0
  pass forward on eth0 proto tcp to 10.0.0.2 port 80
  pass in on eth0 proto tcp from <friends> to port 22
  reject in log on eth0
  block forward

The first rule that fits decides; what none fits passes; answers pass by their connection's state. Connections outlive the rules that let
them in: states lists them, flush forgets all of them, or those that clauses mean.
docs/network.md has the whole language.")]
pub(crate) struct Firewall {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[arg(
        value_name = "WORD",
        help = "show, states, load FILE (- is the standard input), or flush [CLAUSES], as flush proto tcp to port 22"
    )]
    pub(crate) words: Vec<String>,
}

/// Send echo requests from a kernel
#[derive(Args)]
pub(crate) struct Ping {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// How many
    #[arg(short, long, default_value_t = 4)]
    pub(crate) count: u32,

    /// Seconds between two
    #[arg(short, long, default_value_t = 1.0)]
    pub(crate) interval: f64,

    /// Seconds to wait for an answer
    #[arg(short = 'W', long, default_value_t = 2.0)]
    pub(crate) timeout: f64,

    /// Bytes of data in each
    #[arg(short = 'S', long, default_value_t = 56)]
    pub(crate) size: usize,

    /// Whom to ask: an address, or a name that the kernel's /etc/hosts or name servers know
    pub(crate) address: String,
}

/// Watch a kernel's interfaces with the host's tcpdump(8), which runs on the kernel
#[derive(Args)]
#[command(after_help = "Example:  rump tcpdump -- -n -i virt0 icmp")]
pub(crate) struct Tcpdump {
    #[command(flatten)]
    pub(crate) server: ServerOption,

    /// What tcpdump takes
    #[arg(value_name = "ARG", last = true)]
    pub(crate) words: Vec<OsString>,
}

/// Start a lab: kernels with links between them, as a file describes them
///
/// Every kernel of the file is booted and served, all of them in one process in the background. `rump exec KERNEL -- PROG` runs a program
/// on one of them, and KERNEL does wherever a URL is wanted. In each kernel the others are known by name.
#[derive(Args)]
#[command(after_help = "\
Example of a file:
  [kernel.alice]
  net.eth0 = \"link:lan,10.0.0.1/24,fd00::1/64\"
  [kernel.bob]
  net.eth0 = \"link:lan,10.0.0.2/24,fd00::2/64\"
  net.eth1 = \"passt\"

What net takes is what rump run --net takes, and link:NAME. A kernel further has
  forwarding = true        it is a router
  firewall = \"rules.npf\"   a file of rules, or the rules: firewall = [\"pass out\", \"block in\"]
  routes = [\"10.9.0.0/16 via 10.0.0.7\"]
  mounts = [\"ext4:disk.img:/data\", \"tmpfs::/scratch\"]
  sysctls = { \"net.ipv4.ip_default_ttl\" = 32 }
and a link, if wanted, [link.lan] with pcap = \"lan.pcapng\" and mtu = 9000.")]
pub(crate) struct Up {
    /// Stay in the foreground
    #[arg(short = 's')]
    pub(crate) foreground: bool,

    /// The file that describes the lab
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Show the labs that run, and their kernels
#[derive(Args)]
pub(crate) struct Ps {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// End a lab: its programs, then its kernels, in order
#[derive(Args)]
pub(crate) struct Down {
    /// The lab; may be left out when one runs
    #[arg(value_name = "LAB")]
    pub(crate) lab: Option<String>,
}

/// Settings of a kernel that is booted here.
#[derive(Args)]
pub(crate) struct KernelOptions {
    /// Virtual CPUs: a number, or "host"; default $RUMP_NCPU, else the host's count
    #[arg(short = 'c', value_name = "NCPU")]
    pub(crate) ncpu: Option<String>,

    /// Memory that the kernel's caches may take, as 64m (k, m, g); default $RUMP_MEMLIMIT, else no limit
    #[arg(short = 'r', value_name = "MEMLIMIT")]
    pub(crate) memlimit: Option<String>,

    /// Show the kernel's messages
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// What is mounted before the program starts or the kernel is served.
#[derive(Args)]
pub(crate) struct Mounts {
    /// Mount a disk image, such as ext4:disk.img:/data or ext4:disk.img:/data:ro
    ///
    /// DIR is a directory of the kernel's, made when it is missing, which the program sees under /rump. An image that another kernel
    /// has mounted is refused, unless both mount it read-only (ro). Types: ext2, ext3, ext4.
    #[arg(long = "mount", value_name = "TYPE:IMAGE:DIR[:OPTIONS]")]
    pub(crate) mount: Vec<MountSpec>,

    /// Mount a file system in memory, such as /scratch or /scratch:size=64m
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = MountSpec::tmpfs)]
    pub(crate) tmpfs: Vec<MountSpec>,
}

impl Mounts {
    /// All of them, outer directories before those in them.
    pub(crate) fn in_order(&self) -> Vec<&MountSpec> {
        let mut all: Vec<&MountSpec> = self.mount.iter().chain(&self.tmpfs).collect();
        all.sort_by_key(|spec| spec.dir.components().count());
        all
    }
}

/// The kernel's network.
#[derive(Args)]
pub(crate) struct Network {
    /// Give the kernel a network, which the program's sockets are on then; may be said more than once
    ///
    /// loop: the loopback interface alone. passt: the outside world, without root, by passt(1). tap:DEVICE: a tap device of the host.
    /// if:INTERFACE: an interface of the host, by packet sockets. socket:PATH, listen:PATH: QEMU's network protocol over a Unix socket.
    /// bus:FILE: the bus that all kernels with this file share. sockin: the host's network behind the kernel's descriptors, alone.
    /// host: the host's own sockets, as without --net.
    /// pcap=FILE has every packet of the interface in a file that Wireshark reads; dhcp asks for address, router and name servers.
    /// Settings, with commas between: ADDRESS/PREFIX, gw=ADDRESS, dns=ADDRESS, dhcp, mtu=N, mac=ADDRESS, name=NAME, pcap=FILE.
    #[arg(long = "net", value_name = "KIND[:WHERE][,SETTING]...")]
    pub(crate) net: Vec<NetSpec>,

    /// Load rules into the kernel's packet filter before its interfaces are there; rump firewall --help shows a file
    #[arg(long, value_name = "FILE")]
    pub(crate) firewall: Option<PathBuf>,
}

impl Network {
    /// Whether the kernel's network is the host's sockets, and so no other.
    pub(crate) fn sockin(&self) -> Result<bool> {
        let sockin = self.net.iter().any(|spec| spec.kind == NetKind::Sockin);
        if sockin && self.net.len() > 1 {
            bail!(
                "--net sockin: is the kernel's only network; leave the others out, or take them without it"
            );
        }
        Ok(sockin)
    }
}

/// The program to run.
#[derive(Args)]
pub(crate) struct Program {
    /// The program and its arguments
    #[arg(value_name = "PROG", last = true, required = true, num_args = 1..)]
    pub(crate) words: Vec<OsString>,
}

/// The kernel, as a word of its own.
#[derive(Args)]
pub(crate) struct Url {
    /// The kernel: unix://PATH, tcp://ADDRESS:PORT, or its name in a lab
    #[arg(value_name = "URL", env = "RUMP_SERVER")]
    pub(crate) url: String,
}

/// The kernel, as an option.
#[derive(Args)]
pub(crate) struct ServerOption {
    /// The kernel: unix://PATH, tcp://ADDRESS:PORT, or its name in a lab
    #[arg(short = 's', long = "server", value_name = "URL", env = "RUMP_SERVER")]
    pub(crate) url: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mount_inside_a_mount_comes_after_it() {
        let cli = Cli::parse_from([
            "rump",
            "run",
            "--mount",
            "ext4:a:/data/inner",
            "--tmpfs",
            "/data",
            "--",
            "true",
        ]);
        let Word::Run(run) = cli.word else {
            panic!("run is run");
        };
        let dirs: Vec<_> = run
            .mounts
            .in_order()
            .iter()
            .map(|m| m.dir.clone())
            .collect();
        assert_eq!(dirs, [PathBuf::from("/data"), PathBuf::from("/data/inner")]);
    }
}

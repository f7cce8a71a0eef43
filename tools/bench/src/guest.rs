//! A Linux kernel with sch_netem in a virtual machine, to compare with where the host's kernel has none: a Debian kernel under QEMU, and
//! this program as its first process.
//!
//! QEMU counts instructions, one a nanosecond, and skips the time in which nothing happens. So the guest's time is virtual as that of
//! a simulated host is: neither the machine nor what else it does shows in a figure, and no /dev/kvm is needed.
//!
//! Each connection has a link of its own: a pair of veth interfaces between the first network namespace and one of a thread's, with a
//! netem on both. Packets are not joined (GSO is off), for netem would lose and delay them together.
//!
//! Unsafe code: a thread that goes to a network namespace of its own.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};

use crate::children;
use crate::figure::Samples;
use crate::goodput::{CHUNK, RATE, SETTINGS, Setting, mbit};
use crate::initramfs::Initramfs;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
const TC: &str = "/usr/sbin/tc";
const IP: &str = "/usr/sbin/ip";
const MODPROBE: &str = "/usr/sbin/modprobe";
const MODULES: [&str; 2] = ["sch_netem", "veth"];
/// Where this program is in the guest, and the modules that it loads, one a line.
const INIT: &str = "/init";
const MODULE_LIST: &str = "/modules";
/// The file is compressed, and the kernel shall see to that (finit_module(2)).
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;
const PORT: u16 = 5001;

/// A kernel that can be started.
pub(crate) struct Guest {
    image: PathBuf,
    /// Of its modules.
    version: String,
}

/// The newest kernel in /boot that has netem. Where none can be started, says why and what to do.
pub(crate) fn find() -> Option<Guest> {
    let found = look();
    if let Err(error) = &found {
        eprintln!(
            "rump-bench: goodput: no Linux to compare with: {error}; \
             apt-get install --no-install-recommends qemu-system-x86 linux-image-cloud-amd64"
        );
    }
    found.ok()
}

fn look() -> Result<Guest> {
    for program in [QEMU, TC, IP, MODPROBE] {
        if !Path::new(program).exists() {
            bail!("there is no {program}");
        }
    }
    let mut versions: Vec<_> = fs::read_dir("/lib/modules")
        .context("/lib/modules")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|version| {
            let image = PathBuf::from(format!("/boot/vmlinuz-{version}"));
            let written = image.metadata().ok()?.modified().ok()?;
            Some((written, Guest { image, version }))
        })
        .filter(|(_, guest)| guest.modules().is_ok())
        .collect();
    versions.sort_by_key(|(written, _)| *written);
    let (_, newest) = versions.pop().context("no kernel in /boot has sch_netem")?;
    Ok(newest)
}

impl Guest {
    /// The files of the modules, each after those that it needs.
    fn modules(&self) -> Result<Vec<PathBuf>> {
        let mut command = Command::new(MODPROBE);
        command.args(["--show-depends", "--all", "--set-version", &self.version]);
        let printed = children::finished(command.args(MODULES))?;
        let path = |line: &str| line.strip_prefix("insmod ").map(|p| p.trim().into());
        Ok(printed.lines().filter_map(path).collect())
    }

    /// What each setting gives.
    pub(crate) fn measure(&self, settings: &[&Setting]) -> Result<Vec<Option<Samples>>> {
        let dir = tempfile::tempdir()?;
        let files = dir.path().join("initramfs");
        self.initramfs()?.write(&files)?;
        let names: Vec<&str> = settings.iter().map(|s| s.name).collect();
        let command_line = format!(
            "console=ttyS0 quiet panic=-1 edd=off nokaslr mitigations=off rdinit={INIT} -- --child guest {}",
            names.join(" ")
        );
        let mut qemu = Command::new(QEMU);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio"])
            .args(["-accel", "tcg", "-icount", "shift=0,sleep=off"])
            .args(["-cpu", "qemu64", "-m", "2048"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&files)
            .args(["-append", &command_line]);
        let printed = children::finished(&mut qemu)?;
        let samples = |name: &&str| -> Vec<f64> {
            let value = |line: &str| line.strip_prefix(*name)?.trim().parse().ok();
            printed.lines().filter_map(value).collect()
        };
        let results: Vec<_> = names.iter().map(samples).collect();
        if results.iter().any(Vec::is_empty) {
            bail!("the guest measured too little; it said:\n{printed}");
        }
        Ok(results.into_iter().map(|r| Some(Samples(r))).collect())
    }

    /// This program, the two that set links, the modules, and the libraries of all.
    fn initramfs(&self) -> Result<Initramfs> {
        let mut files = Initramfs::default();
        let this = std::env::current_exe()?;
        files.add(INIT, &this)?;
        for program in [&this, Path::new(IP), Path::new(TC)] {
            for library in libraries(program)? {
                files.add(&library, Path::new(&library))?;
            }
        }
        files.add(IP, Path::new(IP))?;
        files.add(TC, Path::new(TC))?;
        let modules = self.modules()?;
        let mut list = String::new();
        for module in &modules {
            let name = module.to_str().context("a module's name")?;
            files.add(name, module)?;
            list.push_str(name);
            list.push('\n');
        }
        files.put(MODULE_LIST, list.into_bytes());
        for directory in ["/proc", "/dev", "/run"] {
            files.directory(directory);
        }
        Ok(files)
    }
}

/// What the loader maps for a program, itself among it.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let printed = children::finished(Command::new("ldd").arg(program))?;
    let path = |word: &&str| word.starts_with('/');
    let path = |line: &str| line.split_whitespace().find(path).map(str::to_owned);
    Ok(printed.lines().filter_map(path).collect())
}

/// The guest's first process: measures, prints a line for each connection, and ends the machine.
pub(crate) fn child(names: &[&str]) -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is for the first process of a virtual machine");
    }
    if let Err(error) = measure_all(names) {
        println!("{error:#}");
    }
    Ok(reboot(RebootCommand::PowerOff).or_else(|_| reboot(RebootCommand::Restart))?)
}

fn measure_all(names: &[&str]) -> Result<()> {
    let nothing = MountFlags::empty();
    mount("dev", "/dev", "devtmpfs", nothing, None)?;
    mount("proc", "/proc", "proc", nothing, None)?;
    for module in fs::read_to_string(MODULE_LIST)?.lines() {
        let compressed = !module.ends_with(".ko");
        let flags = i32::from(compressed) * MODULE_INIT_COMPRESSED_FILE;
        finit_module(File::open(module)?, c"", flags).with_context(|| module.to_owned())?;
    }
    // Packets that a timer lets go on all at once are not to be lost after the link.
    fs::write("/proc/sys/net/core/netdev_max_backlog", "100000")?;
    for setting in SETTINGS.iter().filter(|s| names.contains(&s.name)) {
        for bytes in measure(setting)? {
            println!("{} {}", setting.name, mbit(bytes, setting.seconds));
        }
    }
    Ok(())
}

/// The bytes that come through on each connection; all of them run at the same time.
fn measure(setting: &Setting) -> Result<Vec<u64>> {
    let time = Duration::from_secs(setting.seconds);
    let netem = &netem(setting);
    thread::scope(|scope| {
        let pairs: Vec<_> = (0..setting.runs)
            .map(|run| scope.spawn(move || Link { run, netem }.carry(time)))
            .collect();
        pairs.into_iter().map(joined).collect()
    })
}

/// The words of tc(8) for a link.
fn netem(setting: &Setting) -> String {
    let percent = |per_mille: u32| f64::from(per_mille) / 10.0;
    let mut words = format!("netem limit 1000000 rate {RATE} delay {}ms", setting.delay);
    for (word, chance) in [
        ("loss", setting.loss),
        ("duplicate", setting.duplicate),
        ("reorder", setting.early),
    ] {
        if chance > 0 {
            words.push_str(&format!(" {word} {}%", percent(chance)));
        }
    }
    words
}

/// A link by its number, from this network namespace into another one.
struct Link<'a> {
    run: u64,
    netem: &'a str,
}

impl Link<'_> {
    /// Makes it, and answers the bytes that a connection brings over it in this time.
    fn carry(&self, time: Duration) -> Result<u64> {
        let run = self.run;
        let (tell, told) = channel();
        let (plug, plugged) = channel();
        let (listen, listening) = channel();
        thread::scope(|scope| {
            let far = scope.spawn(move || -> Result<u64> {
                own_namespace()?;
                tell.send(gettid())?;
                plugged.recv()?;
                self.set("b", 2)?;
                let listener = TcpListener::bind(("0.0.0.0", PORT))?;
                listen.send(())?;
                let received = receive(&listener, time)?;
                // The namespace, and so the link, is there until the sender has heard of the end.
                let _ = plugged.recv();
                Ok(received)
            });
            let near = || -> Result<()> {
                let namespace = told.recv()?.as_raw_nonzero();
                ip(&format!(
                    "link add a{run} type veth peer name b{run} netns {namespace}"
                ))?;
                self.set("a", 1)?;
                plug.send(())?;
                listening.recv()?;
                send(&format!("10.{run}.0.2:{PORT}"))?;
                ip(&format!("link del a{run}"))
            };
            let sent = near();
            drop(plug);
            let received = joined(far)?;
            sent.map(|()| received)
        })
    }

    /// Sets one end of it, in the namespace where that is.
    fn set(&self, end: &str, host: u8) -> Result<()> {
        let run = self.run;
        ip(&format!("addr add 10.{run}.0.{host}/24 dev {end}{run}"))?;
        ip(&format!("link set {end}{run} gso_max_segs 1 up"))?;
        let netem = self.netem;
        command(TC, &format!("qdisc add dev {end}{run} root {netem}"))
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
}

/// This thread, and what it starts, goes to a network namespace of its own.
fn own_namespace() -> Result<()> {
    // SAFETY: descriptors and directories stay shared with the other threads; no memory is touched.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

fn ip(words: &str) -> Result<()> {
    command(IP, words)
}

fn command(program: &str, words: &str) -> Result<()> {
    children::finished(Command::new(program).args(words.split(' '))).map(drop)
}

/// Reads what one connection brings until its time is over, then resets it.
fn receive(listener: &TcpListener, time: Duration) -> io::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    let end = Instant::now() + time;
    let mut buf = vec![0; CHUNK];
    let mut got = 0;
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 || Instant::now() > end {
            return Ok(got);
        }
        got += n as u64;
    }
}

/// Writes until the other end wants no more.
fn send(to: &str) -> Result<()> {
    let mut stream = TcpStream::connect(to).with_context(|| to.to_owned())?;
    let data = vec![7; CHUNK];
    while stream.write_all(&data).is_ok() {}
    Ok(())
}

//! What one TCP connection carries over a bad link: two kernels on a simulated host, and beside them a Linux kernel in a virtual machine
//! (see [`crate::guest`]) with its netem on the link, set the same. Both with CUBIC and everything else as it is by default.
//!
//! The time of both is virtual, so that figures are the same on every machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Syscalls;
use anyhow::{Context, Result, anyhow};
use hypercall::{Clock, Host, Nanos};
use kern::{Kernel, LwpHandle};
use rumpkit::sim::{self, LinkConfig, World};
use rumpkit::{InterfaceChange, Process};

use crate::figure::{Output, Samples, Target};
use crate::guest;
use crate::links::{AF_INET, SOCK_STREAM, address, errno};
use crate::measure::Effort;

const MS: u64 = 1_000_000;
/// What goes through either way, in bits a second.
pub(crate) const RATE: u64 = 1_000_000_000;
/// Bytes a write and a read.
pub(crate) const CHUNK: usize = 64 << 10;

/// A link, the same each way. Chances are in thousandths.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// How long a packet takes, in ms.
    pub(crate) delay: u64,
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    /// Packets that take no time at all and overtake those that do.
    pub(crate) early: u32,
    /// Connections that are measured, each on a link of its own.
    pub(crate) runs: u64,
    /// For how long, in seconds. What is fast is short: a virtual machine takes its time for each packet.
    pub(crate) seconds: u64,
}

const PLAIN: Setting = Setting {
    name: "",
    delay: 50,
    loss: 0,
    duplicate: 0,
    early: 0,
    runs: 16,
    seconds: 15,
};

pub(crate) const SETTINGS: [Setting; 6] = [
    Setting {
        name: "goodput.loss_5_mbit",
        loss: 50,
        ..PLAIN
    },
    Setting {
        name: "goodput.loss_1_mbit",
        loss: 10,
        ..PLAIN
    },
    Setting {
        name: "goodput.loss_01_mbit",
        loss: 1,
        ..PLAIN
    },
    Setting {
        name: "goodput.clean_mbit",
        runs: 1,
        seconds: 5,
        ..PLAIN
    },
    Setting {
        name: "goodput.reorder_10_mbit",
        early: 100,
        runs: 4,
        ..PLAIN
    },
    Setting {
        name: "goodput.duplicate_1_mbit",
        duplicate: 10,
        runs: 1,
        seconds: 5,
        ..PLAIN
    },
];

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let wanted = SETTINGS.iter().filter(|setting| output.wants(setting.name));
    let wanted: Vec<&Setting> = wanted.collect();
    let linux = match effort.pick(guest::find(), None) {
        Some(guest) => guest.measure(&wanted)?,
        None => vec![None; wanted.len()],
    };
    for (setting, linux) in wanted.iter().zip(linux) {
        let (runs, seconds) = effort.pick((setting.runs, setting.seconds), (1, 2));
        let ours = (0..runs).map(|seed| ours(setting, seed, seconds));
        let ours = Samples(ours.collect::<Result<_>>()?);
        output.samples(
            setting.name,
            &ours,
            linux.as_ref(),
            Target::LeastOfHost(1.0),
        );
    }
    Ok(())
}

/// Mbit/s of one connection between two kernels on a simulated host.
fn ours(setting: &Setting, seed: u64, seconds: u64) -> Result<f64> {
    let link = LinkConfig {
        delay: if setting.early == 0 {
            setting.delay * MS
        } else {
            0
        },
        drop: setting.loss,
        duplicate: setting.duplicate,
        reorder: if setting.early == 0 {
            0
        } else {
            1000 - setting.early
        },
        reorder_by: setting.delay * MS,
        bandwidth: RATE,
        queue: u64::MAX,
        ..LinkConfig::default()
    };
    let run = sim::run(seed, move |world| between(world, link, seconds));
    let bytes = run.result.map_err(|failure| anyhow!("{failure:?}"))??;
    Ok(mbit(bytes, seconds))
}

pub(crate) fn mbit(bytes: u64, seconds: u64) -> f64 {
    bytes as f64 * 8.0 / seconds as f64 / 1e6
}

/// Bytes that come through in this time.
fn between(world: &World, link: LinkConfig, seconds: u64) -> Result<u64> {
    let (near, far) = world.link(link);
    world.host().put_wire("near", Arc::new(near));
    world.host().put_wire("far", Arc::new(far));
    let from = kernel(world, "near", "198.18.0.1")?;
    let to = kernel(world, "far", "198.18.0.2")?;
    let server = Process::new(&to)?;
    let listener = listen(server.sys())?;
    let got = Arc::new(AtomicU64::new(0));
    let counter = got.clone();
    let host = world.host().clone();
    let receiver = move |_: &Process| {
        let bytes = receive(server.sys(), listener, &*host, seconds * 1000 * MS);
        counter.store(bytes.expect("receives"), Ordering::Relaxed);
    };
    world.program(&to, "receiver", receiver)?;
    world.program(&from, "sender", |p| {
        send(p.sys()).expect("connects");
    })?;
    world.join_all();
    from.shutdown(true).map_err(errno)?;
    to.shutdown(true).map_err(errno)?;
    Ok(got.load(Ordering::Relaxed))
}

/// A kernel with one interface on an end of the link.
fn kernel(world: &World, wire: &str, ip: &str) -> Result<Arc<Kernel>> {
    let kernel = world.kernel()?;
    let p = Process::new(&kernel)?;
    let index = p.create_interface("virt0", &format!("wire={wire}"))?;
    let up = InterfaceChange {
        up: Some(true),
        ..InterfaceChange::default()
    };
    p.change_interface(index, &up)?;
    p.add_address(index, ip.parse().context("an address")?, 24)?;
    Ok(kernel)
}

fn listen(p: &LwpHandle) -> Result<i32> {
    let fd = p.socket(AF_INET, SOCK_STREAM, 0).map_err(errno)? as i32;
    let any = address("0.0.0.0:5001")?;
    p.bind(fd, &any, any.len()).map_err(errno)?;
    p.listen(fd, 1).map_err(errno)?;
    Ok(fd)
}

/// Reads what one connection brings until its time is over, then resets it.
fn receive(p: &LwpHandle, listener: i32, host: &dyn Host, time: Nanos) -> Result<u64> {
    let fd = p.accept4(listener, &mut [], &mut [], 0).map_err(errno)? as i32;
    let now = || host.now(Clock::Monotonic);
    let end = now() + time;
    let mut buf = vec![0; CHUNK];
    let mut got = 0;
    loop {
        let n = p.read(fd, &mut buf, CHUNK).map_err(errno)?;
        if n == 0 || now() > end {
            break;
        }
        got += n as u64;
    }
    p.close(fd).map_err(errno)?;
    Ok(got)
}

/// Writes until the other end wants no more.
fn send(p: &LwpHandle) -> Result<()> {
    let fd = p.socket(AF_INET, SOCK_STREAM, 0).map_err(errno)? as i32;
    let to = address("198.18.0.2:5001")?;
    p.connect(fd, &to, to.len()).map_err(errno)?;
    let data = vec![7; CHUNK];
    while p.write(fd, &data, CHUNK).is_ok() {}
    p.close(fd).map_err(errno)?;
    Ok(())
}

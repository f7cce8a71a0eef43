//! Sockets over the loopback interface, ours beside the host's.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use abi::{Errno, Invoke, Rlimit, Syscalls};
use anyhow::{Result, anyhow};
use kern::{Kernel, LwpHandle, RforkFds};

use crate::children;
use crate::figure::{Output, Target};
use crate::host::HostKernel;
use crate::measure::{Effort, median};

/// The longest queue of a listener that Linux gives unless it is told otherwise, `net.core.somaxconn`.
const MOST_QUEUED: i32 = 4096;
const INET: i32 = 2;
const STREAM: i32 = 1;
const DGRAM: i32 = 2;
const SOL_SOCKET: i32 = 1;
const REUSEADDR: i32 = 2;
const LINGER: i32 = 13;
const SOL_TCP: i32 = 6;
const NODELAY: i32 = 1;
const RLIMIT_NOFILE: i32 = 7;
/// What one write takes, in bytes.
const WRITE: usize = 64 << 10;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let lwp = || kernel.rfork(RforkFds::Clear).map_err(failed);
    if output.wants("net.tcp_lo_mbps") {
        let bytes = effort.pick(1 << 30, 8 << 20);
        let (ours, host) = effort.samples(
            || stream(lwp()?, lwp()?, bytes),
            || stream(HostKernel, HostKernel, bytes),
        )?;
        output.figure(
            "net.tcp_lo_mbps",
            ours,
            Some(host),
            Target::LeastOfHost(0.9),
        );
    }
    for (name, kind) in [
        ("net.tcp_pingpong_ns", STREAM),
        ("net.udp_pingpong_ns", DGRAM),
    ] {
        if output.wants(name) {
            let turns = effort.pick(20_000, 200);
            let (ours, host) = effort.samples(
                || pingpong(lwp()?, lwp()?, kind, turns),
                || pingpong(HostKernel, HostKernel, kind, turns),
            )?;
            output.figure(name, ours, Some(host), Target::MostOfHost(1.0));
        }
    }
    if output.wants("net.udp_send_ns") {
        let count = effort.pick(100_000, 500);
        let (ours, host) = effort.samples(
            || datagrams(&lwp()?, count),
            || datagrams(&HostKernel, count),
        )?;
        output.figure("net.udp_send_ns", ours, Some(host), Target::MostOfHost(1.0));
    }
    if output.wants("net.accept_per_s") {
        let count = effort.pick(MOST_QUEUED as usize, 100);
        let (ours, host) = effort.samples(
            || connections(lwp()?, lwp()?, count),
            || connections(HostKernel, HostKernel, count),
        )?;
        output.figure(
            "net.accept_per_s",
            ours,
            Some(host),
            Target::LeastOfHost(0.5),
        );
    }
    on_the_hosts_network(effort, output)?;
    idle(effort, output)
}

/// What a kernel on its host's sockets (sockin) adds to them.
fn on_the_hosts_network(effort: &Effort, output: &mut Output) -> Result<()> {
    let kernel = rumpkit::sockin_builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let lwp = || kernel.rfork(RforkFds::Clear).map_err(failed);
    if output.wants("net.sockin_tcp_lo_mbps") {
        let bytes = effort.pick(1 << 30, 8 << 20);
        let (ours, host) = effort.samples(
            || stream(lwp()?, lwp()?, bytes),
            || stream(HostKernel, HostKernel, bytes),
        )?;
        output.figure("net.sockin_tcp_lo_mbps", ours, Some(host), Target::None);
    }
    if output.wants("net.sockin_tcp_pingpong_ns") {
        let turns = effort.pick(20_000, 200);
        let (ours, host) = effort.samples(
            || pingpong(lwp()?, lwp()?, STREAM, turns),
            || pingpong(HostKernel, HostKernel, STREAM, turns),
        )?;
        output.figure("net.sockin_tcp_pingpong_ns", ours, Some(host), Target::None);
    }
    kernel.shutdown(true).map_err(failed)
}

fn failed(errno: Errno) -> anyhow::Error {
    anyhow!("a call failed: {errno}")
}

fn sockaddr(host: u8, port: u16) -> [u8; 16] {
    let mut out = [0; 16];
    out[..2].copy_from_slice(&(INET as u16).to_ne_bytes());
    out[2..4].copy_from_slice(&port.to_be_bytes());
    out[4..8].copy_from_slice(&[127, 0, 0, host]);
    out
}

fn socket(sys: &impl Invoke, kind: i32) -> Result<i32> {
    Ok(sys.socket(INET, kind, 0).map_err(failed)? as i32)
}

fn set(sys: &impl Invoke, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<()> {
    sys.setsockopt(fd, level, name, value, value.len())
        .map_err(failed)?;
    Ok(())
}

/// A socket that is bound to a free port; answers its address.
fn bound(sys: &impl Invoke, kind: i32, host: u8) -> Result<(i32, [u8; 16])> {
    let fd = socket(sys, kind)?;
    set(sys, fd, SOL_SOCKET, REUSEADDR, &1i32.to_ne_bytes())?;
    sys.bind(fd, &sockaddr(host, 0), 16).map_err(failed)?;
    let (mut name, mut len) = ([0; 16], 16u32.to_ne_bytes());
    sys.getsockname(fd, &mut name, &mut len).map_err(failed)?;
    Ok((fd, name))
}

fn listener(sys: &impl Invoke, backlog: i32) -> Result<(i32, [u8; 16])> {
    let (fd, name) = bound(sys, STREAM, 1)?;
    sys.listen(fd, backlog).map_err(failed)?;
    Ok((fd, name))
}

fn accept(sys: &impl Invoke, fd: i32) -> Result<i32> {
    let fd = sys.accept4(fd, &mut [], &mut [], 0).map_err(failed)? as i32;
    set(sys, fd, SOL_TCP, NODELAY, &1i32.to_ne_bytes())?;
    Ok(fd)
}

fn connect(sys: &impl Invoke, to: &[u8; 16]) -> Result<i32> {
    let fd = socket(sys, STREAM)?;
    set(sys, fd, SOL_TCP, NODELAY, &1i32.to_ne_bytes())?;
    sys.connect(fd, to, 16).map_err(failed)?;
    Ok(fd)
}

/// Runs one side in a thread of its own and the other here; answers what the latter does.
fn both<R>(
    other: impl FnOnce() -> Result<()> + Send,
    here: impl FnOnce() -> Result<R>,
) -> Result<R> {
    thread::scope(|scope| {
        let other = scope.spawn(other);
        let answer = here();
        other.join().map_err(|_| anyhow!("a thread panicked"))??;
        answer
    })
}

/// MiB/s of one connection between two threads.
fn stream(server: impl Invoke + Send, client: impl Invoke + Send, bytes: usize) -> Result<f64> {
    let (l, to) = listener(&server, 1)?;
    let sender = move || {
        let fd = connect(&client, &to)?;
        let data = vec![7; WRITE];
        let mut sent = 0;
        while sent < bytes {
            sent += client.write(fd, &data, WRITE).map_err(failed)? as usize;
        }
        client.close(fd).map_err(failed)?;
        Ok(())
    };
    both(sender, || {
        let fd = accept(&server, l)?;
        let mut buf = vec![0; 256 << 10];
        let room = buf.len();
        let mut got = 0usize;
        let mut began = None;
        loop {
            let n = server.read(fd, &mut buf, room).map_err(failed)? as usize;
            began.get_or_insert_with(Instant::now);
            if n == 0 {
                break;
            }
            got += n;
        }
        let took = began.map_or(1.0, |b| b.elapsed().as_secs_f64());
        server.close(fd).map_err(failed)?;
        server.close(l).map_err(failed)?;
        Ok(got as f64 / took / f64::from(1 << 20))
    })
}

/// Nanoseconds of a byte's way there and back between two threads.
fn pingpong(
    server: impl Invoke + Send,
    client: impl Invoke + Send,
    kind: i32,
    turns: usize,
) -> Result<f64> {
    let (l, to) = match kind {
        STREAM => listener(&server, 1)?,
        _ => bound(&server, kind, 1)?,
    };
    let echo = move || {
        let fd = match kind {
            STREAM => accept(&server, l)?,
            _ => l,
        };
        let mut byte = [0];
        let (mut from, mut len) = ([0; 16], 16u32.to_ne_bytes());
        for _ in 0..turns {
            if kind == STREAM {
                server.read(fd, &mut byte, 1).map_err(failed)?;
                server.write(fd, &byte, 1).map_err(failed)?;
            } else {
                server
                    .recvfrom(fd, &mut byte, 1, 0, &mut from, &mut len)
                    .map_err(failed)?;
                server.sendto(fd, &byte, 1, 0, &from, 16).map_err(failed)?;
            }
        }
        server.close(fd).map_err(failed)?;
        if kind == STREAM {
            server.close(l).map_err(failed)?;
        }
        Ok(())
    };
    both(echo, || {
        let fd = match kind {
            STREAM => connect(&client, &to)?,
            _ => {
                let fd = socket(&client, kind)?;
                client.connect(fd, &to, 16).map_err(failed)?;
                fd
            }
        };
        let ns = turns_of(&client, fd, turns)?;
        client.close(fd).map_err(failed)?;
        Ok(ns)
    })
}

fn turns_of(client: &impl Invoke, fd: i32, turns: usize) -> Result<f64> {
    let mut byte = [1];
    let began = Instant::now();
    for _ in 0..turns {
        client.write(fd, &byte, 1).map_err(failed)?;
        client.read(fd, &mut byte, 1).map_err(failed)?;
    }
    Ok(began.elapsed().as_nanos() as f64 / turns as f64)
}

/// Nanoseconds of sending a datagram to a socket of the same thread and receiving it there.
fn datagrams(sys: &impl Invoke, count: usize) -> Result<f64> {
    let (fd, to) = bound(sys, DGRAM, 1)?;
    let data = vec![7; 1400];
    let mut buf = vec![0; 2048];
    let began = Instant::now();
    for _ in 0..count {
        sys.sendto(fd, &data, data.len(), 0, &to, 16)
            .map_err(failed)?;
        sys.recvfrom(fd, &mut buf, 2048, 0, &mut [], &mut [])
            .map_err(failed)?;
    }
    let ns = began.elapsed().as_nanos() as f64 / count as f64;
    sys.close(fd).map_err(failed)?;
    Ok(ns)
}

/// Connections in a second, each made, accepted and reset.
fn connections(
    server: impl Invoke + Send,
    client: impl Invoke + Send,
    count: usize,
) -> Result<f64> {
    // All of them have room in the queue: when it is full a SYN is dropped, here as on Linux, and comes again after a second.
    let (l, to) = listener(&server, MOST_QUEUED)?;
    let reset = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    let clients = move || {
        for _ in 0..count {
            let fd = connect(&client, &to)?;
            set(&client, fd, SOL_SOCKET, LINGER, &reset)?;
            client.close(fd).map_err(failed)?;
        }
        Ok(())
    };
    both(clients, || {
        let began = Instant::now();
        for _ in 0..count {
            let fd = server.accept4(l, &mut [], &mut [], 0).map_err(failed)? as i32;
            server.close(fd).map_err(failed)?;
        }
        let rate = count as f64 / began.elapsed().as_secs_f64();
        server.close(l).map_err(failed)?;
        Ok(rate)
    })
}

/// What idle connections cost: memory, and time of a busy one beside them.
fn idle(effort: &Effort, output: &mut Output) -> Result<()> {
    let counts = effort.pick([10, 10_000, 100_000], [2, 20, 100]);
    let mut alone = None;
    for count in counts {
        let latency = format!("net.beside_{count}_ns");
        let memory = format!("net.idle_{count}_bytes");
        if !output.wants(&latency) && !output.wants(&memory) {
            continue;
        }
        let kernel = rumpkit::builder()
            .boot()
            .map_err(|e| anyhow!("boot: {e}"))?;
        let lwp = kernel.rfork(RforkFds::Clear).map_err(failed)?;
        fill(&lwp, count)?;
        let turns = effort.pick(20_000, 100);
        let samples: Result<Vec<f64>> = (0..5).map(|_| beside(&kernel, turns)).collect();
        let ns = median(samples?);
        let target = alone.map_or(Target::None, |ns| Target::Most(1.1 * ns));
        alone.get_or_insert(ns);
        output.figure(&latency, ns, None, target);
        if output.wants(&memory) && count >= 1000 {
            let each = children::output(&["idle", &count.to_string()])?;
            output.figure(&memory, each.trim().parse()?, None, Target::Most(1024.0));
        }
    }
    Ok(())
}

/// In a process of its own, where no memory is used again that something else has left: makes so many idle connections and prints
/// the bytes that an end of one takes. The first ones do not count, with what a kernel makes when it first needs it.
pub(crate) fn idle_child(count: &str) -> Result<()> {
    let count: usize = count.parse()?;
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let lwp = kernel.rfork(RforkFds::Clear).map_err(failed)?;
    fill(&lwp, 1000)?;
    let before = resident();
    fill(&lwp, count)?;
    println!("{}", (resident() - before) as f64 / (2 * count) as f64);
    Ok(())
}

/// Makes idle connections between sockets of one process.
fn fill(sys: &LwpHandle, count: usize) -> Result<()> {
    let limit = Rlimit {
        rlim_cur: 400_000,
        rlim_max: 400_000,
    };
    sys.setrlimit(RLIMIT_NOFILE, &limit.to_bytes())
        .map_err(failed)?;
    let mut left = count;
    // As many as there are ports for one address.
    for host in 2.. {
        if left == 0 {
            break;
        }
        let (l, to) = bound(sys, STREAM, host)?;
        sys.listen(l, 128).map_err(failed)?;
        for _ in 0..left.min(20_000) {
            connect(sys, &to)?;
            accept(sys, l)?;
            left -= 1;
        }
    }
    Ok(())
}

/// Nanoseconds of a byte's way there and back on one thread, so that only the kernel is measured.
fn beside(kernel: &Arc<Kernel>, turns: usize) -> Result<f64> {
    let sys = kernel.rfork(RforkFds::Clear).map_err(failed)?;
    let (l, to) = listener(&sys, 1)?;
    let a = connect(&sys, &to)?;
    let b = accept(&sys, l)?;
    let mut byte = [1];
    let began = Instant::now();
    for _ in 0..turns {
        sys.write(a, &byte, 1).map_err(failed)?;
        sys.read(b, &mut byte, 1).map_err(failed)?;
        sys.write(b, &byte, 1).map_err(failed)?;
        sys.read(a, &mut byte, 1).map_err(failed)?;
    }
    Ok(began.elapsed().as_nanos() as f64 / turns as f64)
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

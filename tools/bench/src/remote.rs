//! Remote calls: over a plain unix socket beside a bare round trip on one, and over the shared-memory ring beside the socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};

use abi::{O_CREAT, O_RDWR, Syscalls};
use anyhow::{Context, Result, anyhow};
use rumpclient::Client;

use crate::children;
use crate::figure::{Output, Target};
use crate::measure::Effort;
use crate::place::{self, Pinned};

/// Bytes of a null call's request and reply, as `abi::sysproxy` has them.
const REQUEST: usize = abi::sysproxy::HEADER + abi::sysproxy::REQUEST_FIXED;
/// See [`REQUEST`].
const REPLY: usize = abi::sysproxy::HEADER + abi::sysproxy::REPLY_FIXED;
/// Bytes of the transfer.
const PAGE: usize = 4096;

/// An operation's name, itself, how much dearer than a bare round trip it may be over a socket.
type Operation = (&'static str, fn(&Remote), Target);

const OPERATIONS: [Operation; 3] = [
    ("null", Remote::null, Target::MostOfHost(1.1)),
    ("stat", Remote::stat, Target::MostOfHost(1.2)),
    ("pread4k", Remote::pread, Target::None),
];

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    if output.wants_any(&["remote.socket_", "remote.ring_"]) {
        let dir = tempfile::tempdir()?;
        sockets(effort, output, dir.path())?;
        rings(effort, output, dir.path())?;
    }
    Ok(())
}

/// Our server and a bare one on one processor; the client there too, and then on another one.
fn sockets(effort: &Effort, output: &mut Output, dir: &Path) -> Result<()> {
    let cpus = place::cpus();
    let here = *cpus.first().context("a processor")?;
    let (_server, url) = server(dir, "pinned", &here.to_string())?;
    let echo = dir.join("echo");
    let _echo = start(&["echo", &echo.to_string_lossy(), &here.to_string()])?;
    let mut bare = UnixStream::connect(&echo)?;
    let client = Remote::new(&url, false)?;
    let places = [("", Some(&here)), ("_apart", cpus.get(1))];
    for (place, cpu) in places {
        let Some(&cpu) = cpu else { continue };
        let _pinned = Pinned::to(cpu)?;
        for (name, op, target) in OPERATIONS {
            let name = format!("remote.socket_{name}{place}_ns");
            if output.wants(&name) {
                let bare = || round_trip(&mut bare).unwrap_or_default();
                let (ours, host) = effort.least(|| op(&client), bare);
                output.figure(&name, ours, Some(host), target);
            }
        }
    }
    Ok(())
}

/// Rings beside sockets of the same server, the client on another processor than it where there are two: a ring is at home there.
fn rings(effort: &Effort, output: &mut Output, dir: &Path) -> Result<()> {
    let cpus = place::cpus();
    let (_server, url) = server(
        dir,
        "late",
        &format!("late {}", cpus.first().context("a processor")?),
    )?;
    let _pinned = Pinned::to(*cpus.last().context("a processor")?)?;
    let socket = Remote::new(&url, false)?;
    let ring = Remote::new(&url, true)?;
    for (name, op, _) in OPERATIONS {
        let target = match name {
            "pread4k" => Target::MostOfHost(0.05),
            _ => Target::None,
        };
        let name = format!("remote.ring_{name}_ns");
        if output.wants(&name) {
            let (fast, slow) = effort.least(|| op(&ring), || op(&socket));
            output.figure(&name, fast, Some(slow), target);
        }
    }
    Ok(())
}

fn server(dir: &Path, name: &str, cpu: &str) -> Result<(Running, String)> {
    let url = format!("unix://{}", dir.join(name).display());
    let server = start(&["serve", &url, cpu])?;
    Ok((server, url))
}

/// A client with a file of one page.
struct Remote {
    client: Client,
    fd: i32,
}

impl Remote {
    fn new(url: &str, rings: bool) -> Result<Remote> {
        let failed = |what: &'static str| move |e: abi::Errno| anyhow!("{what}: {e}");
        let client = Client::connect(url, "bench").map_err(failed("connect"))?;
        client.use_rings(rings);
        let fd = client
            .open(c"/page", O_CREAT | O_RDWR, 0o644)
            .map_err(failed("open"))?;
        let fd = i32::try_from(fd)?;
        client
            .pwrite64(fd, &[1; PAGE], PAGE, 0)
            .map_err(failed("write"))?;
        Ok(Remote { client, fd })
    }

    fn null(&self) {
        let _ = std::hint::black_box(self.client.getppid());
    }

    fn stat(&self) {
        let _ = std::hint::black_box(self.client.stat(c"/page", &mut [0; abi::Stat::SIZE]));
    }

    fn pread(&self) {
        let mut page = [0; PAGE];
        let _ = self.client.pread64(self.fd, &mut page, PAGE, 0);
        std::hint::black_box(&page);
    }
}

/// A child that says when it is ready; it is ended with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(words: &[&str]) -> Result<Running> {
    let mut child = Running(children::command(words)?.stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    let out = child.0.stdout.take().context("a pipe")?;
    BufReader::new(out).read_line(&mut line)?;
    Ok(child)
}

/// In a process of its own: answers each request of a bare socket.
pub(crate) fn echo(socket: &str, cpu: &str) -> Result<()> {
    stay_on(cpu)?;
    let listener = UnixListener::bind(Path::new(socket))?;
    println!("ready");
    let (mut stream, _) = listener.accept()?;
    let mut request = [0; REQUEST];
    while stream.read_exact(&mut request).is_ok() {
        stream.write_all(&[1; REPLY])?;
    }
    Ok(())
}

/// One round trip on a bare socket.
fn round_trip(stream: &mut UnixStream) -> std::io::Result<()> {
    stream.write_all(&[2; REQUEST])?;
    stream.read_exact(&mut [0; REPLY])
}

/// A child on the processor that it is told, if it is told one.
fn stay_on(cpu: &str) -> Result<()> {
    if let Ok(cpu) = cpu.parse() {
        Pinned::to(cpu)?.forever();
    }
    Ok(())
}

/// In a process of its own: a kernel, served.
pub(crate) fn serve(url: &str, cpu: &str) -> Result<()> {
    stay_on(cpu)?;
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let server = sysproxy::serve(&kernel, url, sysproxy::Options::default())?;
    if let Some(Ok(cpu)) = cpu.strip_prefix("late ").map(str::parse) {
        // It has booted for all processors that there are.
        place::pin_process(cpu)?;
    }
    println!("ready");
    server.wait();
    Ok(())
}

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

/// Bytes of a null call's request and reply, as `abi::sysproxy` has them.
const REQUEST: usize = abi::sysproxy::HEADER + abi::sysproxy::REQUEST_FIXED;
/// See [`REQUEST`].
const REPLY: usize = abi::sysproxy::HEADER + abi::sysproxy::REPLY_FIXED;
/// Bytes of the transfer.
const PAGE: usize = 4096;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    const NAMES: [&str; 6] = [
        "remote.socket_null_ns",
        "remote.socket_stat_ns",
        "remote.socket_pread4k_ns",
        "remote.ring_null_ns",
        "remote.ring_stat_ns",
        "remote.ring_pread4k_ns",
    ];
    if !NAMES.iter().any(|name| output.wants(name)) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let url = format!("unix://{}", dir.path().join("kernel").display());
    let (_server, _) = start(&["serve", &url])?;
    let echo = dir.path().join("echo");
    let (_echo, mut bare) = start(&["echo", &echo.to_string_lossy()]).and_then(|(child, _)| {
        // It ends with the connection.
        Ok((child, UnixStream::connect(&echo)?))
    })?;
    let socket = Remote::new(&url, false)?;
    let ring = Remote::new(&url, true)?;
    let mut bare = || round_trip(&mut bare).unwrap_or_default();

    let (null, host) = effort.compare(|| socket.null(), &mut bare);
    output.figure(NAMES[0], null, Some(host), Target::MostOfHost(1.1));
    let (stat, host) = effort.compare(|| socket.stat(), &mut bare);
    output.figure(NAMES[1], stat, Some(host), Target::MostOfHost(1.2));
    let (slow, host) = effort.compare(|| socket.pread(), &mut bare);
    output.figure(NAMES[2], slow, Some(host), Target::None);
    // Beside the ring stands the socket.
    output.figure(
        NAMES[3],
        effort.one(|| ring.null()),
        Some(null),
        Target::None,
    );
    output.figure(
        NAMES[4],
        effort.one(|| ring.stat()),
        Some(stat),
        Target::None,
    );
    let (fast, slow) = effort.compare(|| ring.pread(), || socket.pread());
    output.figure(NAMES[5], fast, Some(slow), Target::MostOfHost(0.05));
    Ok(())
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

fn start(words: &[&str]) -> Result<(Running, String)> {
    let mut child = Running(children::command(words)?.stdout(Stdio::piped()).spawn()?);
    let mut line = String::new();
    let out = child.0.stdout.take().context("a pipe")?;
    BufReader::new(out).read_line(&mut line)?;
    Ok((child, line))
}

/// In a process of its own: answers each request of a bare socket.
pub(crate) fn echo(socket: &str) -> Result<()> {
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

/// In a process of its own: a kernel, served.
pub(crate) fn serve(url: &str) -> Result<()> {
    let kernel = rumpkit::builder()
        .boot()
        .map_err(|e| anyhow!("boot: {e}"))?;
    let server = sysproxy::serve(&kernel, url, sysproxy::Options::default())?;
    println!("ready");
    server.wait();
    Ok(())
}

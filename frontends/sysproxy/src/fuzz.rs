//! Arbitrary bytes for a server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use kern::Kernel;

use crate::Options;
use crate::core::Core;
use crate::worker::Worker;

/// Feeds bytes to a server as what a client sends, and hangs up. The body of a fuzz target.
pub fn fuzz_frames(bytes: &[u8]) {
    static CORE: OnceLock<Option<std::sync::Arc<Core>>> = OnceLock::new();
    let core = CORE.get_or_init(|| {
        let kernel = Kernel::builder(hypercall::PosixHost::new()).boot().ok()?;
        let core = Core::new(&kernel, None, Options::default()).ok()?;
        core.spawn_worker().ok()?;
        Some(core)
    });
    let (Some(core), Ok((mut client, server))) = (core, UnixStream::pair()) else {
        return;
    };
    let Some(conn) = core.greet(server.into(), true) else {
        return;
    };
    // What does not fit into the socket at once is left out.
    let _ = client.set_nonblocking(true);
    let _ = client.write(bytes);
    let _ = client.shutdown(std::net::Shutdown::Write);
    core.read_from(&conn, &mut Worker::default());
    let _ = client.read(&mut [0; 4096]);
}

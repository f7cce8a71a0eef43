//! Prints what remote calls cost, beside a bare round trip on a unix socket in the same run: `remote_bench [ROUNDS]`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use abi::{O_CREAT, O_RDWR, Syscalls};
use hypercall::PosixHost;
use kern::Kernel;
use rumpclient::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(20_000), |n| n.parse())?;
    if let Ok(url) = std::env::var("REMOTE_BENCH_SERVE") {
        let kernel = Kernel::builder(PosixHost::new())
            .component(&vfs::VFS)
            .boot()?;
        let _server = sysproxy::serve(&kernel, &url, sysproxy::Options::default())?;
        println!("ready");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let url = format!("unix://@remote-bench-{}", std::process::id());
    let mut server = std::process::Command::new(std::env::current_exe()?)
        .env("REMOTE_BENCH_SERVE", &url)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let mut ready = [0; 6];
    server
        .stdout
        .as_mut()
        .ok_or("no pipe")?
        .read_exact(&mut ready)?;
    let client = Client::connect(&url, "bench")?;
    client.use_rings(false);
    let ringed = Client::connect(&url, "bench")?;
    let fd = client.open(c"/f", O_CREAT | O_RDWR, 0o644)? as i32;
    client.pwrite64(fd, &[1; 4096], 4096, 0)?;
    let rfd = ringed.open(c"/f", O_RDWR, 0)? as i32;
    let mut page = [0; 4096];
    let mut stat = [0; 144];
    let echo = Echo::start()?;
    for _ in 0..3 {
        println!(
            "bare round trip      {:>8.0} ns",
            time(rounds, || echo.round_trip(88, 48))
        );
        println!(
            "socket getpid        {:>8.0} ns",
            time(rounds, || {
                let _ = client.getpid();
            })
        );
        println!(
            "socket stat          {:>8.0} ns",
            time(rounds, || {
                let _ = client.stat(c"/f", &mut stat);
            })
        );
        println!(
            "socket pread 4 KiB   {:>8.0} ns",
            time(rounds, || {
                let _ = client.pread64(fd, &mut page, 4096, 0);
            })
        );
        println!(
            "ring getpid          {:>8.0} ns",
            time(rounds * 10, || {
                let _ = ringed.getpid();
            })
        );
        println!(
            "ring stat            {:>8.0} ns",
            time(rounds * 10, || {
                let _ = ringed.stat(c"/f", &mut stat);
            })
        );
        println!(
            "ring pread 4 KiB     {:>8.0} ns",
            time(rounds * 10, || {
                let _ = ringed.pread64(rfd, &mut page, 4096, 0);
            })
        );
        println!();
    }
    drop(server.stdin.take());
    server.wait()?;
    Ok(())
}

fn time(rounds: u32, mut f: impl FnMut()) -> f64 {
    for _ in 0..rounds / 10 {
        f();
    }
    let start = Instant::now();
    for _ in 0..rounds {
        f();
    }
    start.elapsed().as_nanos() as f64 / f64::from(rounds)
}

/// A child process that answers each request.
struct Echo(UnixStream);

impl Echo {
    fn start() -> std::io::Result<Echo> {
        let (here, mut there) = UnixStream::pair()?;
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while matches!(there.read(&mut buf), Ok(1..)) && there.write_all(&buf[..48]).is_ok() {}
        });
        Ok(Echo(here))
    }

    fn round_trip(&self, out: usize, back: usize) {
        let mut buf = [0; 4096];
        let _ = (&self.0).write_all(&buf[..out]);
        let _ = (&self.0).read_exact(&mut buf[..back]);
    }
}

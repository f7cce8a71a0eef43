//! `rump ping`: echo requests from a kernel (RFC 792, RFC 4443).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use abi::{Errno, Syscalls};
use anyhow::{Result, anyhow};
use rumpclient::Client;
use rumpkit::Process;

use crate::cli::Ping;
use crate::failure::Outcome;
use crate::remote::connect;

const SOCK_DGRAM: i32 = 2;
const SOL_SOCKET: i32 = 1;
const SO_RCVTIMEO: i32 = 20;
/// Type of a request and of its answer, and the protocol, for IPv4 and IPv6.
const ECHO_V4: (u8, u8, i32) = (8, 0, 1);
const ECHO_V6: (u8, u8, i32) = (128, 129, 58);
/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// `rump ping`: status 1 when nothing came back.
pub(crate) fn ping(options: &Ping) -> Outcome {
    let process = connect(&options.server.url)?;
    let to: IpAddr = super::resolve::resolve(&process, &options.address)?;
    let socket = Socket::open(&process, to)?;
    match options.address.parse::<IpAddr>() {
        Ok(_) => println!("PING {to}: {} data bytes", options.size),
        Err(_) => println!(
            "PING {} ({to}): {} data bytes",
            options.address, options.size
        ),
    }
    let mut times = Vec::new();
    for sequence in 0..options.count {
        if sequence > 0 {
            std::thread::sleep(Duration::from_secs_f64(options.interval));
        }
        match socket.echo(
            sequence as u16,
            options.size,
            Duration::from_secs_f64(options.timeout),
        ) {
            Ok(Some(time)) => {
                println!(
                    "{} bytes from {to}: seq={sequence} time={:.3} ms",
                    options.size + HEADER,
                    ms(time)
                );
                times.push(time);
            }
            Ok(None) => println!("seq={sequence}: no answer"),
            Err(errno) => println!("seq={sequence}: {errno}"),
        }
    }
    println!("{} sent, {} received", options.count, times.len());
    if let (Some(min), Some(max)) = (times.iter().min(), times.iter().max()) {
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        println!(
            "round trip min/avg/max = {:.3}/{:.3}/{:.3} ms",
            ms(*min),
            ms(mean),
            ms(*max)
        );
    }
    Ok(u8::from(times.is_empty()))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

struct Socket<'p> {
    process: &'p Process<Client>,
    fd: i32,
    request: u8,
    reply: u8,
}

impl Socket<'_> {
    fn open(process: &Process<Client>, to: IpAddr) -> Result<Socket<'_>> {
        let (family, (request, reply, protocol)) = match to {
            IpAddr::V4(_) => (2u16, ECHO_V4),
            IpAddr::V6(_) => (10, ECHO_V6),
        };
        let sys = process.sys();
        let fd = sys
            .socket(family.into(), SOCK_DGRAM, protocol)
            .map_err(|errno| {
                anyhow!("no socket for echo requests: {errno}; does the kernel have a network?")
            })?;
        let mut address = family.to_le_bytes().to_vec();
        match to {
            IpAddr::V4(ip) => address.extend([&[0, 0], &ip.octets()[..], &[0; 8]].concat()),
            IpAddr::V6(ip) => address.extend([&[0; 6], &ip.octets()[..], &[0; 4]].concat()),
        }
        sys.connect(fd as i32, &address, address.len())
            .map_err(|errno| anyhow!("{to}: {errno}; see rump route"))?;
        Ok(Socket {
            process,
            fd: fd as i32,
            request,
            reply,
        })
    }

    /// One request; the time until its answer, `None` when none came in time.
    fn echo(
        &self,
        sequence: u16,
        size: usize,
        timeout: Duration,
    ) -> Result<Option<Duration>, Errno> {
        let sys = self.process.sys();
        let mut message = vec![self.request, 0, 0, 0, 0, 0];
        message.extend(sequence.to_be_bytes());
        message.extend((0..size).map(|i| i as u8));
        let start = Instant::now();
        sys.sendto(self.fd, &message, message.len(), 0, &[], 0)?;
        let mut answer = vec![0; message.len() + 64];
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            let wait = [left.as_secs(), u64::from(left.subsec_micros().max(1))];
            let wait: Vec<u8> = wait.iter().flat_map(|w| w.to_le_bytes()).collect();
            sys.setsockopt(self.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, wait.len())?;
            let room = answer.len();
            match sys.recvfrom(self.fd, &mut answer, room, 0, &mut [], &mut []) {
                Ok(n)
                    if n as usize >= HEADER
                        && answer[0] == self.reply
                        && answer[6..8] == sequence.to_be_bytes() =>
                {
                    return Ok(Some(start.elapsed()));
                }
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }
}

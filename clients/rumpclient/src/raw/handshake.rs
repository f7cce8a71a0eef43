//! Connecting: the socket, the banner and the handshake; and what goes over exec.

use core::net::SocketAddr;

use abi::Errno;
use abi::sysproxy::{
    Class, Cookie, ErrorWord, HEADER, Handshake, HandshakeReply, Header, Kind, MAX_BANNER,
    MAX_COMM, PROTOCOL, Url,
};

use super::request::vec;
use super::sys;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A connected socket.
pub(super) fn connect(url: &Url<'_>) -> Result<i32, Errno> {
    let mut addr = [0; 110];
    let (family, len) = match url {
        Url::Unix(path) => {
            addr[2..2 + path.len()].copy_from_slice(path);
            (AF_UNIX, 3 + path.len())
        }
        Url::Abstract(name) => {
            addr[3..3 + name.len()].copy_from_slice(name);
            (AF_UNIX, 3 + name.len())
        }
        Url::Tcp(SocketAddr::V4(v4)) => {
            addr[2..4].copy_from_slice(&v4.port().to_be_bytes());
            addr[4..8].copy_from_slice(&v4.ip().octets());
            (AF_INET, 16)
        }
        Url::Tcp(SocketAddr::V6(v6)) => {
            addr[2..4].copy_from_slice(&v6.port().to_be_bytes());
            addr[8..24].copy_from_slice(&v6.ip().octets());
            (AF_INET6, 28)
        }
    };
    addr[..2].copy_from_slice(&family.to_le_bytes());
    let fd = sys::socket(family)? as i32;
    let addr = addr.get(..len).ok_or(Errno::ENAMETOOLONG)?;
    let connected = loop {
        match sys::connect(fd, addr) {
            Ok(_) | Err(Errno::EISCONN) => break Ok(()),
            Err(Errno::EINTR | Errno::EALREADY) => {}
            Err(errno) => break Err(errno),
        }
    };
    if let Err(errno) = connected {
        sys::close(fd);
        return Err(errno);
    }
    if !url.is_local() {
        sys::set_nodelay(fd);
    }
    Ok(fd)
}

/// Reads the banner and does a handshake on a new connection.
pub(super) fn shake(fd: i32, word: Handshake, body: &[u8]) -> Result<HandshakeReply, Errno> {
    let early = read_banner(fd)?;
    if let Some(header) = early {
        return Err(refusal(&header));
    }
    let head = Header::new(Class::Request, Kind::Handshake, word as u32, 1, body.len()).encode();
    let mut iov = [vec(&head), vec(body)];
    let mut at = 0;
    while at < iov.len() {
        match sys::sendmsg(fd, &iov[at..], None) {
            Ok(mut n) => {
                for part in &mut iov[at..] {
                    let cut = n.min(part.len);
                    part.base = part.base.wrapping_add(cut);
                    part.len -= cut;
                    n -= cut;
                }
                while at < iov.len() && iov[at].len == 0 {
                    at += 1;
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut raw = [0; HEADER];
    read_exact(fd, &mut raw)?;
    let header = Header::decode(&raw).map_err(|_| Errno::EPROTO)?;
    if header.class == Class::Error {
        return Err(refusal(&header));
    }
    let mut raw = [0; HandshakeReply::SIZE];
    if header.kind != Kind::Handshake || header.body != raw.len() {
        return Err(Errno::EPROTO);
    }
    read_exact(fd, &mut raw)?;
    let reply = HandshakeReply::decode(&raw).map_err(|_| Errno::EPROTO)?;
    match reply.error {
        0 => Ok(reply),
        error => Err(Errno(error.clamp(1, 4095))),
    }
}

fn refusal(header: &Header) -> Errno {
    ErrorWord::from_wire(header.word)
        .map(ErrorWord::errno)
        .filter(|errno| errno.0 != 0)
        .unwrap_or(Errno::EPROTO)
}

/// Reads the banner line; a server that takes nobody in sends an error frame instead.
fn read_banner(fd: i32) -> Result<Option<Header>, Errno> {
    let mut line = [0; MAX_BANNER];
    read_exact(fd, &mut line[..HEADER])?;
    if let Some(Ok(header)) = line.first_chunk::<HEADER>().map(Header::decode) {
        return Ok(Some(header));
    }
    let mut len = HEADER;
    // Byte by byte, because what follows the line is not ours to take.
    while line[len - 1] != b'\n' {
        let next = line.get_mut(len..=len).ok_or(Errno::EPROTONOSUPPORT)?;
        read_exact(fd, next)?;
        len += 1;
    }
    let banner = &line[..len - 1];
    let machine = banner.iter().rposition(|&b| b == b'/').unwrap_or(0);
    if banner.starts_with(PROTOCOL.as_bytes()) && banner[machine..] == *b"/x86_64" {
        Ok(None)
    } else {
        Err(Errno::EPROTONOSUPPORT)
    }
}

fn read_exact(fd: i32, to: &mut [u8]) -> Result<(), Errno> {
    let mut len = 0;
    while len < to.len() {
        match sys::read(fd, &mut to[len..]) {
            Ok(0) => return Err(Errno::ECONNRESET),
            Ok(n) => len += n,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A command name, a NUL, and what comes behind it; how long it is.
pub(super) fn comm_body(comm: &[u8], tail: &[u8], to: &mut [u8]) -> usize {
    let comm = &comm[..comm.len().min(MAX_COMM)];
    let end = comm.iter().position(|&b| b == 0).unwrap_or(comm.len());
    to[..end].copy_from_slice(&comm[..end]);
    to[end] = 0;
    to[end + 1..end + 1 + tail.len()].copy_from_slice(tail);
    end + 1 + tail.len()
}

/// Writes the URL with an absolute path into `to`; how long it is. `None` when it does not fit.
pub(super) fn absolute(url: &Url<'_>, text: &[u8], to: &mut [u8]) -> Option<usize> {
    let mut put = Put { to, len: 0 };
    if let Url::Unix(path) = url
        && !path.starts_with(b"/")
    {
        let mut cwd = [0; 108];
        if let Ok(len) = sys::getcwd(&mut cwd)
            && cwd[0] == b'/'
            && len + path.len() <= 107
        {
            put.bytes(b"unix://")?;
            put.bytes(&cwd[..len.saturating_sub(1)])?;
            put.bytes(if len > 2 { b"/" } else { b"" })?;
            put.bytes(path)?;
            return Some(put.len);
        }
    }
    put.bytes(text)?;
    Some(put.len)
}

/// Writes the descriptor and the session, as `FD,HEX`; how long it is.
pub(super) fn write_handover(fd: i32, session: Cookie, to: &mut [u8]) -> Option<usize> {
    let mut put = Put { to, len: 0 };
    let mut digits = [0; 10];
    let mut at = digits.len();
    let mut n = u32::try_from(fd).ok()?;
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    put.bytes(&digits[at..])?;
    put.bytes(b",")?;
    for byte in session.encode() {
        let hex = b"0123456789abcdef";
        put.bytes(&[hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]])?;
    }
    Some(put.len)
}

/// Reads what [`write_handover`] wrote.
pub(super) fn read_handover(text: &[u8]) -> Option<(i32, Cookie)> {
    let comma = text.iter().position(|&b| b == b',')?;
    let fd = core::str::from_utf8(&text[..comma]).ok()?.parse().ok()?;
    let hex = &text[comma + 1..];
    if hex.len() != 2 * Cookie::SIZE {
        return None;
    }
    let mut raw = [0; Cookie::SIZE];
    for (byte, pair) in raw.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some((fd, Cookie::decode(&raw).ok()?))
}

struct Put<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.to.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_survives_the_environment() {
        let mut text = [0; 64];
        let session = Cookie([1, 0xffff_ffff, 0x1234_5678, 0]);
        let len = write_handover(1023, session, &mut text).expect("it fits");
        assert_eq!(read_handover(&text[..len]), Some((1023, session)));
        for bad in [
            &b""[..],
            b"3",
            b"3,",
            b",00",
            b"x,00112233445566778899aabbccddeeff",
        ] {
            assert_eq!(read_handover(bad), None, "{bad:?}");
        }
        assert_eq!(write_handover(1, session, &mut [0; 8]), None);
    }

    #[test]
    fn a_relative_path_becomes_absolute() {
        let mut to = [0; 128];
        let text = b"unix://a.sock";
        let url = Url::parse(text).expect("good");
        let len = absolute(&url, text, &mut to).expect("it fits");
        let cwd = std::env::current_dir().expect("a directory");
        let want = format!("unix://{}/a.sock", cwd.display());
        assert!(to[..len] == *want.as_bytes() || want.len() > 114);
    }
}

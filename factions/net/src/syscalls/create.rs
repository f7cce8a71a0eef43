//! Making sockets.

use std::sync::Arc;

use abi::{Errno, O_NONBLOCK, O_RDWR, SysResult, UserAddr, args};
use kern::{Curlwp, File, OpenFile, fd};

use super::with_socket;
use crate::consts::{SOCK_CLOEXEC, SOCK_NONBLOCK};
use crate::{Accepted, Common, Kind, Net, Socket};

/// socket(2).
pub(super) fn socket(cx: &Curlwp<'_>, a: args::socket) -> SysResult {
    let kind = kind_of(a.type_)?;
    let so = new_socket(cx, a.domain, kind, a.protocol)?;
    Ok(install(cx, so, a.type_)?.into())
}

/// socketpair(2).
pub(super) fn socketpair(cx: &Curlwp<'_>, a: args::socketpair) -> SysResult {
    let kind = kind_of(a.type_)?;
    let one = new_socket(cx, a.domain, kind, a.protocol)?;
    let other = new_socket(cx, a.domain, kind, a.protocol)?;
    one.protocol().pair(cx, other.protocol())?;
    let first = install(cx, one, a.type_)?;
    let second = install(cx, other, a.type_).inspect_err(|_| close(cx, first))?;
    let mut both = [0; 8];
    both[..4].copy_from_slice(&first.to_le_bytes());
    both[4..].copy_from_slice(&second.to_le_bytes());
    cx.copyout(&both, a.sv).inspect_err(|_| {
        close(cx, first);
        close(cx, second);
    })?;
    Ok(0)
}

/// accept(2).
pub(super) fn accept(cx: &Curlwp<'_>, a: args::accept) -> SysResult {
    accept_with(cx, a.sockfd, a.addr, a.addrlen, 0)
}

/// accept4(2).
pub(super) fn accept4(cx: &Curlwp<'_>, a: args::accept4) -> SysResult {
    if a.flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    accept_with(cx, a.sockfd, a.addr, a.addrlen, a.flags)
}

fn accept_with(
    cx: &Curlwp<'_>,
    fd: i32,
    addr: UserAddr,
    addrlen: UserAddr,
    flags: i32,
) -> SysResult {
    with_socket(cx, fd, |of, so| {
        let wait = so.common().receive_wait(of.nonblocking());
        let Accepted { protocol, peer } = so.protocol().accept(cx, wait)?;
        let new = Socket::new(cx, so.family(), so.kind(), so.protocol_number(), protocol);
        if let Err(error) = peer.copyout(cx, addr, addrlen) {
            new.protocol().close(cx);
            return Err(error);
        }
        Ok(install(cx, new, flags)?.into())
    })
}

fn kind_of(type_: i32) -> Result<Kind, Errno> {
    let plain = type_ & !(SOCK_CLOEXEC | SOCK_NONBLOCK);
    match Kind::from_type(plain) {
        Some(kind) => Ok(kind),
        None if (0..=10).contains(&plain) => Err(Errno::ESOCKTNOSUPPORT),
        None => Err(Errno::EINVAL),
    }
}

fn new_socket(cx: &Curlwp<'_>, family: i32, kind: Kind, number: i32) -> Result<Arc<Socket>, Errno> {
    let domain = Net::of(cx)?.domain(cx, family)?;
    let common = Arc::new(Common::default());
    let protocol = domain.socket(cx, kind, number, &common)?;
    Ok(Socket::new(cx, family, kind, number, protocol))
}

/// Makes a descriptor for a socket; without one the socket is closed.
fn install(cx: &Curlwp<'_>, so: Arc<Socket>, flags: i32) -> Result<i32, Errno> {
    let status = if flags & SOCK_NONBLOCK != 0 {
        O_NONBLOCK
    } else {
        0
    };
    let of = OpenFile::new(so.clone(), O_RDWR | status);
    cx.install(of.clone(), flags & SOCK_CLOEXEC != 0)
        .inspect_err(|_| so.close(cx, &of))
}

fn close(cx: &Curlwp<'_>, number: i32) {
    if let Ok(file) = cx.proc().fds().remove(cx, number) {
        fd::release(cx, &file);
    }
}

//! Sending and receiving.

use abi::{Errno, SysResult, UserAddr, args};
use hypercall::Clock;
use kern::{Curlwp, OpenFile, Uio};

use super::with_socket;
use crate::consts::{MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_WAITFORONE};
use crate::message::{self, MMSGHDR, Msghdr};
use crate::{Addr, Control, Socket};

/// The most messages of one sendmmsg or recvmmsg.
const VLEN_MAX: u32 = 1024;

/// sendto(2).
pub(super) fn sendto(cx: &Curlwp<'_>, a: args::sendto) -> SysResult {
    with_socket(cx, a.sockfd, |of, so| {
        let to = match a.dest_addr.is_null() {
            true => None,
            false => Some(Addr::copyin(cx, a.dest_addr, a.addrlen)?),
        };
        let mut uio = Uio::user(a.buf, a.len, 0);
        let sent = message::send(cx, of, so, &mut uio, to.as_ref(), Vec::new(), a.flags)?;
        Ok(sent as i64)
    })
}

/// recvfrom(2).
pub(super) fn recvfrom(cx: &Curlwp<'_>, a: args::recvfrom) -> SysResult {
    with_socket(cx, a.sockfd, |of, so| {
        let mut uio = Uio::user(a.buf, a.len, 0);
        let (received, answer) = message::receive(cx, of, so, &mut uio, a.flags, false)?;
        received.control.into_iter().for_each(|c| c.release(cx));
        match received.from {
            Some(from) => from.copyout(cx, a.src_addr, a.addrlen)?,
            None if !a.src_addr.is_null() => cx.copyout(&[0; 4], a.addrlen)?,
            None => {}
        }
        Ok(answer as i64)
    })
}

/// sendmsg(2).
pub(super) fn sendmsg(cx: &Curlwp<'_>, a: args::sendmsg) -> SysResult {
    with_socket(cx, a.sockfd, |of, so| {
        Ok(send_one(cx, of, so, a.msg, a.flags)? as i64)
    })
}

/// recvmsg(2).
pub(super) fn recvmsg(cx: &Curlwp<'_>, a: args::recvmsg) -> SysResult {
    with_socket(cx, a.sockfd, |of, so| {
        Ok(receive_one(cx, of, so, a.msg, a.flags)? as i64)
    })
}

/// sendmmsg(2).
pub(super) fn sendmmsg(cx: &Curlwp<'_>, a: args::sendmmsg) -> SysResult {
    with_socket(cx, a.sockfd, |of, so| {
        each(cx, a.msgvec, a.vlen, |at, _| {
            send_one(cx, of, so, at, a.flags)
        })
    })
}

/// recvmmsg(2). The timeout is looked at between messages, as on Linux.
pub(super) fn recvmmsg(cx: &Curlwp<'_>, a: args::recvmmsg) -> SysResult {
    let deadline = match a.timeout.is_null() {
        true => None,
        false => {
            let mut raw = [0; abi::Timespec::SIZE];
            cx.copyin(a.timeout, &mut raw)?;
            let time = abi::Timespec::from_bytes(&raw);
            let sec = u64::try_from(time.tv_sec).map_err(|_| Errno::EINVAL)?;
            let nsec = u64::try_from(time.tv_nsec)
                .ok()
                .filter(|n| *n < 1_000_000_000)
                .ok_or(Errno::EINVAL)?;
            let span = sec.saturating_mul(1_000_000_000).saturating_add(nsec);
            Some(cx.now(Clock::Monotonic).saturating_add(span))
        }
    };
    with_socket(cx, a.sockfd, |of, so| {
        each(cx, a.msgvec, a.vlen, |at, before| {
            if before > 0 && deadline.is_some_and(|d| cx.now(Clock::Monotonic) >= d) {
                return Err(Errno::EAGAIN);
            }
            let mut flags = a.flags & !MSG_WAITFORONE;
            if before > 0 && a.flags & MSG_WAITFORONE != 0 {
                flags |= MSG_DONTWAIT;
            }
            receive_one(cx, of, so, at, flags)
        })
    })
}

/// Goes through an array of `struct mmsghdr`; an error counts only for the first.
fn each(
    cx: &Curlwp<'_>,
    vec: UserAddr,
    vlen: u32,
    mut one: impl FnMut(UserAddr, u32) -> Result<usize, Errno>,
) -> SysResult {
    let vlen = vlen.min(VLEN_MAX);
    for i in 0..vlen {
        let at = vec.add(i as usize * MMSGHDR);
        let result = one(at, i)
            .and_then(|len| cx.copyout(&(len as u32).to_le_bytes(), at.add(message::MSGHDR)));
        match result {
            Ok(()) => {}
            Err(error) if i == 0 => return Err(error),
            Err(_) => return Ok(i.into()),
        }
    }
    Ok(vlen.into())
}

fn send_one(
    cx: &Curlwp<'_>,
    of: &OpenFile,
    so: &Socket,
    at: UserAddr,
    flags: i32,
) -> Result<usize, Errno> {
    let head = Msghdr::copyin(cx, at)?;
    let to = match head.name.is_null() || head.namelen == 0 {
        true => None,
        false => Some(Addr::copyin(cx, head.name, head.namelen as usize)?),
    };
    let mut uio = Uio::user_iov(cx, head.iov, head.iovlen, 0)?;
    let control = Control::copyin(cx, head.control, head.controllen)?;
    message::send(cx, of, so, &mut uio, to.as_ref(), control, flags)
}

fn receive_one(
    cx: &Curlwp<'_>,
    of: &OpenFile,
    so: &Socket,
    at: UserAddr,
    flags: i32,
) -> Result<usize, Errno> {
    let head = Msghdr::copyin(cx, at)?;
    let mut uio = Uio::user_iov(cx, head.iov, head.iovlen, 0)?;
    let room = if head.control.is_null() {
        0
    } else {
        head.controllen
    };
    let (received, answer) = message::receive(cx, of, so, &mut uio, flags, room != 0)?;
    let (written, truncated) = Control::copyout(cx, received.control, head.control, room, flags)?;
    let mut namelen = 0;
    if let Some(from) = &received.from
        && !head.name.is_null()
    {
        let len = from.bytes().len().min(head.namelen as usize);
        cx.copyout(&from.bytes()[..len], head.name)?;
        namelen = from.bytes().len() as u32;
    }
    let told = received.flags | truncated | flags & MSG_CMSG_CLOEXEC;
    Msghdr::copyout(cx, at, namelen, written, told)?;
    Ok(answer)
}

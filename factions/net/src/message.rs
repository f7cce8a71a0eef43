//! Messages as system calls name them: `struct msghdr`, and the sending and receiving that all calls share.

use abi::{Errno, UserAddr};
use kern::{Curlwp, OpenFile, Uio};

use crate::consts::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_TRUNC};
use crate::{Addr, Control, Incoming, Outgoing, Received, Socket, Wait};

/// Bytes of a `struct msghdr`.
pub(crate) const MSGHDR: usize = 56;
/// Bytes of a `struct mmsghdr`.
pub(crate) const MMSGHDR: usize = 64;

/// `struct msghdr`, recvmsg(2).
pub(crate) struct Msghdr {
    pub(crate) name: UserAddr,
    pub(crate) namelen: u32,
    pub(crate) iov: UserAddr,
    pub(crate) iovlen: i32,
    pub(crate) control: UserAddr,
    pub(crate) controllen: usize,
}

impl Msghdr {
    pub(crate) fn copyin(cx: &Curlwp<'_>, from: UserAddr) -> Result<Msghdr, Errno> {
        let mut raw = [0; MSGHDR];
        cx.copyin(from, &mut raw)?;
        let long = |i: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&raw[i * 8..i * 8 + 8]);
            u64::from_le_bytes(bytes)
        };
        Ok(Msghdr {
            name: UserAddr(long(0)),
            namelen: long(1) as u32,
            iov: UserAddr(long(2)),
            iovlen: i32::try_from(long(3)).map_err(|_| Errno::EMSGSIZE)?,
            control: UserAddr(long(4)),
            controllen: long(5) as usize,
        })
    }

    /// Writes back what a receive changes: lengths and flags.
    pub(crate) fn copyout(
        cx: &Curlwp<'_>,
        at: UserAddr,
        namelen: u32,
        controllen: usize,
        flags: i32,
    ) -> Result<(), Errno> {
        cx.copyout(&namelen.to_le_bytes(), at.add(8))?;
        cx.copyout(&(controllen as u64).to_le_bytes(), at.add(40))?;
        cx.copyout(&flags.to_le_bytes(), at.add(48))
    }
}

/// Sends; answers how many bytes were taken. An error counts only when nothing was taken before it.
pub(crate) fn send(
    cx: &Curlwp<'_>,
    of: &OpenFile,
    so: &Socket,
    uio: &mut Uio<'_>,
    to: Option<&Addr>,
    mut control: Vec<Control>,
    flags: i32,
) -> Result<usize, Errno> {
    let before = uio.resid();
    let gone_on = cx.memory().has_gone_on();
    let nonblock = of.nonblocking() || flags & MSG_DONTWAIT != 0;
    let wait = match gone_on {
        true => Wait::new(!cx.memory().may_sleep(), 0),
        false => so.common().send_wait(nonblock),
    };
    let result = so.protocol().send(
        cx,
        &mut Outgoing {
            uio,
            to,
            control: &mut control,
            flags,
            wait,
        },
    );
    control.into_iter().for_each(|c| c.release(cx));
    if gone_on {
        leave_error(cx, so, result.err());
    }
    match result {
        Err(error) if uio.resid() == before => Err(error),
        _ => Ok(before - uio.resid()),
    }
}

/// Receives; answers what is known of the message and what the call returns.
pub(crate) fn receive(
    cx: &Curlwp<'_>,
    of: &OpenFile,
    so: &Socket,
    uio: &mut Uio<'_>,
    flags: i32,
    wants_control: bool,
) -> Result<(Received, usize), Errno> {
    let before = uio.resid();
    let mut message = Incoming {
        uio,
        flags,
        wait: so
            .common()
            .receive_wait(of.nonblocking() || flags & MSG_DONTWAIT != 0),
        wants_control,
    };
    let received = match flags & MSG_ERRQUEUE {
        0 => so.protocol().receive(cx, &mut message),
        _ => so.protocol().receive_error(cx, &mut message),
    };
    if cx.memory().has_gone_on() {
        leave_error(cx, so, received.as_ref().err().copied());
    }
    let received = received?;
    let moved = before - uio.resid();
    let answer = match received.len {
        Some(len) if flags & MSG_TRUNC != 0 => len,
        _ => moved,
    };
    Ok((received, answer))
}

/// The caller has gone on: the error that the call has taken from the socket is for the next one.
fn leave_error(cx: &Curlwp<'_>, so: &Socket, error: Option<Errno>) {
    // These were not taken from it: the next call finds out for itself.
    const FOUND: [Errno; 4] = [Errno::EPIPE, Errno::EAGAIN, Errno::ENOTCONN, Errno::EINTR];
    if let Some(error) = error.filter(|error| !FOUND.contains(error)) {
        so.common().set_error(cx.cpu(), error);
    }
}

//! Names, connections and options.

use abi::{Errno, SysResult, args};
use kern::Curlwp;

use super::with_socket;
use crate::{Addr, Shutdown};

/// The longest queue of connections that wait to be accepted.
pub(crate) const SOMAXCONN: i32 = 4096;
/// The most bytes of an option that are looked at.
const OPTION_MAX: usize = 16 << 10;
/// The most of what getsockopt(2) is asked, in bytes: a `struct group_filter` without its list.
const QUESTION_MAX: usize = 144;

/// bind(2).
pub(super) fn bind(cx: &Curlwp<'_>, a: args::bind) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        let addr = Addr::copyin(cx, a.addr, a.addrlen)?;
        so.protocol().bind(cx, &addr)?;
        Ok(0)
    })
}

/// listen(2).
pub(super) fn listen(cx: &Curlwp<'_>, a: args::listen) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        // A negative backlog is a very long one, as on Linux.
        let backlog = if a.backlog < 0 {
            SOMAXCONN
        } else {
            a.backlog.min(SOMAXCONN)
        };
        so.protocol().listen(cx, backlog as usize)?;
        Ok(0)
    })
}

/// connect(2).
pub(super) fn connect(cx: &Curlwp<'_>, a: args::connect) -> SysResult {
    with_socket(cx, a.sockfd, |of, so| {
        let addr = Addr::copyin(cx, a.addr, a.addrlen)?;
        if a.addrlen < 2 {
            return Err(Errno::EINVAL);
        }
        so.protocol()
            .connect(cx, &addr, so.common().send_wait(of.nonblocking()))?;
        Ok(0)
    })
}

/// getsockname(2).
pub(super) fn getsockname(cx: &Curlwp<'_>, a: args::getsockname) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        so.protocol().name(cx)?.copyout(cx, a.addr, a.addrlen)?;
        Ok(0)
    })
}

/// getpeername(2).
pub(super) fn getpeername(cx: &Curlwp<'_>, a: args::getpeername) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        so.protocol().peer(cx)?.copyout(cx, a.addr, a.addrlen)?;
        Ok(0)
    })
}

/// shutdown(2).
pub(super) fn shutdown(cx: &Curlwp<'_>, a: args::shutdown) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        let how = match a.how {
            0 => Shutdown::Read,
            1 => Shutdown::Write,
            2 => Shutdown::Both,
            _ => return Err(Errno::EINVAL),
        };
        so.protocol().shutdown(cx, how)?;
        Ok(0)
    })
}

/// getsockopt(2).
pub(super) fn getsockopt(cx: &Curlwp<'_>, a: args::getsockopt) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        let mut room = [0; 4];
        cx.copyin(a.optlen, &mut room)?;
        let room = usize::try_from(i32::from_le_bytes(room)).map_err(|_| Errno::EINVAL)?;
        let mut input = [0; QUESTION_MAX];
        let input = &mut input[..room.min(QUESTION_MAX)];
        cx.copyin(a.optval, input)?;
        let value = so.getsockopt(cx, a.level, a.optname, input)?;
        let len = value.len().min(room);
        cx.copyout(&value[..len], a.optval)?;
        cx.copyout(&(len as u32).to_le_bytes(), a.optlen)?;
        Ok(0)
    })
}

/// setsockopt(2).
pub(super) fn setsockopt(cx: &Curlwp<'_>, a: args::setsockopt) -> SysResult {
    with_socket(cx, a.sockfd, |_, so| {
        if a.optlen > i32::MAX as usize {
            return Err(Errno::EINVAL);
        }
        let mut value = vec![0; a.optlen.min(OPTION_MAX)];
        cx.copyin(a.optval, &mut value)?;
        so.setsockopt(cx, a.level, a.optname, &value)?;
        Ok(0)
    })
}

//! The system calls that the net faction serves.

pub(crate) use name::SOMAXCONN;

use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, OpenFile, establish};

use crate::Socket;

mod create;
mod data;
mod interface;
mod name;

/// Fills the faction's slots of the system-call vector.
pub(crate) fn establish(cx: &Curlwp<'_>) -> Result<(), Errno> {
    establish!(cx.kernel().sysent(), {
        socket => create::socket,
        socketpair => create::socketpair,
        accept => create::accept,
        accept4 => create::accept4,
        bind => name::bind,
        listen => name::listen,
        connect => name::connect,
        getsockname => name::getsockname,
        getpeername => name::getpeername,
        shutdown => name::shutdown,
        getsockopt => name::getsockopt,
        setsockopt => name::setsockopt,
        sendto => data::sendto,
        recvfrom => data::recvfrom,
        sendmsg => data::sendmsg,
        recvmsg => data::recvmsg,
        sendmmsg => data::sendmmsg,
        recvmmsg => data::recvmmsg,
        ifcreate => interface::ifcreate,
        ifdestroy => interface::ifdestroy,
    })
}

/// Runs `f` with the socket of a descriptor. `ENOTSOCK` when it is something else.
fn with_socket<R>(
    cx: &Curlwp<'_>,
    fd: i32,
    f: impl FnOnce(&Arc<OpenFile>, &Socket) -> Result<R, Errno>,
) -> Result<R, Errno> {
    // A call may sleep for long: the open file is held, and a close by another thread takes effect when it ends.
    let of = cx.file(fd)?;
    let so = of.downcast::<Socket>().ok_or(Errno::ENOTSOCK)?;
    f(&of, so)
}

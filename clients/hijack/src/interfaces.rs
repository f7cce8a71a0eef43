//! Questions about network interfaces, netdevice(7), on local sockets of the host's.
//!
//! libc asks by such a socket for names and numbers of interfaces (if_nametoindex(3) and others). What the program means are those that its
//! inet sockets are on, which are the kernel's.

use abi::{O_CLOEXEC, nr};

use crate::fds::{self, kernel_call};
use crate::sys::{failed, host};

pub(crate) const AF_INET: i32 = 2;
const AF_UNIX: i32 = 1;
const SOCK_DGRAM: i32 = 2;
const SOL_SOCKET: i32 = 1;
const SO_DOMAIN: i32 = 39;
/// The first and the last of the requests about interfaces.
const SIOCGIFNAME: u32 = 0x8910;
const SIOCGIFMAP: u32 = 0x8970;

/// ioctl(2) of a host descriptor, while inet sockets are the kernel's; `None` when it is the host's to answer.
pub(crate) fn ioctl(args: &[u64; 6]) -> Option<i64> {
    if !(SIOCGIFNAME..=SIOCGIFMAP).contains(&(args[1] as u32)) {
        return None;
    }
    let (mut domain, mut len) = (0i32, 4u32);
    let (domain_at, len_at) = (&raw mut domain as u64, &raw mut len as u64);
    // SAFETY: both live for the call, which writes four bytes to each.
    let ret = unsafe {
        host!(
            getsockopt, args[0], SOL_SOCKET, SO_DOMAIN, domain_at, len_at
        )
    };
    if failed(ret) || domain != AF_UNIX {
        return None;
    }
    let kind = SOCK_DGRAM | O_CLOEXEC;
    let inet = [AF_INET as u64, kind as u64, 0, 0, 0, 0];
    let socket = fds::open(nr::socket, &inet, true);
    if failed(socket) {
        return Some(socket);
    }
    let answer = kernel_call(nr::ioctl, &[socket as u64, args[1], args[2], 0, 0, 0]);
    fds::close(socket as i32);
    Some(answer)
}

//! The `SIOC*` calls of ioctl(2) on sockets of these domains, netdevice(7).

use abi::{Errno, SysResult, UserAddr};
use kern::Curlwp;

use crate::Inet;

impl Inet {
    /// An ioctl that is not of one protocol.
    pub(crate) fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        let _ = (cx, cmd, arg);
        Err(Errno::ENOTTY)
    }
}

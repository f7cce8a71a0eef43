//! The system calls that the kernel proper serves. One file a family; each function reads like its manual page.

use abi::Errno;

use crate::{Curlwp, establish};

mod proc;
mod rw;

/// Fills the kernel's own slots of the system-call vector.
pub(crate) fn establish(cx: &Curlwp<'_>) -> Result<(), Errno> {
    establish!(cx.kernel().sysent(), {
        read => rw::read,
        write => rw::write,
        pread64 => rw::pread64,
        pwrite64 => rw::pwrite64,
        readv => rw::readv,
        writev => rw::writev,
        lseek => rw::lseek,
        close => rw::close,
        fstat => rw::fstat,
        getpid => proc::getpid,
    })
}

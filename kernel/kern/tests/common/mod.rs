//! What the tests of this crate share.
#![allow(dead_code)] // each test file uses a part

pub(crate) mod sim;

use std::sync::Arc;

use abi::{Errno, SysResult};
use hypercall::PosixHost;
use kern::{Cred, Kernel, KernelMemory, LwpHandle, RforkFds};

/// A kernel without components, on two virtual CPUs.
pub(crate) fn boot() -> Arc<Kernel> {
    Kernel::builder(PosixHost::with_params([("RUMP_NCPU", "2")]))
        .boot()
        .expect("boots")
}

/// A process of the superuser.
pub(crate) fn process(kernel: &Arc<Kernel>) -> LwpHandle {
    kernel.rfork(RforkFds::Clear).expect("a process")
}

/// A process of an ordinary user.
pub(crate) fn user(kernel: &Arc<Kernel>, uid: u32, gid: u32) -> LwpHandle {
    kernel
        .spawn("user", Cred::user(uid, gid, &[]))
        .expect("a process")
}

/// A call whose arguments are all numbers.
pub(crate) fn call(lwp: &LwpHandle, nr: u32, args: &[u64]) -> SysResult {
    let mut raw = [0; 6];
    raw[..args.len()].copy_from_slice(args);
    lwp.syscall(&KernelMemory, nr, &raw)
}

/// The two descriptors of a new pipe.
pub(crate) fn pipe(lwp: &LwpHandle, flags: i32) -> Result<(i32, i32), Errno> {
    use abi::Syscalls;
    let mut both = [0; 8];
    lwp.pipe2(&mut both, flags)?;
    Ok((number(&both[..4]), number(&both[4..])))
}

/// A little-endian number.
pub(crate) fn number(raw: &[u8]) -> i32 {
    i32::from_le_bytes(raw.try_into().expect("four bytes"))
}

//! The process's connection, and the calls over it.

use std::ffi::{c_int, c_long, c_void};
use std::sync::OnceLock;

use abi::{Errno, SysResult};
use client::{Client, Reconnect};

use crate::life;

static CLIENT: OnceLock<Client> = OnceLock::new();

/// The connection. `ENOTCONN` before rumpclient_init.
#[inline]
pub(crate) fn current() -> Result<&'static Client, Errno> {
    CLIENT.get().ok_or(Errno::ENOTCONN)
}

/// Keeps the connection; false when there is one.
pub(crate) fn establish(client: Client, policy: Reconnect) -> bool {
    client.set_policy(policy);
    CLIENT.set(client).is_ok()
}

/// Makes a call with registers that C has filled.
pub(crate) fn syscall(nr: u32, args: &[u64; 6]) -> SysResult {
    // SAFETY: the caller of the C function vouches for what its arguments name.
    unsafe { current()?.call(nr, args) }
}

/// rumpclient_syscall: call `num` of abi/src/syscalls.rs, with its registers as an array of `size` bytes. Answers 0 or the errno; the
/// value goes to `retval`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpclient_syscall(
    num: c_int,
    args: *const c_void,
    size: usize,
    retval: *mut c_long,
) -> c_int {
    // SAFETY: the caller's conditions are the same.
    unsafe { crate::sys::by_number(num, args, size, retval) }
}

/// rumpclient_setconnretry: what to do when the server is gone. Seconds, or one of `RUMPCLIENT_RETRYCONN_INFTIME` (-1), `_ONCE` (-2, the
/// default) and `_DIE` (-3).
#[unsafe(no_mangle)]
pub extern "C" fn rumpclient_setconnretry(time: libc::time_t) {
    life::set_policy(match time {
        -1 => Reconnect::Forever,
        -2 => Reconnect::Once,
        -3 => Reconnect::Die,
        seconds => match u64::try_from(seconds) {
            Ok(seconds) => Reconnect::For(std::time::Duration::from_secs(seconds)),
            Err(_) => return,
        },
    });
}

//! What is done when the server is gone, `RUMPHIJACK_RETRYCONNECT`: `die`, `inftime`, a number of seconds, or once where it is not set. A
//! new connection is a new process of the kernel: descriptors of the old one answer `EBADF`, its working directory is the
//! root and its mask the default.

use core::sync::atomic::{AtomicI64, Ordering};

use abi::Errno;

use crate::fds::err;
use crate::message::{Bytes, die};
use crate::state::Process;
use crate::sys::host;

/// In [`POLICY`]: the program ends. Else seconds.
const DIE: i64 = -1;
/// In [`POLICY`]: as long as it takes.
const FOREVER: i64 = i64::MAX;

static POLICY: AtomicI64 = AtomicI64::new(0);

/// Between two tries, in nanoseconds.
const PAUSE: i64 = 50_000_000;

/// Reads the variable's value; ends the program for one that makes no sense.
pub(crate) fn set(value: &[u8]) {
    let policy = parse(value).unwrap_or_else(|| {
        die(format_args!(
            "rump_hijack: RUMPHIJACK_RETRYCONNECT={}: want die, inftime, or a number of seconds\n",
            Bytes(value)
        ))
    });
    POLICY.store(policy, Ordering::Relaxed);
}

fn parse(value: &[u8]) -> Option<i64> {
    match value {
        b"die" => Some(DIE),
        b"inftime" => Some(FOREVER),
        _ => {
            let seconds: i64 = core::str::from_utf8(value).ok()?.parse().ok()?;
            (seconds > 0 && seconds < FOREVER).then_some(seconds)
        }
    }
}

/// A call has answered `answer`: whether that is because the server was gone, and there is one now for which it may be made again.
pub(crate) fn again(process: &Process, answer: i64) -> bool {
    answer == err(Errno::ENOTCONN) && !process.client.is_connected() && renew(process)
}

#[cold]
fn renew(process: &Process) -> bool {
    let policy = POLICY.load(Ordering::Relaxed);
    if policy == DIE {
        die(format_args!(
            "rump_hijack: the kernel at {} is gone\n",
            Bytes(process.client.url())
        ));
    }
    let mut comm = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { host!(prctl, 16, comm.as_mut_ptr(), 0, 0, 0) };
    let comm = comm.split(|&b| b == 0).next().unwrap_or(b"");
    let end = now().saturating_add(policy);
    while process.client.renew(comm).is_err() {
        if now() >= end {
            return false;
        }
        let pause = [0, PAUSE];
        // SAFETY: a timespec; a signal may end it early.
        unsafe { host!(nanosleep, pause.as_ptr(), 0) };
    }
    process.forget_shadows();
    true
}

/// Seconds of the monotonic clock.
fn now() -> i64 {
    let mut time = [0i64; 2];
    // SAFETY: a timespec is filled in.
    unsafe { host!(clock_gettime, 1, time.as_mut_ptr()) };
    time[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_a_word_or_a_number_of_seconds() {
        assert_eq!(parse(b"die"), Some(DIE));
        assert_eq!(parse(b"inftime"), Some(FOREVER));
        assert_eq!(parse(b"10"), Some(10));
        for bad in ["", "0", "-1", "1.5", "soon", "9223372036854775807", "9e9"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}

//! aio_*: asynchronous transfers, done at once.
//!
//! A transfer is over when the call that starts it comes back, which aio(7) allows, so there is never one to wait for or to cancel. What
//! came of it is kept until aio_return asks.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use abi::{Errno, SysResult};
use libc::aiocb;

use super::{answer, call, fail};
use crate::signal;

/// What came of each transfer, by the address of its block.
static DONE: Mutex<BTreeMap<usize, SysResult>> = Mutex::new(BTreeMap::new());

fn done() -> MutexGuard<'static, BTreeMap<usize, SysResult>> {
    DONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most blocks of a list, as POSIX asks for at least.
const LISTIO_MAX: usize = 1024;

/// The signal that is to be sent at the end, 0 for none. `EOPNOTSUPP` for a thread that is to be started.
fn signal_of(event: &libc::sigevent) -> Result<c_int, Errno> {
    match (event.sigev_notify, event.sigev_signo) {
        (libc::SIGEV_NONE, _) => Ok(0),
        (libc::SIGEV_SIGNAL, signo @ 0..=64) => Ok(signo),
        (libc::SIGEV_SIGNAL, _) => Err(Errno::EINVAL),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Carries a transfer out, and tells its end as it asks.
fn start(block: &aiocb, transfer: impl FnOnce(&aiocb) -> SysResult) -> Result<(), Errno> {
    let signo = signal_of(&block.aio_sigevent)?;
    let result = transfer(block);
    done().insert(std::ptr::from_ref(block).addr(), result);
    if signo != 0 {
        signal::send(signo);
    }
    Ok(())
}

fn read(block: &aiocb) -> SysResult {
    let (buf, offset): (*mut c_void, i64) = (block.aio_buf, block.aio_offset);
    call!(pread64(block.aio_fildes, buf, block.aio_nbytes, offset))
}

fn write(block: &aiocb) -> SysResult {
    let (buf, offset): (*mut c_void, i64) = (block.aio_buf, block.aio_offset);
    call!(pwrite64(block.aio_fildes, buf, block.aio_nbytes, offset))
}

fn started(result: Result<(), Errno>) -> c_int {
    answer(result.map(|()| 0)) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_read(block: *mut aiocb) -> c_int {
    // SAFETY: C gives a block and the buffer that it names.
    started(start(unsafe { &*block }, read))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_write(block: *mut aiocb) -> c_int {
    // SAFETY: C gives a block and the buffer that it names.
    started(start(unsafe { &*block }, write))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_fsync(op: c_int, block: *mut aiocb) -> c_int {
    let sync = |block: &aiocb| match op {
        libc::O_DSYNC => call!(fdatasync(block.aio_fildes)),
        libc::O_SYNC => call!(fsync(block.aio_fildes)),
        _ => Err(Errno::EINVAL),
    };
    // SAFETY: C gives a block.
    started(start(unsafe { &*block }, sync))
}

/// The error of a transfer, as the value; -1 and `EINVAL` for one that is unknown.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_error(block: *const aiocb) -> c_int {
    match done().get(&block.addr()) {
        Some(Ok(_)) => 0,
        Some(Err(errno)) => errno.0,
        None => fail(Errno::EINVAL) as c_int,
    }
}

/// What the transfer's call would have answered; once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_return(block: *mut aiocb) -> isize {
    let result = done().remove(&block.addr());
    answer(result.unwrap_or(Err(Errno::EINVAL))) as isize
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_suspend(
    _list: *const *const aiocb,
    _nent: c_int,
    _timeout: *const libc::timespec,
) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_aio_cancel(fildes: c_int, _block: *mut aiocb) -> c_int {
    match call!(fcntl(fildes, libc::F_GETFD, 0)) {
        Ok(_) => libc::AIO_ALLDONE,
        Err(errno) => fail(errno) as c_int,
    }
}

/// Carries out a list. `EIO` when any of it failed: aio_error says which.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_lio_listio(
    mode: c_int,
    list: *const *mut aiocb,
    nent: c_int,
    sig: *mut libc::sigevent,
) -> c_int {
    // SAFETY: C gives null or an event.
    let signo = match unsafe { sig.as_ref() } {
        Some(event) if mode == libc::LIO_NOWAIT => signal_of(event),
        _ => Ok(0),
    };
    let signo = match signo {
        Ok(signo) => signo,
        Err(errno) => return fail(errno) as c_int,
    };
    let count = usize::try_from(nent).ok().filter(|&n| n <= LISTIO_MAX);
    let (Some(count), true) = (count, matches!(mode, libc::LIO_WAIT | libc::LIO_NOWAIT)) else {
        return fail(Errno::EINVAL) as c_int;
    };
    let mut result = Ok(());
    for i in 0..count {
        // SAFETY: C gives an array of `nent` blocks, of which some may be null.
        let Some(block) = (unsafe { (*list.add(i)).as_ref() }) else {
            continue;
        };
        let one = match block.aio_lio_opcode {
            libc::LIO_READ => start(block, read),
            libc::LIO_WRITE => start(block, write),
            libc::LIO_NOP => continue,
            _ => Err(Errno::EINVAL),
        };
        let failed =
            one.is_err() || matches!(done().get(&std::ptr::from_ref(block).addr()), Some(Err(_)));
        if failed {
            result = Err(Errno::EIO);
        }
    }
    if signo != 0 {
        signal::send(signo);
    }
    started(result)
}

//! Data between two descriptors, one the host's and one the kernel's.

use abi::{Errno, nr};

use crate::fds::{err, kernel_call};
use crate::state::Process;
use crate::sys;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;
/// Up to so many a place on the program's stack does.
const SHORT: usize = 2048;
const SEEK_CUR: u64 = 1;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;

/// Makes a call on whichever side the descriptor is.
fn on_side(process: &Process, number: u32, args: [u64; 6]) -> i64 {
    if process.is_kernel(args[0] as i32) {
        return kernel_call(number, &args);
    }
    // SAFETY: part of the program's call, on its own descriptor, with a buffer of ours.
    unsafe { sys::syscall(number, args) }
}

/// sendfile(2) across the line, by reading and writing.
pub(crate) fn sendfile(process: &Process, args: &[u64; 6]) -> Option<i64> {
    let [out, input, _, count, ..] = *args;
    match (
        process.is_kernel(out as i32),
        process.is_kernel(input as i32),
    ) {
        (false, false) => return None,
        (true, true) => return Some(kernel_call(nr::sendfile, args)),
        _ => {}
    }
    if count <= SHORT as u64 {
        let mut buffer = [0; SHORT];
        return Some(pump(process, args, &mut buffer));
    }
    let Some(at) = sys::map_anon(0, CHUNK, 0) else {
        return Some(err(Errno::ENOMEM));
    };
    // SAFETY: mapped, and nobody else's.
    let moved = pump(process, args, unsafe {
        core::slice::from_raw_parts_mut(at, CHUNK)
    });
    // SAFETY: mapped above.
    unsafe { sys::unmap(at, CHUNK) };
    Some(moved)
}

/// Reads from one side and writes to the other; how much, or -errno.
fn pump(process: &Process, args: &[u64; 6], buffer: &mut [u8]) -> i64 {
    let [out, input, offset, count, ..] = *args;
    let (at, room) = (buffer.as_mut_ptr() as u64, buffer.len() as u64);
    // SAFETY: the program's offset, if it gave one.
    let mut position = (offset >= 4096).then(|| unsafe { *(offset as *const u64) });
    let mut done = 0;
    let mut failure = 0;
    while done < count {
        let want = (count - done).min(room);
        let got = match position {
            Some(from) => on_side(process, nr::pread64, [input, at, want, from, 0, 0]),
            None => on_side(process, nr::read, [input, at, want, 0, 0, 0]),
        };
        if got <= 0 {
            failure = got;
            break;
        }
        let put = on_side(process, nr::write, [out, at, got as u64, 0, 0, 0]);
        let moved = put.max(0);
        done += moved as u64;
        match &mut position {
            Some(at) => *at += moved as u64,
            None if moved < got => {
                on_side(
                    process,
                    nr::lseek,
                    [input, (moved - got) as u64, SEEK_CUR, 0, 0, 0],
                );
            }
            None => {}
        }
        if moved < got {
            failure = put.min(0);
            break;
        }
    }
    if let Some(at) = position {
        // SAFETY: the address that was read above.
        unsafe { *(offset as *mut u64) = at };
    }
    if done > 0 { done as i64 } else { failure }
}

/// copy_file_range(2), splice(2), tee(2): programs know what to do when these refuse two file systems.
pub(crate) fn between(process: &Process, number: u32, args: &[u64; 6]) -> Option<i64> {
    let other = if number == nr::tee { args[1] } else { args[2] };
    match (
        process.is_kernel(args[0] as i32),
        process.is_kernel(other as i32),
    ) {
        (false, false) => None,
        (true, true) => Some(kernel_call(number, args)),
        _ if number == nr::copy_file_range => Some(err(Errno::EXDEV)),
        _ => Some(err(Errno::EINVAL)),
    }
}

/// sendmsg(2) on a host socket: a kernel descriptor cannot be passed to another process (`EOPNOTSUPP`).
pub(crate) fn sendmsg(process: &Process, number: u32, args: &[u64; 6]) -> Option<i64> {
    if process.is_kernel(args[0] as i32) {
        return Some(kernel_call(number, args));
    }
    let (first, count, step) = if number == nr::sendmsg {
        (args[1], 1, 0)
    } else {
        (args[1], u64::from(args[2] as u32).min(1024), 64)
    };
    let passes = (0..count).any(|i| passes_kernel_fd(process, first + i * step));
    passes.then_some(err(Errno::EOPNOTSUPP))
}

/// Whether the control data of the `struct msghdr` at `msg` has a kernel descriptor in it.
fn passes_kernel_fd(process: &Process, msg: u64) -> bool {
    if msg < 4096 {
        return false;
    }
    // SAFETY: the program's message header: control data and its length are its fifth and sixth words; inside, each item
    // is a length, a level, a type and data, padded to whole words.
    unsafe {
        let control = *((msg + 32) as *const u64);
        let len = *((msg + 40) as *const u64);
        let mut at = 0u64;
        while control >= 4096 && at + 16 <= len {
            let item = (control + at) as *const u64;
            let size = *item;
            if size < 16 || size > len - at {
                return false;
            }
            let kind = *(item.add(1) as *const [i32; 2]);
            if kind == [SOL_SOCKET, SCM_RIGHTS] {
                let fds = item.add(2) as *const i32;
                let count = (size as usize - 16) / 4;
                if (0..count).any(|i| process.is_kernel(fds.add(i).read_unaligned())) {
                    return true;
                }
            }
            at += size.next_multiple_of(8);
        }
    }
    false
}

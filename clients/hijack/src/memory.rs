//! Mappings. A kernel file is mapped as a copy: anonymous memory, filled by reading. So a private mapping, and a shared
//! one that is only read, shows the file as it was then; a shared writable one is refused with `ENODEV`. What the kernel
//! itself keeps in memory to be shared, as the ring of a packet socket, is mapped from its host process.
//!
//! Host mappings with code in them are rewritten before the program sees them.

use std::io::Write;

use abi::{Errno, nr};

use crate::fds::{err, kernel_call};
use crate::mapvec::MapVec;
use crate::state::Process;
use crate::sys::{self, MAP_ANONYMOUS, PROT_EXEC, PROT_READ, PROT_WRITE, failed, host};

const MAP_SHARED: u64 = 1;
const MAP_TYPE: u64 = 0xf;
const PAGE: u64 = 4096;
const O_RDWR_CLOEXEC: u64 = 0o2000002;

/// mmap(2).
pub(crate) fn mmap(process: &Process, args: &[u64; 6]) -> Option<i64> {
    let [_, len, prot, flags, fd, offset] = *args;
    if flags & MAP_ANONYMOUS == 0 && process.is_kernel(fd as i32) {
        return Some(map_kernel_file(process, args));
    }
    if flags & MAP_ANONYMOUS == 0 && process.is_own(fd as i32) {
        return Some(err(Errno::EBADF));
    }
    // SAFETY: the program's call.
    let at = unsafe { sys::syscall(nr::mmap, *args) };
    process.client.memory_changed();
    if !failed(at) && prot & PROT_EXEC != 0 && flags & MAP_ANONYMOUS == 0 {
        crate::objects::mapped(at as usize, len as usize, offset, fd as i32);
    }
    Some(at)
}

/// A copy of a part of a kernel file. Behind its end there are zeros.
fn map_kernel_file(process: &Process, args: &[u64; 6]) -> i64 {
    let [addr, len, prot, flags, fd, offset] = *args;
    if flags & MAP_TYPE & MAP_SHARED != 0 {
        if let Some(at) = map_shared_memory(process, args) {
            return at;
        }
        if prot & PROT_WRITE != 0 {
            return err(Errno::ENODEV);
        }
    }
    if offset % PAGE != 0 || len == 0 {
        return err(Errno::EINVAL);
    }
    let flags = flags & !MAP_TYPE | 2 | MAP_ANONYMOUS;
    // SAFETY: the program's call, with its own address if it gave one.
    let at = unsafe { host!(mmap, addr, len, PROT_READ | PROT_WRITE, flags, -1i64, 0) };
    if failed(at) {
        return at;
    }
    process.client.memory_changed();
    let mut done = 0;
    while done < len {
        let got = kernel_call(
            nr::pread64,
            &[fd, at as u64 + done, len - done, offset + done, 0, 0],
        );
        if got == err(Errno::EINTR) {
            continue;
        }
        if got < 0 {
            // SAFETY: mapped above, and the program does not know of it.
            unsafe { sys::unmap(at as *mut u8, len as usize) };
            return if got == err(Errno::EISDIR) {
                err(Errno::ENODEV)
            } else {
                got
            };
        }
        if got == 0 {
            break;
        }
        done += got as u64;
    }
    if prot & PROT_EXEC != 0 {
        rewrite_copy(at as usize, len as usize, fd, offset);
    }
    if prot != PROT_READ | PROT_WRITE {
        // SAFETY: the protection that the program asked for.
        unsafe { host!(mprotect, at, len, prot) };
        process.client.memory_changed();
    }
    at
}

/// Maps memory that the kernel keeps for this, as `/proc` shows it; `None` when there is none.
fn map_shared_memory(process: &Process, args: &[u64; 6]) -> Option<i64> {
    let [addr, len, prot, flags, fd, offset] = *args;
    let theirs = kernel_call(nr::getmapping, &[fd, 0, 0, 0, 0, 0]);
    let pid = process.client.server_pid().filter(|_| theirs >= 0)?;
    let mut path = [0u8; 64];
    // The last byte stays NUL.
    let [rest @ .., _] = &mut path;
    write!(&mut rest[..], "/proc/{pid}/fd/{theirs}").ok()?;
    // SAFETY: a path that ends in NUL; the descriptor is ours and is closed again.
    let at = unsafe {
        let ours = host!(open, path.as_ptr(), O_RDWR_CLOEXEC, 0);
        if failed(ours) {
            return None;
        }
        let at = host!(mmap, addr, len, prot, flags, ours, offset);
        host!(close, ours);
        at
    };
    process.client.memory_changed();
    Some(at)
}

/// Code of a kernel file: rewritten in its copy, by the whole file's bytes.
fn rewrite_copy(at: usize, len: usize, fd: u64, offset: u64) {
    let mut stat = [0u8; 144];
    if kernel_call(nr::fstat, &[fd, stat.as_mut_ptr() as u64, 0, 0, 0, 0]) != 0 {
        return;
    }
    let size = abi::Stat::from_bytes(&stat).st_size as usize;
    // SAFETY: zero is a valid u8.
    let Some(mut file) = (unsafe { MapVec::<u8>::zeroed(size) }) else {
        return;
    };
    let mut done = 0;
    while done < size {
        let to = file.as_mut_ptr() as u64 + done as u64;
        let got = kernel_call(
            nr::pread64,
            &[fd, to, (size - done) as u64, done as u64, 0, 0],
        );
        if got <= 0 {
            return;
        }
        done += got as usize;
    }
    crate::objects::mapped_bytes(at, len, offset, &file, b"(a file of the kernel)");
}

/// munmap(2), mremap(2), mprotect(2), brk(2): the host's, and then what was known of good addresses is void.
pub(crate) fn changed(process: &Process, number: u32, args: &[u64; 6], stack: u64) -> Option<i64> {
    if number == nr::munmap && stack.wrapping_sub(args[0]) < args[1] {
        // A thread that takes its own stack away and ends: nothing of ours may be on it.
        process.client.memory_changed();
        return None;
    }
    // SAFETY: the program's call.
    let ret = unsafe { sys::syscall(number, *args) };
    process.client.memory_changed();
    if number == nr::mprotect && args[2] & PROT_EXEC != 0 && !failed(ret) {
        crate::objects::made_executable(args[0] as usize, args[1] as usize);
    }
    Some(ret)
}

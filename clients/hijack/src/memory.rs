//! Mappings. A kernel file that is mapped shared is mapped from the kernel's host process, which keeps that part of the file in
//! memory of its own as long as somebody has it mapped: everybody sees what anybody writes. A private mapping is a copy: anonymous
//! memory, filled by reading. So it shows the file as it was then; and so does a shared one that is only read, of a file of
//! which the kernel has no such memory.
//!
//! Host mappings with code in them are rewritten before the program sees them.

use std::io::Write;

use abi::{Errno, nr};

use crate::areas;
use crate::fds::{err, kernel_call};
use crate::mapvec::MapVec;
use crate::state::Process;
use crate::sys::{self, MAP_ANONYMOUS, PROT_EXEC, PROT_READ, PROT_WRITE, failed, host};

const MAP_SHARED: u64 = 1;
const MAP_TYPE: u64 = 0xf;
const MAP_FIXED: u64 = 0x10;
const MS_SYNC: u64 = 4;
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
    if flags & MAP_FIXED != 0 && !failed(at) {
        areas::remove(at as u64, len);
    }
    if !failed(at) && prot & PROT_EXEC != 0 && flags & MAP_ANONYMOUS == 0 {
        crate::objects::mapped(at as usize, len as usize, offset, fd as i32);
    }
    Some(at)
}

/// A copy of a part of a kernel file. Behind its end there are zeros.
fn map_kernel_file(process: &Process, args: &[u64; 6]) -> i64 {
    let [addr, len, prot, flags, fd, offset] = *args;
    if offset % PAGE != 0 || len == 0 {
        return err(Errno::EINVAL);
    }
    if flags & MAP_TYPE & MAP_SHARED != 0 {
        // Code is rewritten, which nobody else is to see.
        let at = match prot & PROT_EXEC {
            0 => map_shared_memory(process, args),
            _ => err(Errno::ENODEV),
        };
        // What is only read can be a copy.
        if at != err(Errno::ENODEV) || prot & PROT_WRITE != 0 {
            return at;
        }
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

/// Maps memory that the kernel keeps for this, as `/proc` shows it; `ENODEV` when there is none, or this process cannot reach it.
fn map_shared_memory(process: &Process, args: &[u64; 6]) -> i64 {
    let [addr, len, prot, flags, fd, offset] = *args;
    let theirs = kernel_call(nr::getmapping, &[fd, prot, offset, len, 0, 0]);
    if failed(theirs) {
        return theirs;
    }
    let at = map_of_server(process, theirs, [addr, len, prot, flags, offset]);
    let at = at.unwrap_or(err(Errno::ENODEV));
    if failed(at) {
        kernel_call(nr::putmapping, &[theirs as u64, 0, 0, 0, 0, 0]);
        return at;
    }
    process.client.memory_changed();
    if flags & MAP_FIXED != 0 {
        areas::remove(at as u64, len);
    }
    areas::add(at as u64, len, theirs as i32);
    at
}

/// Maps a descriptor of the kernel's host process.
fn map_of_server(process: &Process, theirs: i64, how: [u64; 5]) -> Option<i64> {
    let [addr, len, prot, flags, offset] = how;
    let pid = process.client.server_pid()?;
    let mut path = [0u8; 64];
    // The last byte stays NUL.
    let [rest @ .., _] = &mut path;
    write!(&mut rest[..], "/proc/{pid}/fd/{theirs}").ok()?;
    // SAFETY: a path that ends in NUL; the descriptor is ours and is closed again.
    unsafe {
        let ours = host!(open, path.as_ptr(), O_RDWR_CLOEXEC, 0);
        if failed(ours) {
            return None;
        }
        let at = host!(mmap, addr, len, prot, flags, ours, offset);
        host!(close, ours);
        Some(at)
    }
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
    match number {
        nr::munmap if !failed(ret) => areas::remove(args[0], args[1]),
        nr::mremap if !failed(ret) => areas::moved(args[0], ret as u64, args[2]),
        _ => {}
    }
    if number == nr::mprotect && args[2] & PROT_EXEC != 0 && !failed(ret) {
        crate::objects::made_executable(args[0] as usize, args[1] as usize);
    }
    Some(ret)
}

/// msync(2): what was written through a mapping of a kernel file is made durable by the kernel.
pub(crate) fn msync(args: &[u64; 6]) -> Option<i64> {
    // SAFETY: the program's call; it checks the arguments.
    let ret = unsafe { sys::syscall(nr::msync, *args) };
    if failed(ret) || args[2] & MS_SYNC == 0 {
        return Some(ret);
    }
    Some(areas::sync(args[0], args[1]))
}

//! The objects whose code is mapped: rewritten at the start, and later as they come. Each is noted for
//! `rump run --explain` when the variable `RUMPHIJACK_EXPLAIN` asks for it: 1 for standard error, else the name of a
//! file to append to.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::entry;
use crate::maps;
use crate::mapvec::MapVec;
use crate::message::{Bytes, Line};
use crate::patch::{self, Text};
use crate::scan::{Plan, Site};
use crate::sys::{self, MAP_PRIVATE, PROT_READ, failed, host};

/// Sites in all objects so far.
pub(crate) static FOUND: AtomicUsize = AtomicUsize::new(0);
/// Those that became jumps.
pub(crate) static REWRITTEN: AtomicUsize = AtomicUsize::new(0);
/// Where the explanation goes: a C string, null for nowhere.
static EXPLAIN: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Has each object explained at `to`, which lives for ever.
pub(crate) fn explain(to: &'static core::ffi::CStr) {
    EXPLAIN.store(to.as_ptr().cast_mut().cast(), Ordering::Release);
}

/// Rewrites every object that is mapped, but for this one and what the host puts there itself.
pub(crate) fn rewrite_all() {
    rewrite_within(0, usize::MAX);
}

/// Rewrites what mprotect(2) has made executable of a file's mapping.
pub(crate) fn made_executable(at: usize, len: usize) {
    rewrite_within(at, at.saturating_add(len));
}

fn rewrite_within(from: usize, to: usize) {
    let Some(text) = maps::read() else { return };
    let own = rewrite_within as *const () as usize;
    maps::parse(&text)
        .filter(|m| m.exec && m.path.first() == Some(&b'/'))
        .filter(|m| from < m.end && m.start < to && !(m.start..m.end).contains(&own))
        .for_each(|m| rewrite_mapping(&m));
}

fn rewrite_mapping(map: &maps::Mapping<'_>) {
    let mut name = [0u8; 4097];
    let Some(space) = name.get_mut(..map.path.len()) else {
        return;
    };
    space.copy_from_slice(map.path);
    // SAFETY: the name ends in a NUL.
    let fd = unsafe { host!(open, name.as_ptr(), abi::O_CLOEXEC, 0) };
    if failed(fd) {
        return note(map.path, 0, map.start, &[], "its file cannot be read");
    }
    with_file(fd as i32, |file, inode| {
        if inode == map.inode {
            let len = map.end - map.start;
            mapped_bytes(map.start, len, map.offset, file, map.path);
        } else {
            note(map.path, 0, map.start, &[], "its file has been replaced");
        }
    });
    // SAFETY: opened above.
    unsafe { host!(close, fd) };
}

/// Rewrites what mmap(2) has just mapped from a host file.
pub(crate) fn mapped(at: usize, len: usize, offset: u64, fd: i32) {
    with_file(fd, |file, _| {
        let mut name = [0u8; 512];
        let link = Line::new(format_args!("/proc/self/fd/{fd}\0"));
        // SAFETY: a C string of ours, and a buffer of its length.
        let got = unsafe {
            host!(
                readlink,
                link.bytes().as_ptr(),
                name.as_mut_ptr(),
                name.len()
            )
        };
        let name = name.get(..got.max(0) as usize).unwrap_or(b"");
        mapped_bytes(at, len, offset, file, name);
    });
}

/// Rewrites a mapping of the file with these bytes.
pub(crate) fn mapped_bytes(at: usize, len: usize, offset: u64, file: &[u8], name: &[u8]) {
    let mut sites = MapVec::default();
    let text = Text {
        start: at,
        len,
        offset,
        file,
    };
    // SAFETY: the mapping is of that file: it was listed or made so, and has not been executed by others yet, or
    // the program is still alone in its constructor.
    let Some(vaddr) = (unsafe { patch::rewrite(text, entry::address(), &mut sites) }) else {
        return;
    };
    note(name, vaddr, at, &sites, "");
}

/// Maps a file for reading and hands its bytes and its inode number to `f`.
fn with_file(fd: i32, f: impl FnOnce(&[u8], u64)) {
    let mut stat = [0u8; 144];
    // SAFETY: a buffer of the size of struct stat.
    if failed(unsafe { host!(fstat, fd, stat.as_mut_ptr()) }) {
        return;
    }
    let stat = abi::Stat::from_bytes(&stat);
    let Ok(size) = usize::try_from(stat.st_size) else {
        return;
    };
    // SAFETY: a new mapping.
    let at = unsafe { host!(mmap, 0, size, PROT_READ, MAP_PRIVATE, fd, 0) };
    if failed(at) {
        return;
    }
    // SAFETY: mapped, and as for any loader, nobody truncates the file meanwhile.
    f(
        unsafe { core::slice::from_raw_parts(at as *const u8, size) },
        stat.st_ino,
    );
    // SAFETY: mapped above.
    unsafe { sys::unmap(at as *mut u8, size) };
}

/// Counts an object's sites and explains them.
fn note(name: &[u8], vaddr: u64, at: usize, sites: &[Site], trouble: &str) {
    let done = sites
        .iter()
        .filter(|s| matches!(s.plan, Plan::Rewrite { .. }))
        .count();
    FOUND.fetch_add(sites.len(), Ordering::Relaxed);
    REWRITTEN.fetch_add(done, Ordering::Relaxed);
    let to = EXPLAIN.load(Ordering::Acquire);
    if to.is_null() {
        return;
    }
    // SAFETY: a C string that lives for ever; read to its NUL.
    let to_stderr = unsafe { *to == b'1' && *to.add(1) == 0 };
    let fd = if to_stderr {
        2
    } else {
        // SAFETY: the same string.
        unsafe {
            host!(
                open,
                to,
                abi::O_WRONLY | abi::O_CREAT | abi::O_APPEND | abi::O_CLOEXEC,
                0o644
            )
        }
    };
    if failed(fd) {
        return;
    }
    let write = |line: Line| {
        // SAFETY: bytes of ours.
        unsafe { host!(write, fd, line.bytes().as_ptr(), line.bytes().len()) };
    };
    let left = sites.len() - done;
    if trouble.is_empty() {
        write(Line::new(format_args!(
            "{}: {} system-call sites, {done} rewritten, {left} left\n",
            Bytes(name),
            sites.len()
        )));
    } else {
        write(Line::new(format_args!(
            "{}: not rewritten: {trouble}\n",
            Bytes(name)
        )));
    }
    for site in sites {
        if let Plan::Leave(why) = site.plan {
            let place = vaddr + u64::from(site.at);
            let live = at + site.at as usize;
            write(Line::new(format_args!(
                "{}+{place:#x} (at {live:#x}): left: {}\n",
                Bytes(name),
                why.text()
            )));
        }
    }
    if !to_stderr {
        // SAFETY: opened above.
        unsafe { host!(close, fd) };
    }
}

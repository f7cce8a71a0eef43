//! rump_pub_etfs_*: host files that appear in the kernel.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};

use kern::Errno;
use vfs::{EtfsNode, EtfsType, Vfs};

use crate::context;
use crate::error::c_str;

/// `enum rump_etfs_type`: a regular file.
pub const RUMP_ETFS_REG: c_int = 0;
/// `enum rump_etfs_type`: a block device.
pub const RUMP_ETFS_BLK: c_int = 1;
/// `enum rump_etfs_type`: a character device.
pub const RUMP_ETFS_CHR: c_int = 2;
/// `enum rump_etfs_type`: the files of one directory.
pub const RUMP_ETFS_DIR: c_int = 3;
/// `enum rump_etfs_type`: a directory with everything below it.
pub const RUMP_ETFS_DIR_SUBDIRS: c_int = 4;
/// A window that goes to the end of the host's file.
pub const RUMP_ETFS_SIZE_ENDOFF: u64 = u64::MAX;

/// `struct rump_boot_etfs`: an etfs node to be made when the kernel boots.
#[repr(C)]
#[derive(Debug)]
pub struct BootEtfs {
    key: *const c_char,
    hostpath: *const c_char,
    type_: c_int,
    begin: u64,
    size: u64,
    next: *mut BootEtfs,
    /// -1 until the boot, then 0 or the errno.
    status: c_int,
}

/// What is to be registered at boot, the last one first.
static QUEUED: AtomicPtr<BootEtfs> = AtomicPtr::new(std::ptr::null_mut());

/// # Safety
/// The pointers are null or strings.
unsafe fn node(
    key: *const c_char,
    hostpath: *const c_char,
    type_: c_int,
    begin: u64,
    size: u64,
) -> Result<EtfsNode, Errno> {
    let kind = match type_ {
        RUMP_ETFS_REG => EtfsType::Regular,
        RUMP_ETFS_BLK => EtfsType::Block,
        RUMP_ETFS_CHR => EtfsType::Character,
        RUMP_ETFS_DIR => EtfsType::Dir,
        RUMP_ETFS_DIR_SUBDIRS => EtfsType::DirSubdirs,
        _ => return Err(Errno::EINVAL),
    };
    // SAFETY: the caller's condition.
    let (key, hostpath) = unsafe { (c_str(key)?, c_str(hostpath)?) };
    let mut node = EtfsNode::new(key.to_bytes(), hostpath.to_bytes(), kind);
    node.begin = begin;
    node.size = (size != RUMP_ETFS_SIZE_ENDOFF).then_some(size);
    Ok(node)
}

fn register(node: Result<EtfsNode, Errno>) -> c_int {
    let done = node.and_then(|node| {
        context::enter(|cx| Vfs::of(cx).and_then(|vfs| vfs.etfs_register(cx, &node)))
    });
    done.and_then(|r| r).err().map_or(0, |errno| errno.0)
}

/// Makes the host's `hostpath` appear as `key`, an absolute path that is compared verbatim but for leading slashes. `EINVAL` for a key
/// that is not absolute or a type that is none, `EEXIST` for a key that is there, what the host says of its file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_etfs_register(
    key: *const c_char,
    hostpath: *const c_char,
    type_: c_int,
) -> c_int {
    // SAFETY: C gives strings.
    register(unsafe { node(key, hostpath, type_, 0, RUMP_ETFS_SIZE_ENDOFF) })
}

/// [`rump_pub_etfs_register`] of the window [`begin`, `begin + size`) of the host's file, or with [`RUMP_ETFS_SIZE_ENDOFF`] up to
/// its end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_etfs_register_withsize(
    key: *const c_char,
    hostpath: *const c_char,
    type_: c_int,
    begin: u64,
    size: u64,
) -> c_int {
    // SAFETY: C gives strings.
    register(unsafe { node(key, hostpath, type_, begin, size) })
}

/// Takes a key away. `ENOENT` when there is none, `EBUSY` while it is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_etfs_remove(key: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    let done = unsafe { c_str(key) }.and_then(|key| {
        context::enter(|cx| Vfs::of(cx).and_then(|vfs| vfs.etfs_remove(cx, key.to_bytes())))
    });
    done.and_then(|r| r).err().map_or(0, |errno| errno.0)
}

/// Has a node made when the kernel boots. `eb` stays the kernel's until rump_init comes back, and `eb_status` says then how it went.
/// The caller sees to it that no other thread does the same at the time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_boot_etfs_register(eb: *mut BootEtfs) {
    // SAFETY: C gives a structure of its own that lasts until rump_init comes back.
    unsafe {
        (*eb).next = QUEUED.swap(eb, Ordering::SeqCst);
        (*eb).status = -1;
    }
}

/// Makes the nodes that wait for the boot, in the order in which they were given.
pub(crate) fn register_queued() {
    let mut at = QUEUED.swap(std::ptr::null_mut(), Ordering::SeqCst);
    let mut waiting = Vec::new();
    while !at.is_null() {
        waiting.push(at);
        // SAFETY: what is queued lasts until rump_init, which is the caller, comes back.
        at = unsafe { (*at).next };
    }
    for eb in waiting.into_iter().rev() {
        // SAFETY: as above; the strings last as long.
        unsafe {
            let eb = &mut *eb;
            eb.status = register(node(eb.key, eb.hostpath, eb.type_, eb.begin, eb.size));
        }
    }
}

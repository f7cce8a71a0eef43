//! Mounting, and what is mounted.

use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};

use abi::{Errno, Statfs, SysResult, VFSSTAT_SIZE, VfsStat};

use super::{answer, call};
use crate::error::c_str;

/// NetBSD's name of a type of file system, which the kernel's drivers know too, and how the structure that its users pass becomes a source
/// and options.
struct Type {
    name: &'static CStr,
    /// Bytes of the structure.
    size: usize,
    /// # Safety
    /// The pointer is that of a structure of the type.
    read: unsafe fn(*const c_void) -> Result<Args, Errno>,
}

/// What mount(2) takes beside type, directory and flags.
struct Args {
    source: CString,
    options: CString,
}

static TYPES: &[Type] = &[
    Type {
        name: c"tmpfs",
        size: size_of::<TmpfsArgs>(),
        read: tmpfs,
    },
    Type {
        name: c"ext2fs",
        size: size_of::<*const c_char>(),
        read: device,
    },
    Type {
        name: c"ffs",
        size: size_of::<*const c_char>(),
        read: device,
    },
    Type {
        name: c"cd9660",
        size: size_of::<*const c_char>(),
        read: device,
    },
    Type {
        name: c"msdos",
        size: size_of::<*const c_char>(),
        read: device,
    },
];

/// `struct tmpfs_args` of rump/rumpmount.h.
#[repr(C)]
struct TmpfsArgs {
    version: c_int,
    nodes_max: u64,
    size_max: i64,
    root_uid: u32,
    root_gid: u32,
    root_mode: u32,
}

const TMPFS_ARGS_VERSION: c_int = 1;

/// # Safety
/// The pointer is that of a `struct tmpfs_args`.
unsafe fn tmpfs(data: *const c_void) -> Result<Args, Errno> {
    // SAFETY: the caller's condition; alignment is not asked for.
    let args = unsafe { data.cast::<TmpfsArgs>().read_unaligned() };
    if args.version != TMPFS_ARGS_VERSION {
        return Err(Errno::EINVAL);
    }
    let mut options = format!(
        "mode={:o},uid={},gid={}",
        args.root_mode & 0o7777,
        args.root_uid,
        args.root_gid
    );
    if args.size_max > 0 {
        options += &format!(",size={}", args.size_max);
    }
    if args.nodes_max > 0 {
        options += &format!(",nr_inodes={}", args.nodes_max);
    }
    Ok(Args {
        source: c"tmpfs".to_owned(),
        options: CString::new(options).map_err(|_| Errno::EINVAL)?,
    })
}

/// The structures of file systems on a device begin with its name: `struct ufs_args`, `struct iso_args`, `struct msdosfs_args`.
///
/// # Safety
/// The pointer is that of a structure whose first field is null or a string.
unsafe fn device(data: *const c_void) -> Result<Args, Errno> {
    // SAFETY: the caller's condition.
    let fspec = unsafe { c_str(data.cast::<*const c_char>().read_unaligned()) }?;
    Ok(Args {
        source: fspec.to_owned(),
        options: CString::default(),
    })
}

/// mount: the flags are the host's. `ENODEV` for a type that the kernel has not, `EINVAL` when the structure is too short for it. For a
/// type that has no structure of NetBSD's, `data` is a string of options, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_mount(
    fstype: *const c_char,
    path: *const c_char,
    flags: c_int,
    data: *mut c_void,
    data_len: usize,
) -> c_int {
    // SAFETY: C gives strings, and a structure of `data_len` bytes.
    answer(unsafe { mount(fstype, path, flags, data, data_len) }) as c_int
}

/// # Safety
/// The strings are strings or null; `data` is null or a structure of `data_len` bytes, or of the type's size when that is 0.
unsafe fn mount(
    fstype: *const c_char,
    path: *const c_char,
    flags: c_int,
    data: *const c_void,
    data_len: usize,
) -> SysResult {
    // SAFETY: the caller's condition.
    let name = unsafe { c_str(fstype) }?;
    let args = match TYPES.iter().find(|t| t.name == name) {
        Some(_) if data.is_null() => return Err(Errno::EFAULT),
        Some(known) if data_len != 0 && data_len < known.size => return Err(Errno::EINVAL),
        // SAFETY: the structure is there and long enough.
        Some(known) => unsafe { (known.read)(data) }?,
        None => {
            let options = match data.is_null() {
                true => CString::default(),
                // SAFETY: the caller's condition; what is no structure is a string.
                false => unsafe { CStr::from_ptr(data.cast()) }.to_owned(),
            };
            let source = name.to_owned();
            Args { source, options }
        }
    };
    let pointer = |text: &CStr| -> *const c_void { text.as_ptr().cast() };
    let path: *const c_void = path.cast();
    call!(mount(
        pointer(&args.source),
        path,
        pointer(name),
        flags,
        pointer(&args.options)
    ))
}

/// The host's struct statvfs of what statfs(2) tells.
pub(crate) fn statvfs(raw: &[u8; Statfs::SIZE]) -> libc::statvfs {
    let from = Statfs::from_bytes(raw);
    // SAFETY: the structure is numbers; zero is a value of each.
    let mut to: libc::statvfs = unsafe { std::mem::zeroed() };
    to.f_bsize = from.f_bsize;
    to.f_frsize = from.f_frsize;
    to.f_blocks = from.f_blocks;
    to.f_bfree = from.f_bfree;
    to.f_bavail = from.f_bavail;
    to.f_files = from.f_files;
    to.f_ffree = from.f_ffree;
    to.f_favail = from.f_ffree;
    to.f_fsid = from.f_fsid;
    to.f_flag = from.f_flags;
    to.f_namemax = from.f_namelen;
    to
}

/// # Safety
/// `to` is null or a structure.
unsafe fn tell(asked: SysResult, raw: &[u8; Statfs::SIZE], to: *mut libc::statvfs) -> c_int {
    let told = asked.and_then(|_| match to.is_null() {
        true => Err(Errno::EFAULT),
        false => {
            // SAFETY: the caller's condition.
            unsafe { to.write(statvfs(raw)) };
            Ok(0)
        }
    });
    answer(told) as c_int
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_statvfs1(
    path: *const c_void,
    buf: *mut libc::statvfs,
    _flags: c_int,
) -> c_int {
    let mut raw = [0u8; Statfs::SIZE];
    let to: *mut c_void = raw.as_mut_ptr().cast();
    let asked = call!(statfs(path, to));
    // SAFETY: C gives a structure.
    unsafe { tell(asked, &raw, buf) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_fstatvfs1(
    fd: c_int,
    buf: *mut libc::statvfs,
    _flags: c_int,
) -> c_int {
    let mut raw = [0u8; Statfs::SIZE];
    let to: *mut c_void = raw.as_mut_ptr().cast();
    let asked = call!(fstatfs(fd, to));
    // SAFETY: C gives a structure.
    unsafe { tell(asked, &raw, buf) }
}

/// `struct rump_statvfs` of rump/rumpdefs.h.
#[repr(C)]
pub struct RumpStatvfs {
    flag: c_ulong,
    bsize: c_ulong,
    frsize: c_ulong,
    iosize: c_ulong,
    blocks: u64,
    bfree: u64,
    bavail: u64,
    bresvd: u64,
    files: u64,
    ffree: u64,
    favail: u64,
    fresvd: u64,
    fsid: c_ulong,
    namemax: c_ulong,
    fstypename: [u8; 32],
    mntonname: [u8; 1024],
    mntfromname: [u8; 1024],
}

impl RumpStatvfs {
    fn new(of: &VfsStat<'_>) -> RumpStatvfs {
        let s = &of.statfs;
        RumpStatvfs {
            flag: s.f_flags,
            bsize: s.f_bsize,
            frsize: s.f_frsize,
            iosize: s.f_bsize,
            blocks: s.f_blocks,
            bfree: s.f_bfree,
            bavail: s.f_bavail,
            bresvd: s.f_bfree.saturating_sub(s.f_bavail),
            files: s.f_files,
            ffree: s.f_ffree,
            favail: s.f_ffree,
            fresvd: 0,
            fsid: s.f_fsid,
            namemax: s.f_namelen,
            fstypename: field(of.fstype),
            mntonname: field(of.target),
            mntfromname: field(of.source),
        }
    }
}

/// A string in a field: cut to fit, ended by a NUL.
fn field<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N - 1);
    field[..len].copy_from_slice(&text[..len]);
    field
}

/// getvfsstat: fills in as many of the mounts as `bufsize` bytes hold, and answers how many; with a null buffer how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_sys_getvfsstat(
    buf: *mut RumpStatvfs,
    bufsize: usize,
    _flags: c_int,
) -> c_int {
    if buf.is_null() {
        return answer(call!(getvfsstat(0, 0, 0))) as c_int;
    }
    // SAFETY: C gives a buffer of `bufsize` bytes.
    answer(unsafe { getvfsstat(buf, bufsize / size_of::<RumpStatvfs>()) }) as c_int
}

/// # Safety
/// `to` has places for `count` structures.
unsafe fn getvfsstat(to: *mut RumpStatvfs, count: usize) -> SysResult {
    let there = usize::try_from(call!(getvfsstat(0, 0, 0))?).unwrap_or(0);
    let count = count.min(there);
    let mut raw = vec![[0u8; VFSSTAT_SIZE]; count];
    let (at, len): (*mut c_void, usize) = (raw.as_mut_ptr().cast(), count * VFSSTAT_SIZE);
    let there = usize::try_from(call!(getvfsstat(at, len, 0))?).unwrap_or(0);
    let count = count.min(there);
    for (i, record) in raw[..count].iter().enumerate() {
        // SAFETY: `i` is below the count of places.
        unsafe {
            to.add(i)
                .write(RumpStatvfs::new(&VfsStat::from_bytes(record)))
        };
    }
    Ok(count as i64)
}

//! rump_pub_module_*: modules that are linked into the program; and the host's symbols.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kern::Errno;

use crate::boot::rump_getversion;
use crate::context;
use crate::error::c_str;
use crate::kernel::complain;

/// `enum modcmd`: start.
pub const MODULE_CMD_INIT: c_int = 0;
/// `enum modcmd`: end.
pub const MODULE_CMD_FINI: c_int = 1;

/// `struct modinfo`: what a module says of itself.
#[repr(C)]
#[derive(Debug)]
pub struct ModInfo {
    /// [`rump_getversion`] of the headers that it was compiled with.
    version: u32,
    class: c_int,
    modcmd: Option<unsafe extern "C" fn(c_int, *mut c_void) -> c_int>,
    name: *const c_char,
    /// Names of other modules, with commas between; null for none.
    required: *const c_char,
}

/// A module that has started, by the address of its modinfo.
struct Module {
    info: usize,
    name: Vec<u8>,
    required: Vec<Vec<u8>>,
}

static MODULES: Mutex<Vec<Module>> = Mutex::new(Vec::new());

/// Starts `count` modules, in order; each must be compiled for this version (`EPROTONOSUPPORT`), be new (`EEXIST`), and find started what
/// it requires (`ENOENT`). The first that does not start ends it with its error; those before it stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_module_init(mip: *const *const ModInfo, count: usize) -> c_int {
    for i in 0..count {
        // SAFETY: C gives an array of `count` pointers to modinfos that last.
        let started = unsafe { start(&**mip.add(i)) };
        if let Err(errno) = started {
            return errno.0;
        }
    }
    0
}

/// Ends a module. `ENOENT` when it is not started, `EBUSY` while another requires it, what it answers itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_module_fini(mi: *const ModInfo) -> c_int {
    // SAFETY: C gives a modinfo that lasts.
    let ended = unsafe { end(&*mi) };
    ended.err().map_or(0, |errno| errno.0)
}

/// # Safety
/// The strings and the function of `info` are good.
unsafe fn start(info: &ModInfo) -> Result<(), Errno> {
    // SAFETY: the caller's condition.
    let name = unsafe { c_str(info.name) }.map_err(|_| Errno::EINVAL)?;
    if info.version != rump_getversion() as u32 {
        complain(format_args!(
            "module {}: compiled for version {}, this is {}; compile it again",
            name.to_string_lossy(),
            info.version,
            rump_getversion()
        ));
        return Err(Errno::EPROTONOSUPPORT);
    }
    let required = match info.required.is_null() {
        true => Vec::new(),
        // SAFETY: the caller's condition.
        false => names(unsafe { CStr::from_ptr(info.required) }),
    };
    {
        let modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let is_started = |name: &[u8]| modules.iter().any(|m| m.name == name);
        if is_started(name.to_bytes()) {
            return Err(Errno::EEXIST);
        }
        if let Some(missing) = required.iter().find(|r| !is_started(r)) {
            complain(format_args!(
                "module {}: requires {}, which is not started",
                name.to_string_lossy(),
                String::from_utf8_lossy(missing)
            ));
            return Err(Errno::ENOENT);
        }
    }
    // SAFETY: the caller's condition.
    unsafe { command(info, MODULE_CMD_INIT) }?;
    MODULES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Module {
            info: std::ptr::from_ref(info).addr(),
            name: name.to_bytes().to_vec(),
            required,
        });
    Ok(())
}

/// # Safety
/// The function of `info` is good.
unsafe fn end(info: &ModInfo) -> Result<(), Errno> {
    let address = std::ptr::from_ref(info).addr();
    {
        let modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let module = modules.iter().find(|m| m.info == address);
        let name = &module.ok_or(Errno::ENOENT)?.name;
        if modules.iter().any(|m| m.required.contains(name)) {
            return Err(Errno::EBUSY);
        }
    }
    // SAFETY: the caller's condition.
    unsafe { command(info, MODULE_CMD_FINI) }?;
    MODULES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|m| m.info != address);
    Ok(())
}

/// Calls the module, in the kernel.
///
/// # Safety
/// The function of `info` is good.
unsafe fn command(info: &ModInfo, cmd: c_int) -> Result<(), Errno> {
    let modcmd = info.modcmd.ok_or(Errno::EINVAL)?;
    // The module may make calls of its own, so the thread is not in the kernel already.
    context::enter(|_| ())?;
    // SAFETY: the caller's condition.
    match unsafe { modcmd(cmd, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

fn names(list: &CStr) -> Vec<Vec<u8>> {
    list.to_bytes()
        .split(|&b| b == b',')
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// Gives the kernel the host's symbol table, once: `EBUSY` afterwards. Nothing in the kernel looks symbols up.
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_kernelfsym_load(
    _symtab: *mut c_void,
    _symsize: u64,
    _strtab: *mut c_char,
    _strsize: u64,
) -> c_int {
    static LOADED: AtomicBool = AtomicBool::new(false);
    if LOADED.swap(true, Ordering::Relaxed) {
        return Errno::EBUSY.0;
    }
    0
}

//! rump_pub_module_*: modules that are linked into the program or that it has loaded; and the host's symbols.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use kern::Errno;
use rumpkit::module::raw::RawInfo;
use rumpkit::module::serve;

use crate::context;
use crate::kernel::complain;

/// Modules that were started here, by the address of the modinfo, with their names.
static STARTED: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());

fn started() -> std::sync::MutexGuard<'static, Vec<(usize, String)>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts `count` modules, in order; each must be compiled for this version (`EPROTONOSUPPORT`), be new (`EEXIST`), and find started what
/// it requires (`ENOENT`). The first that does not start ends it with its error; those before it stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_module_init(mip: *const *const RawInfo, count: usize) -> c_int {
    for i in 0..count {
        // SAFETY: C gives an array of `count` pointers to modinfos that last.
        let started = unsafe { start(&**mip.add(i)) };
        if let Err(errno) = started {
            return errno.0;
        }
    }
    0
}

/// # Safety
/// The strings and the function of `info` are good, and stay so.
unsafe fn start(info: &'static RawInfo) -> Result<(), Errno> {
    // A module may make calls by C's interface too, which then go on with the CPU that is held.
    // SAFETY: the caller's condition.
    let result = context::hold(|cx| unsafe { serve::start(cx, info) })?;
    match result {
        Ok(name) => {
            started().push((std::ptr::from_ref(info).addr(), name));
            Ok(())
        }
        Err(error) => {
            complain(format_args!("{error}"));
            Err(error.errno)
        }
    }
}

/// Ends a module. `ENOENT` when it is not started, `EBUSY` while another requires it or somebody uses it, what it answers itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_module_fini(mi: *const RawInfo) -> c_int {
    let known = started().iter().find(|m| m.0 == mi.addr()).cloned();
    let ended = known.ok_or(Errno::ENOENT).and_then(|(_, name)| {
        context::hold(|cx| cx.kernel().module_fini(cx, &name)).and_then(|ended| ended)
    });
    match ended {
        Ok(()) => {
            started().retain(|m| m.0 != mi.addr());
            0
        }
        Err(errno) => errno.0,
    }
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

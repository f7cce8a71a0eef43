//! What a caller in this process can do wrong that rump answers with a panic: the message names the object and the caller.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::io::Write;

/// More frames than any way from an entry point to here has.
const FRAMES: usize = 64;

unsafe extern "C" {
    /// The start of the function that the code at `pc` belongs to; of the unwinder's (libgcc_s), which std links.
    fn _Unwind_FindEnclosingFunction(pc: *mut c_void) -> *mut c_void;
}

/// Ends the process with SIGABRT for what the caller of `entry`, an exported function with the name `name`, did.
#[cold]
#[inline(never)]
pub(crate) fn misuse(entry: *const (), name: &str, what: fmt::Arguments<'_>) -> ! {
    let by = caller_of(entry).unwrap_or_else(|| "an unknown place".to_owned());
    // The process ends here; an error of writing has nobody to be told to.
    let _ = writeln!(std::io::stderr(), "panic: {name}: {what}; called from {by}");
    std::process::abort()
}

/// Where the exported function `entry` was called from: symbol and offset, or object and offset.
fn caller_of(entry: *const ()) -> Option<String> {
    let mut frames = [std::ptr::null_mut::<c_void>(); FRAMES];
    // SAFETY: the array has as many places as the call is told.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), FRAMES as i32) };
    let frames = &frames[..usize::try_from(count).ok()?];
    let is_entry = |pc: &&*mut c_void| {
        // SAFETY: looks an address up in the unwinder's tables; a return address may be the first after its function.
        let start = unsafe { _Unwind_FindEnclosingFunction(pc.wrapping_byte_sub(1)) };
        start.cast_const().cast() == entry
    };
    let at = frames.iter().position(|pc| is_entry(&pc))?;
    let pc = *frames.get(at + 1)?;
    // SAFETY: `Dl_info` is plain pointers; null is a value of them.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: looks an address up in the tables of the loaded objects, and fills `info` when it answers other than 0.
    if unsafe { libc::dladdr(pc, &mut info) } == 0 {
        return Some(format!("{pc:p}"));
    }
    let text = |s: *const libc::c_char| {
        // SAFETY: dladdr's strings are those of the loaded object.
        (!s.is_null()).then(|| unsafe { CStr::from_ptr(s) }.to_string_lossy().into_owned())
    };
    let object = text(info.dli_fname).unwrap_or_default();
    Some(match text(info.dli_sname) {
        Some(symbol) => format!(
            "{symbol}+{:#x} in {object}",
            pc.addr() - info.dli_saddr.addr()
        ),
        None => format!("{object}+{:#x}", pc.addr() - info.dli_fbase.addr()),
    })
}

//! What a program says before it boots, and what the kernel says it is.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::context;
use crate::kernel::complain;

/// Boot messages go to the console too.
pub const AB_VERBOSE: c_int = 0x0002_0000;

static BOOTHOWTO: AtomicI32 = AtomicI32::new(0);

/// The boot flags. `RUMP_VERBOSE` sets [`AB_VERBOSE`] at boot.
#[unsafe(no_mangle)]
pub extern "C" fn rump_boot_gethowto() -> c_int {
    BOOTHOWTO.load(Ordering::Relaxed)
}

/// Sets the boot flags; of them [`AB_VERBOSE`] means something to rump_init.
#[unsafe(no_mangle)]
pub extern "C" fn rump_boot_sethowto(howto: c_int) {
    BOOTHOWTO.store(howto, Ordering::Relaxed);
}

pub(crate) fn is_verbose() -> bool {
    rump_boot_gethowto() & AB_VERBOSE != 0
}

pub(crate) fn set_verbose() {
    BOOTHOWTO.fetch_or(AB_VERBOSE, Ordering::Relaxed);
}

/// The version in the form of `__NetBSD_Version__`: major * 100,000,000 + minor * 1,000,000 + patch * 100.
#[unsafe(no_mangle)]
pub extern "C" fn rump_getversion() -> c_int {
    const fn part(text: &str) -> c_int {
        let (bytes, mut n, mut i) = (text.as_bytes(), 0, 0);
        while i < bytes.len() {
            n = n * 10 + (bytes[i] - b'0') as c_int;
            i += 1;
        }
        n
    }
    const VERSION: c_int = part(env!("CARGO_PKG_VERSION_MAJOR")) * 100_000_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 1_000_000
        + part(env!("CARGO_PKG_VERSION_PATCH")) * 100;
    VERSION
}

/// The other name of [`rump_getversion`].
#[unsafe(no_mangle)]
pub extern "C" fn rump_pub_getversion() -> c_int {
    rump_getversion()
}

/// Whether the host kernel's own modules could be loaded: never.
#[unsafe(no_mangle)]
pub extern "C" fn rump_nativeabi_p() -> c_int {
    0
}

/// Writes the event counters to standard error, `group / name: count`.
#[unsafe(no_mangle)]
pub extern "C" fn rump_printevcnts() {
    // Before rump_init nothing has counted.
    let values = context::enter(|cx| cx.kernel().evcnts().values(cx)).unwrap_or_default();
    for value in values {
        complain(format_args!(
            "{} / {}: {}",
            value.group, value.name, value.count
        ));
    }
}

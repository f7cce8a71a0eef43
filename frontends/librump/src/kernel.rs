//! The one kernel of the C interface: booting it, and its end.

use std::ffi::c_int;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kern::boot::Phase;
use kern::{Errno, Howto, Kernel};

use crate::{boot, etfs, serve, signal};

static KERNEL: OnceLock<Arc<Kernel>> = OnceLock::new();

/// Held while booting: rump's init is not reentrant, ours waits.
static BOOTING: Mutex<()> = Mutex::new(());

/// The kernel. `ENXIO` before rump_init.
#[inline]
pub(crate) fn current() -> Result<&'static Arc<Kernel>, Errno> {
    KERNEL.get().ok_or(Errno::ENXIO)
}

/// Says something to whoever runs this process.
pub(crate) fn complain(what: std::fmt::Arguments<'_>) {
    // Standard error may be closed; there is nobody else to tell.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Boots the kernel with every component, with the settings of the environment (`RUMP_NCPU` and so on; `RUMP_NET=sockin` has the
/// host's sockets for a network). 0 when it is booted
/// already; `ESHUTDOWN` once it was shut down, for a process has one kernel and that was it; what the boot says otherwise, with
/// the reason on standard error.
#[unsafe(no_mangle)]
pub extern "C" fn rump_init() -> c_int {
    let _booting = BOOTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kernel) = KERNEL.get() {
        if kernel.phase() <= Phase::Running {
            return 0;
        }
        complain(format_args!("rump_init: host process restart required"));
        return Errno::ESHUTDOWN.0;
    }
    let verbose = boot::is_verbose();
    let builder = match std::env::var("RUMP_NET").as_deref() {
        Err(_) | Ok("" | "inet") => rumpkit::builder(),
        Ok("sockin") => rumpkit::sockin_builder(),
        Ok(other) => {
            complain(format_args!(
                "rump_init: RUMP_NET={other}: there are inet and sockin"
            ));
            return Errno::EINVAL.0;
        }
    };
    let booted = builder
        .config(move |config| config.verbose |= verbose)
        .boot();
    match booted {
        Ok(kernel) => {
            if kernel.config().verbose {
                boot::set_verbose();
            }
            signal::attach(&kernel);
            let _ = KERNEL.set(kernel);
            etfs::register_queued();
            0
        }
        Err(errno) => errno.0,
    }
}

/// The version of the interface that a program was compiled for; rump_init of 2011.
pub const RUMP_VERSION: c_int = 1;

/// rump_init for a program compiled for interface `version`: `EPROTONOSUPPORT` for another than this library's.
#[unsafe(no_mangle)]
pub extern "C" fn rump__init(version: c_int) -> c_int {
    if version != RUMP_VERSION {
        complain(format_args!(
            "rump version mismatch, {version} vs. {RUMP_VERSION}"
        ));
        return Errno::EPROTONOSUPPORT.0;
    }
    rump_init()
}

/// rump_init with a call for each virtual CPU. There is nothing that a host has to do for one, so `cpuinit` is called once,
/// in this thread, before the boot.
#[unsafe(no_mangle)]
pub extern "C" fn rump_init_callback(cpuinit: Option<extern "C" fn()>) -> c_int {
    if let (Some(cpuinit), None) = (cpuinit, KERNEL.get()) {
        cpuinit();
    }
    rump_init()
}

/// Whether rump_init was called.
pub(crate) fn is_inited() -> bool {
    KERNEL.get().is_some()
}

/// exit(3), once: another thread that comes here meanwhile waits for the process to end.
pub(crate) fn end_process() -> ! {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if !ENDING.swap(true, Ordering::SeqCst) {
        // SAFETY: ends the process in order; nothing of ours is registered to run then.
        unsafe { libc::exit(0) }
    }
    sleep_forever()
}

fn sleep_forever() -> ! {
    loop {
        // SAFETY: waits for a signal; handlers are the program's.
        unsafe { libc::pause() };
    }
}

/// Flags of reboot: do not sync.
pub const RB_NOSYNC: c_int = 0x004;
/// Flags of reboot: stay down, do not exit.
pub const RB_HALT: c_int = 0x008;
/// Flags of reboot: dump core.
pub const RB_DUMP: c_int = 0x100;

/// The reference's cpu_reboot: with `RB_DUMP` the process aborts at once; else files are synced and unmounted unless
/// `RB_NOSYNC` says not to, serving ends, and with `RB_HALT` the thread stays here for ever, without it the process exits with
/// status 0. Comes back only with an error: `EPERM` for who is not the superuser.
pub(crate) fn reboot(howto: c_int) -> Errno {
    if howto & RB_DUMP != 0 {
        std::process::abort();
    }
    let end = match howto & RB_HALT != 0 {
        true => Howto::Halt,
        false => Howto::PowerOff,
    };
    let went = crate::context::enter(|cx| {
        if !cx.cred().is_superuser() {
            return Err(Errno::EPERM);
        }
        // A verbose kernel says so itself.
        if !cx.kernel().config().verbose {
            complain(format_args!("rump kernel halting..."));
        }
        // What could not be synced is in the message buffer; the kernel is down all the same.
        Ok(cx.reboot(end, howto & RB_NOSYNC == 0))
    });
    match went.and_then(|r| r) {
        Err(errno) => return errno,
        Ok(Err(errno)) => complain(format_args!("halt: {errno}; the last changes may be lost")),
        Ok(Ok(())) => {}
    }
    // Said before serving ends: where a client could have halted the kernel, another thread ends the process then.
    let halts = howto & RB_HALT != 0;
    complain(format_args!(
        "halted{}",
        if halts {
            " (with RB_HALT, not exiting)"
        } else {
            ""
        }
    ));
    serve::stop();
    if halts {
        sleep_forever()
    }
    end_process()
}

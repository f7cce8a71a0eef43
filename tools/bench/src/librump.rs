//! The C library, as a C program has it: loaded, and called by symbol.

use std::ffi::{CStr, CString, c_int, c_void};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;

use abi::Syscalls;
use anyhow::{Context, Result, anyhow, bail};

use crate::figure::{Output, Target};
use crate::host::HostKernel;
use crate::measure::Effort;

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let library = Library::open()?;
    let function = |name: &CStr| library.function(name);
    if function(c"rump_init")?() != 0 {
        bail!("rump_init fails");
    }
    let host = || {
        let _ = black_box(HostKernel.getppid());
    };
    let getpid = function(c"rump_sys_getpid")?;
    let call = || {
        black_box(getpid());
    };
    if output.wants("librump.null_implicit_ns") {
        let (ours, host) = effort.compare(call, host);
        output.figure(
            "librump.null_implicit_ns",
            ours,
            Some(host),
            Target::Most(100.0),
        );
    }
    // An lwp of the thread's own, from here on.
    function(c"rump_pub_lwproc_rfork")?();
    if output.wants("librump.null_ns") {
        let (ours, host) = effort.compare(call, host);
        output.figure("librump.null_ns", ours, Some(host), Target::Most(25.0));
    }
    if output.wants("librump.schedule_ns") {
        let (schedule, unschedule) = (function(c"rump_schedule")?, function(c"rump_unschedule")?);
        let pair = || {
            schedule();
            unschedule();
        };
        let ours = effort.one(pair);
        output.figure("librump.schedule_ns", ours, None, Target::Most(15.0));
    }
    Ok(())
}

struct Library(*mut c_void);

impl Library {
    /// The librump.so that was built beside this program.
    fn open() -> Result<Library> {
        let path = std::env::current_exe()?.with_file_name("librump.so");
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: our own library, whose initialisation does nothing; it stays loaded.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
        match handle.is_null() {
            true => Err(anyhow!("{} is not built", path.display())),
            false => Ok(Library(handle)),
        }
    }

    /// A function without arguments, or with an `int` of which any value will do: the callee takes what is in the register,
    /// and 0 is put there.
    fn function(&self, name: &CStr) -> Result<impl Fn() -> c_int + Copy + use<>> {
        // SAFETY: looks a name up.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null())
            .then_some(())
            .with_context(|| format!("librump.so has no {name:?}"))?;
        // SAFETY: the names above are those of functions that take nothing or one int; one argument too many does no harm in C's
        // calling convention on x86-64, and a return value that is not there is not looked at.
        let function: extern "C" fn(c_int) -> c_int = unsafe { std::mem::transmute(address) };
        Ok(move || function(0))
    }
}

//! For the authors of modules in Rust: what the raw interface offers, safely.
//!
//! ```
//! use rumpkit_module_example::*; // a crate of type cdylib
//! # mod rumpkit_module_example { pub use module::{Cx, Errno, Init, Module}; }
//!
//! struct Answer;
//!
//! impl Module for Answer {
//!     const NAME: &'static std::ffi::CStr = c"answer";
//!
//!     fn init(k: &Init<'_>) -> Result<(), Errno> {
//!         k.sysctl_int("answer.value", |_| Ok(42))?;
//!         k.syscall(600, |cx, args| Ok(args[0] as i64 + i64::from(cx.pid())))
//!     }
//! }
//!
//! module::module!(Answer);
//! ```
//!
//! A module's functions run in the kernel, on a virtual CPU, as whichever lwp calls them, several at once. What waits for the host goes
//! into [`Cx::unscheduled`]; a lock is not held over a call of [`Cx`]. What a module has registered goes with it, and while somebody is
//! in one of its functions or has a device of it open, it stays.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use abi::{Arg, Errno, Invoke, SysResult, UserAddr};

use crate::raw::{
    ARG_IN, ARG_OUT, ARG_STR, ARG_VALUE, MODULE_CMD_FINI, MODULE_CMD_INIT, Ops, RawArg, RawCdevsw,
    RawCx, RawSysctl,
};

/// A module. [`module!`](crate::module!) exports one from a shared object.
pub trait Module: 'static {
    /// Its name.
    const NAME: &'static CStr;
    /// Names of modules that must have started before, with commas between.
    const REQUIRES: &'static CStr = c"";

    /// Starts it: registers what it offers. After an error nothing of it stays.
    fn init(k: &Init<'_>) -> Result<(), Errno>;

    /// Ends it, after which what it has registered goes. After an error it goes on.
    fn fini(_: &Cx<'_>) -> Result<(), Errno> {
        Ok(())
    }
}

/// A driver of a character device.
pub trait Device: Send + Sync + 'static {
    /// It is opened, with open(2)'s flags.
    fn open(&self, _: &Cx<'_>, _flags: i32) -> Result<(), Errno> {
        Ok(())
    }

    /// Fills the buffer as far as there is something, from the offset on where the device has positions; how far. 0 is the end of file.
    fn read(&self, _: &Cx<'_>, _buf: &mut [u8], _offset: u64, _flags: i32) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Takes bytes; how many.
    fn write(&self, _: &Cx<'_>, _buf: &[u8], _offset: u64, _flags: i32) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// ioctl(2).
    fn ioctl(&self, _: &Cx<'_>, _cmd: u32, _arg: UserAddr) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// What was opened is closed.
    fn close(&self, _: &Cx<'_>) {}
}

/// The lwp that runs: for as long as the function that was given it, in its thread.
///
/// Every system call is a method by [`abi::Syscalls`], made as the lwp and its process.
#[derive(Debug)]
pub struct Cx<'a> {
    raw: *const RawCx,
    here: PhantomData<&'a RawCx>,
}

impl Cx<'_> {
    /// # Safety
    /// The kernel has given it to the function that runs, which lasts as long as the result.
    unsafe fn new(raw: *const RawCx) -> Self {
        Cx {
            raw,
            here: PhantomData,
        }
    }

    fn ops(&self) -> &Ops {
        // SAFETY: by `new`'s condition; the table lasts.
        unsafe { &*(*self.raw).ops }
    }

    /// Fills a buffer from the memory of who makes the call.
    pub fn copyin(&self, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        // SAFETY: our own `raw`, and a buffer of that length.
        check(unsafe { (self.ops().copyin)(self.raw, from.0, to.as_mut_ptr().cast(), to.len()) })
    }

    /// Writes to the memory of who makes the call.
    pub fn copyout(&self, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        // SAFETY: our own `raw`, and bytes of that length.
        check(unsafe { (self.ops().copyout)(self.raw, from.as_ptr().cast(), to.0, from.len()) })
    }

    /// A string of at most `max` bytes from the memory of who makes the call. `ENAMETOOLONG`.
    pub fn copyinstr(&self, from: UserAddr, max: usize) -> Result<Vec<u8>, Errno> {
        let mut text = vec![0u8; max.saturating_add(1)];
        let (at, size, mut len) = (text.as_mut_ptr().cast(), text.len(), 0);
        // SAFETY: our own `raw`, and a buffer of that size.
        check(unsafe { (self.ops().copyinstr)(self.raw, from.0, at, size, &mut len) })?;
        text.truncate(len);
        Ok(text)
    }

    /// The number of the process.
    pub fn pid(&self) -> i32 {
        // SAFETY: our own `raw`.
        unsafe { (self.ops().getpid)(self.raw) }
    }

    /// The effective user of the process; 0 is the superuser.
    pub fn euid(&self) -> u32 {
        // SAFETY: our own `raw`.
        unsafe { (self.ops().geteuid)(self.raw) }
    }

    /// Sends a process of the kernel a signal, if this one may. `ESRCH`, `EPERM`, `EINVAL`.
    pub fn kill(&self, pid: i32, signo: i32) -> Result<(), Errno> {
        // SAFETY: our own `raw`.
        check(unsafe { (self.ops().kill)(self.raw, pid, signo) })
    }

    /// Writes a line to the kernel's message buffer.
    pub fn log(&self, line: &str) {
        let line: Vec<u8> = line.bytes().filter(|&b| b != 0).collect();
        if let Ok(line) = CString::new(line) {
            // SAFETY: our own `raw`, and a string.
            unsafe { (self.ops().log)(self.raw, line.as_ptr()) };
        }
    }

    /// Sleeps until a [`wakeup`](Self::wakeup) of the same identity, which is usually the address of what is waited for. `EWOULDBLOCK`
    /// when the time is over, `EINTR` for a signal, and when the process ends.
    pub fn tsleep(&self, ident: usize, time: Option<Duration>) -> Result<(), Errno> {
        let nanoseconds = time.map_or(0, |t| {
            u64::try_from(t.as_nanos()).unwrap_or(u64::MAX).max(1)
        });
        let ident = std::ptr::without_provenance(ident);
        // SAFETY: our own `raw`; the identity is only compared.
        check(unsafe { (self.ops().tsleep)(self.raw, ident, nanoseconds) })
    }

    /// Wakes everybody who sleeps on an identity.
    pub fn wakeup(&self, ident: usize) {
        // SAFETY: our own `raw`; the identity is only compared.
        unsafe { (self.ops().wakeup)(self.raw, std::ptr::without_provenance(ident)) };
    }

    /// Runs `f` without the virtual CPU: for what waits for something outside the kernel.
    pub fn unscheduled<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Job<F, R> {
            f: Option<F>,
            result: Option<std::thread::Result<R>>,
        }
        unsafe extern "C" fn run<F: FnOnce() -> R, R>(job: *mut c_void) {
            // SAFETY: the job below, which nobody else uses meanwhile.
            let job = unsafe { &mut *job.cast::<Job<F, R>>() };
            job.result = job.f.take().map(|f| catch_unwind(AssertUnwindSafe(f)));
        }
        fn runner<F: FnOnce() -> R, R>(_: &Job<F, R>) -> unsafe extern "C" fn(*mut c_void) {
            run::<F, R>
        }
        let mut job = Job {
            f: Some(f),
            result: None,
        };
        let run = runner(&job);
        // SAFETY: our own `raw`, and a function with the argument that it takes.
        unsafe { (self.ops().unscheduled)(self.raw, run, (&raw mut job).cast()) };
        match job.result {
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("the kernel calls what it is given"),
        }
    }
}

impl Invoke for Cx<'_> {
    fn invoke(&self, nr: u32, args: &mut [Arg<'_>]) -> SysResult {
        let mut raw: Vec<RawArg> = args.iter_mut().map(lend).collect();
        let mut value = 0;
        let (at, count) = (raw.as_mut_ptr(), raw.len());
        // SAFETY: our own `raw`; the arguments name memory that `args` borrows.
        check(unsafe { (self.ops().invoke)(self.raw, nr, at, count, &mut value) })?;
        Ok(value)
    }
}

fn lend(arg: &mut Arg<'_>) -> RawArg {
    let (kind, value, len) = match arg {
        Arg::Val(value) => (ARG_VALUE, *value, 0),
        Arg::In(bytes) => (
            ARG_IN,
            bytes.as_ptr().expose_provenance() as u64,
            bytes.len(),
        ),
        Arg::Out(bytes) => (
            ARG_OUT,
            bytes.as_mut_ptr().expose_provenance() as u64,
            bytes.len(),
        ),
        Arg::Str(text) => (
            ARG_STR,
            text.as_ptr().expose_provenance() as u64,
            text.to_bytes_with_nul().len(),
        ),
    };
    RawArg { kind, value, len }
}

/// A [`Cx`] with which the module that starts registers what it offers.
#[derive(Debug)]
pub struct Init<'a>(Cx<'a>);

impl<'a> Deref for Init<'a> {
    type Target = Cx<'a>;
    fn deref(&self) -> &Cx<'a> {
        &self.0
    }
}

impl Init<'_> {
    /// A number in the sysctl tree, such as `answer.value`. `EEXIST`.
    pub fn sysctl_int<G>(&self, name: &str, get: G) -> Result<(), Errno>
    where
        G: Fn(&Cx<'_>) -> Result<i64, Errno> + Send + Sync + 'static,
    {
        self.int(name, get, None::<fn(&Cx<'_>, i64) -> Result<(), Errno>>)
    }

    /// One that the superuser may also set.
    pub fn sysctl_int_rw<G, S>(&self, name: &str, get: G, set: S) -> Result<(), Errno>
    where
        G: Fn(&Cx<'_>) -> Result<i64, Errno> + Send + Sync + 'static,
        S: Fn(&Cx<'_>, i64) -> Result<(), Errno> + Send + Sync + 'static,
    {
        self.int(name, get, Some(set))
    }

    fn int<G, S>(&self, name: &str, get: G, set: Option<S>) -> Result<(), Errno>
    where
        G: Fn(&Cx<'_>) -> Result<i64, Errno> + Send + Sync + 'static,
        S: Fn(&Cx<'_>, i64) -> Result<(), Errno> + Send + Sync + 'static,
    {
        unsafe extern "C" fn get_thunk<G, S>(
            cx: *const RawCx,
            arg: *mut c_void,
            value: *mut i64,
        ) -> c_int
        where
            G: Fn(&Cx<'_>) -> Result<i64, Errno>,
        {
            // SAFETY: the kernel's `cx`, the argument below, and a place.
            guard(|| unsafe {
                *value = (own::<(G, Option<S>)>(arg).0)(&Cx::new(cx))?;
                Ok(())
            })
        }
        unsafe extern "C" fn set_thunk<G, S>(
            cx: *const RawCx,
            arg: *mut c_void,
            value: i64,
        ) -> c_int
        where
            S: Fn(&Cx<'_>, i64) -> Result<(), Errno>,
        {
            // SAFETY: the kernel's `cx`, and the argument below.
            guard(|| unsafe {
                let set = own::<(G, Option<S>)>(arg).1.as_ref();
                set.ok_or(Errno::EPERM)?(&Cx::new(cx), value)
            })
        }
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let set_int = set
            .is_some()
            .then_some(set_thunk::<G, S> as crate::raw::SetInt);
        self.node(&RawSysctl {
            name: name.as_ptr(),
            get_int: Some(get_thunk::<G, S>),
            set_int,
            get_text: None,
            set_text: None,
            arg: give((get, set)),
            free: Some(free::<(G, Option<S>)>),
        })
    }

    /// A text in the sysctl tree.
    pub fn sysctl_text<G>(&self, name: &str, get: G) -> Result<(), Errno>
    where
        G: Fn(&Cx<'_>) -> Result<String, Errno> + Send + Sync + 'static,
    {
        self.text(name, get, None::<fn(&Cx<'_>, &str) -> Result<(), Errno>>)
    }

    /// One that the superuser may also set.
    pub fn sysctl_text_rw<G, S>(&self, name: &str, get: G, set: S) -> Result<(), Errno>
    where
        G: Fn(&Cx<'_>) -> Result<String, Errno> + Send + Sync + 'static,
        S: Fn(&Cx<'_>, &str) -> Result<(), Errno> + Send + Sync + 'static,
    {
        self.text(name, get, Some(set))
    }

    fn text<G, S>(&self, name: &str, get: G, set: Option<S>) -> Result<(), Errno>
    where
        G: Fn(&Cx<'_>) -> Result<String, Errno> + Send + Sync + 'static,
        S: Fn(&Cx<'_>, &str) -> Result<(), Errno> + Send + Sync + 'static,
    {
        unsafe extern "C" fn get_thunk<G, S>(
            cx: *const RawCx,
            arg: *mut c_void,
            buf: *mut c_char,
            size: usize,
        ) -> c_int
        where
            G: Fn(&Cx<'_>) -> Result<String, Errno>,
        {
            // SAFETY: the kernel's `cx`, the argument below, and a buffer of that size, which the text and its NUL fit.
            guard(|| unsafe {
                let text = (own::<(G, Option<S>)>(arg).0)(&Cx::new(cx))?;
                if text.len() >= size {
                    return Err(Errno::ERANGE);
                }
                std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast(), text.len());
                *buf.add(text.len()) = 0;
                Ok(())
            })
        }
        unsafe extern "C" fn set_thunk<G, S>(
            cx: *const RawCx,
            arg: *mut c_void,
            value: *const c_char,
        ) -> c_int
        where
            S: Fn(&Cx<'_>, &str) -> Result<(), Errno>,
        {
            // SAFETY: the kernel's `cx`, the argument below, and a string.
            guard(|| unsafe {
                let set = own::<(G, Option<S>)>(arg).1.as_ref();
                let value = CStr::from_ptr(value).to_str().map_err(|_| Errno::EINVAL)?;
                set.ok_or(Errno::EPERM)?(&Cx::new(cx), value)
            })
        }
        let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
        let set_text = set
            .is_some()
            .then_some(set_thunk::<G, S> as crate::raw::SetText);
        self.node(&RawSysctl {
            name: name.as_ptr(),
            get_int: None,
            set_int: None,
            get_text: Some(get_thunk::<G, S>),
            set_text,
            arg: give((get, set)),
            free: Some(free::<(G, Option<S>)>),
        })
    }

    fn node(&self, node: &RawSysctl) -> Result<(), Errno> {
        // SAFETY: our own `raw`; the node's functions take its argument, and its name lives for the call.
        check(unsafe { (self.ops().sysctl)(self.raw, node) })
    }

    /// A system call. Programs of this process and remote clients may make it; the memory of the latter cannot be reached by a call that
    /// their side does not know, so arguments are numbers. `EBUSY` for a number that is served.
    pub fn syscall<F>(&self, nr: u32, handler: F) -> Result<(), Errno>
    where
        F: Fn(&Cx<'_>, &[u64; 6]) -> SysResult + Send + Sync + 'static,
    {
        unsafe extern "C" fn thunk<F: Fn(&Cx<'_>, &[u64; 6]) -> SysResult>(
            cx: *const RawCx,
            arg: *mut c_void,
            args: *const u64,
            value: *mut i64,
        ) -> c_int {
            // SAFETY: the kernel's `cx`, the argument below, six registers and a place.
            guard(|| unsafe {
                *value = own::<F>(arg)(&Cx::new(cx), &*args.cast())?;
                Ok(())
            })
        }
        let nr = c_int::try_from(nr).map_err(|_| Errno::EINVAL)?;
        // SAFETY: our own `raw`, and a function that takes its argument.
        check(unsafe {
            (self.ops().syscall)(self.raw, nr, thunk::<F>, give(handler), Some(free::<F>))
        })
    }

    /// A character device with a node at `path` of these permission bits. `EEXIST`.
    pub fn device<D: Device>(&self, path: &str, perm: u32, driver: D) -> Result<(), Errno> {
        unsafe extern "C" fn open<D: Device>(
            cx: *const RawCx,
            arg: *mut c_void,
            flags: c_int,
        ) -> c_int {
            // SAFETY: the kernel's `cx`, and the argument below.
            guard(|| unsafe { own::<D>(arg).open(&Cx::new(cx), flags) })
        }
        unsafe extern "C" fn close<D: Device>(cx: *const RawCx, arg: *mut c_void) {
            // SAFETY: as above.
            guard(|| unsafe {
                own::<D>(arg).close(&Cx::new(cx));
                Ok(())
            });
        }
        unsafe extern "C" fn read<D: Device>(
            cx: *const RawCx,
            arg: *mut c_void,
            buf: *mut u8,
            len: usize,
            offset: u64,
            flags: c_int,
            done: *mut usize,
        ) -> c_int {
            // SAFETY: as above, with a buffer of that length and a place.
            guard(|| unsafe {
                let buf = std::slice::from_raw_parts_mut(buf, len);
                *done = own::<D>(arg).read(&Cx::new(cx), buf, offset, flags)?;
                Ok(())
            })
        }
        unsafe extern "C" fn write<D: Device>(
            cx: *const RawCx,
            arg: *mut c_void,
            buf: *const u8,
            len: usize,
            offset: u64,
            flags: c_int,
            done: *mut usize,
        ) -> c_int {
            // SAFETY: as above.
            guard(|| unsafe {
                let buf = std::slice::from_raw_parts(buf, len);
                *done = own::<D>(arg).write(&Cx::new(cx), buf, offset, flags)?;
                Ok(())
            })
        }
        unsafe extern "C" fn ioctl<D: Device>(
            cx: *const RawCx,
            arg: *mut c_void,
            cmd: u32,
            addr: u64,
            value: *mut i64,
        ) -> c_int {
            // SAFETY: as above.
            guard(|| unsafe {
                *value = own::<D>(arg).ioctl(&Cx::new(cx), cmd, UserAddr(addr))?;
                Ok(())
            })
        }
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        let table = RawCdevsw {
            open: Some(open::<D>),
            close: Some(close::<D>),
            read: Some(read::<D>),
            write: Some(write::<D>),
            ioctl: Some(ioctl::<D>),
        };
        // SAFETY: our own `raw`, a string, and a table whose functions take the argument.
        check(unsafe {
            let (arg, free) = (give(driver), Some(free::<D> as unsafe extern "C" fn(_)));
            (self.ops().cdev)(self.raw, path.as_ptr(), perm, &table, arg, free)
        })
    }
}

fn check(error: c_int) -> Result<(), Errno> {
    match error {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

/// A value as an argument of functions, until [`free`].
fn give<T>(value: T) -> *mut c_void {
    Box::into_raw(Box::new(value)).cast()
}

/// # Safety
/// `arg` is of [`give`] with this type, and not freed.
unsafe fn own<'a, T>(arg: *mut c_void) -> &'a T {
    // SAFETY: the caller's condition.
    unsafe { &*arg.cast::<T>() }
}

/// # Safety
/// `arg` is of [`give`] with this type; called once.
unsafe extern "C" fn free<T>(arg: *mut c_void) {
    guard(|| {
        // SAFETY: the caller's condition.
        drop(unsafe { Box::from_raw(arg.cast::<T>()) });
        Ok(())
    });
}

/// A panic ends the call with `EIO`, and no more: it must not come out of a function that C calls.
fn guard(f: impl FnOnce() -> Result<(), Errno>) -> c_int {
    match catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Errno::EIO)) {
        Ok(()) => 0,
        Err(errno) => errno.0,
    }
}

/// A module's function, for [`module!`](crate::module!).
///
/// # Safety
/// `arg` is what the kernel gives with `cmd`.
pub unsafe extern "C" fn modcmd<M: Module>(cmd: c_int, arg: *mut c_void) -> c_int {
    guard(|| {
        // SAFETY: the caller's condition.
        let cx = unsafe { Cx::new(arg.cast_const().cast()) };
        match cmd {
            MODULE_CMD_INIT => M::init(&Init(cx)),
            MODULE_CMD_FINI => M::fini(&cx),
            _ => Err(Errno::ENOTTY),
        }
    })
}

/// Exports a type that is a [`Module`] from a shared object, which has one.
#[macro_export]
macro_rules! module {
    ($module:ty) => {
        const _: () = {
            static INFO: $crate::raw::RawInfo = $crate::raw::RawInfo {
                version: $crate::raw::VERSION,
                class: 0,
                modcmd: Some($crate::author::modcmd::<$module>),
                name: <$module as $crate::Module>::NAME.as_ptr(),
                required: <$module as $crate::Module>::REQUIRES.as_ptr(),
            };
            #[unsafe(export_name = "rump_module_abi")]
            pub static ABI: u64 = $crate::raw::ABI;
            #[unsafe(export_name = "rump_module_info")]
            pub static EXPORTED: $crate::raw::InfoRef = $crate::raw::InfoRef(&raw const INFO);
        };
    };
}

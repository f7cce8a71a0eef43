//! The kernel's side: starting a module, and the table of functions that it is given.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;

use abi::{Arg, Errno, SysResult, UserAddr};
use kern::module::{Module, ModuleCode, ModuleInfo};
use kern::sysctl::{Kind, SetNode, Value};
use kern::{ArgMemory, Curlwp, PathBytes};
use vfs::CharDevice;

use crate::Error;
use crate::memory::SelfMemory;
use crate::raw::{
    ARG_IN, ARG_OUT, ARG_STR, ARG_VALUE, Free, Handler, MODULE_CMD_FINI, MODULE_CMD_INIT, Ops,
    RawArg, RawCdevsw, RawCx, RawInfo, RawSysctl, VERSION,
};

/// The longest text of a sysctl node, in bytes.
const LONGEST: usize = 64 << 10;
/// The most arguments of a call.
const MAX_ARGS: usize = 6;

/// Starts a module: it must be compiled for this version (`EPROTONOSUPPORT`), be new (`EEXIST`), and find started what it requires
/// (`ENOENT`). Answers its name.
///
/// # Safety
/// 1. The strings and the function of `info` are good, and stay so for the rest of the process's life.
/// 2. The function does what `rump/rumpmodule.h` says, and so do those that it registers.
pub unsafe fn start(cx: &Curlwp<'_>, info: &'static RawInfo) -> Result<String, Error> {
    // SAFETY: the first condition.
    let said = unsafe { info_of(info) }?;
    let modcmd = info.modcmd.ok_or_else(|| {
        Error::new(
            Errno::EINVAL,
            format!("module {}: has no function", said.name),
        )
    })?;
    let started = cx.kernel().module_list(cx);
    let is_missing = |r: &&String| !started.iter().any(|m| m.name == **r);
    if let Some(missing) = said.requires.iter().find(is_missing) {
        let text = format!(
            "module {}: requires {missing}, which is not started; start that one before",
            said.name
        );
        return Err(Error::new(Errno::ENOENT, text));
    }
    let name = said.name.clone();
    let code = Code { modcmd };
    let result = cx.kernel().module_init(cx, said, Box::new(code));
    match result {
        Ok(()) => Ok(name),
        Err(errno) => {
            let why = match errno {
                Errno::EEXIST => "it is started already".to_owned(),
                Errno::ESHUTDOWN => "the kernel goes down".to_owned(),
                errno => format!("does not start: {errno}"),
            };
            Err(Error::new(errno, format!("module {name}: {why}")))
        }
    }
}

/// What a module says of itself, in Rust's words; its version is looked at before anything else.
///
/// # Safety
/// The strings of `info` are good.
pub unsafe fn info_of(info: &RawInfo) -> Result<ModuleInfo, Error> {
    if info.version != VERSION {
        // SAFETY: the caller's condition.
        let name = unsafe { text(info.name) }.unwrap_or_else(|| "without a name".to_owned());
        let text = format!(
            "module {name}: compiled for version {}, this is {VERSION}; compile it again",
            info.version
        );
        return Err(Error::new(Errno::EPROTONOSUPPORT, text));
    }
    // SAFETY: the caller's condition.
    let (name, required) = unsafe { (text(info.name), text(info.required)) };
    let name = name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Error::new(Errno::EINVAL, "a module without a name"))?;
    let requires = required.unwrap_or_default();
    let requires = requires.split(',').filter(|name| !name.is_empty());
    Ok(ModuleInfo {
        name,
        requires: requires.map(str::to_owned).collect(),
    })
}

/// # Safety
/// Null, or a string that ends with a NUL.
unsafe fn text(at: *const c_char) -> Option<String> {
    // SAFETY: the caller's condition.
    (!at.is_null()).then(|| unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned())
}

/// The code of a module in C's hands.
struct Code {
    modcmd: unsafe extern "C" fn(c_int, *mut c_void) -> c_int,
}

impl ModuleCode for Code {
    fn init(&self, cx: &Curlwp<'_>, module: &Arc<Module>) -> Result<(), Errno> {
        let cx = HostCx::new(cx, Some(module));
        // SAFETY: `start`'s second condition.
        answer(unsafe { (self.modcmd)(MODULE_CMD_INIT, cx.as_arg()) })
    }

    fn fini(&self, cx: &Curlwp<'_>, _: &Arc<Module>) -> Result<(), Errno> {
        let cx = HostCx::new(cx, None);
        // SAFETY: as above.
        answer(unsafe { (self.modcmd)(MODULE_CMD_FINI, cx.as_arg()) })
    }
}

/// What a module's function has answered.
fn answer(error: c_int) -> Result<(), Errno> {
    match error {
        0 => Ok(()),
        errno => Err(Errno(errno.saturating_abs().clamp(1, 4095))),
    }
}

/// What the kernel answers to a module.
fn code(result: Result<(), Errno>) -> c_int {
    result.err().map_or(0, |errno| errno.0)
}

/// `struct rump_cx` with what is behind it; on the stack of whoever calls the module.
#[repr(C)]
struct HostCx<'a> {
    raw: RawCx,
    cx: &'a Curlwp<'a>,
    /// While it starts.
    module: Option<&'a Module>,
}

impl<'a> HostCx<'a> {
    fn new(cx: &'a Curlwp<'a>, module: Option<&'a Arc<Module>>) -> HostCx<'a> {
        HostCx {
            raw: RawCx { ops: &OPS },
            cx,
            module: module.map(|m| &**m),
        }
    }

    fn as_raw(&self) -> *const RawCx {
        std::ptr::from_ref(self).cast()
    }

    fn as_arg(&self) -> *mut c_void {
        self.as_raw().cast_mut().cast()
    }

    /// # Safety
    /// `raw` came from [`as_raw`](Self::as_raw), and the function that was given it has not come back.
    unsafe fn from_raw(raw: *const RawCx) -> &'a HostCx<'a> {
        // SAFETY: the caller's condition.
        unsafe { &*raw.cast() }
    }

    fn registering(&self) -> Result<&Module, Errno> {
        self.module.ok_or(Errno::EPERM)
    }
}

/// A module's argument to its own functions.
struct Own {
    arg: *mut c_void,
    free: Free,
}

// SAFETY: the module lets its functions be called by any thread, several at once, by `start`'s second condition.
unsafe impl Send for Own {}
// SAFETY: as above.
unsafe impl Sync for Own {}

impl Own {
    /// A method, so that closures capture the whole.
    fn arg(&self) -> *mut c_void {
        self.arg
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the module's function for this; called once, and nothing uses the argument any more.
            unsafe { free(self.arg) };
        }
    }
}

static OPS: Ops = Ops {
    sysctl,
    syscall,
    cdev,
    copyin,
    copyout,
    copyinstr,
    call,
    invoke,
    getpid,
    geteuid,
    kill,
    log,
    tsleep,
    wakeup,
    unscheduled,
};

unsafe extern "C" fn sysctl(cx: *const RawCx, node: *const RawSysctl) -> c_int {
    // SAFETY: the module hands back what it was given, and a good node.
    let (cx, node) = unsafe { (HostCx::from_raw(cx), &*node) };
    let own = Arc::new(Own {
        arg: node.arg,
        free: node.free,
    });
    // SAFETY: the node's name is a string.
    let Some(name) = (unsafe { text(node.name) }) else {
        return Errno::EINVAL.0;
    };
    code(cx.registering().and_then(|module| {
        if let Some(get) = node.get_int {
            let of = own.clone();
            let read = move |cx: &Curlwp<'_>| {
                let cx = HostCx::new(cx, None);
                let mut value = 0;
                // SAFETY: the module's own function with its own argument.
                answer(unsafe { get(cx.as_raw(), of.arg(), &mut value) })?;
                Ok(Value::Int(value))
            };
            let write = node.set_int.map(|set| -> SetNode {
                Box::new(move |cx, value| {
                    let Value::Int(value) = value else {
                        return Err(Errno::EINVAL);
                    };
                    let cx = HostCx::new(cx, None);
                    // SAFETY: as above.
                    answer(unsafe { set(cx.as_raw(), own.arg(), value) })
                })
            });
            return module.sysctl(cx.cx, &name, Kind::Int, read, write);
        }
        let get = node.get_text.ok_or(Errno::EINVAL)?;
        let of = own.clone();
        let read = move |cx: &Curlwp<'_>| {
            let cx = HostCx::new(cx, None);
            let mut buf = vec![0u8; 256];
            loop {
                // SAFETY: the module's own function with its own argument; the buffer has the size that it is told.
                let said = answer(unsafe {
                    get(cx.as_raw(), of.arg(), buf.as_mut_ptr().cast(), buf.len())
                });
                match said {
                    Err(Errno::ERANGE) if buf.len() < LONGEST => buf.resize(buf.len() * 4, 0),
                    said => break said?,
                }
            }
            let text = CStr::from_bytes_until_nul(&buf).map_err(|_| Errno::EIO)?;
            Ok(Value::Text(text.to_string_lossy().into_owned()))
        };
        let write = node.set_text.map(|set| -> SetNode {
            Box::new(move |cx, value| {
                let Value::Text(value) = value else {
                    return Err(Errno::EINVAL);
                };
                let value = CString::new(value).map_err(|_| Errno::EINVAL)?;
                let cx = HostCx::new(cx, None);
                // SAFETY: the module's own function with its own argument, and a string.
                answer(unsafe { set(cx.as_raw(), own.arg(), value.as_ptr()) })
            })
        });
        module.sysctl(cx.cx, &name, Kind::Text, read, write)
    }))
}

unsafe extern "C" fn syscall(
    cx: *const RawCx,
    nr: c_int,
    handler: Handler,
    arg: *mut c_void,
    free: Free,
) -> c_int {
    // SAFETY: the module hands back what it was given.
    let cx = unsafe { HostCx::from_raw(cx) };
    let own = Own { arg, free };
    let handle = move |cx: &Curlwp<'_>, args: &[u64; 6]| -> SysResult {
        let cx = HostCx::new(cx, None);
        let mut value = 0;
        // SAFETY: the module's own function with its own argument, and six registers.
        answer(unsafe { handler(cx.as_raw(), own.arg(), args.as_ptr(), &mut value) })?;
        Ok(value.max(0))
    };
    code(cx.registering().and_then(|module| {
        let nr = u32::try_from(nr).map_err(|_| Errno::EINVAL)?;
        module.syscall(cx.cx, nr, handle)
    }))
}

/// A driver in C's hands.
struct Driver {
    ops: RawCdevsw,
    own: Own,
}

unsafe extern "C" fn cdev(
    cx: *const RawCx,
    path: *const c_char,
    mode: u32,
    ops: *const RawCdevsw,
    arg: *mut c_void,
    free: Free,
) -> c_int {
    let own = Own { arg, free };
    if path.is_null() || ops.is_null() {
        return Errno::EFAULT.0;
    }
    // SAFETY: the module hands back what it was given, a string, and a good table.
    let (cx, path, ops) = unsafe { (HostCx::from_raw(cx), CStr::from_ptr(path), *ops) };
    let driver = Arc::new(Driver { ops, own });
    code(cx.registering().and_then(|module| {
        vfs::add_char_device(cx.cx, module, path.to_bytes(), mode & 0o7777, driver)
    }))
}

impl CharDevice for Driver {
    fn open(&self, cx: &Curlwp<'_>, flags: i32) -> Result<(), Errno> {
        let Some(open) = self.ops.open else {
            return Ok(());
        };
        let cx = HostCx::new(cx, None);
        // SAFETY: the module's own function with its own argument.
        answer(unsafe { open(cx.as_raw(), self.own.arg, flags) })
    }

    fn read(
        &self,
        cx: &Curlwp<'_>,
        buf: &mut [u8],
        offset: u64,
        flags: i32,
    ) -> Result<usize, Errno> {
        let read = self.ops.read.ok_or(Errno::EINVAL)?;
        let (cx, mut done) = (HostCx::new(cx, None), 0);
        let (at, len) = (buf.as_mut_ptr(), buf.len());
        // SAFETY: as above; the buffer has the size that it is told.
        answer(unsafe { read(cx.as_raw(), self.own.arg, at, len, offset, flags, &mut done) })?;
        Ok(done.min(len))
    }

    fn write(&self, cx: &Curlwp<'_>, buf: &[u8], offset: u64, flags: i32) -> Result<usize, Errno> {
        let write = self.ops.write.ok_or(Errno::EINVAL)?;
        let (cx, mut done) = (HostCx::new(cx, None), 0);
        let (at, len) = (buf.as_ptr(), buf.len());
        // SAFETY: as above.
        answer(unsafe { write(cx.as_raw(), self.own.arg, at, len, offset, flags, &mut done) })?;
        Ok(done.min(len))
    }

    fn ioctl(&self, cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> SysResult {
        let ioctl = self.ops.ioctl.ok_or(Errno::ENOTTY)?;
        let (cx, mut value) = (HostCx::new(cx, None), 0);
        // SAFETY: as above.
        answer(unsafe { ioctl(cx.as_raw(), self.own.arg, cmd, arg.0, &mut value) })?;
        Ok(value.max(0))
    }

    fn close(&self, cx: &Curlwp<'_>) {
        if let Some(close) = self.ops.close {
            let cx = HostCx::new(cx, None);
            // SAFETY: as above.
            unsafe { close(cx.as_raw(), self.own.arg) };
        }
    }
}

unsafe extern "C" fn copyin(cx: *const RawCx, from: u64, to: *mut c_void, len: usize) -> c_int {
    if len == 0 {
        return 0;
    }
    // SAFETY: the module hands back what it was given, and a buffer of `len` bytes, which is written before it is read.
    let (cx, to) = unsafe {
        to.cast::<u8>().write_bytes(0, len);
        (
            HostCx::from_raw(cx),
            std::slice::from_raw_parts_mut(to.cast(), len),
        )
    };
    code(cx.cx.copyin(UserAddr(from), to))
}

unsafe extern "C" fn copyout(cx: *const RawCx, from: *const c_void, to: u64, len: usize) -> c_int {
    if len == 0 {
        return 0;
    }
    // SAFETY: the module hands back what it was given, and `len` bytes.
    let (cx, from) = unsafe {
        (
            HostCx::from_raw(cx),
            std::slice::from_raw_parts(from.cast(), len),
        )
    };
    code(cx.cx.copyout(from, UserAddr(to)))
}

unsafe extern "C" fn copyinstr(
    cx: *const RawCx,
    from: u64,
    to: *mut c_char,
    size: usize,
    len: *mut usize,
) -> c_int {
    // SAFETY: the module hands back what it was given.
    let cx = unsafe { HostCx::from_raw(cx) };
    let found: Result<PathBytes, Errno> = match size.checked_sub(1) {
        None => Err(Errno::ENAMETOOLONG),
        Some(max) => cx.cx.copyin_str(UserAddr(from), max),
    };
    code(found.map(|text| {
        // SAFETY: a buffer of `size` bytes, of which the text and its NUL take at most that; `len` is null or a place.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), text.len());
            *to.add(text.len()) = 0;
            if let Some(len) = len.as_mut() {
                *len = text.len();
            }
        }
    }))
}

/// What a call has answered.
///
/// # Safety
/// `retval` is null or a place.
unsafe fn answer_call(result: SysResult, retval: *mut i64) -> c_int {
    match result {
        Ok(value) => {
            // SAFETY: the caller's condition.
            if let Some(to) = unsafe { retval.as_mut() } {
                *to = value;
            }
            0
        }
        Err(errno) => errno.0,
    }
}

unsafe extern "C" fn call(
    cx: *const RawCx,
    nr: c_int,
    args: *const u64,
    retval: *mut i64,
) -> c_int {
    let Ok(nr) = u32::try_from(nr) else {
        return Errno::ENOSYS.0;
    };
    // SAFETY: the module hands back what it was given, and six registers.
    let (cx, args) = unsafe { (HostCx::from_raw(cx), *args.cast::<[u64; 6]>()) };
    let result = cx.cx.with_memory(&SelfMemory, |cx| cx.syscall(nr, &args));
    // SAFETY: the module gives null or a place.
    unsafe { answer_call(result, retval) }
}

unsafe extern "C" fn invoke(
    cx: *const RawCx,
    nr: u32,
    args: *mut RawArg,
    count: usize,
    retval: *mut i64,
) -> c_int {
    if count > MAX_ARGS {
        return Errno::EINVAL.0;
    }
    // SAFETY: the module hands back what it was given, and so many arguments.
    let (cx, args) = unsafe {
        (
            HostCx::from_raw(cx),
            std::slice::from_raw_parts(args, count),
        )
    };
    // SAFETY: what the arguments name is lent for the call.
    let args: Result<Vec<Arg<'_>>, Errno> = args.iter().map(|a| unsafe { lent(a) }).collect();
    let result = args.and_then(|mut args| {
        let registers = ArgMemory::registers(&args);
        let memory = ArgMemory::new(&mut args);
        cx.cx.with_memory(&memory, |cx| cx.syscall(nr, &registers))
    });
    // SAFETY: the module gives null or a place.
    unsafe { answer_call(result, retval) }
}

/// # Safety
/// What the argument names is memory of the kind that it says, for as long as the result is used.
unsafe fn lent<'a>(arg: &RawArg) -> Result<Arg<'a>, Errno> {
    let at = arg.value as usize as *mut u8;
    // SAFETY: the caller's condition.
    unsafe {
        Ok(match arg.kind {
            ARG_VALUE => Arg::Val(arg.value),
            ARG_IN if arg.len == 0 => Arg::In(&[]),
            ARG_OUT if arg.len == 0 => Arg::Out(&mut []),
            ARG_IN => Arg::In(std::slice::from_raw_parts(at, arg.len)),
            ARG_OUT => Arg::Out(std::slice::from_raw_parts_mut(at, arg.len)),
            ARG_STR => {
                let text = std::slice::from_raw_parts(at, arg.len);
                Arg::Str(CStr::from_bytes_with_nul(text).map_err(|_| Errno::EINVAL)?)
            }
            _ => return Err(Errno::EINVAL),
        })
    }
}

unsafe extern "C" fn getpid(cx: *const RawCx) -> i32 {
    // SAFETY: the module hands back what it was given.
    unsafe { HostCx::from_raw(cx) }.cx.proc().shown_pid()
}

unsafe extern "C" fn geteuid(cx: *const RawCx) -> u32 {
    // SAFETY: the module hands back what it was given.
    unsafe { HostCx::from_raw(cx) }.cx.cred().euid
}

unsafe extern "C" fn kill(cx: *const RawCx, pid: i32, signo: c_int) -> c_int {
    // SAFETY: the module hands back what it was given.
    let cx = unsafe { HostCx::from_raw(cx) };
    let signo = u32::try_from(signo).map_err(|_| Errno::EINVAL);
    code(signo.and_then(|signo| cx.cx.kill(pid, signo)))
}

unsafe extern "C" fn log(cx: *const RawCx, line: *const c_char) {
    // SAFETY: the module hands back what it was given, and a string.
    let (cx, line) = unsafe { (HostCx::from_raw(cx), text(line)) };
    cx.cx.log(format_args!("{}", line.unwrap_or_default()));
}

unsafe extern "C" fn tsleep(cx: *const RawCx, ident: *const c_void, nanoseconds: u64) -> c_int {
    // SAFETY: the module hands back what it was given.
    let cx = unsafe { HostCx::from_raw(cx) };
    let timeout = (nanoseconds != 0).then_some(nanoseconds);
    code(cx.cx.tsleep(ident.addr(), "module", timeout))
}

unsafe extern "C" fn wakeup(cx: *const RawCx, ident: *const c_void) {
    // SAFETY: the module hands back what it was given.
    unsafe { HostCx::from_raw(cx) }.cx.wakeup(ident.addr());
}

unsafe extern "C" fn unscheduled(
    cx: *const RawCx,
    function: unsafe extern "C" fn(*mut c_void),
    arg: *mut c_void,
) {
    // SAFETY: the module hands back what it was given.
    let cx = unsafe { HostCx::from_raw(cx) };
    // SAFETY: the module's own function with its own argument.
    cx.cx.unscheduled(|| unsafe { function(arg) });
}

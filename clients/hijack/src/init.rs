//! The start: before the program's first instruction, the loader runs the shim's constructor. It reads the environment,
//! connects to the kernel (or takes over the connection of the program that made this exec), and rewrites what is
//! mapped. What goes wrong ends the program with a message: it must not run on the host by mistake.

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::{Errno, Fdinfo, O_CLOEXEC, O_PATH, nr};
use rumpclient::raw::Url;

use crate::config::{Config, DEFAULT};
use crate::message::{Bytes, die};
use crate::state::{Kind, MAIN, raw_thread};
use crate::sys::{failed, host};
use crate::{cwd, entry, objects, retry};

/// What the constructor leaves for later: it lives as long as the program.
struct Setup {
    config: Config<'static>,
    url: &'static [u8],
    /// The shim's file, as LD_PRELOAD names it.
    shim: &'static [u8],
    server_variable: &'static CStr,
    parsed_variable: &'static CStr,
    hijack_variable: Option<&'static CStr>,
}

static SETUP: OnceLock<Setup> = OnceLock::new();
static CONNECTED: AtomicBool = AtomicBool::new(false);

/// What goes to the kernel.
pub(crate) fn config() -> &'static Config<'static> {
    static NOTHING: OnceLock<Config<'static>> = OnceLock::new();
    SETUP
        .get()
        .map_or_else(|| NOTHING.get_or_init(Config::default), |s| &s.config)
}

/// Whether there is a kernel behind.
pub(crate) fn connected() -> bool {
    CONNECTED.load(Ordering::Acquire)
}

/// Where the kernel is.
pub(crate) fn url() -> &'static [u8] {
    SETUP.get().map_or(b"", |s| s.url)
}

/// The shim's file.
pub(crate) fn shim() -> &'static [u8] {
    SETUP.get().map_or(b"", |s| s.shim)
}

/// `RUMP_SERVER=...`, the address of a C string.
pub(crate) fn server_variable() -> u64 {
    SETUP.get().map_or(0, |s| s.server_variable.as_ptr() as u64)
}

/// `RUMP__PARSEDSERVER=...`.
pub(crate) fn parsed_variable() -> u64 {
    SETUP.get().map_or(0, |s| s.parsed_variable.as_ptr() as u64)
}

/// `RUMPHIJACK=...`, 0 when it was not set.
pub(crate) fn hijack_variable() -> u64 {
    SETUP
        .get()
        .and_then(|s| s.hijack_variable)
        .map_or(0, |v| v.as_ptr() as u64)
}

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

/// Does its work in the preloaded library only: a test or benchmark that links this crate has the code in its program,
/// where it waits to be called.
extern "C" fn constructor() {
    // Unwinding out of here would end the program without a word.
    let done = std::panic::catch_unwind(|| {
        if is_library() {
            start();
        }
    });
    if done.is_err() {
        die(format_args!(
            "rump_hijack: a fault of the shim itself at its start; the program is not run\n"
        ));
    }
}

/// Whether this code is in an object of its own and not in the program.
fn is_library() -> bool {
    own_path().is_some_and(|path| path.to_bytes().ends_with(b".so"))
}

/// The file that this code was loaded from.
fn own_path() -> Option<&'static CStr> {
    // SAFETY: dladdr fills the structure for an address inside an object; the name lives as long as the object.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let found = libc::dladdr(constructor as *const libc::c_void, &mut info) != 0;
        (found && !info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))
    }
}

/// Takes a variable out of the environment's text for good: the program may overwrite that.
fn variable(name: &str) -> Option<&'static [u8]> {
    std::env::var_os(name).map(|v| -> &'static [u8] { v.into_vec().leak() })
}

fn start() {
    let spec = variable("RUMPHIJACK");
    let config =
        Config::parse(spec.unwrap_or(DEFAULT)).unwrap_or_else(|e| die(format_args!("{e}\n")));
    if let Some(to) = variable("RUMPHIJACK_EXPLAIN").and_then(|to| CString::new(to).ok()) {
        objects::explain(Box::leak(to.into_boxed_c_str()));
    }
    let url = variable("RUMP__PARSEDSERVER")
        .or_else(|| variable("RUMP_SERVER").map(absolute))
        .unwrap_or(b"");
    if let Some(value) = variable("RUMPHIJACK_RETRYCONNECT") {
        retry::set(value);
    }
    set_up(config, url, spec, own_path().map_or(b"", CStr::to_bytes));
    if !config.is_nothing() {
        connect(&config, url);
    }
    entry::set_classes(&config);
    objects::rewrite_all();
}

/// The URL with an absolute path, so that it stays good when the program changes its directory.
fn absolute(url: &'static [u8]) -> &'static [u8] {
    let Some(path) = url
        .strip_prefix(b"unix://")
        .filter(|p| !p.starts_with(b"/") && !p.starts_with(b"@"))
    else {
        return url;
    };
    let Ok(dir) = std::env::current_dir() else {
        return url;
    };
    [b"unix://", dir.as_os_str().as_bytes(), b"/", path]
        .concat()
        .leak()
}

fn set_up(
    config: Config<'static>,
    url: &'static [u8],
    spec: Option<&'static [u8]>,
    shim: &'static [u8],
) {
    let variable = |name: &str, value: &[u8]| -> &'static CStr {
        let text = CString::new([name.as_bytes(), b"=", value].concat()).unwrap_or_default();
        Box::leak(text.into_boxed_c_str())
    };
    let _ = SETUP.set(Setup {
        config,
        url,
        shim,
        server_variable: variable("RUMP_SERVER", url),
        parsed_variable: variable("RUMP__PARSEDSERVER", url),
        hijack_variable: spec.map(|spec| variable("RUMPHIJACK", spec)),
    });
}

/// Stands in for the constructor in tests.
#[cfg(test)]
pub(crate) fn for_test(url: &'static str, spec: &'static str, shim: &'static str) {
    let config = Config::parse(spec.as_bytes()).unwrap_or_default();
    set_up(
        config,
        url.as_bytes(),
        Some(spec.as_bytes()),
        shim.as_bytes(),
    );
}

fn connect(config: &Config<'_>, url: &'static [u8]) {
    if url.is_empty() {
        die(format_args!(
            "rump_hijack: RUMP_SERVER is not set, so there is no kernel to send calls to; start the program by \
             `rump run` or `rump exec`, or set RUMP_SERVER to the server's URL\n"
        ));
    }
    if let Err(e) = Url::parse(url) {
        die(format_args!(
            "rump_hijack: RUMP_SERVER: {}: {e}\n",
            Bytes(url)
        ));
    }
    reserve_descriptors();
    let mut comm = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    unsafe { host!(prctl, 16, comm.as_mut_ptr(), 0, 0, 0) };
    let comm = comm.split(|&b| b == 0).next().unwrap_or(b"");
    let ts = raw_thread();
    let handover = variable("RUMPCLIENT__EXECFD");
    let connected = match handover {
        Some(state) => MAIN.client.after_exec(ts, url, state, comm),
        None => MAIN.client.connect(ts, url, comm, 0),
    };
    if let Err(e) = connected {
        die(format_args!(
            "rump_hijack: cannot reach the kernel at {} ({}); is the server running?\n",
            Bytes(url),
            std::io::Error::from_raw_os_error(e.0)
        ));
    }
    if handover.is_some() {
        adopt_descriptors();
    } else {
        tell_umask();
    }
    if std::env::var_os("RUMPHIJACK__PWDINRUMP").is_some() {
        MAIN.cwd.store(cwd::INSIDE, Ordering::Release);
    } else {
        cwd::settle_on_host(config, &MAIN);
    }
    forget("RUMPCLIENT__EXECFD");
    forget("RUMPHIJACK__PWDINRUMP");
    CONNECTED.store(true, Ordering::Release);
}

/// A variable that was for this program only.
fn forget(name: &str) {
    if std::env::var_os(name) != Some(OsString::new()) {
        // SAFETY: the constructor runs before the program, in its only thread.
        unsafe { std::env::remove_var(name) };
    }
}

/// Keeps the shim's descriptors at high numbers, and opens what kernel descriptors are duplicates of.
fn reserve_descriptors() {
    let mut limit = [0u64; 2];
    // SAFETY: a buffer of the size of struct rlimit; new descriptors of our own.
    unsafe {
        host!(getrlimit, 7, limit.as_mut_ptr());
        // Not higher than the usual limit, because the host's table grows to the highest number in use.
        let limit = limit[0].min(1024);
        let floor = limit - (limit / 4).min(64);
        MAIN.floor.store(floor as u32, Ordering::Release);
        MAIN.client.set_fd_floor(floor as i32);
        let low = host!(open, c"/".as_ptr(), O_PATH | O_CLOEXEC, 0);
        let high = host!(fcntl, low, abi::F_DUPFD_CLOEXEC, floor);
        if failed(low) || failed(high) {
            die(format_args!(
                "rump_hijack: no descriptor is free for the shim; raise the limit (ulimit -n)\n"
            ));
        }
        host!(close, low);
        MAIN.set_placeholder(high as i32);
    }
}

/// After exec: the kernel says which descriptors it has kept open; their host slots are.
fn adopt_descriptors() {
    let mut room = vec![Fdinfo::default(); 256];
    loop {
        match MAIN.client.fdinfo(raw_thread(), &mut room) {
            Ok(count) if count > room.len() => room.resize(count, Fdinfo::default()),
            Ok(count) => {
                for info in room.iter().take(count) {
                    adopt(info.fd);
                }
                return;
            }
            Err(Errno::EINTR) => {}
            Err(e) => die(format_args!(
                "rump_hijack: the kernel does not tell its descriptors ({e:?})\n"
            )),
        }
    }
}

/// A kernel descriptor whose host slot is still there goes on; the shadow of an epoll descriptor goes on as that; what
/// has lost its slot is closed.
fn adopt(fd: i32) {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    match link {
        Ok(name) if name.as_os_str() == "anon_inode:[eventpoll]" => MAIN.set(fd, Kind::Shadowed),
        Ok(_) => MAIN.set(fd, Kind::Kernel),
        Err(_) => {
            MAIN.client
                .call(raw_thread(), nr::close, &[fd as u64, 0, 0, 0, 0, 0]);
        }
    }
}

/// A new process of the kernel creates files with the program's mask.
fn tell_umask() {
    // SAFETY: the mask is set back at once, in the only thread.
    let mask = unsafe {
        let mask = host!(umask, 0);
        host!(umask, mask);
        mask
    };
    MAIN.client
        .call(raw_thread(), nr::umask, &[mask as u64, 0, 0, 0, 0, 0]);
}

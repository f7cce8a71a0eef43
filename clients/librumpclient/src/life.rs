//! The process's life at the server: init, fork, exec.

use std::ffi::{CString, c_char, c_int};
use std::sync::{Mutex, PoisonError};

use abi::Errno;
use abi::sysproxy::Cookie;
use client::{Client, Reconnect};

use crate::context::{current, establish};

/// What setconnretry chose.
static POLICY: Mutex<Reconnect> = Mutex::new(Reconnect::Once);

/// The server's URL with an absolute path, over an exec.
const PARSEDSERVER: &str = "RUMP__PARSEDSERVER";
/// The connection, over an exec.
const EXECFD: &str = "RUMPCLIENT__EXECFD";

pub(crate) fn set_policy(policy: Reconnect) {
    *POLICY.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    if let Ok(client) = current() {
        client.set_policy(policy);
    }
}

/// 0, or -1 and errno.
fn answer(result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => set_errno(errno),
    }
}

fn set_errno(errno: Errno) -> c_int {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = errno.0 };
    -1
}

/// Becomes a process of the server that `RUMP_SERVER` names; after rumpclient_exec the one that the program before was. 0 also when it
/// is one. -1 and errno: `ENOENT` when nothing names a server, `EINVAL` for a URL that is none, what connect(2) says.
#[unsafe(no_mangle)]
pub extern "C" fn rumpclient_init() -> c_int {
    answer(init())
}

fn init() -> Result<(), Errno> {
    if current().is_ok() {
        return Ok(());
    }
    let policy = *POLICY.lock().unwrap_or_else(PoisonError::into_inner);
    let url = std::env::var(PARSEDSERVER)
        .or_else(|_| std::env::var("RUMP_SERVER"))
        .map_err(|_| Errno::ENOENT)?;
    let client = match std::env::var(EXECFD) {
        Ok(handover) => Client::after_exec(&url, &handover, &comm())?,
        Err(_) => Client::connect(&url, &comm())?,
    };
    // SAFETY: C programs change their environment where no other thread reads it; the connection is used up.
    unsafe { libc::unsetenv(c"RUMPCLIENT__EXECFD".as_ptr()) };
    establish(client, policy);
    Ok(())
}

/// The program's name.
fn comm() -> String {
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    match comm.trim_end() {
        "" => "rumpclient".to_owned(),
        comm => comm.to_owned(),
    }
}

/// C's `struct rumpclient_fork`: a process that waits for its fork.
#[derive(Debug)]
pub struct Fork(Cookie);

/// Before a fork: makes the child's process at the server, with a copy of the descriptors. Null and errno.
#[unsafe(no_mangle)]
pub extern "C" fn rumpclient_prefork() -> *mut Fork {
    let made = current().and_then(|client| client.with(|raw, thread| raw.prefork(thread)));
    match made {
        Ok(cookie) => Box::into_raw(Box::new(Fork(cookie))),
        Err(errno) => {
            set_errno(errno);
            std::ptr::null_mut()
        }
    }
}

/// In the child: becomes the process that prefork made. -1 and errno: `ESRCH` when it is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpclient_fork_init(fork: *mut Fork) -> c_int {
    // SAFETY: made by rumpclient_prefork, and given back once in each process.
    let fork = unsafe { Box::from_raw(fork) };
    answer(current().and_then(|client| {
        client.with(|raw, thread| {
            let url = raw.url().to_vec();
            raw.connect_fork(thread, &url, fork.0)
        })
    }))
}

/// The fork failed: lets the process go.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpclient_fork_cancel(fork: *mut Fork) {
    // SAFETY: made by rumpclient_prefork, and given back once.
    let fork = unsafe { Box::from_raw(fork) };
    if let Ok(client) = current() {
        // A server that is gone has let it go already.
        let _ = client.with(|raw, thread| raw.prefork_cancel(thread, fork.0));
    }
}

/// In the parent after a fork: frees what prefork gave it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpclient_fork_vparent(fork: *mut Fork) {
    // SAFETY: made by rumpclient_prefork, and given back once in each process.
    drop(unsafe { Box::from_raw(fork) });
}

/// fork(2) of the process here and at the server. A child that cannot become one there is told -1.
#[unsafe(no_mangle)]
pub extern "C" fn rumpclient_fork() -> libc::pid_t {
    // SAFETY: the child goes on as C's children do.
    fork_with(|| unsafe { libc::fork() })
}

/// The same as [`rumpclient_fork`]: vfork(2)'s child cannot come back from here.
#[unsafe(no_mangle)]
pub extern "C" fn rumpclient_vfork() -> libc::pid_t {
    rumpclient_fork()
}

fn fork_with(fork: impl FnOnce() -> libc::pid_t) -> libc::pid_t {
    let made = rumpclient_prefork();
    if made.is_null() {
        return -1;
    }
    match fork() {
        -1 => {
            let errno = std::io::Error::last_os_error().raw_os_error();
            // SAFETY: made above.
            unsafe { rumpclient_fork_cancel(made) };
            set_errno(Errno(errno.unwrap_or(Errno::EAGAIN.0)))
        }
        // SAFETY: made above; this is the child's copy.
        0 => unsafe { rumpclient_fork_init(made) },
        pid => {
            // SAFETY: made above; this is the parent's copy.
            unsafe { rumpclient_fork_vparent(made) };
            pid
        }
    }
}

/// daemon(3) of the process here and at the server.
#[unsafe(no_mangle)]
pub extern "C" fn rumpclient_daemon(nochdir: c_int, noclose: c_int) -> c_int {
    // SAFETY: comes back in a child, as fork does; the parent exits in it.
    fork_with(|| unsafe { libc::daemon(nochdir, noclose) })
}

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// execve(2) that keeps the process at the server: the new program's rumpclient_init goes on as it. With a null `envp` the environment
/// is this process's. Comes back only with -1 and errno.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rumpclient_exec(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
) -> c_int {
    let client = match current() {
        Ok(client) => client,
        Err(errno) => return set_errno(errno),
    };
    let kept = client.with(|raw, _| {
        let mut handover = [0; 256];
        let len = raw.exec_prepare(&mut handover)?;
        let fd = variable(EXECFD, &handover[..len])?;
        Ok((fd, variable(PARSEDSERVER, raw.url())?))
    });
    let (handover, url) = match kept {
        Ok(kept) => kept,
        Err(errno) => return set_errno(errno),
    };
    // SAFETY: C gives null or an array of strings that ends with a null pointer; `environ` is one.
    let mut env = unsafe { without_ours(if envp.is_null() { environ } else { envp }) };
    env.extend([handover.as_ptr(), url.as_ptr(), std::ptr::null()]);
    // SAFETY: C gives a string and an array of strings; ours is one too.
    unsafe { libc::execve(path, argv, env.as_ptr()) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    client.with(|raw, _| raw.exec_cancel());
    set_errno(Errno(errno.unwrap_or(Errno::ENOEXEC.0)))
}

fn variable(name: &str, value: &[u8]) -> Result<CString, Errno> {
    CString::new([name.as_bytes(), b"=", value].concat()).map_err(|_| Errno::EINVAL)
}

/// An environment's strings but for those that are set anew.
///
/// # Safety
/// `at` is null or an array of strings that ends with a null pointer.
unsafe fn without_ours(mut at: *const *const c_char) -> Vec<*const c_char> {
    let mut env = Vec::new();
    if at.is_null() {
        return env;
    }
    // SAFETY: the caller's condition.
    unsafe {
        while !(*at).is_null() {
            let text = std::ffi::CStr::from_ptr(*at).to_bytes();
            let ours = [EXECFD, PARSEDSERVER].iter().any(|name| {
                text.strip_prefix(name.as_bytes())
                    .is_some_and(|rest| rest.first() == Some(&b'='))
            });
            if !ours {
                env.push(*at);
            }
            at = at.add(1);
        }
    }
    env
}

//! rump_daemonize: the process forks before it boots, and its parent ends with what came of it.

use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, Ordering};

use kern::Errno;

use crate::kernel;

/// The child's end of the pipe to its parent; -1 when there is none.
static TO_PARENT: AtomicI32 = AtomicI32::new(-1);

fn last_errno() -> c_int {
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(Errno::EIO.0)
}

/// Forks. The call comes back in the child, which leads a session of its own; the parent waits in here until the child calls
/// [`rump_daemonize_done`], and exits with what it was given (1 when the child dies before). `EALREADY` once the kernel is booted, for
/// its threads would stay behind; `EINPROGRESS` in a child.
#[unsafe(no_mangle)]
pub extern "C" fn rump_daemonize_begin() -> c_int {
    if kernel::is_inited() {
        return Errno::EALREADY.0;
    }
    if TO_PARENT.load(Ordering::Relaxed) >= 0 {
        return Errno::EINPROGRESS.0;
    }
    let mut ends = [0; 2];
    // SAFETY: `ends` has the two places that are filled.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return last_errno();
    }
    let [from_child, to_parent] = ends;
    // SAFETY: nothing of ours has a lock or a thread before rump_init; what the program's other threads have is its affair.
    match unsafe { libc::fork() } {
        -1 => {
            let errno = last_errno();
            for end in ends {
                // SAFETY: the pipe's ends, made above and given to nobody.
                unsafe { libc::close(end) };
            }
            errno
        }
        0 => {
            // SAFETY: the child's copy of the parent's end; setsid cannot fail in a child that leads no group.
            unsafe {
                libc::close(from_child);
                libc::setsid();
            }
            TO_PARENT.store(to_parent, Ordering::Relaxed);
            0
        }
        _ => {
            // SAFETY: the parent's copy of the child's end: end of file is to be seen when the child dies.
            unsafe { libc::close(to_parent) };
            wait_for_child(from_child)
        }
    }
}

/// The parent's part: exits as the child says.
fn wait_for_child(from_child: c_int) -> ! {
    let mut status: c_int = 1;
    loop {
        // SAFETY: reads at most the size of the variable into it.
        let n = unsafe { libc::read(from_child, (&raw mut status).cast(), size_of::<c_int>()) };
        if n >= 0 || last_errno() != Errno::EINTR.0 {
            break;
        }
    }
    // SAFETY: without the handlers and buffers that the child has a copy of.
    unsafe { libc::_exit(status) }
}

/// In the child: has the parent exit with `error` (0: all is well) and, when all is well, gives up the terminal. `ENOENT` without a
/// [`rump_daemonize_begin`] before it.
#[unsafe(no_mangle)]
pub extern "C" fn rump_daemonize_done(error: c_int) -> c_int {
    let to_parent = TO_PARENT.swap(-1, Ordering::Relaxed);
    if to_parent < 0 {
        return Errno::ENOENT.0;
    }
    if error == 0 {
        give_up_terminal();
    }
    // SAFETY: writes the variable, closes the descriptor that begin made.
    let n = unsafe {
        let n = libc::write(to_parent, (&raw const error).cast(), size_of::<c_int>());
        libc::close(to_parent);
        n
    };
    if n == size_of::<c_int>() as isize {
        0
    } else {
        Errno::EPIPE.0
    }
}

/// Standard input, output and error become /dev/null.
fn give_up_terminal() {
    // SAFETY: opens and duplicates descriptors by the rules of open(2) and dup2(2); a host without /dev/null keeps what it has.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        if null < 0 {
            return;
        }
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        if null > 2 {
            libc::close(null);
        }
    }
}

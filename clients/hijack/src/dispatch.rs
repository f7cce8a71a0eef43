//! Host or kernel: the one decision, by the one table.
//!
//! A call whose paths and descriptors are all the host's is the host's; all the kernel's, the kernel's, with the names
//! as the kernel knows them. A mixture cannot be: two paths answer `EXDEV`, as names on two file systems do. The few
//! calls that mean more (they change descriptors, the directory, memory or the process itself) have functions of
//! their own.

use core::sync::atomic::Ordering;

use abi::{
    AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, ArgKind, Errno, O_CLOEXEC, RetKind, SyscallDesc,
    nr,
};

use crate::config::Config;
use crate::entry::{Frame, Outcome};
use crate::fds::{self, err, kernel_call};
use crate::names::{Place, descriptor, place};
use crate::state::{Process, process, raw_thread};
use crate::sys::host;
use crate::{cwd, epoll, exec, interfaces, memory, poll, process as children, select, transfer};

/// prctl(2): filter the calls of this thread.
const PR_SET_SECCOMP: u64 = 22;

/// Decides on a call that the entry could not pass by itself.
pub(crate) fn dispatch(frame: &mut Frame) -> Outcome {
    let number = frame.rax as u32;
    if matches!(number, nr::clone | nr::clone3 | nr::fork | nr::vfork) {
        return children::before_clone(frame);
    }
    match decide(number, &frame.args, frame.rsp) {
        Some(answer) => {
            frame.rax = answer as u64;
            Outcome::Done
        }
        None => Outcome::Host,
    }
}

/// The answer to a call, or `None` when the host is to give it.
fn decide(number: u32, args: &[u64; 6], stack: u64) -> Option<i64> {
    let config = crate::init::config();
    let process = process();
    match number {
        nr::io_uring_setup => Some(err(Errno::ENOSYS)),
        nr::execve => exec::execve(config, AT_FDCWD, args[0], args[1], args[2], 0),
        nr::execveat => exec::execve(config, args[0] as i32, args[1], args[2], args[3], args[4]),
        nr::exit => {
            process.client.thread_exit(raw_thread());
            None
        }
        nr::mmap => memory::mmap(process, args),
        nr::munmap | nr::mremap | nr::mprotect | nr::brk => {
            memory::changed(process, number, args, stack)
        }
        nr::msync => memory::msync(args),
        nr::dup2 => fds::dup2(args[0] as i32, args[1] as i32, None),
        nr::dup3 => fds::dup2(args[0] as i32, args[1] as i32, Some(args[2])),
        nr::dup | nr::fcntl if process.is_shadowed(args[0] as i32) => {
            fds::dup_shadowed(number, args)
        }
        nr::close_range => fds::close_range(args),
        nr::chdir => cwd::chdir(config, process, args),
        nr::fchdir => cwd::fchdir(config, process, args),
        nr::getcwd => cwd::getcwd(config, process, args),
        nr::poll | nr::ppoll => poll::poll(process, number, args),
        nr::select | nr::pselect6 => select::select(process, number, args),
        nr::epoll_create | nr::epoll_create1 => Some(epoll::create(process, number, args)),
        nr::epoll_ctl | nr::epoll_wait | nr::epoll_pwait | nr::epoll_pwait2 => {
            epoll::call(process, number, args)
        }
        nr::sendfile => transfer::sendfile(process, args),
        nr::copy_file_range | nr::splice | nr::tee => transfer::between(process, number, args),
        nr::sendmsg | nr::sendmmsg => transfer::sendmsg(process, number, args),
        nr::seccomp => confined(process),
        nr::prctl if args[0] == PR_SET_SECCOMP => confined(process),
        nr::umask | nr::sync => both(number, args),
        nr::setuid
        | nr::setgid
        | nr::setreuid
        | nr::setregid
        | nr::setresuid
        | nr::setresgid
        | nr::setgroups => both(number, args),
        nr::socket | nr::socketpair if config.socket(args[0] as i32) => {
            Some(new_socket(number, args))
        }
        nr::socket | nr::socketpair => None,
        _ => by_table(config, process, abi::table::desc(number)?, args),
    }
}

/// The program is about to forbid itself most calls: from now on the shim makes only those that everybody allows.
fn confined(process: &Process) -> Option<i64> {
    process.client.confine();
    None
}

/// A call that host and kernel both carry out, because each has its own idea of what it sets. The host's answer counts.
fn both(number: u32, args: &[u64; 6]) -> Option<i64> {
    // SAFETY: the program's call, made for it once.
    let answer = unsafe { crate::sys::syscall(number, *args) };
    if !crate::sys::failed(answer) && crate::init::connected() {
        kernel_call(number, args);
    }
    Some(answer)
}

fn new_socket(number: u32, args: &[u64; 6]) -> i64 {
    if number == nr::socketpair {
        return kernel_call(number, args);
    }
    fds::open(number, args, args[1] & O_CLOEXEC as u64 != 0)
}

/// What the paths and descriptors of a call say.
struct Owners {
    kernel: bool,
    host: bool,
    paths: u8,
    /// The arguments with the names as the kernel knows them.
    args: [u64; 6],
}

/// The general rule.
fn by_table(
    config: &Config<'_>,
    process: &Process,
    call: &SyscallDesc,
    args: &[u64; 6],
) -> Option<i64> {
    if let Some(ArgKind::Fd) = call.args.first().map(|a| a.kind)
        && process.is_own(args[0] as i32)
    {
        return Some(err(Errno::EBADF));
    }
    let owners = owners(config, process, call, args);
    match (owners.kernel, owners.host) {
        (false, true) if owners.paths == 1 && process.kernel_fds.load(Ordering::Relaxed) != 0 => {
            by_descriptor_name(process, call, args)
        }
        (false, _) if call.nr == nr::close => fds::close_host(args[0] as i32),
        (false, _) if call.nr == nr::ioctl && config.socket(interfaces::AF_INET) => {
            interfaces::ioctl(args)
        }
        // Calls from 500 on are the kernel's alone.
        (false, _) if call.nr < 500 => None,
        (true, true) if owners.paths > 1 => Some(err(Errno::EXDEV)),
        (true, true) => Some(err(Errno::EOPNOTSUPP)),
        _ => Some(kernel(call, &owners.args)),
    }
}

fn owners(config: &Config<'_>, process: &Process, call: &SyscallDesc, args: &[u64; 6]) -> Owners {
    let mut owners = Owners {
        kernel: false,
        host: false,
        paths: 0,
        args: *args,
    };
    let mut dir = AT_FDCWD;
    for (i, arg) in call.args.iter().enumerate() {
        let kernel = match arg.kind {
            ArgKind::Fd => process.is_kernel(args[i] as i32),
            ArgKind::DirFd => {
                dir = args[i] as i32;
                continue;
            }
            ArgKind::Path => {
                owners.paths += 1;
                // SAFETY: the program says that this is a path; addresses that cannot be are not read.
                match unsafe {
                    place(
                        config,
                        process,
                        core::mem::replace(&mut dir, AT_FDCWD),
                        args[i] as *const u8,
                    )
                } {
                    Place::Host => false,
                    Place::Kernel(path) => {
                        owners.args[i] = path as u64;
                        true
                    }
                }
            }
            _ => continue,
        };
        if kernel {
            owners.kernel = true;
        } else {
            owners.host = true;
        }
    }
    owners
}

/// A host name that stands for a kernel descriptor, such as `/dev/stdin`: opening it duplicates the descriptor, and its
/// attributes are the file's, to be read and (as libc's fchmodat does by such a name) set. Other calls see the host's name.
fn by_descriptor_name(process: &Process, call: &SyscallDesc, args: &[u64; 6]) -> Option<i64> {
    let path = usize::from(call.args.first().is_some_and(|a| a.kind == ArgKind::DirFd));
    // SAFETY: the program's path; addresses that cannot be are not read.
    let fd = unsafe { descriptor(args[path] as *const u8) }.filter(|&fd| process.is_kernel(fd))?;
    let fstat = |to| kernel_call(nr::fstat, &[fd as u64, to, 0, 0, 0, 0]);
    // The file itself, also where the descriptor was opened with O_PATH.
    let itself = |nr, a, b, flags: i32| {
        let empty = c"".as_ptr() as u64;
        let raw = match nr {
            nr::fchownat => [fd as u64, empty, a, b, flags as u64, 0],
            _ => [fd as u64, empty, a, flags as u64, 0, 0],
        };
        Some(kernel_call(nr, &raw))
    };
    match call.nr {
        nr::chmod => itself(nr::fchmodat2, args[1], 0, AT_EMPTY_PATH),
        nr::fchmodat => itself(nr::fchmodat2, args[2], 0, AT_EMPTY_PATH),
        nr::chown => itself(nr::fchownat, args[1], args[2], AT_EMPTY_PATH),
        nr::fchownat if args[4] == 0 => itself(nr::fchownat, args[2], args[3], AT_EMPTY_PATH),
        nr::utimensat if args[3] == 0 => itself(nr::utimensat, args[2], 0, AT_EMPTY_PATH),
        nr::open | nr::openat => Some(fds::dup(fd, 0, opens_cloexec(call, args))),
        nr::stat => Some(fstat(args[1])),
        nr::newfstatat if args[3] & AT_SYMLINK_NOFOLLOW as u64 == 0 => Some(fstat(args[2])),
        _ => None,
    }
}

/// A call that is the kernel's, with its arguments as the kernel knows them.
fn kernel(call: &SyscallDesc, args: &[u64; 6]) -> i64 {
    match call.nr {
        nr::close => return fds::close(args[0] as i32),
        nr::dup => return fds::dup(args[0] as i32, 0, false),
        nr::fcntl => return fds::fcntl(args),
        nr::ioctl => return fds::ioctl(args),
        _ => {}
    }
    if call.ret == RetKind::Fd {
        return fds::open(call.nr, args, opens_cloexec(call, args));
    }
    let answer = kernel_call(call.nr, args);
    if answer == err(Errno::EPIPE) && abi::sends_sigpipe(call.nr, args) {
        broken_pipe();
    }
    answer
}

/// The signal of a thread that has written to a pipe or a socket that nobody reads: the kernel has no way to its threads.
fn broken_pipe() {
    const SIGPIPE: i32 = 13;
    // SAFETY: a signal to this thread; what handles it runs as at any other moment of the program's.
    unsafe {
        let (pid, tid) = (host!(getpid), host!(gettid));
        host!(tgkill, pid, tid, SIGPIPE);
    }
}

/// Whether the descriptor that a call opens closes on exec.
fn opens_cloexec(call: &SyscallDesc, args: &[u64; 6]) -> bool {
    if call.nr == nr::openat2 {
        // SAFETY: struct open_how begins with its flags; the program names at least that much.
        return args[3] >= 8
            && args[2] >= 4096
            && unsafe { *(args[2] as *const u64) } & O_CLOEXEC as u64 != 0;
    }
    call.args
        .iter()
        .zip(args)
        .any(|(arg, &value)| arg.kind == ArgKind::OpenFlags && value & O_CLOEXEC as u64 != 0)
        || call.nr == nr::accept4 && args[3] & O_CLOEXEC as u64 != 0
}

//! The system calls that the kernel proper serves. One file a family; each function reads like its manual page.

use abi::Errno;

use crate::{Curlwp, establish};

mod copy;
mod desc;
mod id;
mod ipc;
mod kqueue;
mod ksem;
mod limits;
mod poll;
mod ptimer;
mod rw;
mod session;
mod splice;
mod system;
mod time;

/// Fills the kernel's own slots of the system-call vector.
pub(crate) fn establish(cx: &Curlwp<'_>) -> Result<(), Errno> {
    establish!(cx.kernel().sysent(), {
        read => rw::read,
        write => rw::write,
        pread64 => rw::pread64,
        pwrite64 => rw::pwrite64,
        readv => rw::readv,
        writev => rw::writev,
        preadv => rw::preadv,
        pwritev => rw::pwritev,
        preadv2 => rw::preadv2,
        pwritev2 => rw::pwritev2,
        lseek => rw::lseek,
        close => rw::close,
        fstat => rw::fstat,
        sendfile => copy::sendfile,
        splice => splice::splice,
        tee => splice::tee,
        copy_file_range => copy::copy_file_range,
        dup => desc::dup,
        dup2 => desc::dup2,
        dup3 => desc::dup3,
        fcntl => desc::fcntl,
        ioctl => desc::ioctl,
        close_range => desc::close_range,
        getfdinfo => desc::getfdinfo,
        getmapping => desc::getmapping,
        putmapping => desc::putmapping,
        syncmapping => desc::syncmapping,
        pipe => ipc::pipe,
        pipe2 => ipc::pipe2,
        eventfd => ipc::eventfd,
        eventfd2 => ipc::eventfd2,
        timerfd_create => ipc::timerfd_create,
        timerfd_settime => ipc::timerfd_settime,
        timerfd_gettime => ipc::timerfd_gettime,
        poll => poll::poll,
        ppoll => poll::ppoll,
        select => poll::select,
        pselect6 => poll::pselect6,
        epoll_create => poll::epoll_create,
        epoll_create1 => poll::epoll_create1,
        epoll_ctl => poll::epoll_ctl,
        epoll_wait => poll::epoll_wait,
        epoll_pwait => poll::epoll_pwait,
        epoll_pwait2 => poll::epoll_pwait2,
        timer_create => ptimer::timer_create,
        timer_settime => ptimer::timer_settime,
        timer_gettime => ptimer::timer_gettime,
        timer_getoverrun => ptimer::timer_getoverrun,
        timer_delete => ptimer::timer_delete,
        setitimer => ptimer::setitimer,
        getitimer => ptimer::getitimer,
        kqueue => kqueue::kqueue,
        kqueue1 => kqueue::kqueue1,
        kevent => kqueue::kevent,
        _ksem_init => ksem::init,
        _ksem_open => ksem::open,
        _ksem_unlink => ksem::unlink,
        _ksem_close => ksem::ksem_close,
        _ksem_destroy => ksem::destroy,
        _ksem_post => ksem::post,
        _ksem_wait => ksem::wait,
        _ksem_trywait => ksem::trywait,
        _ksem_timedwait => ksem::timedwait,
        _ksem_getvalue => ksem::getvalue,
        setpgid => session::setpgid,
        getpgid => session::getpgid,
        getpgrp => session::getpgrp,
        setsid => session::setsid,
        getsid => session::getsid,
        __getlogin => session::getlogin,
        __setlogin => session::setlogin,
        nanosleep => time::nanosleep,
        clock_nanosleep => time::clock_nanosleep,
        clock_gettime => time::clock_gettime,
        clock_getres => time::clock_getres,
        gettimeofday => time::gettimeofday,
        time => time::time,
        getpid => id::getpid,
        getppid => id::getppid,
        getuid => id::getuid,
        geteuid => id::geteuid,
        getgid => id::getgid,
        getegid => id::getegid,
        getresuid => id::getresuid,
        getresgid => id::getresgid,
        setuid => id::setuid,
        setgid => id::setgid,
        setreuid => id::setreuid,
        setregid => id::setregid,
        setresuid => id::setresuid,
        setresgid => id::setresgid,
        getgroups => id::getgroups,
        setgroups => id::setgroups,
        getrlimit => limits::getrlimit,
        setrlimit => limits::setrlimit,
        prlimit64 => limits::prlimit64,
        uname => system::uname,
        sysinfo => system::sysinfo,
        sethostname => system::sethostname,
        syslog => system::syslog,
        reboot => system::reboot,
        __sysctl => system::sysctl,
        getrandom => system::getrandom,
        sched_yield => system::sched_yield,
    })
}

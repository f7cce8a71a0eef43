//! The machine that the kernel is: its name, its messages, its end.

use abi::{Errno, SysResult, Sysinfo, args};
use hypercall::Clock;

use crate::boot::Howto;
use crate::{Curlwp, version};

/// Bytes of a field of `struct utsname`, with its NUL.
const UTS_FIELD: usize = 65;

/// uname(2).
pub(super) fn uname(cx: &Curlwp<'_>, a: args::uname) -> SysResult {
    let hostname = cx.kernel().hostname(cx);
    let fields = [
        version::OSTYPE,
        &hostname,
        version::OSRELEASE,
        version::VERSION,
        version::MACHINE,
        "(none)",
    ];
    let mut raw = [0; 6 * UTS_FIELD];
    for (to, field) in raw.chunks_exact_mut(UTS_FIELD).zip(fields) {
        let len = field.len().min(UTS_FIELD - 1);
        to[..len].copy_from_slice(&field.as_bytes()[..len]);
    }
    cx.copyout(&raw, a.buf)?;
    Ok(0)
}

/// sethostname(2): the superuser's.
pub(super) fn sethostname(cx: &Curlwp<'_>, a: args::sethostname) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    if a.len >= UTS_FIELD {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; a.len];
    cx.copyin(a.name, &mut raw)?;
    let name = String::from_utf8(raw).map_err(|_| Errno::EINVAL)?;
    cx.kernel().set_hostname(cx, &name);
    Ok(0)
}

/// sysinfo(2). The memory is what the kernel's caches may take.
pub(super) fn sysinfo(cx: &Curlwp<'_>, a: args::sysinfo) -> SysResult {
    let kernel = cx.kernel();
    let up = cx.now(Clock::Realtime).saturating_sub(kernel.boottime());
    let info = Sysinfo {
        uptime: (up / 1_000_000_000) as i64,
        totalram: kernel.memory_limit(),
        procs: u16::try_from(kernel.proc_count(cx)).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..Sysinfo::default()
    };
    cx.copyout(&info.to_bytes(), a.info)?;
    Ok(0)
}

/// getrandom(2). The host's generator is always ready.
pub(super) fn getrandom(cx: &Curlwp<'_>, a: args::getrandom) -> SysResult {
    /// GRND_NONBLOCK, GRND_RANDOM and GRND_INSECURE.
    const KNOWN: i32 = 7;
    if a.flags & !KNOWN != 0 || a.flags & 6 == 6 {
        return Err(Errno::EINVAL);
    }
    let len = a.buflen.min(33_554_431);
    let mut chunk = [0; 256];
    let mut done = 0;
    while done < len {
        let n = chunk.len().min(len - done);
        cx.kernel().host().random(&mut chunk[..n]);
        cx.copyout(&chunk[..n], a.buf.add(done))?;
        done += n;
    }
    Ok(len as i64)
}

/// sched_yield(2).
pub(super) fn sched_yield(cx: &Curlwp<'_>, _: args::sched_yield) -> SysResult {
    cx.yield_cpu();
    Ok(0)
}

/// syslog(2): the message buffer. What only looks is everybody's, the rest the superuser's.
pub(super) fn syslog(cx: &Curlwp<'_>, a: args::syslog) -> SysResult {
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CLEAR: i32 = 5;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    if !matches!(a.type_, READ_ALL | SIZE_BUFFER) && !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    match a.type_ {
        READ_ALL | READ_CLEAR => {
            let all = cx.kernel().messages();
            let tail = &all[all.len().saturating_sub(a.len)..];
            cx.copyout(tail, a.bufp)?;
            if a.type_ == READ_CLEAR {
                cx.kernel().clear_messages();
            }
            Ok(tail.len() as i64)
        }
        CLEAR => {
            cx.kernel().clear_messages();
            Ok(0)
        }
        SIZE_UNREAD => Ok(cx.kernel().messages().len() as i64),
        SIZE_BUFFER => Ok(crate::msgbuf::SIZE as i64),
        // Opening, closing, and the level of the console, which RUMP_VERBOSE decides.
        0 | 1 | 6..=8 => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// reboot(2): the superuser's. Unlike Linux it syncs and unmounts first, as the reference does.
pub(super) fn reboot(cx: &Curlwp<'_>, a: args::reboot) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let second = matches!(
        a.magic2,
        672_274_793 | 85_072_278 | 369_367_448 | 537_993_216
    );
    if a.magic as u32 != 0xfee1_dead || !second {
        return Err(Errno::EINVAL);
    }
    let howto = match a.op as u32 {
        0x0123_4567 => Howto::Restart,
        0xcdef_0123 => Howto::Halt,
        0x4321_fedc => Howto::PowerOff,
        // Ctrl-Alt-Del on and off: there is no keyboard.
        0x89ab_cdef | 0 => return Ok(0),
        _ => return Err(Errno::EINVAL),
    };
    cx.reboot(howto, true)?;
    Ok(0)
}

/// The longest name of a sysctl node.
const SYSCTL_NAME_MAX: usize = 256;
/// The most bytes that can be written to a node.
const SYSCTL_VALUE_MAX: usize = 64 << 10;

/// __sysctl: reads the old value of a node by name and sets a new one, as sysctlbyname(3) does.
pub(super) fn sysctl(cx: &Curlwp<'_>, a: args::__sysctl) -> SysResult {
    let name = cx.copyin_str(a.name, SYSCTL_NAME_MAX)?;
    let name = std::str::from_utf8(&name).map_err(|_| Errno::ENOENT)?;
    let tree = cx.kernel().sysctl();
    let mut fits = true;
    if !a.oldlenp.is_null() {
        let old = tree.read(cx, name)?.to_bytes();
        let mut raw = [0; 8];
        cx.copyin(a.oldlenp, &mut raw)?;
        if !a.oldp.is_null() {
            let room = usize::try_from(u64::from_le_bytes(raw)).unwrap_or(usize::MAX);
            fits = room >= old.len();
            cx.copyout(&old[..old.len().min(room)], a.oldp)?;
        }
        cx.copyout(&(old.len() as u64).to_le_bytes(), a.oldlenp)?;
    }
    if !a.newp.is_null() {
        if a.newlen > SYSCTL_VALUE_MAX {
            return Err(Errno::EINVAL);
        }
        let mut new = vec![0; a.newlen];
        cx.copyin(a.newp, &mut new)?;
        tree.write(cx, name, &new)?;
    }
    if fits { Ok(0) } else { Err(Errno::ENOMEM) }
}

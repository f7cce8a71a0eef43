//! Waiting for host and kernel descriptors at once: poll(2), select(2) and their like. An epoll instance is both.
//!
//! A set that is all the host's passes, one that is all the kernel's goes there. A mixture waits in one host ppoll(2): the
//! kernel is told what to watch, and makes one host descriptor readable when that may have changed
//! (`Client::pollwatch`). Timeout and signal mask are the host call's own.

use abi::{Errno, Pollfd, Timespec, nr};
use rumpclient::raw::Watch;

use crate::fds::{err, kernel_call};
use crate::mapvec::MapVec;
use crate::state::{Kind, Process, raw_thread};
use crate::sys::{failed, host};

pub(crate) const POLLIN: i16 = 0x001;
const POLLPRI: i16 = 0x002;
const POLLOUT: i16 = 0x004;
const POLLERR: i16 = 0x008;
const POLLHUP: i16 = 0x010;
const POLLNVAL: i16 = 0x020;
const NANOS: u64 = 1_000_000_000;
/// More descriptors than any process has: the host refuses them.
const MANY: u64 = 1 << 20;

/// When a wait ends, on the monotonic clock in nanoseconds.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Option<u64>);

impl Deadline {
    /// After so many nanoseconds; `None` waits for ever.
    pub(crate) fn after(nanos: Option<u64>) -> Deadline {
        Deadline(nanos.map(|n| now().saturating_add(n)))
    }

    /// After milliseconds, for ever when negative.
    pub(crate) fn after_ms(ms: i32) -> Deadline {
        Deadline::after(millis(ms))
    }

    /// How long it still is.
    pub(crate) fn left(self) -> Option<u64> {
        self.0.map(|end| end.saturating_sub(now()))
    }
}

fn now() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: a buffer of the size of struct timespec; 1 is CLOCK_MONOTONIC.
    unsafe { host!(clock_gettime, 1, time.as_mut_ptr()) };
    time[0].saturating_mul(NANOS).saturating_add(time[1])
}

/// A timeout in milliseconds as nanoseconds; a negative one is none.
pub(crate) fn millis(ms: i32) -> Option<u64> {
    u64::try_from(ms).ok().map(|ms| ms * 1_000_000)
}

/// The `struct timespec` of so many nanoseconds.
pub(crate) fn split(nanos: u64) -> [u64; 2] {
    [nanos / NANOS, nanos % NANOS]
}

/// A signal mask to wait with: its address and size, 0 for none.
#[derive(Clone, Copy)]
pub(crate) struct Mask(pub(crate) u64, pub(crate) u64);

/// Waits once on the host for host descriptors, by ppoll(2).
pub(crate) fn host_ppoll(fds: &mut [[u8; Pollfd::SIZE]], left: Option<u64>, mask: Mask) -> i64 {
    let mut time = left.map(split);
    let at = time
        .as_mut()
        .map_or(core::ptr::null_mut(), |t| t.as_mut_ptr());
    // SAFETY: arrays of ours; the mask is the program's.
    unsafe { host!(ppoll, fds.as_mut_ptr(), fds.len(), at, mask.0, mask.1) }
}

/// poll(2) and ppoll(2).
pub(crate) fn poll(process: &Process, number: u32, args: &[u64; 6]) -> Option<i64> {
    let [at, count, ..] = *args;
    let count = u64::from(count as u32);
    if at < 4096 || count > MANY {
        return None;
    }
    // SAFETY: the program's array of that many records, which the call fills.
    let fds =
        unsafe { core::slice::from_raw_parts_mut(at as *mut [u8; Pollfd::SIZE], count as usize) };
    let owner = |raw: &[u8; Pollfd::SIZE]| {
        let fd = Pollfd::from_bytes(raw).fd;
        (fd >= 0).then(|| process.kind(fd))
    };
    let all = |kind| {
        fds.iter()
            .all(|raw| owner(raw).is_none_or(|owner| owner == kind))
    };
    if all(Kind::Host) {
        return None;
    }
    let mask = if number == nr::ppoll {
        Mask(args[3], args[4])
    } else {
        Mask(0, 0)
    };
    if mask.0 == 0 && all(Kind::Kernel) {
        return Some(kernel_call(number, args));
    }
    let deadline = if number == nr::ppoll {
        match timespec(args[2]) {
            Ok(nanos) => Deadline::after(nanos),
            Err(errno) => return Some(err(errno)),
        }
    } else {
        Deadline::after_ms(args[2] as i32)
    };
    let ret = wait(process, fds, deadline, mask);
    if number == nr::ppoll && args[2] >= 4096 {
        put_left(args[2], deadline, 1);
    }
    Some(ret)
}

/// The time at an address: `None` for a null pointer.
pub(crate) fn timespec(at: u64) -> Result<Option<u64>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    if at < 4096 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the program's struct timespec.
    let time = Timespec::from_bytes(unsafe { &*(at as *const [u8; Timespec::SIZE]) });
    if time.tv_sec < 0 || !(0..NANOS as i64).contains(&time.tv_nsec) {
        return Err(Errno::EINVAL);
    }
    let nanos = (time.tv_sec as u64).saturating_mul(NANOS);
    Ok(Some(nanos.saturating_add(time.tv_nsec as u64)))
}

/// Writes how long is left, as Linux does; the fraction in units of `unit` nanoseconds.
fn put_left(at: u64, deadline: Deadline, unit: u64) {
    if let Some(left) = deadline.left() {
        // SAFETY: the structure of two words from which the time was read.
        unsafe { *(at as *mut [u64; 2]) = [left / NANOS, left % NANOS / unit] };
    }
}

/// Waits for any of `fds`, host's and kernel's, and fills what is ready of each. Answers how many are.
fn wait(process: &Process, fds: &mut [[u8; Pollfd::SIZE]], deadline: Deadline, mask: Mask) -> i64 {
    match wait_mixed(process, fds, deadline, mask) {
        Ok(count) => count,
        Err(ret) => ret,
    }
}

fn wait_mixed(
    process: &Process,
    fds: &mut [[u8; Pollfd::SIZE]],
    deadline: Deadline,
    mask: Mask,
) -> Result<i64, i64> {
    let mut on_host = MapVec::<[u8; Pollfd::SIZE]>::default();
    let mut watches = MapVec::<Watch>::default();
    for raw in fds.iter() {
        let mut item = Pollfd::from_bytes(raw);
        let kind = process.kind(item.fd);
        if kind != Kind::Host {
            let watch = Watch {
                fd: item.fd,
                events: u32::from(item.events as u16),
                revents: 0,
            };
            watches.push(watch).map_err(|_| err(Errno::ENOMEM))?;
        }
        if kind == Kind::Kernel {
            item.fd = -1;
        }
        on_host
            .push(item.to_bytes())
            .map_err(|_| err(Errno::ENOMEM))?;
    }
    let bell = on_host.len();
    on_host
        .push([0; Pollfd::SIZE])
        .map_err(|_| err(Errno::ENOMEM))?;
    let ts = raw_thread();
    loop {
        let (in_kernel, fd) = process.client.pollwatch(ts, &mut watches).map_err(err)?;
        on_host[bell] = Pollfd {
            fd,
            events: POLLIN,
            revents: 0,
        }
        .to_bytes();
        let left = if in_kernel > 0 {
            Some(0)
        } else {
            deadline.left()
        };
        let ret = host_ppoll(&mut on_host, left, mask);
        if failed(ret) {
            process.client.pollwatch_end(ts);
            return Err(ret);
        }
        let rang = Pollfd::from_bytes(&on_host[bell]).revents != 0;
        if in_kernel > 0 || ret > i64::from(rang) || !rang {
            break;
        }
        process.client.pollwatch_clear(ts);
    }
    process.client.pollwatch_end(ts);
    let mut ready = 0;
    let mut kernels = watches.iter();
    for (raw, host) in fds.iter_mut().zip(on_host.iter()) {
        let mut item = Pollfd::from_bytes(raw);
        let mut in_kernel = || kernels.next().map_or(POLLNVAL, |w| w.revents as i16);
        let on_host = Pollfd::from_bytes(host).revents;
        item.revents = match process.kind(item.fd) {
            Kind::Host => on_host,
            Kind::Shadowed => on_host | in_kernel(),
            Kind::Kernel => in_kernel(),
        };
        ready += i64::from(item.revents != 0);
        *raw = item.to_bytes();
    }
    Ok(ready)
}

/// The three sets of select(2), as the program has them.
struct Sets {
    at: [u64; 3],
    words: usize,
}

/// What each set asks for, and what of poll's answer puts a descriptor into it.
const ASK: [i16; 3] = [POLLIN, POLLOUT, POLLPRI];
const READY: [i16; 3] = [
    POLLIN | POLLHUP | POLLERR | 0x40 | 0x80,
    POLLOUT | POLLERR | 0x100 | 0x200,
    POLLPRI,
];

impl Sets {
    fn has(&self, set: usize, fd: usize) -> bool {
        // SAFETY: the program's set of `words` words; fd is below the number that they were counted from.
        self.at[set] >= 4096
            && unsafe { *(self.at[set] as *const u64).add(fd / 64) } >> (fd % 64) & 1 != 0
    }

    fn clear(&self) {
        for &at in self.at.iter().filter(|&&at| at >= 4096) {
            // SAFETY: as above.
            unsafe { core::ptr::write_bytes(at as *mut u64, 0, self.words) };
        }
    }

    fn set(&self, set: usize, fd: usize) {
        // SAFETY: as above; only sets that had the descriptor get it.
        unsafe { *(self.at[set] as *mut u64).add(fd / 64) |= 1 << (fd % 64) };
    }
}

/// select(2) and pselect6(2), as a poll of what the sets name.
pub(crate) fn select(process: &Process, number: u32, args: &[u64; 6]) -> Option<i64> {
    let count = usize::try_from(args[0] as i32).ok()?.min(MANY as usize);
    let sets = Sets {
        at: [args[1], args[2], args[3]],
        words: count.div_ceil(64),
    };
    let named = |fd: usize| (0..3).any(|set| sets.has(set, fd));
    if !process.kernel_fds(0, count).any(|fd| named(fd as usize)) {
        return None;
    }
    Some(match select_mixed(process, number, args, &sets, count) {
        Ok(ready) => ready,
        Err(errno) => err(errno),
    })
}

fn select_mixed(
    process: &Process,
    number: u32,
    args: &[u64; 6],
    sets: &Sets,
    count: usize,
) -> Result<i64, Errno> {
    let (unit, mask) = if number == nr::select {
        (1000, Mask(0, 0))
    } else if args[5] >= 4096 {
        // SAFETY: pselect6's sixth argument is the address of a pointer and a size.
        let pair = unsafe { *(args[5] as *const [u64; 2]) };
        (1, Mask(pair[0], pair[1]))
    } else {
        (1, Mask(0, 0))
    };
    let deadline = Deadline::after(if number == nr::select {
        timeval(args[4])?
    } else {
        timespec(args[4])?
    });
    let mut fds = MapVec::<[u8; Pollfd::SIZE]>::default();
    for fd in 0..count {
        let events = (0..3)
            .filter(|&set| sets.has(set, fd))
            .fold(0, |events, set| events | ASK[set]);
        if events != 0 {
            let item = Pollfd {
                fd: fd as i32,
                events,
                revents: 0,
            };
            fds.push(item.to_bytes()).map_err(|_| Errno::ENOMEM)?;
        }
    }
    let ret = wait(process, &mut fds, deadline, mask);
    if args[4] >= 4096 {
        put_left(args[4], deadline, unit);
    }
    if failed(ret) {
        return Err(Errno(-ret as i32));
    }
    let items = || fds.iter().map(Pollfd::from_bytes);
    if items().any(|item| item.revents & POLLNVAL != 0) {
        return Err(Errno::EBADF);
    }
    sets.clear();
    let mut ready = 0;
    for item in items() {
        for set in 0..3 {
            if item.events & ASK[set] != 0 && item.revents & READY[set] != 0 {
                sets.set(set, item.fd as usize);
                ready += 1;
            }
        }
    }
    Ok(ready)
}

/// The `struct timeval` at an address.
fn timeval(at: u64) -> Result<Option<u64>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    if at < 4096 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the program's struct timeval.
    let [seconds, micros] = unsafe { *(at as *const [i64; 2]) };
    if seconds < 0 || micros < 0 {
        return Err(Errno::EINVAL);
    }
    let nanos = (seconds as u64).saturating_mul(NANOS);
    Ok(Some(
        nanos.saturating_add((micros as u64).saturating_mul(1000)),
    ))
}

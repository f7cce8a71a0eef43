//! Waiting for host and kernel descriptors at once: poll(2), and what select(2) and epoll(7) have in common with it. An epoll
//! instance is both.
//!
//! A set that is all the host's passes, one that is all the kernel's goes there. A mixture is looked at on both sides; when nothing
//! is ready, the wait is one of the kernel's, and the thread sleeps for its end in a host ppoll(2) beside the host's part.

use abi::{Errno, Pollfd, Timespec, nr};
use rumpclient::raw::Watch;

use crate::fds::{err, kernel_call};
use crate::mapvec::MapVec;
use crate::state::{Kind, Process, raw_thread};
use crate::sys::{failed, host};

pub(crate) const POLLIN: i16 = 0x001;
pub(crate) const POLLPRI: i16 = 0x002;
pub(crate) const POLLOUT: i16 = 0x004;
pub(crate) const POLLERR: i16 = 0x008;
pub(crate) const POLLHUP: i16 = 0x010;
pub(crate) const POLLNVAL: i16 = 0x020;
pub(crate) const NANOS: u64 = 1_000_000_000;
/// More descriptors than any process has: the host refuses them.
pub(crate) const MANY: u64 = 1 << 20;

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
pub(crate) fn put_left(at: u64, deadline: Deadline, unit: u64) {
    if let Some(left) = deadline.left() {
        // SAFETY: the structure of two words from which the time was read.
        unsafe { *(at as *mut [u64; 2]) = [left / NANOS, left % NANOS / unit] };
    }
}

/// So many descriptors are waited for without memory of their own.
const FEW: usize = 32;

/// Descriptors as poll(2) has them, each `Pollfd`.
pub(crate) type Fds = MapVec<[u8; Pollfd::SIZE], FEW>;

/// Waits for any of `fds`, host's and kernel's, and fills what is ready of each. Answers how many are.
pub(crate) fn wait(
    process: &Process,
    fds: &mut [[u8; Pollfd::SIZE]],
    deadline: Deadline,
    mask: Mask,
) -> i64 {
    let ready = Both::of(process, fds).and_then(|mut both| {
        both.wait(process, deadline, mask)?;
        Ok(both.put_into(fds))
    });
    ready.unwrap_or_else(|answer| answer)
}

/// What is waited for, as the host is told and as the kernel is: with -1 for what is the other's alone.
struct Both {
    /// Behind the others the bell, see [`wait_in_kernel`].
    on_host: Fds,
    in_kernel: Fds,
    has_host: bool,
}

impl Both {
    fn of(process: &Process, fds: &[[u8; Pollfd::SIZE]]) -> Result<Both, i64> {
        let mut both = Both {
            on_host: Fds::default(),
            in_kernel: Fds::default(),
            has_host: false,
        };
        for raw in fds {
            let item = Pollfd::from_bytes(raw);
            let kind = process.kind(item.fd);
            let of = |ours: bool| {
                let fd = if ours { item.fd } else { -1 };
                Pollfd {
                    fd,
                    revents: 0,
                    ..item
                }
                .to_bytes()
            };
            both.has_host |= kind != Kind::Kernel && item.fd >= 0;
            let pushed = both.on_host.push(of(kind != Kind::Kernel));
            pushed
                .and_then(|()| both.in_kernel.push(of(kind != Kind::Host)))
                .map_err(|_| err(Errno::ENOMEM))?;
        }
        both.on_host
            .push(input(-1))
            .map_err(|_| err(Errno::ENOMEM))?;
        Ok(both)
    }

    /// Waits until something is ready or the time is over. An error is as a call answers it.
    fn wait(&mut self, process: &Process, deadline: Deadline, mask: Mask) -> Result<(), i64> {
        let mut left = deadline.left();
        if !self.has_host && mask.0 == 0 {
            return self.look_in_kernel(left);
        }
        loop {
            // The host first: the kernel has its turn by the wait.
            let ready = self.look_on_host(mask)?;
            if ready || left == Some(0) {
                return self.look_in_kernel(Some(0));
            }
            let mut time = left.map(split);
            let args = self.args(&mut time);
            match wait_in_kernel(process, nr::ppoll, &args, &mut self.on_host, mask) {
                Waited::Over(answer) if failed(answer) => return Err(answer),
                Waited::Over(_) => return Ok(()),
                Waited::Host => left = deadline.left(),
                Waited::NoRing => return self.watch(process, deadline, mask),
            }
        }
    }

    fn look_on_host(&mut self, mask: Mask) -> Result<bool, i64> {
        let bell = self.in_kernel.len();
        match host_ppoll(&mut self.on_host[..bell], Some(0), mask) {
            answer if failed(answer) => Err(answer),
            ready => Ok(ready > 0),
        }
    }

    fn look_in_kernel(&mut self, left: Option<u64>) -> Result<(), i64> {
        let mut time = left.map(split);
        let args = self.args(&mut time);
        match kernel_call(nr::ppoll, &args) {
            answer if failed(answer) => Err(answer),
            _ => Ok(()),
        }
    }

    /// The arguments of the kernel's ppoll(2).
    fn args(&mut self, time: &mut Option<[u64; 2]>) -> [u64; 6] {
        let time = time.as_mut().map_or(0, |time| time.as_mut_ptr() as u64);
        let (fds, count) = (self.in_kernel.as_mut_ptr(), self.in_kernel.len());
        [fds as u64, count as u64, time, 0, 0, 0]
    }

    /// The wait of a thread without a ring: the kernel is told what to watch, and makes one host descriptor readable when that may
    /// have changed (`Client::pollwatch`).
    fn watch(&mut self, process: &Process, deadline: Deadline, mask: Mask) -> Result<(), i64> {
        let no_memory = |_| err(Errno::ENOMEM);
        let bell = self.in_kernel.len();
        let mut watches = MapVec::<Watch, FEW>::default();
        for item in self.in_kernel.iter().map(Pollfd::from_bytes) {
            let watch = Watch {
                fd: item.fd,
                events: u32::from(item.events as u16),
                revents: 0,
            };
            if item.fd >= 0 {
                watches.push(watch).map_err(no_memory)?;
            }
        }
        let ts = raw_thread();
        loop {
            let (in_kernel, fd) = process.client.pollwatch(ts, &mut watches).map_err(err)?;
            self.on_host[bell] = input(fd);
            let left = match in_kernel {
                0 => deadline.left(),
                _ => Some(0),
            };
            let ret = host_ppoll(&mut self.on_host, left, mask);
            if failed(ret) {
                process.client.pollwatch_end(ts);
                return Err(ret);
            }
            let rang = Pollfd::from_bytes(&self.on_host[bell]).revents != 0;
            if in_kernel > 0 || ret > i64::from(rang) || !rang {
                break;
            }
            process.client.pollwatch_clear(ts);
        }
        process.client.pollwatch_end(ts);
        let mut watches = watches.iter();
        for raw in self.in_kernel.iter_mut() {
            let item = Pollfd::from_bytes(raw);
            let revents = match item.fd {
                ..0 => 0,
                _ => watches.next().map_or(POLLNVAL, |w| w.revents as i16),
            };
            *raw = Pollfd { revents, ..item }.to_bytes();
        }
        Ok(())
    }

    /// Gives what is ready to the program; how many descriptors.
    fn put_into(&self, fds: &mut [[u8; Pollfd::SIZE]]) -> i64 {
        let mut ready = 0;
        for ((raw, host), kernel) in fds
            .iter_mut()
            .zip(self.on_host.iter())
            .zip(self.in_kernel.iter())
        {
            let of = |raw| Pollfd::from_bytes(raw).revents;
            let revents = of(host) | of(kernel);
            ready += i64::from(revents != 0);
            let item = Pollfd::from_bytes(raw);
            *raw = Pollfd { revents, ..item }.to_bytes();
        }
        ready
    }
}

/// What becomes of a wait in the kernel.
pub(crate) enum Waited {
    Over(i64),
    /// The host has something ready.
    Host,
    /// The thread cannot wait there and for the host.
    NoRing,
}

/// One wait in the kernel, by a call that any signal interrupts, beside descriptors of the host; the last of these becomes the bell, which
/// the kernel makes readable when it is over. When one of the others is readable first, the wait is interrupted.
pub(crate) fn wait_in_kernel(
    process: &Process,
    number: u32,
    args: &[u64; 6],
    on_host: &mut [[u8; Pollfd::SIZE]],
    mask: Mask,
) -> Waited {
    let ts = raw_thread();
    let (mut host, mut signal) = (false, false);
    let mut sleep = |fd| {
        // Having interrupted the wait, it only waits for its end.
        let from = if host || signal { on_host.len() - 1 } else { 0 };
        let items = &mut on_host[from..];
        if let Some(bell) = items.last_mut() {
            *bell = input(fd);
        }
        let ready = host_ppoll(items, None, mask);
        signal |= failed(ready);
        let rang = items
            .last()
            .is_some_and(|bell| Pollfd::from_bytes(bell).revents != 0);
        if rang && !signal {
            process.client.pollwatch_clear(ts);
        }
        host |= !signal && ready > i64::from(rang);
        !(host || signal)
    };
    match process.client.call_beside(ts, number, args, &mut sleep) {
        None => Waited::NoRing,
        Some(answer) if answer == err(Errno::EINTR) && host => Waited::Host,
        // Goes there by the way that knows what to do.
        Some(answer) if answer == err(Errno::ENOTCONN) => Waited::NoRing,
        Some(answer) => Waited::Over(answer),
    }
}

/// A descriptor to wait for until it is readable.
pub(crate) fn input(fd: i32) -> [u8; Pollfd::SIZE] {
    Pollfd {
        fd,
        events: POLLIN,
        revents: 0,
    }
    .to_bytes()
}

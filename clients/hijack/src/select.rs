//! select(2) and pselect6(2).

use abi::{Errno, Pollfd, nr};

use crate::fds::err;
use crate::poll::{
    Deadline, Fds, MANY, Mask, NANOS, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI,
    put_left, timespec, wait,
};
use crate::state::Process;
use crate::sys::failed;

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
    let mut fds = Fds::default();
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

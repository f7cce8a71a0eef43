//! Where threads run: two that talk to each other cost one thing on one processor and another on two, and the host moves them
//! as it likes. So both of a pair that is compared are put on the same processors.

use std::io;
use std::mem;

/// The processors that this thread may use.
pub(crate) fn cpus() -> Vec<usize> {
    let set = affinity();
    let allowed = |&cpu: &usize| {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_ISSET(cpu, &set) }
    };
    (0..libc::CPU_SETSIZE as usize).filter(allowed).collect()
}

/// This thread on one processor until the value is dropped; threads that it starts meanwhile stay there.
pub(crate) struct Pinned(libc::cpu_set_t);

impl Pinned {
    pub(crate) fn to(cpu: usize) -> io::Result<Pinned> {
        let before = affinity();
        // SAFETY: a set of bits, for which zero is valid, and a number that `CPU_SET` checks.
        let set = unsafe {
            let mut set: libc::cpu_set_t = mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            set
        };
        set_affinity(&set)?;
        Ok(Pinned(before))
    }

    /// For the rest of the thread's life.
    pub(crate) fn forever(self) {
        mem::forget(self);
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = set_affinity(&self.0) {
            eprintln!("rump-bench: this thread stays on one processor: {error}");
        }
    }
}

fn affinity() -> libc::cpu_set_t {
    // SAFETY: a set of bits, for which zero is valid, of the size that is told; 0 is this thread.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        set
    }
}

fn set_affinity(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: a set of the size that is told; 0 is this thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(set), set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pinned, cpus};

    #[test]
    fn a_thread_is_pinned_and_set_free() {
        let all = cpus();
        let last = *all.last().unwrap();
        let pinned = Pinned::to(last).unwrap();
        assert_eq!(cpus(), [last]);
        drop(pinned);
        assert_eq!(cpus(), all);
    }
}

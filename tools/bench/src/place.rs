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
        set_affinity(0, &only(cpu))?;
        Ok(Pinned(before))
    }

    /// For the rest of the thread's life.
    pub(crate) fn forever(self) {
        mem::forget(self);
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = set_affinity(0, &self.0) {
            eprintln!("rump-bench: this thread stays on one processor: {error}");
        }
    }
}

/// Every thread that this process has, and those that they start, on one processor.
pub(crate) fn pin_process(cpu: usize) -> io::Result<()> {
    for task in std::fs::read_dir("/proc/self/task")? {
        if let Some(tid) = task?.file_name().to_str().and_then(|n| n.parse().ok()) {
            set_affinity(tid, &only(cpu))?;
        }
    }
    Ok(())
}

fn only(cpu: usize) -> libc::cpu_set_t {
    // SAFETY: a set of bits, for which zero is valid, and a number that `CPU_SET` checks.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
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

/// Of a thread of this process; 0 is this one.
fn set_affinity(tid: libc::pid_t, set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: a set of the size that is told.
    match unsafe { libc::sched_setaffinity(tid, size_of_val(set), set) } {
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

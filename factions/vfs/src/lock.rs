//! Locks on files: flock(2), and record locks of processes and open files, fcntl(2).

use std::collections::HashSet;
use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, LockKind, LockOwner, OpenFile, Pid, RecordLock};
use sync::{Condvar, Mutex, MutexGuard, Wake};

use crate::{Vfs, Vnode};

/// Whose a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Process(Pid),
    /// An open file, by its address: what it has is given back before it goes.
    Open(usize),
}

impl Owner {
    fn of(owner: LockOwner, of: &OpenFile) -> Owner {
        match owner {
            LockOwner::Process(pid) => Owner::Process(pid),
            LockOwner::OpenFile => Owner::Open(std::ptr::from_ref(of).addr()),
        }
    }
}

/// A lock that somebody has; both ends are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    owner: Owner,
    write: bool,
    start: u64,
    end: u64,
}

impl Held {
    fn overlaps(&self, other: &Held) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether the two cannot both be held.
    fn conflicts(&self, other: &Held) -> bool {
        self.owner != other.owner && self.overlaps(other) && (self.write || other.write)
    }
}

/// The locks on a file.
///
/// `held` comes before the kernel-wide [`Waits`]; both are leaves otherwise. Who waits looks again each time something is
/// given back.
pub(crate) struct FileLocks {
    held: Mutex<Lists>,
    given_back: Condvar,
}

/// Record locks, and locks of flock(2), which do not see each other.
#[derive(Default)]
struct Lists {
    records: Vec<Held>,
    flocks: Vec<Held>,
}

impl Default for FileLocks {
    fn default() -> Self {
        FileLocks {
            held: Mutex::default(),
            given_back: Condvar::new("lockf"),
        }
    }
}

/// Which processes wait for which, in the whole kernel: who would close a circle is refused.
#[derive(Default)]
pub(crate) struct Waits(Mutex<Vec<(Pid, Pid)>>);

impl Waits {
    /// Notes that `pid` waits for all of `holders`. `EDEADLK` when one of them waits, perhaps through others, for `pid`.
    fn enter(&self, cx: &Curlwp<'_>, pid: Pid, holders: &[Pid]) -> Result<(), Errno> {
        let mut edges = self.0.lock(cx.cpu());
        let mut seen: HashSet<Pid> = HashSet::new();
        let mut next = holders.to_vec();
        while let Some(at) = next.pop() {
            if at == pid {
                return Err(Errno::EDEADLK);
            }
            if seen.insert(at) {
                next.extend(edges.iter().filter(|edge| edge.0 == at).map(|edge| edge.1));
            }
        }
        edges.extend(holders.iter().map(|&holder| (pid, holder)));
        Ok(())
    }

    /// How many waits there are.
    #[cfg(test)]
    pub(crate) fn count(&self, cx: &Curlwp<'_>) -> usize {
        self.0.lock(cx.cpu()).len()
    }

    fn leave(&self, cx: &Curlwp<'_>, pid: Pid, holders: &[Pid]) {
        let mut edges = self.0.lock(cx.cpu());
        for &holder in holders {
            if let Some(at) = edges.iter().position(|&edge| edge == (pid, holder)) {
                edges.swap_remove(at);
            }
        }
    }
}

/// Takes or gives back a record lock. `closed` says, under the lock of the lists, whether the open file is closed already
/// (then nobody would give the lock back).
pub(crate) fn set(
    cx: &Curlwp<'_>,
    vp: &Arc<Vnode>,
    of: &OpenFile,
    lock: RecordLock,
    wait: bool,
    closed: impl Fn() -> bool,
) -> Result<(), Errno> {
    let locks = vp.locks();
    let want = Held {
        owner: Owner::of(lock.owner, of),
        write: lock.kind == LockKind::Write,
        start: lock.start,
        end: lock.end,
    };
    if lock.kind == LockKind::Unlock {
        let mut lists = locks.held.lock(cx.cpu());
        replace(&mut lists.records, &want, false);
        drop(lists);
        locks.given_back.broadcast(cx.cpu());
        return Ok(());
    }
    let mut lists = locks.held.lock(cx.cpu());
    loop {
        if closed() {
            return Err(Errno::EBADF);
        }
        let holders: Vec<Owner> = lists
            .records
            .iter()
            .filter(|h| h.conflicts(&want))
            .map(|h| h.owner)
            .collect();
        if holders.is_empty() {
            break;
        }
        if !wait {
            return Err(Errno::EAGAIN);
        }
        lists = wait_for(cx, locks, lists, want.owner, &holders)?;
    }
    if let Owner::Process(_) = want.owner {
        crate::cwd::Cwd::of(cx)?.locked(cx, vp);
    }
    replace(&mut lists.records, &want, true);
    drop(lists);
    // A lock that was made weaker lets others in too.
    locks.given_back.broadcast(cx.cpu());
    Ok(())
}

/// Waits until something is given back; among processes only where that does not close a circle.
fn wait_for<'a>(
    cx: &Curlwp<'_>,
    locks: &FileLocks,
    lists: MutexGuard<'a, Lists>,
    owner: Owner,
    holders: &[Owner],
) -> Result<MutexGuard<'a, Lists>, Errno> {
    let waits = &Vfs::of(cx)?.waits;
    let process = |owner: &Owner| match owner {
        Owner::Process(pid) => Some(*pid),
        Owner::Open(_) => None,
    };
    let me = process(&owner);
    let holders: Vec<Pid> = holders.iter().filter_map(process).collect();
    if let Some(pid) = me {
        waits.enter(cx, pid, &holders)?;
    }
    let (lists, wake) = locks.given_back.wait_intr(cx.cpu(), lists, None);
    if let Some(pid) = me {
        waits.leave(cx, pid, &holders);
    }
    match wake {
        Wake::Interrupted => Err(Errno::EINTR),
        Wake::Woken | Wake::TimedOut => Ok(lists),
    }
}

/// The first lock that one would have to wait for.
pub(crate) fn conflicting(
    cx: &Curlwp<'_>,
    vp: &Vnode,
    of: &OpenFile,
    lock: RecordLock,
) -> Option<RecordLock> {
    let want = Held {
        owner: Owner::of(lock.owner, of),
        write: lock.kind == LockKind::Write,
        start: lock.start,
        end: lock.end,
    };
    let lists = vp.locks_if_any()?.held.lock(cx.cpu());
    let held = lists
        .records
        .iter()
        .filter(|h| h.conflicts(&want))
        .min_by_key(|h| h.start)?;
    Some(RecordLock {
        kind: if held.write {
            LockKind::Write
        } else {
            LockKind::Read
        },
        start: held.start,
        end: held.end,
        owner: match held.owner {
            Owner::Process(pid) => LockOwner::Process(pid),
            Owner::Open(_) => LockOwner::OpenFile,
        },
    })
}

/// flock(2): `None` gives the lock back. A lock that changes its kind is given back first, as Linux has it.
pub(crate) fn flock(
    cx: &Curlwp<'_>,
    vp: &Vnode,
    of: &OpenFile,
    write: Option<bool>,
    wait: bool,
    closed: impl Fn() -> bool,
) -> Result<(), Errno> {
    let locks = vp.locks();
    let owner = Owner::of(LockOwner::OpenFile, of);
    let mut lists = locks.held.lock(cx.cpu());
    if let Some(at) = lists.flocks.iter().position(|h| h.owner == owner) {
        if write == Some(lists.flocks[at].write) {
            return Ok(());
        }
        lists.flocks.swap_remove(at);
        locks.given_back.broadcast(cx.cpu());
    }
    let Some(write) = write else { return Ok(()) };
    let want = Held {
        owner,
        write,
        start: 0,
        end: u64::MAX,
    };
    loop {
        if closed() {
            return Err(Errno::EBADF);
        }
        if !lists.flocks.iter().any(|h| h.conflicts(&want)) {
            break;
        }
        if !wait {
            return Err(Errno::EAGAIN);
        }
        let (again, wake) = locks.given_back.wait_intr(cx.cpu(), lists, None);
        if wake == Wake::Interrupted {
            return Err(Errno::EINTR);
        }
        lists = again;
    }
    lists.flocks.push(want);
    Ok(())
}

/// Gives back the record locks that a process has on a file.
pub(crate) fn release_process(cx: &Curlwp<'_>, vp: &Vnode, pid: Pid) {
    release(cx, vp, Owner::Process(pid));
}

/// Gives back everything that an open file has on its file.
pub(crate) fn release_open(cx: &Curlwp<'_>, vp: &Vnode, of: &OpenFile) {
    release(cx, vp, Owner::of(LockOwner::OpenFile, of));
}

fn release(cx: &Curlwp<'_>, vp: &Vnode, owner: Owner) {
    let Some(locks) = vp.locks_if_any() else {
        return;
    };
    let mut lists = locks.held.lock(cx.cpu());
    let before = lists.records.len() + lists.flocks.len();
    lists.records.retain(|h| h.owner != owner);
    lists.flocks.retain(|h| h.owner != owner);
    if lists.records.len() + lists.flocks.len() != before {
        drop(lists);
        locks.given_back.broadcast(cx.cpu());
    }
}

/// Gives the range of `new` to its owner as `new` says, or with `keep` false to nobody: what the owner had there before is
/// cut away, and what then touches with the same kind becomes one.
fn replace(records: &mut Vec<Held>, new: &Held, keep: bool) {
    let mut new = *new;
    let mut rest = Vec::with_capacity(records.len() + 2);
    for held in records.drain(..) {
        let touches =
            held.start <= new.end.saturating_add(1) && new.start <= held.end.saturating_add(1);
        if held.owner != new.owner || !touches {
            rest.push(held);
        } else if keep && held.write == new.write {
            new.start = new.start.min(held.start);
            new.end = new.end.max(held.end);
        } else {
            if held.start < new.start {
                rest.push(Held {
                    end: held.end.min(new.start - 1),
                    ..held
                });
            }
            if held.end > new.end {
                rest.push(Held {
                    start: held.start.max(new.end + 1),
                    ..held
                });
            }
        }
    }
    if keep {
        rest.push(new);
    }
    *records = rest;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES: usize = 24;

    proptest! {
        /// Random locks against an array that says for each byte and owner what there is.
        #[test]
        fn ranges_are_what_a_byte_array_says(
            steps in prop::collection::vec((0..3i32, 0..3u8, 0..BYTES as u64, 0..BYTES as u64), 1..60)
        ) {
            let mut records = Vec::new();
            let mut model = [[0u8; BYTES]; 3];
            for (pid, kind, a, b) in steps {
                let (start, end) = (a.min(b), a.max(b));
                let new = Held { owner: Owner::Process(pid), write: kind == 2, start, end };
                let refused = kind != 0 && records.iter().any(|h: &Held| h.conflicts(&new));
                let expected = kind != 0 && (0..3).filter(|&p| p != pid).any(|p| {
                    (start..=end).any(|at| {
                        let other = model[p as usize][at as usize];
                        other == 2 || other == 1 && kind == 2
                    })
                });
                prop_assert_eq!(refused, expected);
                if refused {
                    continue;
                }
                replace(&mut records, &new, kind != 0);
                for at in start..=end {
                    model[pid as usize][at as usize] = kind;
                }
                for (pid, bytes) in model.iter().enumerate() {
                    let mine: Vec<&Held> = records.iter().filter(|h| h.owner == Owner::Process(pid as i32)).collect();
                    for (at, &kind) in bytes.iter().enumerate() {
                        let over: Vec<bool> =
                            mine.iter().filter(|h| (h.start..=h.end).contains(&(at as u64))).map(|h| h.write).collect();
                        let expected = if kind == 0 { vec![] } else { vec![kind == 2] };
                        prop_assert_eq!(over, expected);
                    }
                    // No two of one kind touch: they would be one.
                    for (i, a) in mine.iter().enumerate() {
                        for b in &mine[i + 1..] {
                            prop_assert!(a.write != b.write || a.end + 1 < b.start || b.end + 1 < a.start);
                        }
                    }
                }
            }
        }
    }
}

//! Descriptor tables.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use abi::Errno;
use arc_swap::{ArcSwapOption, Guard};
use sync::Mutex;

use crate::{Curlwp, OpenFile};

/// Descriptors in the first chunk; each later chunk doubles the table.
const FIRST: usize = 64;
/// Chunks, so that the near part of the table can hold what a process has by default.
const CHUNKS: usize = 5;
/// Descriptors in the near part, and in each piece of the far one.
const NEAR: usize = FIRST << (CHUNKS - 1);
/// The most descriptors a table can hold.
pub const FD_MAX: usize = NEAR * NEAR;

#[derive(Default)]
struct Slot {
    file: ArcSwapOption<OpenFile>,
    close_on_exec: AtomicBool,
}

/// Slots that are made when the first of them is needed.
type Chunk = OnceLock<Box<[Slot]>>;

/// The descriptors of a process, shared by processes that were forked so.
///
/// Looking a descriptor up takes no lock: slots never move (the table grows by chunks) and each holds its file by
/// an atomic pointer. Changes are made under `free`, which also knows the numbers in use; it is a leaf.
pub struct FdTable {
    chunks: [Chunk; CHUNKS],
    /// Pieces for numbers beyond those: one far number, which a client may choose, costs one piece.
    far: OnceLock<Box<[Chunk]>>,
    free: Mutex<Numbers>,
    /// Processes that have this table.
    pub(crate) users: AtomicU32,
}

/// An open file borrowed from its descriptor; no reference count is touched.
pub type FileGuard = Guard<Option<Arc<OpenFile>>>;

impl Default for FdTable {
    fn default() -> Self {
        FdTable {
            chunks: [const { OnceLock::new() }; CHUNKS],
            far: OnceLock::new(),
            free: Mutex::new(Numbers::default()),
            users: AtomicU32::new(0),
        }
    }
}

/// A descriptor that a caller names, which may be free. `EBADF` when there cannot be one of that number.
fn named(fd: i32, limit: usize) -> Result<usize, Errno> {
    usize::try_from(fd)
        .ok()
        .filter(|&n| n < limit.min(FD_MAX))
        .ok_or(Errno::EBADF)
}

impl FdTable {
    /// The open file of a descriptor; `EBADF` when there is none.
    #[inline]
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        self.slot(fd)
            .and_then(|slot| slot.file.load_full())
            .ok_or(Errno::EBADF)
    }

    /// The open file of a descriptor, kept as by [`hold`]. It cannot be closed in between: descriptors go under the same lock.
    pub fn hold(&self, cx: &Curlwp<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let _free = self.free.lock(cx.cpu());
        self.get(fd).inspect(|file| hold(file))
    }

    /// Runs `f` with the open file of a descriptor, without counting a reference.
    #[inline]
    pub fn with<R>(
        &self,
        fd: i32,
        f: impl FnOnce(&Arc<OpenFile>) -> Result<R, Errno>,
    ) -> Result<R, Errno> {
        let guard: FileGuard = self.slot(fd).ok_or(Errno::EBADF)?.file.load();
        f(guard.as_ref().ok_or(Errno::EBADF)?)
    }

    /// Whether the descriptor stands for the open file, and nobody else has that: no other descriptor and no other process.
    pub(crate) fn has_alone(&self, fd: i32, of: &Arc<OpenFile>) -> bool {
        let here = self.with(fd, |own| Ok(Arc::ptr_eq(own, of)));
        here == Ok(true) && !of.is_shared() && !self.is_shared()
    }

    /// Whether several processes have it.
    pub(crate) fn is_shared(&self) -> bool {
        self.users.load(Ordering::SeqCst) > 1
    }

    /// Gives the open file a descriptor: the lowest free one from `min` on and below `limit`, or `EMFILE`.
    pub fn install(
        &self,
        cx: &Curlwp<'_>,
        file: Arc<OpenFile>,
        min: i32,
        limit: usize,
        cloexec: bool,
    ) -> Result<i32, Errno> {
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        let mut free = self.free.lock(cx.cpu());
        self.put_lowest(&mut free, file, min, limit, cloexec)
    }

    /// Gives the open file this very descriptor, as dup2(2) does; answers what was there before, for the caller to
    /// close. `EBADF` when the number is out of range.
    pub fn install_at(
        &self,
        cx: &Curlwp<'_>,
        file: Arc<OpenFile>,
        fd: i32,
        limit: usize,
        cloexec: bool,
    ) -> Result<Option<Arc<OpenFile>>, Errno> {
        let fd = named(fd, limit)?;
        let mut free = self.free.lock(cx.cpu());
        free.take(fd);
        Ok(self.put(fd, Some(file), cloexec))
    }

    /// Gives the open file of `old` another descriptor, the lowest free one from `min` on and below `limit`. The
    /// file cannot be closed in between: descriptors go under the same lock.
    pub fn dup(
        &self,
        cx: &Curlwp<'_>,
        old: i32,
        min: i32,
        limit: usize,
        cloexec: bool,
    ) -> Result<i32, Errno> {
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        let mut free = self.free.lock(cx.cpu());
        let file = self.get(old)?;
        if min >= limit {
            return Err(Errno::EINVAL);
        }
        self.put_lowest(&mut free, file, min, limit, cloexec)
    }

    /// Gives the open file of `old` this very descriptor; answers what was there before, for the caller to
    /// [`release`]. `EBADF` when either number is out of range.
    pub fn dup_to(
        &self,
        cx: &Curlwp<'_>,
        old: i32,
        new: i32,
        limit: usize,
        cloexec: bool,
    ) -> Result<Option<Arc<OpenFile>>, Errno> {
        let mut free = self.free.lock(cx.cpu());
        let file = self.get(old)?;
        let fd = named(new, limit)?;
        free.take(fd);
        Ok(self.put(fd, Some(file), cloexec))
    }

    fn put_lowest(
        &self,
        free: &mut Numbers,
        file: Arc<OpenFile>,
        min: usize,
        limit: usize,
        cloexec: bool,
    ) -> Result<i32, Errno> {
        let fd = free
            .take_lowest(min, limit.min(FD_MAX))
            .ok_or(Errno::EMFILE)?;
        self.put(fd, Some(file), cloexec);
        Ok(fd as i32)
    }

    /// Takes a descriptor away; answers its open file, for the caller to [`release`].
    pub fn remove(&self, cx: &Curlwp<'_>, fd: i32) -> Result<Arc<OpenFile>, Errno> {
        let mut free = self.free.lock(cx.cpu());
        let slot = self.slot(fd).ok_or(Errno::EBADF)?;
        let file = slot.file.swap(None).ok_or(Errno::EBADF)?;
        free.give(fd as usize);
        Ok(file)
    }

    /// Whether a descriptor is closed at exec.
    pub fn close_on_exec(&self, fd: i32) -> Result<bool, Errno> {
        let slot = self
            .slot(fd)
            .filter(|s| s.file.load().is_some())
            .ok_or(Errno::EBADF)?;
        Ok(slot.close_on_exec.load(Ordering::Relaxed))
    }

    /// Sets whether a descriptor is closed at exec.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        let slot = self
            .slot(fd)
            .filter(|s| s.file.load().is_some())
            .ok_or(Errno::EBADF)?;
        slot.close_on_exec.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// The numbers of all open descriptors from `first` to `last`, in order.
    pub fn numbers(&self, cx: &Curlwp<'_>, first: usize, last: usize) -> Vec<i32> {
        self.free.lock(cx.cpu()).used(first, last)
    }

    /// A copy with descriptors of its own for the same open files, as fork makes it.
    pub fn copy(&self, cx: &Curlwp<'_>) -> FdTable {
        let mut new = FdTable::default();
        let free = self.free.lock(cx.cpu());
        let mut numbers = free.clone();
        for fd in free.used(0, FD_MAX) {
            let Some(slot) = self.slot(fd) else { continue };
            match slot.file.load_full() {
                Some(file) if file.file().inherited() => {
                    let cloexec = slot.close_on_exec.load(Ordering::Relaxed);
                    new.put(fd as usize, Some(file), cloexec);
                }
                _ => numbers.give(fd as usize),
            }
        }
        new.free = Mutex::new(numbers);
        new
    }

    #[inline]
    fn slot(&self, fd: i32) -> Option<&Slot> {
        let fd = usize::try_from(fd).ok().filter(|&n| n < FD_MAX)?;
        let Place { chunk, at, .. } = place(fd);
        let chunk = match chunk {
            Where::Near(chunk) => &self.chunks[chunk],
            Where::Far(piece) => self.far.get()?.get(piece)?,
        };
        chunk.get()?.get(at)
    }

    /// Fills a slot and counts the descriptor.
    fn put(&self, fd: usize, file: Option<Arc<OpenFile>>, cloexec: bool) -> Option<Arc<OpenFile>> {
        let Place { chunk, at, len } = place(fd);
        let chunk = match chunk {
            Where::Near(chunk) => &self.chunks[chunk],
            Where::Far(piece) => {
                let pieces = || (0..FD_MAX / NEAR).map(|_| Chunk::new()).collect();
                &self.far.get_or_init(pieces)[piece]
            }
        };
        let slots = chunk.get_or_init(|| (0..len).map(|_| Slot::default()).collect());
        if let Some(file) = &file {
            file.refs.fetch_add(1, Ordering::Relaxed);
        }
        slots[at].close_on_exec.store(cloexec, Ordering::Relaxed);
        slots[at].file.swap(file)
    }
}

/// Where a descriptor's slot is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    chunk: Where,
    at: usize,
    /// Slots in that chunk.
    len: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Where {
    Near(usize),
    Far(usize),
}

#[inline]
fn place(fd: usize) -> Place {
    if fd < FIRST {
        return Place {
            chunk: Where::Near(0),
            at: fd,
            len: FIRST,
        };
    }
    if fd < NEAR {
        let chunk = (fd / FIRST).ilog2() as usize + 1;
        let len = FIRST << (chunk - 1);
        return Place {
            chunk: Where::Near(chunk),
            at: fd - len,
            len,
        };
    }
    Place {
        chunk: Where::Far(fd / NEAR),
        at: fd % NEAR,
        len: NEAR,
    }
}

/// Keeps an open file as a descriptor does, while a descriptor is on its way to another process; [`release`] ends it.
pub fn hold(of: &OpenFile) {
    of.refs.fetch_add(1, Ordering::Relaxed);
}

/// Drops one descriptor's hold on an open file; with the last one the file is closed.
pub fn release(cx: &Curlwp<'_>, of: &Arc<OpenFile>) {
    of.file().descriptor_closed(cx);
    let_go(cx, of);
}

/// [`release`] that tells the file nothing: answers whether it was the last descriptor, for who knows what
/// [`File::close`](crate::File::close) and [`File::still_held`](crate::File::still_held) would do and does it otherwise.
pub fn give_up(cx: &Curlwp<'_>, of: &Arc<OpenFile>) -> bool {
    of.file().descriptor_closed(cx);
    drop_hold(cx, of)
}

/// Drops a hold that was no descriptor's.
pub(crate) fn let_go(cx: &Curlwp<'_>, of: &Arc<OpenFile>) {
    if drop_hold(cx, of) {
        of.file().close(cx, of);
    } else {
        of.file().still_held(cx, of);
    }
}

/// Answers whether it was the last.
fn drop_hold(cx: &Curlwp<'_>, of: &OpenFile) -> bool {
    let last = of.refs.fetch_sub(1, Ordering::SeqCst) == 1;
    if last {
        of.leave_epolls(cx);
    }
    last
}

/// The numbers in use: a bit each, and above them a bit for each full word, so that finding the lowest free one
/// stays cheap with a hundred thousand in use.
#[derive(Clone, Default)]
struct Numbers {
    used: Vec<u64>,
    full: Vec<u64>,
}

impl Numbers {
    fn take_lowest(&mut self, min: usize, limit: usize) -> Option<usize> {
        let fd = self.lowest_free(min);
        (fd < limit).then(|| {
            self.take(fd);
            fd
        })
    }

    fn lowest_free(&self, min: usize) -> usize {
        let word = min / 64;
        let Some(&bits) = self.used.get(word) else {
            return min;
        };
        let free = !bits & (u64::MAX << (min % 64));
        if free != 0 {
            return word * 64 + free.trailing_zeros() as usize;
        }
        let word = self.not_full_from(word + 1);
        let free = !self.used.get(word).copied().unwrap_or(0);
        word * 64 + free.trailing_zeros() as usize
    }

    /// The first word from `start` on that has a free number.
    fn not_full_from(&self, start: usize) -> usize {
        let mut mask = u64::MAX << (start % 64);
        for group in start / 64..self.full.len() {
            let open = !self.full[group] & mask;
            if open != 0 {
                return group * 64 + open.trailing_zeros() as usize;
            }
            mask = u64::MAX;
        }
        start.max(self.full.len() * 64)
    }

    fn take(&mut self, fd: usize) {
        let word = fd / 64;
        if word >= self.used.len() {
            self.used.resize(word + 1, 0);
            self.full.resize(word / 64 + 1, 0);
        }
        self.used[word] |= 1 << (fd % 64);
        if self.used[word] == u64::MAX {
            self.full[word / 64] |= 1 << (word % 64);
        }
    }

    fn give(&mut self, fd: usize) {
        let word = fd / 64;
        self.used[word] &= !(1 << (fd % 64));
        self.full[word / 64] &= !(1 << (word % 64));
    }

    fn used(&self, first: usize, last: usize) -> Vec<i32> {
        let mut out = Vec::new();
        for (word, &bits) in self.used.iter().enumerate().skip(first / 64) {
            let mut bits = bits;
            while bits != 0 {
                let fd = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if fd > last {
                    return out;
                }
                if fd >= first {
                    out.push(fd as i32);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_given_out_lowest_first() {
        let mut n = Numbers::default();
        for want in 0..10_000 {
            assert_eq!(n.take_lowest(0, FD_MAX), Some(want));
        }
        n.give(5000);
        n.give(77);
        assert_eq!(n.take_lowest(0, FD_MAX), Some(77));
        assert_eq!(n.take_lowest(0, FD_MAX), Some(5000));
        assert_eq!(n.take_lowest(0, FD_MAX), Some(10_000));
        assert_eq!(n.take_lowest(20_000, FD_MAX), Some(20_000));
        assert_eq!(n.take_lowest(0, 10_001), None);
        assert_eq!(n.used(9_999, 20_000), vec![9_999, 10_000, 20_000]);
    }

    proptest! {
        #[test]
        fn numbers_are_as_a_set_of_numbers(
            ops in prop::collection::vec((0u8..4, 0usize..5000), 1..400),
        ) {
            let mut numbers = Numbers::default();
            let mut model = BTreeSet::new();
            for (op, n) in ops {
                match op {
                    0 => {
                        numbers.take(n);
                        model.insert(n);
                    }
                    1 if model.remove(&n) => numbers.give(n),
                    _ => {
                        let want = (n..n + 100).find(|fd| !model.contains(fd));
                        prop_assert_eq!(numbers.take_lowest(n, n + 100), want);
                        model.extend(want);
                    }
                }
            }
            let all: Vec<i32> = model.iter().map(|&n| n as i32).collect();
            prop_assert_eq!(numbers.used(0, FD_MAX), all);
        }
    }

    #[test]
    fn a_far_number_costs_one_piece() {
        let table = FdTable::default();
        table.put(FD_MAX - 1, None, false);
        let far = table.far.get().expect("there");
        let made = far.iter().filter(|piece| piece.get().is_some());
        assert_eq!(made.count(), 1);
        assert!(table.chunks.iter().all(|chunk| chunk.get().is_none()));
    }

    #[test]
    fn every_descriptor_has_its_own_place() {
        let near = |chunk, at, len| {
            let chunk = Where::Near(chunk);
            Place { chunk, at, len }
        };
        assert_eq!(place(0), near(0, 0, 64));
        assert_eq!(place(63), near(0, 63, 64));
        assert_eq!(place(64), near(1, 0, 64));
        assert_eq!(place(127), near(1, 63, 64));
        assert_eq!(place(128), near(2, 0, 128));
        assert_eq!(place(1023), near(4, 511, 512));
        let far = place(FD_MAX - 1);
        assert_eq!((far.chunk, far.at, far.len), (Where::Far(1023), 1023, 1024));
    }
}

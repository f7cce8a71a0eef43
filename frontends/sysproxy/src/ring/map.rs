//! The memory of a ring, which a client may change at any moment.
//!
//! Nothing here makes a reference to the shared bytes: they are copied in and out by an instruction that the compiler
//! cannot look into, and the futex words are atomics. What was copied out is ours and no longer changes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use abi::ring::{AT_MAGIC, MAGIC, OWNER_DIED, SERVER, SIZE};
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};

/// Set in a futex word that somebody waits for, `FUTEX_WAITERS`.
const WAITERS: u32 = 0x8000_0000;

/// A mapped ring.
pub(crate) struct Map {
    base: NonNull<u8>,
}

// SAFETY: the memory belongs to no thread, and every access to it is atomic or made by `copy`, which assumes nothing.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps what a client has handed over: a memfd of the right size that cannot shrink under us, and a ring.
    pub(crate) fn new(memfd: &OwnedFd) -> io::Result<Map> {
        let bad = || io::Error::from(io::ErrorKind::InvalidInput);
        let seals = rustix::fs::fcntl_get_seals(memfd).map_err(|_| bad())?;
        let size = rustix::fs::fstat(memfd)?.st_size;
        if !seals.contains(SealFlags::SHRINK) || size != SIZE as i64 {
            return Err(bad());
        }
        // SAFETY: a new mapping at an address that the host chooses; it cannot fault, because the file has the size and
        // is sealed against shrinking.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memfd,
                0,
            )?
        };
        let map = Map {
            base: NonNull::new(base.cast()).ok_or_else(bad)?,
        };
        let mut magic = [0; 4];
        map.read(AT_MAGIC, &mut magic);
        if u32::from_le_bytes(magic) == MAGIC {
            Ok(map)
        } else {
            Err(bad())
        }
    }

    /// The futex word at a place.
    pub(crate) fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at < SIZE, "a place of the layout");
        // SAFETY: inside the mapping and aligned, and the mapping lives as long as `self`. The client too treats it as
        // an atomic; if it does not, the value is whatever it is.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// Copies out of the ring. What would lie outside is not touched.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) {
        if at <= SIZE && to.len() <= SIZE - at {
            // SAFETY: the source lies inside the mapping, the destination is a slice of that length; they are apart.
            unsafe { copy(self.base.as_ptr().add(at), to.as_mut_ptr(), to.len()) };
        }
    }

    /// Copies into the ring. What would lie outside is not touched.
    pub(crate) fn write(&self, at: usize, from: &[u8]) {
        if at <= SIZE && from.len() <= SIZE - at {
            // SAFETY: the destination lies inside the mapping, the source is a slice of that length; they are apart.
            unsafe { copy(from.as_ptr(), self.base.as_ptr().add(at), from.len()) };
        }
    }

    /// [`write`](Self::write), past the caches.
    pub(crate) fn write_past(&self, at: usize, from: &[u8]) {
        if at <= SIZE && from.len() <= SIZE - at {
            // SAFETY: as in `write`.
            unsafe { copy_past(from.as_ptr(), self.base.as_ptr().add(at), from.len()) };
        }
    }

    /// Writes a head, which is a few whole words at an aligned place.
    pub(crate) fn write_words(&self, at: usize, from: &[u8]) {
        assert!(at.is_multiple_of(8) && at <= SIZE && from.len() <= SIZE - at);
        for (i, field) in from.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: inside the mapping and aligned, by the condition; both sides treat it as an atomic or copy it out.
            let place = unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at + 8 * i).cast()) };
            place.store(u64::from_le_bytes(*field), Ordering::Relaxed);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrowed from it is left.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), SIZE) };
    }
}

/// Copies bytes that another process may be changing, so that whatever they are when they are read is what arrives.
///
/// # Safety
/// Both ranges are mapped, the destination writable, and they do not overlap.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; the direction flag is clear, as everywhere in Rust.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..len {
        // SAFETY: the caller's promise, byte by byte.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// [`copy`] with stores that go to memory and not into a cache.
///
/// # Safety
/// As for [`copy`].
unsafe fn copy_past(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    let done = {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        const STEP: usize = 16;
        let head = to.align_offset(STEP).min(len);
        // SAFETY: the caller's promise, for the first part.
        unsafe { copy(from, to, head) };
        let mut at = head;
        while len - at >= STEP {
            // SAFETY: inside both ranges, by the condition; the destination is aligned, by `head`.
            unsafe { _mm_stream_si128(to.add(at).cast(), _mm_loadu_si128(from.add(at).cast())) };
            at += STEP;
        }
        // SAFETY: every x86-64 has it. It makes the stores above visible before any later one.
        unsafe { _mm_sfence() };
        at
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    // SAFETY: the caller's promise, for what is left.
    unsafe { copy(from.add(done), to.add(done), len - done) };
}

/// Has the host tell a client when this thread dies, however that comes: the ring's [`SERVER`] word is the one entry
/// of the thread's robust list, get_robust_list(2). Dropped when the thread leaves the ring in good order.
pub(crate) struct Testament<'m> {
    list: Box<RobustList>,
    before: (*mut libc::c_void, usize),
    map: &'m Map,
}

/// `struct robust_list_head` of the host, and its only entry.
#[repr(C)]
struct RobustList {
    first: *const RobustList,
    offset: isize,
    pending: *const RobustList,
}

impl<'m> Testament<'m> {
    /// Names the ring; `None` when the host has no such thing.
    pub(crate) fn new(map: &'m Map) -> Option<Testament<'m>> {
        let mut before = (ptr::null_mut(), 0usize);
        // SAFETY: asks for this thread's list, which is a pointer and a length.
        let asked = unsafe {
            libc::syscall(
                libc::SYS_get_robust_list,
                0,
                &raw mut before.0,
                &raw mut before.1,
            )
        };
        if asked != 0 {
            return None;
        }
        let word = map.word(SERVER);
        let mut list = Box::new(RobustList {
            first: ptr::null(),
            offset: 0,
            pending: ptr::null(),
        });
        // A list ends where it began: an entry, and then the head, which is an entry too to the host's eyes. So the head
        // itself stands for the word: the host finds it at `offset` from `pending`.
        let head: *const RobustList = &raw const *list;
        list.first = head;
        list.pending = head;
        list.offset = (word.as_ptr() as isize).wrapping_sub(head as isize);
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        word.store(tid | WAITERS, Ordering::SeqCst);
        // SAFETY: the list lives until `drop` puts the former one back; the word it names is in a mapping that lives as
        // long, by the borrow.
        let set =
            unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<RobustList>()) };
        (set == 0).then_some(Testament { list, before, map })
    }
}

impl Drop for Testament<'_> {
    fn drop(&mut self) {
        // SAFETY: puts back the list that the thread had.
        unsafe { libc::syscall(libc::SYS_set_robust_list, self.before.0, self.before.1) };
        self.list.pending = ptr::null();
        let word = self.map.word(SERVER);
        word.fetch_or(OWNER_DIED, Ordering::SeqCst);
        let flags = rustix::thread::futex::Flags::empty();
        let _ = rustix::thread::futex::wake(word, flags, 1);
    }
}

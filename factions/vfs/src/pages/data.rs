//! The pages of one file: which there are, and which are dirty.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::page::Page;
use super::radix::Radix;
use super::window::Window;

/// Pages of a leaf.
const LEAF: u64 = 64;

/// The pages of one file. It is guarded by the file's `io` lock: shared to look and read, exclusive for every change.
///
/// It counts nothing outside the file; what a change means for the kernel's accounts is in its answer.
#[derive(Default)]
pub(super) struct FileData {
    tree: Radix<Leaf>,
    /// How many pages there are, in memory: 32 bits are 16 TiB of it.
    pages: u32,
    /// How many of them are dirty.
    dirty: u32,
    /// The part of the file that programs have mapped. Its pages are there, and not in the tree, but for those who ask
    /// what is missing.
    pub(super) window: Option<Box<Window>>,
}

/// 64 pages that lie one behind the other, from a multiple of 64 on.
struct Leaf {
    pages: [Option<Page>; LEAF as usize],
    present: u64,
    dirty: u64,
    /// Pages that were used since the clock's hand last came by; set by readers that hold the lock shared.
    used: AtomicU64,
}

/// How many pages were taken out, and how many of them were dirty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub(super) pages: u64,
    pub(super) dirty: u64,
}

#[inline]
fn place(page: u64) -> (u64, u32) {
    (page / LEAF, (page % LEAF) as u32)
}

/// The bits of the pages of `range` in the leaf of this key.
fn mask(key: u64, range: &Range<u64>) -> u64 {
    let first = key * LEAF;
    let from = range.start.saturating_sub(first).min(LEAF);
    let to = range.end.saturating_sub(first).min(LEAF);
    low_bits(to) & !low_bits(from)
}

fn low_bits(count: u64) -> u64 {
    if count >= u64::from(u64::BITS) {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

impl Leaf {
    fn empty() -> Leaf {
        Leaf {
            pages: [const { None }; LEAF as usize],
            present: 0,
            dirty: 0,
            used: AtomicU64::new(0),
        }
    }

    /// Which pages of a set are clean and in nobody's hands.
    fn evictable(&mut self, set: u64) -> u64 {
        let mut evictable = 0;
        for bit in bits(self.present & !self.dirty & set) {
            let page = self.pages[bit as usize].as_mut();
            if page.is_some_and(|page| !page.is_shared()) {
                evictable |= 1 << bit;
            }
        }
        evictable
    }

    fn remove(&mut self, mask: u64) -> Removed {
        let gone = self.present & mask;
        let removed = Removed {
            pages: u64::from(gone.count_ones()),
            dirty: u64::from((self.dirty & gone).count_ones()),
        };
        for bit in bits(gone) {
            self.pages[bit as usize] = None;
        }
        self.present &= !gone;
        self.dirty &= !gone;
        removed
    }
}

fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        (set != 0).then(|| {
            set &= set - 1;
            bit
        })
    })
}

impl FileData {
    pub(super) fn pages(&self) -> u64 {
        u64::from(self.pages)
    }

    pub(super) fn dirty(&self) -> u64 {
        u64::from(self.dirty)
    }

    /// A page, which counts as used.
    #[inline]
    pub(super) fn page(&self, page: u64) -> Option<&Page> {
        let (key, bit) = place(page);
        let leaf = self.tree.get(key)?;
        let page = leaf.pages[bit as usize].as_ref()?;
        // Most often it is set already, and then readers share the cache line.
        if leaf.used.load(Ordering::Relaxed) & (1 << bit) == 0 {
            leaf.used.fetch_or(1 << bit, Ordering::Relaxed);
        }
        Some(page)
    }

    #[inline]
    pub(super) fn contains(&self, page: u64) -> bool {
        let (key, bit) = place(page);
        let leaf = self.tree.get(key);
        leaf.is_some_and(|leaf| leaf.present & (1 << bit) != 0) || self.window_of(page).is_some()
    }

    /// The window, if it has this page.
    #[inline]
    pub(super) fn window_of(&self, page: u64) -> Option<&Window> {
        self.window.as_deref().filter(|w| w.contains(page))
    }

    /// The same, to be written.
    #[inline]
    pub(super) fn window_of_mut(&mut self, page: u64) -> Option<&mut Window> {
        self.window.as_deref_mut().filter(|w| w.contains(page))
    }

    #[inline]
    pub(super) fn is_dirty(&self, page: u64) -> bool {
        let (key, bit) = place(page);
        self.tree
            .get(key)
            .is_some_and(|leaf| leaf.dirty & (1 << bit) != 0)
    }

    /// A page to be changed, and whether it is dirty. If it is being written back this is a copy that takes its place.
    #[inline]
    pub(super) fn page_mut(&mut self, page: u64) -> Option<(&mut [u8], bool)> {
        let (key, bit) = place(page);
        let leaf = self.tree.get_mut(key)?;
        let page = leaf.pages[bit as usize].as_mut()?;
        *leaf.used.get_mut() |= 1 << bit;
        Some((page.bytes_mut(), leaf.dirty & (1 << bit) != 0))
    }

    /// Puts a page where there was none.
    pub(super) fn insert(&mut self, page: u64, memory: Page, dirty: bool) {
        let (key, bit) = place(page);
        let leaf = self.tree.get_or_insert_with(key, Leaf::empty);
        leaf.pages[bit as usize] = Some(memory);
        leaf.present |= 1 << bit;
        *leaf.used.get_mut() |= 1 << bit;
        self.pages += 1;
        if dirty {
            leaf.dirty |= 1 << bit;
            self.dirty += 1;
        }
    }

    /// Marks a page dirty; false when it was already, or is not there.
    pub(super) fn set_dirty(&mut self, page: u64) -> bool {
        let (key, bit) = place(page);
        let Some(leaf) = self.tree.get_mut(key) else {
            return false;
        };
        let new = leaf.present & !leaf.dirty & (1 << bit) != 0;
        if new {
            leaf.dirty |= 1 << bit;
            self.dirty += 1;
        }
        new
    }

    /// Takes pages out.
    pub(super) fn remove(&mut self, range: Range<u64>) -> Removed {
        let mut removed = Removed::default();
        let mut at = range.start / LEAF;
        while let Some((key, _)) = self.tree.next(at) {
            if key * LEAF >= range.end {
                break;
            }
            removed += self.remove_in_leaf(key, mask(key, &range));
            at = key + 1;
        }
        removed
    }

    fn remove_in_leaf(&mut self, key: u64, mask: u64) -> Removed {
        let Some(leaf) = self.tree.get_mut(key) else {
            return Removed::default();
        };
        let removed = leaf.remove(mask);
        if leaf.present == 0 {
            self.tree.remove(key);
        }
        // A leaf has 64 of them.
        self.pages -= removed.pages as u32;
        self.dirty -= removed.dirty as u32;
        removed
    }

    /// The next dirty page from `from` on and those that follow it without a gap, at most `max`. They are clean from
    /// now on, and shared with the caller, who writes them.
    pub(super) fn take_dirty_run(&mut self, from: u64, max: usize) -> Option<(u64, Vec<Page>)> {
        let first = self.next_dirty(from)?;
        let mut run = Vec::new();
        while run.len() < max {
            let (key, bit) = place(first + run.len() as u64);
            let Some(leaf) = self.tree.get_mut(key) else {
                break;
            };
            if leaf.dirty & (1 << bit) == 0 {
                break;
            }
            let Some(page) = &leaf.pages[bit as usize] else {
                break;
            };
            run.push(page.clone());
            leaf.dirty &= !(1 << bit);
            self.dirty -= 1;
        }
        Some((first, run))
    }

    fn next_dirty(&self, from: u64) -> Option<u64> {
        self.next_where(from, |leaf| leaf.dirty)
    }

    /// The first page that is there from `from` on.
    pub(super) fn next_present(&self, from: u64) -> Option<u64> {
        let here = self.next_where(from, |leaf| leaf.present);
        let mapped = self.window.as_ref().and_then(|w| w.next_present(from));
        [here, mapped].into_iter().flatten().min()
    }

    fn next_where(&self, from: u64, set: impl Fn(&Leaf) -> u64) -> Option<u64> {
        let mut at = from / LEAF;
        loop {
            let (key, leaf) = self.tree.next(at)?;
            let found = set(leaf) & mask(key, &(from..u64::MAX));
            if found != 0 {
                return Some(key * LEAF + u64::from(found.trailing_zeros()));
            }
            at = key + 1;
        }
    }

    /// The first page that is not there from `from` on.
    pub(super) fn next_absent(&self, from: u64) -> u64 {
        let mut at = self.next_absent_here(from);
        while let Some(window) = self.window_of(at) {
            at = self.next_absent_here(window.next_absent(at));
        }
        at
    }

    fn next_absent_here(&self, from: u64) -> u64 {
        let mut at = from;
        while let Some(leaf) = self.tree.get(at / LEAF) {
            let absent = !leaf.present & mask(at / LEAF, &(at..u64::MAX));
            if absent != 0 {
                return at / LEAF * LEAF + u64::from(absent.trailing_zeros());
            }
            at = (at / LEAF + 1) * LEAF;
        }
        at
    }

    /// One step of the clock's hand: looks at the first leaf from page `from` on. Pages used since the hand last came
    /// by get a second chance; those that were not, are clean and in nobody's hands go. Answers where the hand goes on
    /// and what it took; `None` when the file ends before.
    pub(super) fn sweep(&mut self, from: u64) -> Option<(u64, Removed)> {
        let (key, _) = self.tree.next(from.div_ceil(LEAF))?;
        let leaf = self.tree.get_mut(key)?;
        let used = std::mem::take(leaf.used.get_mut());
        let idle = leaf.evictable(!used);
        Some(((key + 1) * LEAF, self.remove_in_leaf(key, idle)))
    }

    /// Takes out the pages of a range that are clean and in nobody's hands.
    pub(super) fn evict(&mut self, range: Range<u64>) -> Removed {
        let mut removed = Removed::default();
        let mut at = range.start / LEAF;
        while let Some((key, _)) = self.tree.next(at) {
            if key * LEAF >= range.end {
                break;
            }
            let set = self
                .tree
                .get_mut(key)
                .map_or(0, |leaf| leaf.evictable(mask(key, &range)));
            removed += self.remove_in_leaf(key, set);
            at = key + 1;
        }
        removed
    }
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Removed) {
        self.pages += other.pages;
        self.dirty += other.dirty;
    }
}

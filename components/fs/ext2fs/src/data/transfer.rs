//! Bytes between pages and the device.

use std::ops::Range;

use abi::Errno;
use rsext4::{Ext4Error, Ext4Result};
use vfs::BlockDev;

use super::NOTHING;
use crate::filemap::FileMap;

/// Pages that go to a file.
pub(super) struct Write<'a> {
    pub(super) offset: u64,
    /// Behind the last byte that belongs to the file.
    pub(super) end: u64,
    pub(super) size: u64,
    pub(super) pages: &'a [&'a [u8]],
}

impl Write<'_> {
    /// Puts the pages on the device. The last block is zero behind the end of the file.
    pub(super) fn put(&self, dev: &BlockDev, map: &FileMap, block_size: u64) -> Result<(), Errno> {
        let mut from = Gather::new(self.pages);
        for piece in map.pieces(self.offset / block_size, self.end.div_ceil(block_size)) {
            let block = piece.physical.ok_or(Errno::EIO)?;
            let start = piece.logical * block_size;
            let len = piece.len * block_size;
            let real = len.min(self.end - start);
            from.write(dev, block * block_size, len, real)?;
        }
        Ok(())
    }
}

/// Takes bytes out of pages that lie one behind the other.
struct Gather<'a> {
    pages: std::slice::Iter<'a, &'a [u8]>,
    /// What is left of the page that was begun.
    rest: &'a [u8],
}

impl<'a> Gather<'a> {
    fn new(pages: &'a [&'a [u8]]) -> Gather<'a> {
        Gather {
            pages: pages.iter(),
            rest: &[],
        }
    }

    /// Writes the next `len` bytes; those behind `real` as zero.
    fn write(&mut self, dev: &BlockDev, at: u64, len: u64, real: u64) -> Result<(), Errno> {
        let mut slices = Vec::new();
        let mut left = real.min(len);
        while left > 0 {
            if self.rest.is_empty() {
                let Some(page) = self.pages.next() else { break };
                self.rest = page;
            }
            let n = left.min(self.rest.len() as u64);
            let (now, rest) = self.rest.split_at(n as usize);
            slices.push(now);
            self.rest = rest;
            left -= n;
        }
        let mut zeroes = len - (real.min(len) - left);
        while zeroes > 0 {
            let n = zeroes.min(NOTHING.len() as u64);
            slices.push(&NOTHING[..n as usize]);
            zeroes -= n;
        }
        dev.write_vectored_at(&slices, at)
    }
}

/// Puts bytes into pages that lie one behind the other.
pub(super) struct Scatter<'a, 'p> {
    pages: std::slice::IterMut<'a, &'p mut [u8]>,
    /// What is left of the page that was begun.
    rest: &'a mut [u8],
}

impl<'a, 'p> Scatter<'a, 'p> {
    pub(super) fn new(pages: &'a mut [&'p mut [u8]]) -> Scatter<'a, 'p> {
        Scatter {
            pages: pages.iter_mut(),
            rest: &mut [],
        }
    }

    /// The next `len` bytes of the pages, as far as there are pages.
    fn next(&mut self, mut len: u64) -> Vec<&'a mut [u8]> {
        let mut slices = Vec::new();
        while len > 0 {
            if self.rest.is_empty() {
                let Some(page) = self.pages.next() else { break };
                self.rest = page;
            }
            let n = len.min(self.rest.len() as u64);
            let (now, rest) = std::mem::take(&mut self.rest).split_at_mut(n as usize);
            slices.push(now);
            self.rest = rest;
            len -= n;
        }
        slices
    }

    pub(super) fn zero(&mut self, len: u64) {
        for slice in self.next(len) {
            slice.fill(0);
        }
    }

    pub(super) fn read(&mut self, dev: &BlockDev, at: u64, len: u64) -> Result<(), Errno> {
        dev.read_vectored_at(&mut self.next(len), at)
    }
}

/// Zeroes what is behind `end` in pages that start at `offset`.
pub(super) fn zero_behind(offset: u64, end: u64, pages: &mut [&mut [u8]]) {
    let mut at = offset;
    for page in pages {
        let keep = end.saturating_sub(at).min(page.len() as u64) as usize;
        page[keep..].fill(0);
        at += page.len() as u64;
    }
}

/// Zeroes the last block of a file behind its end, so that it reads as zero when the file grows again.
pub(super) fn zero_tail(
    dev: &BlockDev,
    map: &FileMap,
    size: u64,
    block_size: u64,
) -> Ext4Result<()> {
    zero_bytes(
        dev,
        map,
        size..size.next_multiple_of(block_size),
        block_size,
    )
}

/// Zeroes a range of bytes of a file where it is mapped and written.
pub(super) fn zero_bytes(
    dev: &BlockDev,
    map: &FileMap,
    range: Range<u64>,
    block_size: u64,
) -> Ext4Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    for piece in map.pieces(range.start / block_size, range.end.div_ceil(block_size)) {
        let Some(block) = piece.physical.filter(|_| piece.written) else {
            continue;
        };
        let start = piece.logical * block_size;
        let mut at = range.start.max(start);
        let end = range.end.min(start + piece.len * block_size);
        while at < end {
            let n = (end - at).min(NOTHING.len() as u64);
            dev.write_at(&NOTHING[..n as usize], block * block_size + (at - start))
                .map_err(|_| Ext4Error::io())?;
            at += n;
        }
    }
    Ok(())
}

//! The journal: jbd2's format on the disk, written and replayed.
//!
//! Layout: Documentation/filesystems/ext4/journal.rst of the kernel. All integers are big-endian. Journals that are found
//! empty are continued with checksums of version 3, whatever they had before; one that has to be replayed may have
//! checksums of version 2, 3 or none.

use std::collections::HashMap;

use abi::Errno;
use hypercall::Nanos;
use vfs::BlockDev;

use crate::layout::{Extent, ReadBlock, crc32c};

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE_BLOCK: u32 = 5;

const REVOKE: u32 = 1;
const BIT64: u32 = 2;
const CSUM_V2: u32 = 8;
const CSUM_V3: u32 = 16;

const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST_TAG: u32 = 8;

/// Bytes that are put together before they are written.
const CHUNK: usize = 1 << 20;

/// A journal that is open.
pub(crate) struct Journal {
    extents: Vec<Extent>,
    block_size: usize,
    /// Blocks of the ring: from `first` up to `end`.
    first: u32,
    end: u32,
    /// Number of the next transaction.
    sequence: u32,
    /// Where it goes.
    head: u32,
    /// The log holds transactions that may not be at home yet.
    active: bool,
    seed: u32,
    bit64: bool,
    superblock: Box<[u8]>,
}

/// What a replay has to put where: for each block of the file system the block of the device that holds its newest
/// image in the log, and whether that is escaped.
pub(crate) type Replay = HashMap<u64, (u64, bool)>;

fn be32(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

fn put32(raw: &mut [u8], at: usize, value: u32) {
    if let Some(field) = raw.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

impl Journal {
    /// Reads the journal's superblock. `EUCLEAN` when there is none.
    pub(crate) fn open(
        extents: Vec<Extent>,
        block_size: u32,
        read: &mut ReadBlock<'_>,
    ) -> Result<Journal, Errno> {
        let blocks = extents.last().map_or(0, Extent::end);
        let start = extents.first().ok_or(Errno::EUCLEAN)?.physical;
        let superblock = read(start)?;
        let field = |at| be32(&superblock, at);
        let end = field(0x10);
        let first = field(0x14);
        let kind = field(4);
        if field(0) != MAGIC
            || !(3..=4).contains(&kind)
            || field(0x0c) != block_size
            || u64::from(end) > blocks
            || first == 0
            || first.checked_add(16).is_none_or(|least| least > end)
            || field(0x1c) >= end
        {
            return Err(Errno::EUCLEAN);
        }
        let start = field(0x1c);
        let seed = crc32c(!0, &[&superblock[0x30..0x40]]);
        let mut journal = Journal {
            extents,
            block_size: block_size as usize,
            first,
            end,
            sequence: field(0x18),
            head: if start == 0 { first } else { start },
            active: start != 0,
            seed,
            bit64: false,
            superblock,
        };
        if journal.features() & (CSUM_V2 | CSUM_V3) != 0
            && be32(&journal.superblock, 0xfc) != journal.superblock_sum()
        {
            return Err(Errno::EUCLEAN);
        }
        journal.bit64 = journal.features() & BIT64 != 0;
        Ok(journal)
    }

    /// Incompatible features, 0 for a journal of version 1.
    fn features(&self) -> u32 {
        if be32(&self.superblock, 4) == 4 {
            be32(&self.superblock, 0x28)
        } else {
            0
        }
    }

    fn superblock_sum(&self) -> u32 {
        let sb = &self.superblock[..1024];
        crc32c(!0, &[&sb[..0xfc], &[0; 4], &sb[0x100..]])
    }

    /// The log has transactions that have to be replayed.
    pub(crate) fn needs_replay(&self) -> bool {
        self.active
    }

    /// Blocks that the log can hold.
    pub(crate) fn capacity(&self) -> usize {
        (self.end - self.first) as usize
    }

    /// The block of the device that is a block of the journal.
    fn place(&self, block: u32) -> Result<u64, Errno> {
        let block = u64::from(block);
        let next = self.extents.partition_point(|e| e.end() <= block);
        let extent = self.extents.get(next).ok_or(Errno::EUCLEAN)?;
        Ok(extent.physical + (block - extent.logical))
    }

    fn after(&self, block: u32) -> u32 {
        if block + 1 >= self.end {
            self.first
        } else {
            block + 1
        }
    }

    // Replay.

    /// Finds what has to be replayed, and where the log goes on. `EOPNOTSUPP` when the log uses what is not understood.
    pub(crate) fn scan(&mut self, read: &mut ReadBlock<'_>) -> Result<Replay, Errno> {
        let features = self.features();
        if features & !(REVOKE | BIT64 | CSUM_V2 | CSUM_V3) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut newest: HashMap<u64, (u32, u64, bool)> = HashMap::new();
        let mut revoked: HashMap<u64, u32> = HashMap::new();
        let mut at = self.head;
        let mut visited = 0;
        while let Some(found) = self.transaction(at, features, &mut visited, read)? {
            for (block, place, escaped) in found.images {
                newest.insert(block, (self.sequence, place, escaped));
            }
            for block in found.revoked {
                revoked.insert(block, self.sequence);
            }
            self.sequence = self.sequence.wrapping_add(1);
            at = found.next;
        }
        // A block revoked in the same transaction or a later one than its image is not replayed.
        newest.retain(|block, (sequence, ..)| {
            revoked
                .get(block)
                .is_none_or(|r| (sequence.wrapping_sub(*r) as i32) > 0)
        });
        Ok(newest
            .into_iter()
            .map(|(block, (_, place, escaped))| (block, (place, escaped)))
            .collect())
    }

    /// The transaction at a place of the log, if it is complete and is the one that comes next.
    fn transaction(
        &self,
        mut at: u32,
        features: u32,
        visited: &mut u32,
        read: &mut ReadBlock<'_>,
    ) -> Result<Option<Found>, Errno> {
        let summed = features & (CSUM_V2 | CSUM_V3) != 0;
        let mut found = Found::default();
        loop {
            *visited += 1;
            if *visited > self.end {
                return Ok(None);
            }
            let block = read(self.place(at)?)?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != self.sequence {
                return Ok(None);
            }
            at = self.after(at);
            match be32(&block, 4) {
                DESCRIPTOR => {
                    if summed && !self.tail_is_good(&block) {
                        return Ok(None);
                    }
                    for (home, flags, sum) in self.tags(&block, features) {
                        let place = self.place(at)?;
                        *visited += 1;
                        if summed {
                            let image = read(place)?;
                            let good = self.image_sum(&image, self.sequence);
                            let good = if features & CSUM_V3 != 0 {
                                good
                            } else {
                                good & 0xffff
                            };
                            if good != sum {
                                return Ok(None);
                            }
                        }
                        found.images.push((home, place, flags & ESCAPED != 0));
                        at = self.after(at);
                    }
                }
                REVOKE_BLOCK => {
                    if summed && !self.tail_is_good(&block) {
                        return Ok(None);
                    }
                    let used = (be32(&block, 12) as usize).min(block.len());
                    let width = if self.bit64 { 8 } else { 4 };
                    for record in block.get(16..used).unwrap_or_default().chunks_exact(width) {
                        let high = if self.bit64 {
                            u64::from(be32(record, 0)) << 32
                        } else {
                            0
                        };
                        found
                            .revoked
                            .push(high | u64::from(be32(record, width - 4)));
                    }
                }
                COMMIT => {
                    let sum = crc32c(self.seed, &[&block[..0x10], &[0; 4], &block[0x14..]]);
                    if summed && be32(&block, 0x10) != sum {
                        return Ok(None);
                    }
                    found.next = at;
                    return Ok(Some(found));
                }
                _ => return Ok(None),
            }
        }
    }

    /// Home block, flags and checksum of each tag of a descriptor.
    fn tags(&self, block: &[u8], features: u32) -> Vec<(u64, u32, u32)> {
        let v3 = features & CSUM_V3 != 0;
        let mut size = if v3 { 16 } else { 12 };
        if !v3 && features & CSUM_V2 != 0 {
            size += 2;
        }
        if !v3 && !self.bit64 {
            size -= 4;
        }
        let tail = if features & (CSUM_V2 | CSUM_V3) != 0 {
            4
        } else {
            0
        };
        let mut tags = Vec::new();
        let mut at = 12;
        while at + size <= block.len() - tail {
            let tag = &block[at..at + size];
            let (flags, sum) = if v3 {
                (be32(tag, 4), be32(tag, 12))
            } else {
                (be32(tag, 4) & 0xffff, be32(tag, 4) >> 16)
            };
            let high = if self.bit64 {
                u64::from(be32(tag, 8)) << 32
            } else {
                0
            };
            tags.push((u64::from(be32(tag, 0)) | high, flags, sum));
            at += size;
            if flags & SAME_UUID == 0 {
                at += 16;
            }
            if flags & LAST_TAG != 0 {
                break;
            }
        }
        tags
    }

    fn tail_is_good(&self, block: &[u8]) -> bool {
        let tail = block.len() - 4;
        be32(block, tail) == crc32c(self.seed, &[&block[..tail], &[0; 4]])
    }

    fn image_sum(&self, image: &[u8], sequence: u32) -> u32 {
        crc32c(self.seed, &[&sequence.to_be_bytes(), image])
    }

    // Writing.

    /// Makes a log that was replayed, or was found empty, ready for transactions of our own.
    pub(crate) fn begin(&mut self, dev: &BlockDev, bit64: bool) -> Result<(), Errno> {
        self.bit64 = bit64;
        let sb = &mut self.superblock;
        put32(sb, 4, 4);
        put32(sb, 0x24, 0);
        put32(sb, 0x28, REVOKE | CSUM_V3 | if bit64 { BIT64 } else { 0 });
        sb[0x50] = 4;
        self.empty(dev)
    }

    /// Says that everything in the log is at home.
    pub(crate) fn empty(&mut self, dev: &BlockDev) -> Result<(), Errno> {
        self.active = false;
        self.head = self.first;
        self.write_superblock(dev, 0)?;
        dev.sync()
    }

    fn write_superblock(&mut self, dev: &BlockDev, start: u32) -> Result<(), Errno> {
        put32(&mut self.superblock, 0x18, self.sequence);
        put32(&mut self.superblock, 0x1c, start);
        let sum = self.superblock_sum();
        put32(&mut self.superblock, 0xfc, sum);
        dev.write_at(&self.superblock, self.place(0)? * self.block_size as u64)
    }

    fn tags_in_block(&self) -> usize {
        (self.block_size - 12 - 4 - 16) / 16
    }

    fn revokes_in_block(&self) -> usize {
        (self.block_size - 16 - 4) / if self.bit64 { 8 } else { 4 }
    }

    /// Blocks of the log that a transaction takes.
    pub(crate) fn needed(&self, images: usize, revokes: usize) -> usize {
        images
            + images.div_ceil(self.tags_in_block())
            + revokes.div_ceil(self.revokes_in_block())
            + 1
    }

    /// Whether a transaction fits behind what is in the log.
    pub(crate) fn has_room(&self, needed: usize) -> bool {
        (self.head as usize) + needed <= self.end as usize
    }

    /// Writes a transaction to the log and makes it durable, with all data written before it. The caller has looked
    /// that there is room.
    pub(crate) fn commit(
        &mut self,
        dev: &BlockDev,
        images: &[(u64, &[u8])],
        revoked: &[u64],
        now: Nanos,
    ) -> Result<(), Errno> {
        if !self.active {
            self.write_superblock(dev, self.head)?;
        }
        let mut out = Out {
            buf: Vec::with_capacity(CHUNK.min((images.len() + 2) * self.block_size)),
            at: self.head,
        };
        for blocks in revoked.chunks(self.revokes_in_block()) {
            let block = self.revoke_block(blocks);
            self.put(dev, &mut out, &block)?;
        }
        for images in images.chunks(self.tags_in_block()) {
            let block = self.descriptor(images);
            self.put(dev, &mut out, &block)?;
            for (_, image) in images {
                if be32(image, 0) == MAGIC {
                    let mut image: Box<[u8]> = (*image).into();
                    put32(&mut image, 0, 0);
                    self.put(dev, &mut out, &image)?;
                } else {
                    self.put(dev, &mut out, image)?;
                }
            }
        }
        self.drain(dev, &mut out)?;
        dev.sync()?;
        let block = self.commit_block(now);
        self.put(dev, &mut out, &block)?;
        self.drain(dev, &mut out)?;
        dev.sync()?;
        self.head = out.at;
        self.sequence = self.sequence.wrapping_add(1);
        self.active = true;
        Ok(())
    }

    fn header(&self, kind: u32) -> Box<[u8]> {
        let mut block = vec![0; self.block_size].into_boxed_slice();
        put32(&mut block, 0, MAGIC);
        put32(&mut block, 4, kind);
        put32(&mut block, 8, self.sequence);
        block
    }

    fn sum_tail(&self, block: &mut [u8]) {
        let sum = crc32c(self.seed, &[block]);
        put32(block, block.len() - 4, sum);
    }

    fn descriptor(&self, images: &[(u64, &[u8])]) -> Box<[u8]> {
        let mut block = self.header(DESCRIPTOR);
        let mut at = 12;
        for (i, (home, image)) in images.iter().enumerate() {
            let escaped = be32(image, 0) == MAGIC;
            let sum = if escaped {
                crc32c(
                    self.seed,
                    &[&self.sequence.to_be_bytes(), &[0; 4], &image[4..]],
                )
            } else {
                self.image_sum(image, self.sequence)
            };
            let flags = if escaped { ESCAPED } else { 0 }
                | if i == 0 { 0 } else { SAME_UUID }
                | if i + 1 == images.len() { LAST_TAG } else { 0 };
            put32(&mut block, at, *home as u32);
            put32(&mut block, at + 4, flags);
            put32(&mut block, at + 8, (*home >> 32) as u32);
            put32(&mut block, at + 12, sum);
            at += 16;
            if i == 0 {
                block[at..at + 16].copy_from_slice(&self.superblock[0x30..0x40]);
                at += 16;
            }
        }
        self.sum_tail(&mut block);
        block
    }

    fn revoke_block(&self, blocks: &[u64]) -> Box<[u8]> {
        let mut block = self.header(REVOKE_BLOCK);
        let mut at = 16;
        for revoked in blocks {
            if self.bit64 {
                put32(&mut block, at, (revoked >> 32) as u32);
                at += 4;
            }
            put32(&mut block, at, *revoked as u32);
            at += 4;
        }
        put32(&mut block, 12, at as u32);
        self.sum_tail(&mut block);
        block
    }

    fn commit_block(&self, now: Nanos) -> Box<[u8]> {
        let mut block = self.header(COMMIT);
        let seconds = now / 1_000_000_000;
        put32(&mut block, 0x30, (seconds >> 32) as u32);
        put32(&mut block, 0x34, seconds as u32);
        put32(&mut block, 0x38, (now % 1_000_000_000) as u32);
        let sum = crc32c(self.seed, &[&block]);
        put32(&mut block, 0x10, sum);
        block
    }

    fn put(&self, dev: &BlockDev, out: &mut Out, block: &[u8]) -> Result<(), Errno> {
        out.buf.extend_from_slice(block);
        if out.buf.len() >= CHUNK {
            self.drain(dev, out)?;
        }
        Ok(())
    }

    /// Writes what has been put together, in as few transfers as the journal's extents allow.
    fn drain(&self, dev: &BlockDev, out: &mut Out) -> Result<(), Errno> {
        let mut rest = &out.buf[..];
        while !rest.is_empty() {
            let blocks = (rest.len() / self.block_size) as u64;
            let at = u64::from(out.at);
            let next = self.extents.partition_point(|e| e.end() <= at);
            let extent = self.extents.get(next).ok_or(Errno::EUCLEAN)?;
            let run = blocks.min(extent.end() - at);
            let (now, later) = rest.split_at(run as usize * self.block_size);
            dev.write_at(now, self.place(out.at)? * self.block_size as u64)?;
            out.at += run as u32;
            rest = later;
        }
        out.buf.clear();
        Ok(())
    }
}

/// Blocks of the log that are being put together, and where they go.
struct Out {
    buf: Vec<u8>,
    at: u32,
}

#[derive(Default)]
struct Found {
    images: Vec<(u64, u64, bool)>,
    revoked: Vec<u64>,
    next: u32,
}

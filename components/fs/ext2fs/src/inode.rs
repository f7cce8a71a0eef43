//! Inodes as they lie in the inode table: `struct ext4_inode` of the kernel's documentation
//! (Documentation/filesystems/ext4/inodes.rst).

use hypercall::Nanos;
use smallvec::SmallVec;

use crate::layout::crc32c;
use crate::superblock::{Super, le16, le32, put16, put32};

const MODE: usize = 0x0;
const UID: usize = 0x2;
const SIZE: usize = 0x4;
const ATIME: usize = 0x8;
const CTIME: usize = 0xc;
const MTIME: usize = 0x10;
const GID: usize = 0x18;
const LINKS: usize = 0x1a;
const BLOCKS: usize = 0x1c;
const FLAGS: usize = 0x20;
const VERSION: usize = 0x24;
const MAP: usize = 0x28;
const GENERATION: usize = 0x64;
const SIZE_HIGH: usize = 0x6c;
const BLOCKS_HIGH: usize = 0x74;
const UID_HIGH: usize = 0x78;
const GID_HIGH: usize = 0x7a;
const CHECKSUM: usize = 0x7c;
const EXTRA: usize = 0x80;
const CHECKSUM_HIGH: usize = 0x82;
const CTIME_EXTRA: usize = 0x84;
const MTIME_EXTRA: usize = 0x88;
const ATIME_EXTRA: usize = 0x8c;
const BTIME: usize = 0x90;
const BTIME_EXTRA: usize = 0x94;
/// What an inode has at least behind its first 128 bytes so that all its times have nanoseconds.
const EXTRA_TIMES: u16 = (BTIME_EXTRA + 4 - EXTRA) as u16;

/// `i_mode`: the kinds of files that are told apart here.
pub(crate) const REGULAR: u16 = 0x8000;
/// See [`REGULAR`].
pub(crate) const DIRECTORY: u16 = 0x4000;
/// See [`REGULAR`].
pub(crate) const SYMLINK: u16 = 0xa000;

/// Bytes of the block map in an inode.
pub(crate) const MAP_SIZE: usize = 60;

/// `i_flags`: a directory with an index.
pub(crate) const INDEX: u32 = 0x1000;
/// `i_flags`: the block map is an extent tree.
pub(crate) const EXTENTS: u32 = 0x8_0000;

/// A copy of an inode.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) number: u32,
    pub(crate) raw: SmallVec<[u8; 256]>,
}

/// Who a file belongs to, and its permissions and times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
    pub times: Times,
}

impl Inode {
    /// What an inode that was free becomes: an empty regular file, with one name.
    pub(crate) fn new_file(&mut self, sb: &Super, attributes: &Attributes) {
        let generation = le32(&self.raw, GENERATION).wrapping_add(1);
        self.raw.fill(0);
        put16(&mut self.raw, MODE, REGULAR);
        put16(&mut self.raw, LINKS, 1);
        put32(&mut self.raw, FLAGS, EXTENTS);
        put32(&mut self.raw, GENERATION, generation);
        let room = self.raw.len().saturating_sub(EXTRA) as u16;
        if room >= EXTRA_TIMES {
            let extra = (sb.want_extra & !3).clamp(EXTRA_TIMES, room);
            put16(&mut self.raw, EXTRA, extra);
        }
        self.set_attributes(attributes);
        self.set_time(BTIME, BTIME_EXTRA, attributes.times.btime);
        // The root of an extent tree: magic number, no entry, room for four.
        put16(&mut self.raw, MAP, 0xf30a);
        put16(&mut self.raw, MAP + 4, 4);
    }

    pub(crate) fn mode(&self) -> u16 {
        le16(&self.raw, MODE)
    }

    /// `S_IFREG`, `S_IFDIR` and so on.
    pub(crate) fn kind(&self) -> u16 {
        self.mode() & 0xf000
    }

    pub(crate) fn flags(&self) -> u32 {
        le32(&self.raw, FLAGS)
    }

    pub(crate) fn links(&self) -> u16 {
        le16(&self.raw, LINKS)
    }

    pub(crate) fn uid(&self) -> u32 {
        u32::from(le16(&self.raw, UID)) | u32::from(le16(&self.raw, UID_HIGH)) << 16
    }

    pub(crate) fn gid(&self) -> u32 {
        u32::from(le16(&self.raw, GID)) | u32::from(le16(&self.raw, GID_HIGH)) << 16
    }

    /// Bytes. In a directory the upper half means something else.
    pub(crate) fn size(&self) -> u64 {
        let high = if self.kind() == DIRECTORY {
            0
        } else {
            le32(&self.raw, SIZE_HIGH)
        };
        u64::from(le32(&self.raw, SIZE)) | u64::from(high) << 32
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        put32(&mut self.raw, SIZE, size as u32);
        put32(&mut self.raw, SIZE_HIGH, (size >> 32) as u32);
    }

    /// Units of 512 bytes.
    pub(crate) fn blocks(&self) -> u64 {
        u64::from(le32(&self.raw, BLOCKS)) | u64::from(le16(&self.raw, BLOCKS_HIGH)) << 32
    }

    pub(crate) fn set_blocks(&mut self, blocks: u64) {
        put32(&mut self.raw, BLOCKS, blocks as u32);
        put16(&mut self.raw, BLOCKS_HIGH, (blocks >> 32) as u16);
    }

    /// The block map.
    pub(crate) fn map(&self) -> &[u8] {
        &self.raw[MAP..MAP + MAP_SIZE]
    }

    pub(crate) fn map_mut(&mut self) -> &mut [u8] {
        &mut self.raw[MAP..MAP + MAP_SIZE]
    }

    pub(crate) fn times(&self) -> Times {
        Times::decode(&self.raw)
    }

    /// Whether it has room for all times in full, or, being small, for none.
    pub(crate) fn keeps_times(&self) -> bool {
        self.raw.len() <= EXTRA || le16(&self.raw, EXTRA) >= EXTRA_TIMES
    }

    /// Permissions, owner and times but that of its making.
    pub(crate) fn set_attributes(&mut self, a: &Attributes) {
        let mode = self.kind() | (a.perm & 0o7777) as u16;
        put16(&mut self.raw, MODE, mode);
        put16(&mut self.raw, UID, a.uid as u16);
        put16(&mut self.raw, UID_HIGH, (a.uid >> 16) as u16);
        put16(&mut self.raw, GID, a.gid as u16);
        put16(&mut self.raw, GID_HIGH, (a.gid >> 16) as u16);
        self.set_time(ATIME, ATIME_EXTRA, a.times.atime);
        self.set_changed(a.times.mtime, a.times.ctime);
    }

    /// The times of the last change to the data, and to the inode.
    pub(crate) fn set_changed(&mut self, mtime: Nanos, ctime: Nanos) {
        self.set_time(MTIME, MTIME_EXTRA, mtime);
        self.set_time(CTIME, CTIME_EXTRA, ctime);
        let version = le32(&self.raw, VERSION).wrapping_add(1);
        put32(&mut self.raw, VERSION, version);
    }

    fn set_time(&mut self, at: usize, extra_at: usize, time: Nanos) {
        let seconds = (time / 1_000_000_000) as i64;
        let high = (seconds - i64::from(seconds as i32)) >> 32;
        let nanos = (time % 1_000_000_000) as u32;
        if at < EXTRA || self.raw.len() > EXTRA {
            put32(&mut self.raw, at, seconds as u32);
        }
        if self.raw.len() > EXTRA {
            put32(&mut self.raw, extra_at, (high as u32 & 3) | nanos << 2);
        }
    }

    /// What checksums of what belongs to it start with, its directory blocks and tree nodes.
    pub(crate) fn seed(&self, sb: &Super) -> Option<u32> {
        sb.checksum_seed.map(|seed| self.seed_from(seed))
    }

    fn seed_from(&self, seed: u32) -> u32 {
        let generation = &self.raw[GENERATION..GENERATION + 4];
        crc32c(seed, &[&self.number.to_le_bytes(), generation])
    }

    /// Sets its checksum, where there are checksums.
    pub(crate) fn seal(&mut self, sb: &Super) {
        if let Some(seed) = sb.checksum_seed {
            let sum = self.checksum(seed);
            put16(&mut self.raw, CHECKSUM, sum as u16);
            if self.sum_is_long() {
                put16(&mut self.raw, CHECKSUM_HIGH, (sum >> 16) as u16);
            }
        }
    }

    /// Whether its checksum is right, or there are none.
    pub(crate) fn is_sealed(&self, sb: &Super) -> bool {
        let Some(seed) = sb.checksum_seed else {
            return true;
        };
        let sum = self.checksum(seed);
        le16(&self.raw, CHECKSUM) == sum as u16
            && (!self.sum_is_long() || le16(&self.raw, CHECKSUM_HIGH) == (sum >> 16) as u16)
    }

    fn sum_is_long(&self) -> bool {
        self.raw.len() > EXTRA && le16(&self.raw, EXTRA) >= 4
    }

    fn checksum(&self, seed: u32) -> u32 {
        let seed = self.seed_from(seed);
        let raw = &self.raw;
        let first = [&raw[..CHECKSUM], &[0; 2], &raw[CHECKSUM + 2..EXTRA]];
        let seed = crc32c(seed, &first);
        if !self.sum_is_long() {
            return crc32c(seed, &[&raw[EXTRA..]]);
        }
        let rest = [
            &raw[EXTRA..CHECKSUM_HIGH],
            &[0; 2],
            &raw[CHECKSUM_HIGH + 2..],
        ];
        crc32c(seed, &rest)
    }
}

/// The times of an inode, in nanoseconds since the epoch. What lies before it is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub atime: Nanos,
    pub mtime: Nanos,
    pub ctime: Nanos,
    pub btime: Nanos,
}

impl Times {
    /// Decodes the times of a raw inode: 32-bit seconds, and where the inode is large enough 30 bits of nanoseconds and
    /// two more bits of seconds.
    pub(crate) fn decode(raw: &[u8]) -> Times {
        let extra_end = if raw.len() > 128 {
            128 + usize::from(le16(raw, 0x80))
        } else {
            0
        };
        let time = |at: usize, extra_at: usize| {
            let low = i64::from(le32(raw, at) as i32);
            let extra = if extra_at + 4 <= extra_end {
                le32(raw, extra_at)
            } else {
                0
            };
            let seconds = low + (i64::from(extra & 3) << 32);
            u64::try_from(seconds).map_or(0, |s| {
                s.saturating_mul(1_000_000_000) + u64::from(extra >> 2)
            })
        };
        Times {
            atime: time(0x08, 0x8c),
            ctime: time(0x0c, 0x84),
            mtime: time(0x10, 0x88),
            btime: if extra_end >= 0x94 {
                time(0x90, 0x94)
            } else {
                0
            },
        }
    }
}

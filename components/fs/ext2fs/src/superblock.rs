//! The superblock: what must be known and checked before a byte of it is believed.
//!
//! Layout: `struct ext4_super_block` of the kernel's documentation (Documentation/filesystems/ext4/super.rst). All
//! integers are little-endian.

use std::fmt;

use rsext4::checksum::ext4_metadata_csum32;

/// Where the superblock is, in bytes, and how long it is.
pub(crate) const OFFSET: u64 = 1024;
/// See [`OFFSET`].
pub(crate) const SIZE: usize = 1024;

const MAGIC: u16 = 0xef53;
const CHECKSUM: usize = 0x3fc;
/// Where it counts the times that it has been mounted.
pub(crate) const MOUNT_COUNT: usize = 0x34;
const STATE: usize = 0x3a;
const COMPAT: usize = 0x5c;
const INCOMPAT: usize = 0x60;
const LAST_ORPHAN: usize = 0xe8;

/// `s_state`: unmounted in order.
const VALID_FS: u16 = 1;

const HAS_JOURNAL: u32 = 0x4;
const DIR_INDEX: u32 = 0x20;
const FILETYPE: u32 = 0x2;
const EXTENTS: u32 = 0x40;
const RECOVER: u32 = 0x4;
const BIT64: u32 = 0x80;
const METADATA_CSUM: u32 = 0x400;
const CSUM_SEED: u32 = 0x2000;
const GDT_CSUM: u32 = 0x10;

/// `s_flags`: names are hashed as unsigned bytes.
const UNSIGNED_HASH: u32 = 2;

/// Incompatible features that are understood.
const INCOMPAT_KNOWN: u32 = FILETYPE | RECOVER | EXTENTS | BIT64 | 0x200 | 0x2000;
/// Read-only-compatible features that can be written.
const RO_COMPAT_KNOWN: u32 = 0x1 | 0x2 | 0x8 | GDT_CSUM | 0x20 | 0x40 | METADATA_CSUM | 0x2000;

/// Names of features as mke2fs(8) writes them.
const INCOMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x2, "filetype"),
    (0x4, "needs_recovery"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const RO_COMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "sparse_super"),
    (0x2, "large_file"),
    (0x4, "btree_dir"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x80, "snapshot"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "readonly"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

/// Why an image cannot be mounted, for the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The magic number is not there.
    NotExt,
    /// A field makes no sense; its name.
    Bad(&'static str),
    /// The block size is beyond what is supported.
    BlockSize(u64),
    /// The file system is larger than the device: blocks it has, bytes the device has.
    Truncated(u64, u64),
    /// Incompatible features that are not understood.
    Features(u32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Refusal::NotExt => f.write_str("no ext2, ext3 or ext4 file system here; mount refused"),
            Refusal::Bad(field) => {
                write!(
                    f,
                    "the superblock is damaged ({field}); mount refused. Way out: e2fsck"
                )
            }
            Refusal::BlockSize(size) => write!(
                f,
                "blocks of {size} bytes are not supported; mount refused. Way out: make the image with mkfs -b 4096"
            ),
            Refusal::Truncated(blocks, bytes) => write!(
                f,
                "the file system has {blocks} blocks, the device only {bytes} bytes; mount refused. Is the image \
                 truncated?"
            ),
            Refusal::Features(bits) => {
                write!(f, "feature ")?;
                let mut first = true;
                for bit in (0..32).map(|i| 1 << i).filter(|bit| bits & bit != 0) {
                    let name = feature_name(INCOMPAT_NAMES, bit);
                    let sep = if first { "" } else { ", " };
                    write!(f, "{sep}{name} ({bit:#x})")?;
                    first = false;
                }
                let names = names(INCOMPAT_NAMES, bits)
                    .to_lowercase()
                    .replace(", ", ",^");
                write!(
                    f,
                    " is not supported; mount refused. Way out: make the image without it: mkfs.ext4 -O ^{names}"
                )
            }
        }
    }
}

fn feature_name(table: &[(u32, &'static str)], bit: u32) -> String {
    table
        .iter()
        .find(|(b, _)| *b == bit)
        .map_or_else(|| format!("FEATURE_{bit:x}"), |(_, n)| n.to_uppercase())
}

/// The names of the bits of a feature word, for a message.
fn names(table: &[(u32, &'static str)], bits: u32) -> String {
    (0..32)
        .map(|i| 1 << i)
        .filter(|bit| bits & bit != 0)
        .map(|bit| feature_name(table, bit))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the superblock says, checked.
#[derive(Clone, Debug)]
pub(crate) struct Super {
    /// Bytes in a block: 1024, 2048 or 4096.
    pub block_size: u32,
    /// Blocks in the file system.
    pub blocks: u64,
    /// Blocks that only the superuser may fill.
    pub reserved_blocks: u64,
    /// First block of group 0.
    pub first_data_block: u32,
    /// Blocks in a group.
    pub blocks_per_group: u32,
    /// Inodes in a group.
    pub inodes_per_group: u32,
    /// Inodes in the file system.
    pub inodes: u32,
    /// First inode number that is not reserved.
    pub first_ino: u32,
    /// Bytes in an inode.
    pub inode_size: u16,
    /// Bytes in a group descriptor.
    pub desc_size: u16,
    /// Groups.
    pub groups: u32,
    /// The journal's inode, where there is a journal in the file system.
    pub journal_ino: Option<u32>,
    /// The journal is a device of its own.
    pub external_journal: bool,
    /// The journal has to be replayed.
    pub needs_recovery: bool,
    /// It has not been unmounted in order, or has errors.
    pub unclean: bool,
    /// It has no extents (ext2, ext3).
    pub block_mapped: bool,
    /// Directories may be indexed.
    pub dir_index: bool,
    /// Block numbers of the journal have 64 bits.
    pub bit64: bool,
    /// What inode checksums start with, where there are any.
    pub checksum_seed: Option<u32>,
    /// What the older checksums of group descriptors start with, where there are those.
    pub group_seed: Option<u16>,
    /// What hashes of names in indexed directories start with, and whether they take bytes as unsigned.
    pub hash_seed: [u32; 4],
    /// See `hash_seed`.
    pub hash_unsigned: bool,
    /// How much of an inode behind its first 128 bytes new ones use.
    pub want_extra: u16,
    /// Read-only-compatible features that cannot be written, and whether types are missing from directories.
    pub read_only: Option<String>,
}

impl Super {
    /// Parses a superblock on a device of `device_size` bytes.
    pub(crate) fn parse(raw: &[u8; SIZE], device_size: u64) -> Result<Super, Refusal> {
        if le16(raw, 0x38) != MAGIC {
            return Err(Refusal::NotExt);
        }
        let log = le32(raw, 0x18);
        if log > 2 {
            let size = 1024u64.checked_shl(log).filter(|_| log <= 6);
            return Err(size.map_or(Refusal::Bad("block size"), Refusal::BlockSize));
        }
        let block_size = 1024u32 << log;
        let dynamic = le32(raw, 0x4c) >= 1;
        let feature = |at| if dynamic { le32(raw, at) } else { 0 };
        let (compat, incompat, ro_compat) = (feature(COMPAT), feature(INCOMPAT), feature(0x64));
        if incompat & !INCOMPAT_KNOWN != 0 {
            return Err(Refusal::Features(incompat & !INCOMPAT_KNOWN));
        }
        let high = |at| {
            if incompat & BIT64 != 0 {
                u64::from(le32(raw, at)) << 32
            } else {
                0
            }
        };
        let blocks = u64::from(le32(raw, 0x4)) | high(0x150);
        let first_data_block = le32(raw, 0x14);
        let blocks_per_group = le32(raw, 0x20);
        let inodes_per_group = le32(raw, 0x28);
        let inode_size = if dynamic { le16(raw, 0x58) } else { 128 };
        let desc_size = if incompat & BIT64 != 0 {
            le16(raw, 0xfe)
        } else {
            32
        };
        let bits = block_size * 8;

        let check = |ok: bool, field| if ok { Ok(()) } else { Err(Refusal::Bad(field)) };
        check(
            first_data_block == u32::from(block_size == 1024),
            "first data block",
        )?;
        // mke2fs makes no group smaller than 256 blocks; with less a small image could ask for any amount of memory.
        check(
            (256..=bits.max(1 << 20)).contains(&blocks_per_group)
                && (blocks_per_group <= bits || ro_compat & 0x200 != 0),
            "blocks per group",
        )?;
        check((8..=bits).contains(&inodes_per_group), "inodes per group")?;
        check(
            inode_size >= 128
                && inode_size.is_power_of_two()
                && u32::from(inode_size) <= block_size,
            "inode size",
        )?;
        check(
            desc_size == 32
                || (desc_size >= 64
                    && desc_size.is_power_of_two()
                    && u32::from(desc_size) <= block_size),
            "group descriptor size",
        )?;
        check(blocks > u64::from(first_data_block) + 1, "block count")?;
        if blocks
            .checked_mul(u64::from(block_size))
            .is_none_or(|b| b > device_size)
        {
            return Err(Refusal::Truncated(blocks, device_size));
        }
        let groups = (blocks - u64::from(first_data_block)).div_ceil(u64::from(blocks_per_group));
        let groups = u32::try_from(groups).map_err(|_| Refusal::Bad("group count"))?;
        let inodes = le32(raw, 0);
        let first_ino = if dynamic { le32(raw, 0x54) } else { 11 };
        check(
            u64::from(groups) * u64::from(inodes_per_group) == u64::from(inodes)
                && inodes > first_ino,
            "inode count",
        )?;
        check(first_ino > 10, "first inode")?;
        check(
            u64::from(groups) * u64::from(desc_size) < blocks * u64::from(block_size) / 2,
            "group count",
        )?;
        if ro_compat & METADATA_CSUM != 0 {
            check(le32(raw, CHECKSUM) == checksum(raw), "checksum")?;
        }

        let mut obstacles = names(RO_COMPAT_NAMES, ro_compat & !RO_COMPAT_KNOWN).to_lowercase();
        if incompat & FILETYPE == 0 {
            obstacles = format!("{obstacles} no filetype").trim().to_owned();
        }
        let has_journal = compat & HAS_JOURNAL != 0;
        let journal_ino = Some(le32(raw, 0xe0)).filter(|&ino| has_journal && ino != 0);
        check(journal_ino.is_none_or(|ino| ino <= inodes), "journal inode")?;
        Ok(Super {
            block_size,
            blocks,
            reserved_blocks: u64::from(le32(raw, 0x8)) | high(0x154),
            first_data_block,
            blocks_per_group,
            inodes_per_group,
            inodes,
            first_ino,
            inode_size,
            desc_size,
            groups,
            journal_ino,
            external_journal: has_journal && journal_ino.is_none(),
            needs_recovery: incompat & RECOVER != 0,
            unclean: le16(raw, STATE) & 3 != VALID_FS,
            dir_index: compat & DIR_INDEX != 0,
            block_mapped: incompat & EXTENTS == 0,
            bit64: incompat & BIT64 != 0,
            checksum_seed: (ro_compat & METADATA_CSUM != 0).then(|| match incompat & CSUM_SEED {
                0 => ext4_metadata_csum32(!0, &[&raw[0x68..0x78]]),
                _ => le32(raw, 0x270),
            }),
            group_seed: (ro_compat & (METADATA_CSUM | GDT_CSUM) == GDT_CSUM)
                .then(|| crc16(!0, &raw[0x68..0x78])),
            hash_seed: [0xec, 0xf0, 0xf4, 0xf8].map(|at| le32(raw, at)),
            hash_unsigned: le32(raw, 0x160) & UNSIGNED_HASH != 0,
            want_extra: le16(raw, 0x15e),
            read_only: Some(obstacles).filter(|o| !o.is_empty()),
        })
    }
}

impl Super {
    /// Bytes of the file system.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }

    /// Whether rsext4 is shown another superblock than there is.
    pub(crate) fn is_masked(&self) -> bool {
        self.block_mapped || self.has_journal()
    }

    fn has_journal(&self) -> bool {
        self.journal_ino.is_some() || self.external_journal
    }

    /// What rsext4 gets to see of a superblock. Without a journal it writes in place, and the journal is kept below it.
    /// Without indexed directories it makes none where there are no extents, in which it could not let them grow.
    /// `orphans`: whether it sees the list of unlinked open files.
    pub(crate) fn mask(&self, raw: &mut [u8; SIZE], orphans: bool) {
        if self.has_journal() {
            set32(raw, COMPAT, le32(raw, COMPAT) & !HAS_JOURNAL);
            set32(raw, INCOMPAT, le32(raw, INCOMPAT) & !RECOVER);
            if !orphans {
                set32(raw, LAST_ORPHAN, 0);
            }
        }
        if self.block_mapped {
            set32(raw, COMPAT, le32(raw, COMPAT) & !DIR_INDEX);
        }
        seal(raw);
    }

    /// What goes to the disk for a superblock that rsext4 has written. `mount_count` is what it has counted up.
    pub(crate) fn unmask(&self, raw: &mut [u8; SIZE], mount_count: Option<u16>) {
        if self.block_mapped && self.dir_index {
            set32(raw, COMPAT, le32(raw, COMPAT) | DIR_INDEX);
        }
        if let Some(count) = mount_count {
            set16(raw, MOUNT_COUNT, count);
        }
        seal(raw);
    }
}

/// The superblock of a file system whose journal is written. As on Linux it counts as valid; `recover` says that the
/// journal has to be replayed.
pub(crate) fn show_journal(raw: &mut [u8; SIZE], recover: bool) {
    set32(raw, COMPAT, le32(raw, COMPAT) | HAS_JOURNAL);
    let incompat = le32(raw, INCOMPAT) & !RECOVER;
    set32(
        raw,
        INCOMPAT,
        if recover {
            incompat | RECOVER
        } else {
            incompat
        },
    );
    set16(raw, STATE, le16(raw, STATE) | VALID_FS);
    seal(raw);
}

/// Sets `s_state`'s error flag, which makes e2fsck look.
pub(crate) fn mark_errors(raw: &mut [u8; SIZE]) {
    set16(raw, STATE, le16(raw, STATE) | 2);
    seal(raw);
}

/// Sets the checksum, where there is one.
pub(crate) fn seal(raw: &mut [u8; SIZE]) {
    if le32(raw, 0x64) & METADATA_CSUM != 0 {
        let sum = checksum(raw);
        set32(raw, CHECKSUM, sum);
    }
}

fn checksum(raw: &[u8; SIZE]) -> u32 {
    ext4_metadata_csum32(!0, &[&raw[..CHECKSUM]])
}

/// CRC-16 as group descriptors have it without metadata_csum: polynomial 0x8005, reflected.
pub(crate) fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |sum, &byte| {
        (0..8).fold(sum ^ u16::from(byte), |sum, _| {
            (sum >> 1) ^ if sum & 1 != 0 { 0xa001 } else { 0 }
        })
    })
}

/// A little-endian field; 0 beyond the end.
pub(crate) fn le16(raw: &[u8], at: usize) -> u16 {
    raw.get(at..at + 2)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

/// See [`le16`].
pub(crate) fn le32(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn set16(raw: &mut [u8; SIZE], at: usize, value: u16) {
    put16(raw, at, value);
}

fn set32(raw: &mut [u8; SIZE], at: usize, value: u32) {
    put32(raw, at, value);
}

/// Sets a little-endian field, unless it is beyond the end.
pub(crate) fn put16(raw: &mut [u8], at: usize, value: u16) {
    if let Some(field) = raw.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

/// See [`put16`].
pub(crate) fn put32(raw: &mut [u8], at: usize, value: u32) {
    if let Some(field) = raw.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

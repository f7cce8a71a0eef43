//! The buffer cache of metadata, below rsext4, and the transaction that runs.
//!
//! rsext4 is shown a file system without a journal, so that it writes metadata blocks in place, one by one, and takes
//! back what it has written when an operation fails. Here those writes are caught: they make up the running transaction,
//! which [`Store::commit`] puts into the log as a whole ([`crate::journal`]), between two operations. Without a journal
//! (ext2) a commit writes the blocks home. What is done without rsext4 changes blocks of the running transaction too
//! ([`Store::edit`]).
//!
//! Data of regular files does not come through here: the driver moves it between the page cache and the device itself,
//! and says which blocks hold data ([`Store::claim`]). What rsext4 writes to those (it thinks that it moves the data) is
//! dropped.
//!
//! # Which image of a block is where
//! - `data`: the newest, as rsext4 sees it.
//! - in `running`: it differs from what is committed. If the block is in `logged` too, `frozen` is the image in the log.
//! - in `logged`: the log has it and its home has not; [`Store::checkpoint`] writes it home.

mod commit;
mod groups;
mod shim;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use abi::Errno;
use smallvec::SmallVec;
use vfs::BlockDev;

use crate::blockset::{BlockMap, BlockSet, Blocks};
use crate::inode::Inode;
use crate::journal::{Journal, Replay};
use crate::layout::Layout;
use crate::superblock::{self, Refusal, Super, le16};

use self::groups::Unsealed;

pub(crate) use shim::{Shim, device_error};

/// Bytes of clean blocks that are kept.
const CLEAN_BYTES: usize = 16 << 20;

struct Buf {
    data: Box<[u8]>,
    /// The image that the log has, when `data` is newer.
    frozen: Option<Box<[u8]>>,
    /// Of a block bitmap that differs from what is committed: what is committed.
    before: Option<Box<[u8]>>,
    used: bool,
    /// Its checksum has been looked at, by whoever knows what it is.
    checked: bool,
}

/// See the module.
pub(crate) struct Store {
    dev: Arc<BlockDev>,
    pub(crate) sb: Super,
    pub(crate) layout: Layout,
    blocks: BlockMap<Buf>,
    running: BTreeSet<u64>,
    logged: Blocks,
    revoked: BTreeSet<u64>,
    journal: Option<Journal>,
    /// The log of an image that is not written: where the newest images are.
    replay: Replay,
    /// Blocks that hold data of regular files.
    data: BlockSet,
    block_bitmaps: Blocks,
    inode_bitmaps: Blocks,
    unsealed: Unsealed,
    mount_count: Option<u16>,
    writable: bool,
    errors: bool,
    /// Reads that the operation under way may still make.
    budget: u64,
}

impl Store {
    pub(crate) fn new(dev: Arc<BlockDev>, sb: Super, layout: Layout, writable: bool) -> Store {
        Store {
            block_bitmaps: layout.block_bitmaps().collect(),
            inode_bitmaps: layout.inode_bitmaps().collect(),
            dev,
            sb,
            layout,
            blocks: BlockMap::default(),
            running: BTreeSet::new(),
            logged: Blocks::default(),
            revoked: BTreeSet::new(),
            journal: None,
            replay: Replay::new(),
            data: BlockSet::default(),
            unsealed: Unsealed::default(),
            mount_count: None,
            writable,
            errors: false,
            budget: u64::MAX,
        }
    }

    fn block_size(&self) -> usize {
        self.sb.block_size as usize
    }

    /// Takes the journal over. What is in the log goes home, or is read from the log where nothing may be written.
    pub(crate) fn open_journal(&mut self, mut journal: Journal) -> Result<(), Errno> {
        let (dev, size) = (self.dev.clone(), self.block_size());
        let read = &mut |block: u64| read_block(&dev, block, size);
        if journal.needs_replay() {
            let replay = journal.scan(read)?;
            if replay.keys().any(|&block| block >= self.sb.blocks) {
                return Err(Errno::EUCLEAN);
            }
            self.blocks.clear();
            self.replay = replay;
        }
        if self.writable {
            let mut homes: Vec<u64> = self.replay.keys().copied().collect();
            homes.sort_unstable();
            for home in homes {
                let image = self.load(home)?;
                self.dev.write_at(&image, home * size as u64)?;
            }
            self.dev.sync()?;
            self.replay.clear();
            journal.begin(&self.dev, self.sb.bit64)?;
            self.journal = Some(journal);
        }
        Ok(())
    }

    /// Parses the superblock again: replaying may have changed it.
    pub(crate) fn reread_superblock(&mut self) -> Result<(), Refusal> {
        let raw = self
            .raw_superblock()
            .map_err(|_| Refusal::Bad("unreadable"))?;
        let sb = Super::parse(&raw, self.dev.size())?;
        let same = (
            sb.block_size,
            sb.blocks,
            sb.groups,
            sb.inodes,
            sb.desc_size,
            sb.inode_size,
        ) == (
            self.sb.block_size,
            self.sb.blocks,
            self.sb.groups,
            self.sb.inodes,
            self.sb.desc_size,
            self.sb.inode_size,
        );
        if !same || sb.read_only != self.sb.read_only {
            return Err(Refusal::Bad("its geometry is another in the journal"));
        }
        self.sb = sb;
        Ok(())
    }

    /// Whether there is a journal that is written.
    pub(crate) fn journaled(&self) -> bool {
        self.journal.is_some()
    }

    /// The mount count that the superblock keeps, however often rsext4 is opened.
    pub(crate) fn keep_mount_count(&mut self) -> Result<(), Errno> {
        let raw = self.raw_superblock()?;
        self.mount_count = Some(le16(&raw, superblock::MOUNT_COUNT));
        Ok(())
    }

    /// Starts to count the reads of an operation. On an image gone wrong it might read in circles.
    pub(crate) fn begin_operation(&mut self) {
        self.budget = (1 << 20) + self.sb.blocks.saturating_mul(8);
    }

    // Reading.

    /// A block from the device.
    fn load(&self, block: u64) -> Result<Box<[u8]>, Errno> {
        let (place, escaped) = self.replay.get(&block).copied().unwrap_or((block, false));
        let mut image = read_block(&self.dev, place, self.block_size())?;
        if escaped {
            image[..4].copy_from_slice(&0xc03b_3998u32.to_be_bytes());
        }
        Ok(image)
    }

    fn get(&mut self, block: u64) -> Result<&mut Buf, Errno> {
        if !self.blocks.contains_key(&block) {
            let data = self.load(block)?;
            self.make_room();
            self.blocks.insert(block, Buf::new(data));
        }
        let buf = self.blocks.get_mut(&block).ok_or(Errno::EIO)?;
        buf.used = true;
        Ok(buf)
    }

    /// Lets clean blocks go that have not been used since the last time.
    fn make_room(&mut self) {
        let dirty = self.running.len() + self.logged.len();
        if self.blocks.len().saturating_sub(dirty) * self.block_size() < CLEAN_BYTES {
            return;
        }
        let (running, logged) = (&self.running, &self.logged);
        self.blocks.retain(|block, buf| {
            std::mem::take(&mut buf.used) || running.contains(block) || logged.contains(block)
        });
    }

    /// A block of metadata. `EUCLEAN` where a file has its data.
    pub(crate) fn block(&mut self, block: u64) -> Result<&[u8], Errno> {
        if block >= self.sb.blocks || self.data.contains(block) {
            return Err(Errno::EUCLEAN);
        }
        Ok(&self.get(block)?.data)
    }

    /// A block of metadata that has a checksum, which `is_right` looks at when the block has just been read.
    pub(crate) fn checked_block(
        &mut self,
        block: u64,
        is_right: impl FnOnce(&[u8]) -> bool,
    ) -> Result<&[u8], Errno> {
        self.block(block)?;
        let buf = self.get(block)?;
        if !buf.checked {
            if !is_right(&buf.data) {
                return Err(Errno::EUCLEAN);
            }
            buf.checked = true;
        }
        Ok(&buf.data)
    }

    /// An inode as it is in the cache. `EUCLEAN` beyond the file system, and where its checksum is wrong.
    pub(crate) fn inode(&mut self, ino: u32) -> Result<Inode, Errno> {
        let inode = self.raw_inode(ino)?;
        if inode.is_sealed(&self.sb) {
            Ok(inode)
        } else {
            Err(Errno::EUCLEAN)
        }
    }

    /// As [`inode`](Self::inode), whatever its checksum.
    pub(crate) fn raw_inode(&mut self, ino: u32) -> Result<Inode, Errno> {
        let (block, at) = self.layout.inode(&self.sb, ino).ok_or(Errno::EUCLEAN)?;
        let size = usize::from(self.sb.inode_size);
        let raw = self.get(block)?.data.get(at..at + size);
        Ok(Inode {
            number: ino,
            raw: SmallVec::from_slice(raw.ok_or(Errno::EUCLEAN)?),
        })
    }

    /// Stores an inode.
    pub(crate) fn put_inode(&mut self, mut inode: Inode) -> Result<(), Errno> {
        inode.seal(&self.sb);
        self.edit_inode(inode.number)?.copy_from_slice(&inode.raw);
        Ok(())
    }

    pub(crate) fn edit_inode(&mut self, ino: u32) -> Result<&mut [u8], Errno> {
        let (block, at) = self.layout.inode(&self.sb, ino).ok_or(Errno::EUCLEAN)?;
        let size = usize::from(self.sb.inode_size);
        let raw = self.edit(block)?.get_mut(at..at + size);
        raw.ok_or(Errno::EUCLEAN)
    }

    fn superblock_place(&self) -> (u64, usize) {
        let size = self.block_size() as u64;
        (
            superblock::OFFSET / size,
            (superblock::OFFSET % size) as usize,
        )
    }

    fn raw_superblock(&mut self) -> Result<[u8; superblock::SIZE], Errno> {
        let (block, at) = self.superblock_place();
        self.get(block)?.data[at..at + superblock::SIZE]
            .try_into()
            .map_err(|_| Errno::EIO)
    }

    // Writing.

    /// A block that is about to be changed, as part of the running transaction.
    pub(crate) fn edit(&mut self, block: u64) -> Result<&mut [u8], Errno> {
        self.get(block)?;
        self.revoked.remove(&block);
        let fresh = self.running.insert(block);
        let freeze = fresh && self.logged.contains(&block);
        let keep = fresh && self.block_bitmaps.contains(&block);
        let buf = self.blocks.get_mut(&block).ok_or(Errno::EIO)?;
        if freeze {
            buf.frozen = Some(buf.data.clone());
        }
        if keep {
            buf.before = Some(buf.data.clone());
        }
        Ok(&mut buf.data)
    }

    /// From now on these blocks hold data of a regular file: nothing here may be written over it, and nothing in the
    /// log may be replayed over it.
    pub(crate) fn claim(&mut self, range: Range<u64>) {
        for block in range.clone() {
            if self.blocks.remove(&block).is_some() {
                self.running.remove(&block);
                if self.logged.remove(&block) {
                    self.revoked.insert(block);
                }
            }
        }
        self.data.insert(range);
    }

    /// These blocks have been freed.
    pub(crate) fn disclaim(&mut self, range: Range<u64>) {
        self.data.remove(range);
    }

    /// Whether one of these blocks is in use in the state that a crash would leave. If they have been allocated since,
    /// something else still has them, and they may be overwritten only after a commit.
    pub(crate) fn in_use_before(&mut self, range: Range<u64>) -> Result<bool, Errno> {
        for block in range {
            let (bitmap, bit) = self
                .layout
                .block_bit(&self.sb, block)
                .ok_or(Errno::EUCLEAN)?;
            let buf = self.get(bitmap)?;
            let bits = buf.before.as_ref().unwrap_or(&buf.data);
            if bits
                .get(bit / 8)
                .is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Buf {
    fn new(data: Box<[u8]>) -> Buf {
        Buf {
            data,
            frozen: None,
            before: None,
            used: true,
            checked: false,
        }
    }
}

fn read_block(dev: &BlockDev, block: u64, size: usize) -> Result<Box<[u8]>, Errno> {
    let mut data = vec![0; size].into_boxed_slice();
    let at = block.checked_mul(size as u64).ok_or(Errno::EIO)?;
    dev.read_at(&mut data, at)?;
    Ok(data)
}

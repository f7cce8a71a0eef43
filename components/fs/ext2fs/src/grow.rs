//! Directories without extents that grow beyond their direct blocks.
//!
//! rsext4 appends to a directory by itself as long as it has fewer than twelve blocks, or extents. It maps data beyond
//! that for any inode, though, and puts a name where there is room: so a directory that is full gets an empty block as
//! if by a write, and the operation that found no room is made again.

use rsext4::{
    Ext4Error, Ext4ErrorKind, Ext4Result, FileName, FilePermissions, InodeFlags,
    InodeMetadataUpdate, InodeNumber, MutationContext,
};

use crate::dirblock;
use crate::inner::Inner;
use crate::superblock::Super;

/// Blocks that an inode points at itself.
const DIRECT: u64 = 12;

impl Inner {
    /// An operation that puts a name into a directory, which grows if it has to. `f` may run twice; rsext4 takes back
    /// what it has done when it fails.
    pub(crate) fn naming<R>(
        &mut self,
        sb: &Super,
        dir: InodeNumber,
        mut f: impl FnMut(&mut Inner) -> Ext4Result<R>,
    ) -> Ext4Result<R> {
        match f(self) {
            Err(error) if error.kind() == Ext4ErrorKind::Unsupported => {
                if !self.append_block(sb, dir)? {
                    return Err(error);
                }
                f(self)
            }
            result => result,
        }
    }

    /// Renames inside of a directory, to a name that is not there. rsext4 looks where the old name is, and when it splits the
    /// block for the new one, looks for it there in vain. So room is made by a file of that name, which is taken away again.
    pub(crate) fn renaming<R>(
        &mut self,
        dir: InodeNumber,
        to: FileName<'_>,
        mut f: impl FnMut(&mut Inner) -> Ext4Result<R>,
    ) -> Ext4Result<R> {
        let error = match f(self) {
            Err(error) if error.is_corruption() || error.kind() == Ext4ErrorKind::NotFound => error,
            result => return result,
        };
        let ext4 = self.ext4()?;
        if ext4.lookup_child(dir, to)?.is_some() {
            return Err(error);
        }
        let nobody = MutationContext::new(0, 0, 0, 0);
        let made = ext4.create_regular_file(nobody, dir, to, FilePermissions::new(0)?)?;
        let _ = ext4.unlink(dir, to)?;
        ext4.reap_unlinked_inode(made.number)?;
        self.touch(made.number);
        f(self)
    }

    /// Appends an empty block to a directory. False when it is not one that rsext4 would not let grow.
    fn append_block(&mut self, sb: &Super, dir: InodeNumber) -> Ext4Result<bool> {
        let info = self.ext4()?.inode(dir)?;
        let size = u64::from(sb.block_size);
        if info
            .flags
            .intersects(InodeFlags::EXTENTS | InodeFlags::DIRECTORY_INDEX)
            || info.size / size < DIRECT
        {
            return Ok(false);
        }
        self.touch(dir);
        let block = self.empty_block(sb, dir)?;
        self.ext4()?.write_inode(dir, info.size, &block)?;
        // Writing takes set-id bits away, which mean something else in a directory.
        if info.mode & 0o6000 != 0 {
            let update = InodeMetadataUpdate {
                permissions: Some(FilePermissions::new(info.mode & 0o7777)?),
                ..InodeMetadataUpdate::default()
            };
            self.ext4()?.update_inode_metadata(dir, update)?;
        }
        Ok(true)
    }

    /// A directory block with nothing but one unused entry.
    fn empty_block(&mut self, sb: &Super, dir: InodeNumber) -> Ext4Result<Vec<u8>> {
        let size = sb.block_size as usize;
        if sb.checksum_seed.is_none() {
            return Ok(dirblock::empty(size, None));
        }
        self.settle()?;
        let inode = self.store(|store| store.raw_inode(dir.raw()));
        let seed = inode.map_err(|_| Ext4Error::io())?.seed(sb);
        Ok(dirblock::empty(size, seed))
    }
}

//! How attributes are stored.

use abi::Errno;
use kern::Curlwp;
use rsext4::{Ext4Error, FilePermissions, InodeMetadataUpdate, InodeNumber};
use vfs::{Attr, Vnode};

use super::{Node, permissions};
use crate::inner::{Inner, timestamp};
use crate::inode::{Attributes, Times};
use crate::quick;

impl Node {
    /// Stores attributes, and the size of a file that has grown, if that can be done without rsext4.
    pub(super) fn store_quickly(
        &self,
        inner: &mut Inner,
        attr: &Attr,
        size: Option<u64>,
    ) -> Result<bool, Ext4Error> {
        let attributes = Attributes {
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            times: Times {
                atime: attr.atime,
                mtime: attr.mtime,
                ctime: attr.ctime,
                btime: attr.btime,
            },
        };
        let ino = self.ino.raw();
        let stored =
            inner.try_quick(|store| quick::set_attributes(store, ino, &attributes, size))?;
        if let (Some(()), Some(size)) = (stored, size) {
            self.data.lock(&self.fs.off()).grow(size);
        }
        Ok(stored.is_some())
    }

    /// Writing takes set-id bits away in rsext4; whether it does is the vfs's to say.
    pub(crate) fn keep_setid(&self, cx: &Curlwp<'_>, vp: &Vnode) -> Result<(), Errno> {
        let attr = vp.attr(cx);
        if attr.perm & 0o6000 == 0 {
            return Ok(());
        }
        let update = InodeMetadataUpdate {
            permissions: Some(permissions(attr.perm)?),
            ..InodeMetadataUpdate::default()
        };
        self.fs.change(cx, attr.ctime, |inner| {
            inner
                .ext4()?
                .update_inode_metadata(self.ino, update)
                .map(drop)
        })
    }
}

/// Stores another owner. rsext4 takes set-id bits away with it, so that permissions are stored after it.
pub(super) fn store_owner(
    inner: &mut Inner,
    ino: InodeNumber,
    before: &Attr,
    after: &Attr,
) -> Result<(), Ext4Error> {
    if (before.uid, before.gid) == (after.uid, after.gid) {
        return Ok(());
    }
    let update = InodeMetadataUpdate {
        owner: Some((after.uid, after.gid)),
        ..InodeMetadataUpdate::default()
    };
    inner.ext4()?.update_inode_metadata(ino, update).map(drop)
}

/// Permissions and times as the vnode has them; the change time is the operation's.
pub(super) fn metadata(attr: &Attr) -> Result<InodeMetadataUpdate, Ext4Error> {
    Ok(InodeMetadataUpdate {
        permissions: Some(FilePermissions::new((attr.perm & 0o7777) as u16)?),
        atime: Some(timestamp(attr.atime)),
        mtime: Some(timestamp(attr.mtime)),
        ..InodeMetadataUpdate::default()
    })
}

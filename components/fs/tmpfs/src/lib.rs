//! tmpfs: a file system in memory.
//!
//! Names and attributes live in the vnodes and in the directories here, data lives in the vfs's page cache and nowhere
//! else ([`vfs::VnodeOps::resident`]). Mount options are those of tmpfs(5): `size`, `nr_blocks`, `nr_inodes`, `mode`,
//! `uid`, `gid`; remounting takes the same and changes the limits.
//!
//! It may use `vfs`, `kern` and what is below them. Start reading at `node.rs`, the operations; `dir.rs` is a directory,
//! `fs.rs` what a mount counts.
#![forbid(unsafe_code)]

mod dir;
mod fs;
mod node;
mod options;
#[cfg(test)]
mod tests;
mod xattr;

use std::sync::Arc;

use abi::Errno;
use kern::{Component, Curlwp, Stage};
use vfs::{Attr, FsType, Mount, MountArgs, Vfs, Vnode, VnodeKind};

use fs::{Mounted, TmpFs};
use node::Node;
use options::Options;

/// The component, for the list of components.
pub static TMPFS: Component = Component {
    name: "tmpfs",
    stage: Stage::Vfs,
    requires: &["vfs"],
    init: attach,
};

static TYPE: FsType = FsType {
    name: "tmpfs",
    aliases: &["ramfs"],
    mount,
};

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    Vfs::of(cx)?.register(cx, &TYPE)
}

fn mount(cx: &Curlwp<'_>, args: &MountArgs<'_>) -> Result<Arc<Mount>, Errno> {
    let options = Options::parse(args.data)?;
    let fs = Arc::new(TmpFs::new(cx, &options));
    Mount::new(
        args,
        "tmpfs",
        false,
        Box::new(Mounted(fs.clone())),
        |mount| {
            let now = Vnode::timestamp(cx);
            let attr = Attr {
                perm: options.mode.unwrap_or(0o1777),
                nlink: 2,
                uid: options.uid.unwrap_or_else(|| cx.cred().euid),
                gid: options.gid.unwrap_or_else(|| cx.cred().egid),
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                ..Attr::default()
            };
            let ino = fs.take_inode()?;
            let node = Node::root(&fs);
            Ok(Vnode::new(
                &Arc::downgrade(mount),
                ino,
                VnodeKind::Directory,
                0,
                attr,
                Box::new(node),
            ))
        },
    )
}

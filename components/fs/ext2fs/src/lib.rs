//! ext2fs: ext2, ext3 and ext4 disk images, read and written.
//!
//! The format is rsext4's affair: it knows inodes, directories, extents and bitmaps. Around it stands what a kernel
//! needs and it has not: file data moves between the vfs's page cache and the device past it (`data`), and below it
//! lies a buffer cache that keeps the journal (`store`, `journal`). A superblock is checked here first
//! (`superblock`), so that what is not supported is refused by name. rsext4 takes everything by exclusive reference, so
//! there is one lock a mount (`fs`); cached reads and writes, and page I/O on files whose blocks are known, do without
//! it.
//!
//! What comes in large numbers is done without rsext4 (`quick`): in a file system with extents names are looked up,
//! regular files made, small ones written and attributes stored in the blocks of the store directly. `inner` knows which
//! of the two has the newest state.
//!
//! Mount options: `ro`, `rw`. It may use `vfs`, `kern` and what is below them, and rsext4. Start reading at `node`, the
//! operations.
//!
//! Not there: inline_data, bigalloc (read-only), encryption, quotas, external journals. Directories without extents (ext2,
//! ext3) grow as plain ones, without an index (`grow`); those that have one and cannot lose it, because the file system
//! has checksums or extents too, stop at twelve blocks (`EOPNOTSUPP`).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types))]

mod blockset;
mod data;
mod dir;
mod dirblock;
mod extents;
mod filemap;
mod fs;
#[cfg(feature = "fuzz")]
mod fuzz;
mod grow;
mod htree;
mod inner;
mod inode;
mod journal;
mod layout;
mod mount;
mod names;
mod node;
mod quick;
mod store;
mod superblock;
mod xattr;

#[cfg(feature = "fuzz")]
pub use fuzz::fuzz_mount_and_walk;

use abi::Errno;
use kern::{Component, Curlwp, Stage};
use vfs::{FsType, Vfs};

/// The component, for the list of components.
pub static EXT2FS: Component = Component {
    name: "ext2fs",
    stage: Stage::Vfs,
    requires: &["vfs"],
    init: attach,
};

static TYPE: FsType = FsType {
    name: "ext4",
    aliases: &["ext2", "ext3", "ext2fs"],
    mount: mount::mount,
};

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    Vfs::of(cx)?.register(cx, &TYPE)
}

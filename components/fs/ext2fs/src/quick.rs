//! What is done without rsext4: names are looked up, regular files made, small ones written, attributes stored.
//!
//! These are the operations of which there are many. They change blocks in the store, a few bytes of each, and leave the
//! checksums of whole blocks to [`Store::seal`]; so rsext4's caches go stale, and before it does anything again it is
//! opened anew ([`crate::inner::Inner::ext4`]). Only the plain case is served. In any other nothing is changed and the
//! answer says so: rsext4 does it then, or says what is wrong.

use abi::Errno;

use crate::dirblock::{self, Found, Room};
use crate::extents;
use crate::htree;
use crate::inode::{Attributes, DIRECTORY, EXTENTS, INDEX, Inode, REGULAR, SYMLINK};
use crate::layout::Extent;
use crate::store::Store;

/// `i_flags`: directories below are spread over the disk.
const TOPDIR: u32 = 0x2_0000;
/// `i_flags`: the count of blocks is one of blocks of the file system.
const HUGE_FILE: u32 = 0x4_0000;

/// How it went.
#[derive(Debug)]
pub(crate) enum Quick<T> {
    Done(T),
    /// There is no room in what would have to be changed. rsext4 makes some, and then it goes on.
    Full,
    /// Not the plain case.
    Other,
}

/// What a directory has for a name.
enum Place {
    Name(u32),
    /// A block of the device, and the room in it.
    Room(u64, Room),
    Nothing,
}

/// An inode that is in use. `None` for a kind that has more to it than size and blocks.
pub(crate) fn inode(store: &mut Store, ino: u32) -> Result<Option<Inode>, Errno> {
    let inode = store.inode(ino)?;
    let plain = matches!(inode.kind(), REGULAR | DIRECTORY | SYMLINK)
        && inode.flags() & HUGE_FILE == 0
        && store.inode_is_taken(ino)?;
    Ok(Some(inode).filter(|_| plain))
}

/// Looks a name up in a directory: its inode.
pub(crate) fn lookup(
    store: &mut Store,
    dir: u32,
    name: &[u8],
) -> Result<Quick<Option<u32>>, Errno> {
    let dir = store.inode(dir)?;
    Ok(match place(store, &dir, name)? {
        None => Quick::Other,
        Some(Place::Name(ino)) => Quick::Done(Some(ino)),
        Some(_) => Quick::Done(None),
    })
}

/// Where a name is in a directory, or could be.
fn place(store: &mut Store, dir: &Inode, name: &[u8]) -> Result<Option<Place>, Errno> {
    let plain = dir.kind() == DIRECTORY
        && dir.flags() & EXTENTS != 0
        && dir.flags() & !(EXTENTS | INDEX | TOPDIR) == 0
        && dir.links() > 0;
    if !plain || matches!(name, b"." | b"..") {
        return Ok(None);
    }
    let blocks = if dir.flags() & INDEX != 0 {
        match htree::leaf(store, dir, name)? {
            Some(leaf) => leaf..leaf + 1,
            None => return Ok(None),
        }
    } else {
        0..dir.size() / u64::from(store.sb.block_size)
    };
    let seed = dir.seed(&store.sb);
    let mut room = Place::Nothing;
    for logical in blocks {
        let Some(block) = extents::find(store, dir, logical)? else {
            return Ok(None);
        };
        if !store.layout.allows(&store.sb, block, 1) {
            return Ok(None);
        }
        let names = store.checked_block(block, |names| {
            seed.is_none_or(|seed| dirblock::is_sealed(names, seed))
        })?;
        match dirblock::look(names, seed.is_some(), name) {
            None => return Ok(None),
            Some(Found::Name(ino)) => return Ok(Some(Place::Name(ino))),
            Some(Found::Room(found)) if matches!(room, Place::Nothing) => {
                room = Place::Room(block, found);
            }
            Some(_) => {}
        }
    }
    Ok(Some(room))
}

/// Makes an empty regular file with this name.
pub(crate) fn create(
    store: &mut Store,
    parent: u32,
    name: &[u8],
    attributes: &Attributes,
) -> Result<Quick<Inode>, Errno> {
    let mut dir = store.inode(parent)?;
    let (block, room) = match place(store, &dir, name)? {
        Some(Place::Room(block, room)) => (block, room),
        Some(Place::Nothing) => return Ok(Quick::Full),
        Some(Place::Name(_)) | None => return Ok(Quick::Other),
    };
    let Some(ino) = store.free_inode((parent - 1) / store.sb.inodes_per_group)? else {
        return Ok(Quick::Full);
    };
    let mut inode = store.raw_inode(ino)?;
    inode.new_file(&store.sb, attributes);
    dir.set_changed(attributes.times.mtime, attributes.times.ctime);
    let seed = dir.seed(&store.sb);

    store.edit(block)?;
    store.edit_inode(parent)?;
    store.hold_inode(ino)?;
    store.put_inode(dir)?;
    store.put_inode(inode.clone())?;
    store.take_inode(ino)?;
    let names = store.edit_names(block, seed)?;
    dirblock::insert(names, room, name, ino, dirblock::REGULAR);
    Ok(Quick::Done(inode))
}

/// Finds blocks for a hole of a file that has nothing but a few extents. They are still free.
pub(crate) fn find_run(
    store: &mut Store,
    ino: u32,
    first: u64,
    n: u64,
) -> Result<Quick<Extent>, Errno> {
    let inode = store.inode(ino)?;
    if inode.kind() != REGULAR || inode.flags() != EXTENTS || n == 0 {
        return Ok(Quick::Other);
    }
    let group = (ino - 1) / store.sb.inodes_per_group;
    let Some(physical) = store.free_blocks(group, n as usize)? else {
        return Ok(Quick::Full);
    };
    let run = Extent {
        logical: first,
        physical,
        len: n,
        written: true,
    };
    let fits = extents::add(inode.clone().map_mut(), run);
    Ok(if fits { Quick::Done(run) } else { Quick::Full })
}

/// Gives a file the blocks that [`find_run`] has found, this size, and these times.
pub(crate) fn add_run(
    store: &mut Store,
    ino: u32,
    run: Extent,
    size: u64,
    now: u64,
) -> Result<(), Errno> {
    let mut inode = store.inode(ino)?;
    if !extents::add(inode.map_mut(), run) {
        return Err(Errno::EUCLEAN);
    }
    inode.set_blocks(inode.blocks() + run.len * u64::from(store.sb.block_size / 512));
    inode.set_size(size.max(inode.size()));
    inode.set_changed(now, now);
    store.edit_inode(ino)?;
    store.hold_blocks(run.physical)?;
    store.put_inode(inode)?;
    store.take_blocks(run.physical, run.len as u32)?;
    store.claim(run.physical..run.physical + run.len);
    Ok(())
}

/// Stores attributes, and the size where the file has grown.
pub(crate) fn set_attributes(
    store: &mut Store,
    ino: u32,
    attributes: &Attributes,
    size: Option<u64>,
) -> Result<Quick<()>, Errno> {
    let mut inode = store.inode(ino)?;
    let grows = size.is_some_and(|size| size > inode.size());
    let plain = inode.links() > 0 && inode.keeps_times();
    if !plain || (grows && inode.flags() & EXTENTS == 0) {
        return Ok(Quick::Other);
    }
    if let Some(size) = size.filter(|_| grows) {
        inode.set_size(size);
    }
    inode.set_attributes(attributes);
    store.put_inode(inode)?;
    Ok(Quick::Done(()))
}

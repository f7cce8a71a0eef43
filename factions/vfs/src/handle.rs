//! File handles: a few bytes by which a file is found again without a name, VFS_VPTOFH and VFS_FHTOVP.
//!
//! A handle has the mount's number, the file's number in it and when the file was made, which tells a file from a later one
//! of the same number. A mount's number is never used again, so a handle is good as long as the file and the mount are.

use std::sync::Arc;

use abi::Errno;
use kern::Curlwp;

use crate::{Mount, Vfs, Vnode};

/// Bytes of a handle.
pub(crate) const HANDLE_SIZE: usize = 24;

/// A handle: a mount's number, a file's, and its time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    dev: u64,
    ino: u64,
    born: u64,
}

impl Handle {
    pub(crate) fn to_bytes(self) -> [u8; HANDLE_SIZE] {
        let mut raw = [0; HANDLE_SIZE];
        let (parts, _) = raw.as_chunks_mut();
        for (part, number) in parts.iter_mut().zip([self.dev, self.ino, self.born]) {
            *part = number.to_le_bytes();
        }
        raw
    }

    pub(crate) fn from_bytes(raw: &[u8; HANDLE_SIZE]) -> Handle {
        let number = |i: usize| {
            raw.as_chunks()
                .0
                .get(i)
                .map_or(0, |part| u64::from_le_bytes(*part))
        };
        Handle {
            dev: number(0),
            ino: number(1),
            born: number(2),
        }
    }

    /// The handle of a file. `EOPNOTSUPP` where a mount is going away.
    pub(crate) fn of(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<Handle, Errno> {
        let mount = vp.mount().ok_or(Errno::EOPNOTSUPP)?;
        // A file system in memory does not find its files by number; from here on the mount does.
        mount.vget(cx, vp.ino, || Ok(vp.clone()))?;
        Ok(Handle {
            dev: mount.dev,
            ino: vp.ino,
            born: vp.attr(cx).btime,
        })
    }

    /// The file. `ESTALE` when it, or its mount, is gone.
    pub(crate) fn vnode(self, cx: &Curlwp<'_>) -> Result<Arc<Vnode>, Errno> {
        let mounts = Vfs::of(cx)?.mounts.all(cx);
        let mount = mounts.iter().find(|m| m.dev == self.dev);
        let mount = mount.ok_or(Errno::ESTALE)?;
        let load = || mount.ops().vget(cx, mount, self.ino);
        let vp = mount.vget(cx, self.ino, load).map_err(|_| Errno::ESTALE)?;
        let attr = vp.attr(cx);
        if attr.btime != self.born || vp.is_freed() || attr.nlink == 0 && vp.opens() == 0 {
            return Err(Errno::ESTALE);
        }
        reconnect(cx, mount, &vp)?;
        Ok(vp)
    }
}

/// Lets a directory that was found by its number know where it hangs, up to one that knows.
fn reconnect(cx: &Curlwp<'_>, mount: &Mount, vp: &Arc<Vnode>) -> Result<(), Errno> {
    let _still = mount.renames.lock(cx.cpu());
    let root = mount.root()?;
    let mut chain: Vec<(Arc<Vnode>, Arc<Vnode>, Vec<u8>)> = Vec::new();
    let mut at = vp.clone();
    while at.is_mount_root() && !Arc::ptr_eq(&at, root) {
        let above = {
            let _names = at.dir.read(cx.cpu());
            at.ops().lookup(cx, &at, b"..")?.ok_or(Errno::ESTALE)?
        };
        // An image may say anything, also that two directories are in each other.
        if Arc::ptr_eq(&above, &at) || chain.iter().any(|(below, ..)| Arc::ptr_eq(below, &above)) {
            return Err(Errno::ESTALE);
        }
        let name = name_in(cx, &above, at.ino)?;
        chain.push((at, above.clone(), name));
        at = above;
    }
    for (dir, above, name) in chain {
        dir.set_parent(cx, &above, &name);
    }
    Ok(())
}

/// The name that a file has in a directory.
fn name_in(cx: &Curlwp<'_>, dir: &Arc<Vnode>, ino: u64) -> Result<Vec<u8>, Errno> {
    let _names = dir.dir.read(cx.cpu());
    let mut found = None;
    let mut cookie = 0;
    loop {
        let mut more = false;
        dir.ops().readdir(cx, dir, cookie, &mut |entry| {
            if entry.ino == ino && !matches!(entry.name, b"." | b"..") {
                found = Some(entry.name.to_vec());
                return false;
            }
            more = entry.next != cookie;
            cookie = entry.next;
            true
        })?;
        match found {
            Some(name) => return Ok(name),
            None if !more => return Err(Errno::ESTALE),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_handle_is_its_bytes(dev: u64, ino: u64, born: u64) {
            let handle = Handle { dev, ino, born };
            prop_assert_eq!(Handle::from_bytes(&handle.to_bytes()), handle);
        }
    }
}

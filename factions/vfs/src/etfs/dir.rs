//! A host's directory: its files, and with `DirSubdirs` its directories too.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::FileKind;
use kern::Curlwp;
use sync::Mutex;

use super::file::{HostFile, Window};
use crate::{DirEntry, DirSink, Vfs, Vnode, VnodeKind, VnodeOps};

/// The node of a directory. `found` is a leaf: the vnodes of its names, so that there is one for a file.
pub(super) struct HostDir {
    path: Box<[u8]>,
    subdirs: bool,
    read_only: bool,
    /// The directory in which it was found, which lives as long.
    _dir: Option<Arc<Vnode>>,
    found: Mutex<HashMap<Box<[u8]>, Weak<Vnode>>>,
}

impl HostDir {
    pub(super) fn new(
        path: &[u8],
        subdirs: bool,
        read_only: bool,
        dir: Option<Arc<Vnode>>,
    ) -> HostDir {
        HostDir {
            path: path.into(),
            subdirs,
            read_only,
            _dir: dir,
            found: Mutex::default(),
        }
    }

    fn shows(&self, kind: FileKind) -> Option<VnodeKind> {
        match kind {
            FileKind::Regular => Some(VnodeKind::Regular),
            FileKind::Directory if self.subdirs => Some(VnodeKind::Directory),
            _ => None,
        }
    }
}

impl VnodeOps for HostDir {
    fn lookup(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        name: &[u8],
    ) -> Result<Option<Arc<Vnode>>, Errno> {
        let path = [&self.path, b"/".as_slice(), name].concat();
        let info = match cx.unscheduled(|| cx.kernel().host().file_info(&path)) {
            Ok(info) => info,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(kind) = self.shows(info.kind) else {
            return Ok(None);
        };
        let mut found = self.found.lock(cx.cpu());
        if let Some(vp) = found
            .get(name)
            .and_then(Weak::upgrade)
            .filter(|vp| vp.kind == kind)
        {
            drop(found);
            if kind == VnodeKind::Regular {
                vp.update(cx, |attr| attr.size = info.size);
            }
            return Ok(Some(vp));
        }
        found.retain(|_, vp| vp.strong_count() != 0);
        let vfs = Vfs::of(cx)?;
        let ops: Box<dyn VnodeOps> = match kind {
            VnodeKind::Directory => {
                Box::new(HostDir::new(&path, true, self.read_only, Some(dir.clone())))
            }
            _ => {
                let window = Window {
                    path: path.into(),
                    begin: 0,
                    size: None,
                    read_only: self.read_only,
                };
                Box::new(HostFile::new(window, Some(dir.clone())))
            }
        };
        let perm = info.mode & if self.read_only { 0o555 } else { 0o777 };
        let ino = vfs.etfs.new_ino();
        let vp = vfs.etfs_make(cx, ino, kind, perm, 0, info.size, info.mtime, ops);
        found.insert(name.into(), Arc::downgrade(&vp));
        Ok(Some(vp))
    }

    fn readdir(
        &self,
        cx: &Curlwp<'_>,
        dir: &Arc<Vnode>,
        cookie: u64,
        sink: &mut DirSink<'_>,
    ) -> Result<(), Errno> {
        let names = cx.unscheduled(|| cx.kernel().host().read_dir(&self.path))?;
        // The host may change the directory at any time; a place in the order of hashes stays good.
        let mut entries: Vec<(u64, &[u8], VnodeKind)> = names
            .iter()
            .filter_map(|entry| {
                Some((
                    place(&entry.name),
                    entry.name.as_slice(),
                    self.shows(entry.kind)?,
                ))
            })
            .collect();
        entries.extend([
            (1, b".".as_slice(), VnodeKind::Directory),
            (2, b"..".as_slice(), VnodeKind::Directory),
        ]);
        entries.sort_unstable_by_key(|entry| (entry.0, entry.1));
        for (next, name, kind) in entries.into_iter().filter(|entry| entry.0 > cookie) {
            // Numbers are given to files that are used; until then any will do but 0.
            let ino = if next == 1 { dir.ino } else { next };
            if !sink(DirEntry {
                ino,
                kind: Some(kind),
                next,
                name,
            }) {
                break;
            }
        }
        Ok(())
    }

    fn resident(&self) -> bool {
        // Nothing of it is ever written back.
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The place of a name in the order of readdir.
fn place(name: &[u8]) -> u64 {
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, &b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 1).max(3)
}

//! What the vfs keeps for a process: current and root directory, and umask.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use abi::Errno;
use arc_swap::ArcSwap;
use kern::{Curlwp, FactionId, Proc, ProcHooks};
use sync::Mutex;

use crate::mount::MountHold;
use crate::{Vfs, Vnode};

/// A directory that a process stands in. It keeps its mount from being unmounted.
pub(crate) struct Place {
    pub(crate) vp: Arc<Vnode>,
    hold: MountHold,
}

impl Place {
    pub(crate) fn new(vp: Arc<Vnode>) -> Result<Arc<Place>, Errno> {
        let hold = MountHold::new(vp.mount().ok_or(Errno::ENODEV)?)?;
        Ok(Arc::new(Place { vp, hold }))
    }
}

/// A process's place in the tree, read without a lock; and under a leaf the files on which it has taken record locks, for
/// the case that others share its descriptors and keep the files open when it ends.
pub(crate) struct Cwd {
    cwd: ArcSwap<Place>,
    root: ArcSwap<Place>,
    umask: AtomicU32,
    locked: Mutex<Vec<Weak<Vnode>>>,
}

/// How the vfs takes part in the life of processes.
pub(crate) const HOOKS: ProcHooks = ProcHooks { fork, exit };

impl Cwd {
    /// Of the current process.
    #[inline]
    pub(crate) fn of<'a>(cx: &'a Curlwp<'_>) -> Result<&'a Cwd, Errno> {
        cx.proc()
            .state(FactionId::Vfs)
            .and_then(|state| state.downcast_ref())
            .ok_or(Errno::EOPNOTSUPP)
    }

    /// The current directory.
    #[inline]
    pub(crate) fn cwd(&self) -> Arc<Vnode> {
        self.cwd.load().vp.clone()
    }

    /// The directory that `/` stands for.
    #[inline]
    pub(crate) fn root(&self) -> Arc<Vnode> {
        self.root.load().vp.clone()
    }

    /// Whether `/` stands for this directory.
    #[inline]
    pub(crate) fn is_root(&self, vp: &Arc<Vnode>) -> bool {
        Arc::ptr_eq(&self.root.load().vp, vp)
    }

    /// Notes that the process has a record lock on a file.
    pub(crate) fn locked(&self, cx: &Curlwp<'_>, vp: &Arc<Vnode>) {
        let mut locked = self.locked.lock(cx.cpu());
        if !locked
            .iter()
            .any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(vp)))
        {
            locked.retain(|known| known.strong_count() != 0);
            locked.push(Arc::downgrade(vp));
        }
    }

    /// The permission bits that new files do not get.
    pub(crate) fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Changes the umask; answers the old one.
    pub(crate) fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }

    /// Goes to another directory.
    pub(crate) fn chdir(&self, cx: &Curlwp<'_>, vp: Arc<Vnode>) -> Result<(), Errno> {
        left(cx, self.cwd.swap(Place::new(vp)?));
        Ok(())
    }

    /// Makes `/` stand for another directory.
    pub(crate) fn chroot(&self, cx: &Curlwp<'_>, vp: Arc<Vnode>) -> Result<(), Errno> {
        left(cx, self.root.swap(Place::new(vp)?));
        Ok(())
    }
}

/// A place that nobody stands in any more may have been the last use of a mount that is out of the tree.
fn left(cx: &Curlwp<'_>, place: Arc<Place>) {
    let mount = place.hold.mount().clone();
    drop(place);
    crate::mounts::finish_detached(cx, &mount);
}

fn fork(cx: &Curlwp<'_>, parent: Option<&Proc>, child: &Proc) {
    let inherited = parent
        .and_then(|p| p.state(FactionId::Vfs))
        .and_then(|state| state.downcast_ref::<Cwd>());
    let state = match inherited {
        Some(parent) => Cwd {
            cwd: ArcSwap::new(parent.cwd.load_full()),
            root: ArcSwap::new(parent.root.load_full()),
            umask: AtomicU32::new(parent.umask()),
            locked: Mutex::default(),
        },
        None => {
            let Some(root) = Vfs::of(cx)
                .ok()
                .and_then(|vfs| Place::new(vfs.root().clone()).ok())
            else {
                return;
            };
            Cwd {
                cwd: ArcSwap::new(root.clone()),
                root: ArcSwap::new(root),
                umask: AtomicU32::new(0o022),
                locked: Mutex::default(),
            }
        }
    };
    child.set_state(FactionId::Vfs, Arc::new(state));
}

/// The process gives its record locks back and leaves its directories: who looks its state up later finds it in the root.
fn exit(cx: &Curlwp<'_>, proc: &Proc) {
    let Some(state) = proc
        .state(FactionId::Vfs)
        .and_then(|state| state.downcast_ref::<Cwd>())
    else {
        return;
    };
    let locked = std::mem::take(&mut *state.locked.lock(cx.cpu()));
    for vp in locked.iter().filter_map(Weak::upgrade) {
        crate::lock::release_process(cx, &vp, proc.pid);
    }
    if let Some(root) = Vfs::of(cx)
        .ok()
        .and_then(|vfs| Place::new(vfs.root().clone()).ok())
    {
        left(cx, state.cwd.swap(root.clone()));
        left(cx, state.root.swap(root));
    }
}

//! The mounts of a kernel: mounting, unmounting, syncing.

use std::sync::Arc;

use abi::{Errno, MNT_DETACH, MS_RDONLY, MS_REMOUNT};
use kern::Curlwp;
use sync::Mutex;

use crate::mount::MountState;
use crate::{Mount, MountArgs, Vfs, Vnode, VnodeKind, namei, pages};

/// The mounts of a kernel.
///
/// `changing` is held by who mounts, remounts or unmounts, for as long as that takes: one at a time, and nobody else waits.
/// It comes before every lock of a vnode; `list`, the mounts in the order in which they were made, is a leaf.
pub(crate) struct Mounts {
    changing: Mutex<()>,
    /// Those that are out of the tree with uses left. A leaf.
    detached: Mutex<Vec<Arc<Mount>>>,
    list: Mutex<Vec<Arc<Mount>>>,
}

impl Mounts {
    pub(crate) fn new(root: Arc<Mount>) -> Mounts {
        Mounts {
            changing: Mutex::default(),
            detached: Mutex::default(),
            list: Mutex::new(vec![root]),
        }
    }

    /// Every mount now.
    pub(crate) fn all(&self, cx: &Curlwp<'_>) -> Vec<Arc<Mount>> {
        self.list.lock(cx.cpu()).clone()
    }

    /// Whether a block device is mounted.
    pub(crate) fn uses(&self, cx: &Curlwp<'_>, device: &Arc<Vnode>) -> bool {
        let mut all = self.all(cx);
        all.extend(self.detached.lock(cx.cpu()).iter().cloned());
        all.iter()
            .any(|m| m.device().is_some_and(|used| Arc::ptr_eq(used, device)))
    }
}

impl Drop for Mounts {
    /// A kernel that was not halted still has mounts, and they and what they cover hold each other.
    fn drop(&mut self) {
        for mount in self.list.get_mut() {
            if let Some(covered) = mount.covered.swap(None) {
                covered.set_mounted(None);
            }
        }
    }
}

/// What mount(2) is asked for.
pub(crate) struct MountRequest<'a> {
    pub(crate) source: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) fstype: &'a [u8],
    pub(crate) flags: u64,
    pub(crate) data: &'a [u8],
}

/// Mounts, or remounts with `MS_REMOUNT`. What goes wrong is in the message buffer with its reason.
pub(crate) fn mount(cx: &Curlwp<'_>, request: &MountRequest<'_>) -> Result<(), Errno> {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let target = text(request.target);
    let covers = namei::namei(cx, abi::AT_FDCWD, request.target, true).inspect_err(|error| {
        cx.log(format_args!(
            "mount {target}: {error}; make the directory first"
        ));
    })?;
    if request.flags & MS_REMOUNT != 0 {
        return remount(cx, &covers, request.flags, request.data);
    }
    if !covers.is_dir() {
        cx.log(format_args!("mount {target}: is not a directory"));
        return Err(Errno::ENOTDIR);
    }
    let vfs = Vfs::of(cx)?;
    let fstype = vfs.fstype(cx, request.fstype).inspect_err(|_| {
        let (unknown, known) = (text(request.fstype), vfs.fstypes(cx));
        cx.log(format_args!(
            "mount {target}: file system type {unknown} is not in this kernel, which has: {known}"
        ));
    })?;
    let _changing = vfs.mounts.changing.lock(cx.cpu());
    let device = device_of(cx, request.source)?;
    if let Some(device) = &device
        && vfs.mounts.uses(cx, device)
    {
        let source = text(request.source);
        cx.log(format_args!(
            "mount {target}: {source} is mounted already; unmount it first"
        ));
        return Err(Errno::EBUSY);
    }
    let args = MountArgs {
        source: request.source,
        device: device.as_ref(),
        flags: request.flags,
        data: request.data,
        dev: vfs.new_dev(),
    };
    let mount = (fstype.mount)(cx, &args).inspect_err(|error| {
        let source = text(request.source);
        cx.log(format_args!(
            "mount {target}: {} from {source}: {error}",
            fstype.name
        ));
    })?;
    attach(cx, vfs, &covers, &mount).inspect_err(|_| {
        let _ = mount.ops().unmount(cx, &mount);
    })
}

/// What the source names, if it names a block device of ours. A device that cannot be opened is an error: `EBUSY` when another kernel
/// has it.
fn device_of(cx: &Curlwp<'_>, source: &[u8]) -> Result<Option<Arc<Vnode>>, Errno> {
    if !source.starts_with(b"/") {
        return Ok(None);
    }
    match namei::namei(cx, abi::AT_FDCWD, source, true) {
        Ok(vp) => Ok((vp.kind == VnodeKind::Block || vp.block_device().is_some()).then_some(vp)),
        // To a file system without a device the source is only a name.
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Puts a mount into the tree.
fn attach(
    cx: &Curlwp<'_>,
    vfs: &Vfs,
    covers: &Arc<Vnode>,
    mount: &Arc<Mount>,
) -> Result<(), Errno> {
    // Somebody may have mounted here since the directory was looked up: this mount goes on top.
    let covers = namei::over_mounts(covers.clone())?;
    let _names = covers.dir.write(cx.cpu());
    let outer = covers.mount().map(|outer| outer.life());
    if covers.is_removed() || outer != Some(MountState::Live) {
        return Err(Errno::ENOENT);
    }
    mount.covered.store(Some(covers.clone()));
    covers.set_mounted(Some(mount.clone()));
    vfs.mounts.list.lock(cx.cpu()).push(mount.clone());
    Ok(())
}

fn remount(cx: &Curlwp<'_>, vp: &Arc<Vnode>, flags: u64, data: &[u8]) -> Result<(), Errno> {
    let mount = vp.mount().ok_or(Errno::EINVAL)?;
    if !vp.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let vfs = Vfs::of(cx)?;
    let _changing = vfs.mounts.changing.lock(cx.cpu());
    let before = mount.flags();
    let to_read_only = flags & MS_RDONLY != 0 && !mount.read_only();
    if to_read_only && !mount.close_to_writers() {
        cx.log(format_args!(
            "remount: {} has files that are open for writing; close them first",
            mount.fstype
        ));
        return Err(Errno::EBUSY);
    }
    let synced = match to_read_only {
        true => sync(cx, &mount),
        false => Ok(()),
    };
    let result = synced.and_then(|()| mount.ops().remount(cx, &mount, flags & !MS_REMOUNT, data));
    mount.set_flags(if result.is_ok() { flags } else { before });
    if to_read_only {
        mount.open_to_writers();
    }
    result
}

/// umount2(2) of what is mounted at a directory.
pub(crate) fn unmount(cx: &Curlwp<'_>, vp: &Arc<Vnode>, flags: i32) -> Result<(), Errno> {
    let vfs = Vfs::of(cx)?;
    let mount = vp.mount().ok_or(Errno::EINVAL)?;
    if !vp.is_mount_root() || mount.covered().is_none() {
        return Err(Errno::EINVAL);
    }
    let _changing = vfs.mounts.changing.lock(cx.cpu());
    // What is mounted inside keeps it; one that is detached takes them along, the innermost first.
    let inside = inside(&vfs.mounts.all(cx), &mount);
    if !inside.is_empty() && flags & MNT_DETACH == 0 {
        cx.log(format_args!(
            "unmount {}: there are mounts below it; unmount those first",
            mount.fstype
        ));
        return Err(Errno::EBUSY);
    }
    for mount in inside.iter().rev().chain([&mount]) {
        if mount.close_unused() {
            detach(cx, vfs, mount);
            finish(cx, vfs, mount)?;
        } else if flags & MNT_DETACH != 0 {
            mount.set_detached();
            vfs.mounts.detached.lock(cx.cpu()).push(mount.clone());
            detach(cx, vfs, mount);
            sync(cx, mount)?;
            finish_detached_locked(cx, vfs, mount);
        } else {
            // With MNT_FORCE too, as for Linux's file systems on disks.
            let (fstype, busy) = (mount.fstype, mount.busy());
            cx.log(format_args!(
                "unmount {fstype}: {busy} open files or working directories are in it; close them first"
            ));
            return Err(Errno::EBUSY);
        }
    }
    Ok(())
}

/// The mounts below a mount, outermost first.
fn inside(list: &[Arc<Mount>], mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for other in list {
        let Some(covered) = other.covered() else {
            continue;
        };
        let within = |m: &Arc<Mount>| std::ptr::eq(covered.mount_weak().as_ptr(), Arc::as_ptr(m));
        if within(mount) || found.iter().any(within) {
            found.push(other.clone());
        }
    }
    found
}

/// Takes a mount out of the tree.
fn detach(cx: &Curlwp<'_>, vfs: &Vfs, mount: &Arc<Mount>) {
    if let Some(covered) = mount.covered.swap(None) {
        let _names = covered.dir.write(cx.cpu());
        covered.set_mounted(None);
    }
    let mut list = vfs.mounts.list.lock(cx.cpu());
    let at = list.iter().position(|m| Arc::ptr_eq(m, mount));
    let _out = at.map(|at| list.remove(at));
    drop(list);
}

/// The end of a mount that is out of the tree and has no uses: everything is written and the driver closes it.
fn finish(cx: &Curlwp<'_>, vfs: &Vfs, mount: &Arc<Mount>) -> Result<(), Errno> {
    let synced = sync(cx, mount);
    vfs.names.purge(cx, mount);
    pages::drop_mount(cx, mount);
    let closed = mount.ops().unmount(cx, mount);
    synced.and(closed).inspect_err(|error| {
        let source = text(&mount.source);
        cx.log(format_args!(
            "unmount {} from {source}: {error}; its last changes may be lost",
            mount.fstype
        ));
    })
}

/// After a use of a mount has gone: if that was the last one of a mount that is out of the tree already, it ends.
#[inline]
pub(crate) fn finish_detached(cx: &Curlwp<'_>, mount: &Arc<Mount>) {
    if mount.life() == MountState::Detached && mount.busy() == 0 {
        finish_detached_slow(cx, mount);
    }
}

#[cold]
fn finish_detached_slow(cx: &Curlwp<'_>, mount: &Arc<Mount>) {
    let Ok(vfs) = Vfs::of(cx) else { return };
    let _changing = vfs.mounts.changing.lock(cx.cpu());
    finish_detached_locked(cx, vfs, mount);
}

/// The end of a detached mount if it has no uses; by who holds `changing`.
fn finish_detached_locked(cx: &Curlwp<'_>, vfs: &Vfs, mount: &Arc<Mount>) {
    if mount.life() != MountState::Detached || !mount.close_unused() {
        return;
    }
    let mut detached = vfs.mounts.detached.lock(cx.cpu());
    detached.retain(|other| !Arc::ptr_eq(other, mount));
    drop(detached);
    // Reported in the message buffer; nobody waits for it.
    let _ = finish(cx, vfs, mount);
}

/// Makes everything in a mount durable.
pub(crate) fn sync(cx: &Curlwp<'_>, mount: &Arc<Mount>) -> Result<(), Errno> {
    let flushed = pages::flush_mount(cx, mount);
    let synced = mount.ops().sync(cx, mount);
    flushed.and(synced)
}

/// sync(2): the first error is answered after all mounts were synced.
pub(crate) fn sync_all(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let mut result = Ok(());
    for mount in Vfs::of(cx)?.mounts.all(cx) {
        result = result.and(sync(cx, &mount));
    }
    result
}

/// At shutdown: unmounts everything, last mounted first. What is in use still is synced and closed all the same, for
/// there is no later.
pub(crate) fn unmount_all(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let vfs = Vfs::of(cx)?;
    let mut result = Ok(());
    let _changing = vfs.mounts.changing.lock(cx.cpu());
    let detached = std::mem::take(&mut *vfs.mounts.detached.lock(cx.cpu()));
    let attached = vfs.mounts.all(cx);
    for mount in detached.into_iter().chain(attached.into_iter().rev()) {
        mount.close();
        if mount.busy() != 0 && mount.covered().is_some() {
            cx.log(format_args!("unmount {}: in use at shutdown", mount.fstype));
        }
        detach(cx, vfs, &mount);
        result = result.and(finish(cx, vfs, &mount));
    }
    result
}

/// The path of a mount point, from the root; `None` for what is out of the tree.
pub(crate) fn mount_point(cx: &Curlwp<'_>, mount: &Mount) -> Option<Vec<u8>> {
    match mount.covered() {
        None if mount.life() == MountState::Live => Some(b"/".to_vec()),
        None => None,
        Some(covered) => crate::syscalls::path_of(cx, &covered, Vfs::of(cx).ok()?.root()).ok(),
    }
}

/// Bytes for a message.
fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

//! What changes names: create, link, remove, rename. Locks are taken and permissions checked here; drivers find both done.
//!
//! Besides a directory's `dir` lock around changes of its names, the `dir` lock of what is no directory is held where it
//! gets or loses a name.

use std::sync::Arc;

use abi::Errno;
use kern::Curlwp;
use kern::watch::Change;
use sync::RwLock;

use crate::access::{self, S_ISGID, Want};
use crate::namei::{Last, Target, lookup_locked};
use crate::{NewNode, Rename, Vfs, Vnode, VnodeKind};

/// What a new file is to be, before the vfs has chosen its owner.
pub(crate) struct Create<'a> {
    pub(crate) kind: VnodeKind,
    /// Permission bits as asked for; the umask is taken off here.
    pub(crate) perm: u32,
    pub(crate) rdev: u64,
    pub(crate) target: &'a [u8],
}

/// Makes a file under the last name of a target. `EEXIST` when there is something.
pub(crate) fn create(
    cx: &Curlwp<'_>,
    at: &Target<'_>,
    new: &Create<'_>,
) -> Result<Arc<Vnode>, Errno> {
    let (vp, made) = open_or_create(cx, at, new)?;
    if made { Ok(vp) } else { Err(Errno::EEXIST) }
}

/// The file under the last name of a target, and whether it had to be made.
pub(crate) fn open_or_create(
    cx: &Curlwp<'_>,
    at: &Target<'_>,
    new: &Create<'_>,
) -> Result<(Arc<Vnode>, bool), Errno> {
    let name = at.name(Errno::EEXIST)?;
    if let Some(vp) = &at.vp {
        return Ok((vp.clone(), false));
    }
    let vfs = Vfs::of(cx)?;
    let dir = &at.dir;
    let _names = dir.dir.write(cx.cpu());
    if let Some(vp) = lookup_locked(cx, vfs, dir, name)? {
        return Ok((vp, false));
    }
    // A slash behind the name of what is to be no directory.
    if at.slash && new.kind != VnodeKind::Directory {
        return Err(Errno::ENOENT);
    }
    let _writing = access::writing(dir)?;
    let cred = cx.cred();
    access::check(cx, &cred, dir, Want::CHANGE)?;
    let parent = dir.attr(cx);
    let mut perm = new.perm & 0o7777;
    if new.kind != VnodeKind::Symlink {
        perm &= !crate::cwd::Cwd::of(cx)?.umask();
    }
    // A set-group-id directory hands its group down, and to directories the bit as well.
    let inherits = parent.perm & S_ISGID != 0;
    let gid = if inherits { parent.gid } else { cred.egid };
    if inherits && new.kind == VnodeKind::Directory {
        perm |= S_ISGID;
    } else if perm & S_ISGID != 0 && !cred.is_superuser() && !cred.in_group(gid) {
        perm &= !S_ISGID;
    }
    let node = NewNode {
        kind: new.kind,
        perm,
        uid: cred.euid,
        gid,
        rdev: new.rdev,
        target: new.target,
    };
    let vp = dir.ops().create(cx, dir, name, &node)?;
    vp.learn_parent(cx, dir, name);
    vp.found_in(cx, dir, name);
    if !dir.in_memory() {
        vfs.names.put(cx, dir, name, Some(&vp));
    }
    dir.names_changed(cx, Change::CREATE, name, &vp, 0);
    Ok((vp, true))
}

/// Gives `vp` one more name.
pub(crate) fn link(cx: &Curlwp<'_>, vp: &Arc<Vnode>, at: &Target<'_>) -> Result<(), Errno> {
    let name = at.name(Errno::EEXIST)?;
    if at.vp.is_some() {
        return Err(Errno::EEXIST);
    }
    let vfs = Vfs::of(cx)?;
    let dir = &at.dir;
    let _names = dir.dir.write(cx.cpu());
    if lookup_locked(cx, vfs, dir, name)?.is_some() {
        return Err(Errno::EEXIST);
    }
    if !vp.mount_weak().ptr_eq(dir.mount_weak()) {
        return Err(Errno::EXDEV);
    }
    if vp.is_dir() {
        return Err(Errno::EPERM);
    }
    let _writing = access::writing(dir)?;
    if at.slash {
        return Err(Errno::ENOENT);
    }
    access::check(cx, &cx.cred(), dir, Want::CHANGE)?;
    // A file that has lost its last name does not get another: it may be freed already.
    let _links = vp.dir.write(cx.cpu());
    if vp.attr(cx).nlink == 0 {
        return Err(Errno::ENOENT);
    }
    dir.ops().link(cx, dir, name, vp)?;
    if !dir.in_memory() {
        vfs.names.put(cx, dir, name, Some(vp));
    }
    vp.changed(cx, Change::LINK | Change::ATTRIB);
    dir.names_changed(cx, Change::CREATE, name, vp, 0);
    Ok(())
}

/// Takes the last name of a target away from a file that is no directory.
pub(crate) fn unlink(cx: &Curlwp<'_>, at: &Target<'_>) -> Result<(), Errno> {
    let name = at.name(Errno::EISDIR)?;
    let vfs = Vfs::of(cx)?;
    let dir = &at.dir;
    if at.vp.is_some() {
        return Err(Errno::EBUSY);
    }
    let _writing = access::writing(dir)?;
    let names = dir.dir.write(cx.cpu());
    let vp = lookup_locked(cx, vfs, dir, name)?.ok_or(Errno::ENOENT)?;
    access::may_remove(cx, &cx.cred(), dir, &vp)?;
    if vp.is_dir() {
        return Err(Errno::EISDIR);
    }
    if at.slash {
        return Err(Errno::ENOTDIR);
    }
    let links = vp.dir.write(cx.cpu());
    dir.ops().remove(cx, dir, name, &vp)?;
    drop(links);
    if !dir.in_memory() {
        vfs.names.put(cx, dir, name, None);
    }
    vp.name_gone(cx);
    dir.names_changed(cx, Change::DELETE, name, &vp, 0);
    drop(names);
    vp.free_if_unused(cx);
    Ok(())
}

/// Removes the directory that the last name of a target stands for.
pub(crate) fn rmdir(cx: &Curlwp<'_>, at: &Target<'_>) -> Result<(), Errno> {
    let name = at.name(match at.last {
        Last::Dot => Errno::EINVAL,
        Last::DotDot => Errno::ENOTEMPTY,
        _ => Errno::EBUSY,
    })?;
    let vfs = Vfs::of(cx)?;
    let dir = &at.dir;
    if at.vp.is_some() {
        return Err(Errno::EBUSY);
    }
    let _writing = access::writing(dir)?;
    let names = dir.dir.write(cx.cpu());
    let vp = lookup_locked(cx, vfs, dir, name)?.ok_or(Errno::ENOENT)?;
    access::may_remove(cx, &cx.cred(), dir, &vp)?;
    if !vp.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    {
        let _inner = vp.dir.write(cx.cpu());
        if vp.is_mount_point() {
            return Err(Errno::EBUSY);
        }
        dir.ops().rmdir(cx, dir, name, &vp)?;
        vp.set_removed();
    }
    if !dir.in_memory() {
        vfs.names.put(cx, dir, name, None);
    }
    vp.name_gone(cx);
    dir.names_changed(cx, Change::DELETE, name, &vp, 0);
    drop(names);
    vp.free_if_unused(cx);
    Ok(())
}

/// How renameat2(2) treats what has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onto {
    /// It goes.
    Replace,
    /// There may be nothing (`RENAME_NOREPLACE`).
    Nothing,
    /// It takes the old name (`RENAME_EXCHANGE`).
    Exchange,
}

/// Renames.
pub(crate) fn rename(
    cx: &Curlwp<'_>,
    from_at: &Target<'_>,
    to_at: &Target<'_>,
    onto: Onto,
) -> Result<(), Errno> {
    let from_name = from_at.name(Errno::EBUSY)?;
    let to_name = to_at.name(if onto == Onto::Nothing {
        Errno::EEXIST
    } else {
        Errno::EBUSY
    })?;
    let (from_dir, to_dir) = (&from_at.dir, &to_at.dir);
    if !from_dir.mount_weak().ptr_eq(to_dir.mount_weak()) {
        return Err(Errno::EXDEV);
    }
    if from_at.vp.is_some() || to_at.vp.is_some() {
        return Err(Errno::EBUSY);
    }
    let vfs = Vfs::of(cx)?;
    let writing = access::writing(from_dir)?;
    let one = Arc::ptr_eq(from_dir, to_dir);
    // Between directories: one rename at a time, so that what is above what stands still while it is looked at.
    let _renames = (!one).then(|| writing.mount().renames.lock(cx.cpu()));
    let to_is_above = !one && is_above(cx, to_dir, from_dir);
    let from_is_above = !one && is_above(cx, from_dir, to_dir);
    let locks = DirLocks::order(from_dir, to_dir, to_is_above, from_is_above);
    let _first = locks.0.write(cx.cpu());
    let _second = locks.1.map(|lock| lock.write(cx.cpu()));

    let from = lookup_locked(cx, vfs, from_dir, from_name)?.ok_or(Errno::ENOENT)?;
    let to = lookup_locked(cx, vfs, to_dir, to_name)?;
    match (&to, onto) {
        (Some(_), Onto::Nothing) => return Err(Errno::EEXIST),
        (None, Onto::Exchange) => return Err(Errno::ENOENT),
        _ => {}
    }
    // A directory goes neither into itself nor over one that it is in.
    if from.is_dir() && !one && (Arc::ptr_eq(&from, to_dir) || is_above(cx, &from, to_dir)) {
        return Err(Errno::EINVAL);
    }
    if let Some(to) = &to
        && to.is_dir()
        && !one
        && (Arc::ptr_eq(to, from_dir) || is_above(cx, to, from_dir))
    {
        return Err(if onto == Onto::Exchange {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        });
    }
    if from_at.slash && !from.is_dir() || to_at.slash && !from.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    may_rename(cx, &from, to.as_ref(), from_dir, to_dir, onto)?;
    if to.as_ref().is_some_and(|to| Arc::ptr_eq(to, &from)) {
        return Ok(());
    }
    let exchange = onto == Onto::Exchange;
    let victim = to.as_ref().filter(|_| !exchange);
    let _inner = victim.map(|to| to.dir.write(cx.cpu()));
    if from.is_mount_point() || to.as_ref().is_some_and(|to| to.is_mount_point()) {
        return Err(Errno::EBUSY);
    }
    let removed = victim.filter(|victim| victim.is_dir());
    if let Some(removed) = removed {
        require_empty(cx, removed)?;
    }
    let what = Rename {
        from_dir,
        from_name,
        from: &from,
        to_dir,
        to_name,
        to: to.as_ref(),
        exchange,
    };
    from_dir.ops().rename(cx, &what)?;
    if let Some(removed) = removed {
        removed.set_removed();
    }
    renamed(cx, vfs, &what);
    drop((_inner, _first, _second));
    if let Some(victim) = victim {
        victim.free_if_unused(cx);
    }
    Ok(())
}

/// Permissions of a rename, and that only like replaces like.
fn may_rename(
    cx: &Curlwp<'_>,
    from: &Arc<Vnode>,
    to: Option<&Arc<Vnode>>,
    from_dir: &Arc<Vnode>,
    to_dir: &Arc<Vnode>,
    onto: Onto,
) -> Result<(), Errno> {
    let cred = cx.cred();
    access::may_remove(cx, &cred, from_dir, from)?;
    match to {
        Some(to) => access::may_remove(cx, &cred, to_dir, to)?,
        None => access::check(cx, &cred, to_dir, Want::CHANGE)?,
    }
    // A directory that goes elsewhere has its `..` changed.
    let moves = |vp: &Arc<Vnode>| vp.is_dir() && !Arc::ptr_eq(from_dir, to_dir);
    if moves(from) {
        access::check(cx, &cred, from, Want::WRITE)?;
    }
    let Some(to) = to else { return Ok(()) };
    if onto == Onto::Exchange {
        return if moves(to) {
            access::check(cx, &cred, to, Want::WRITE)
        } else {
            Ok(())
        };
    }
    match (from.is_dir(), to.is_dir()) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

/// Tells the name cache and the directories that moved.
fn renamed(cx: &Curlwp<'_>, vfs: &Vfs, r: &Rename<'_>) {
    let back = r.to.filter(|_| r.exchange);
    if !r.from_dir.in_memory() {
        vfs.names.put(cx, r.from_dir, r.from_name, back);
        vfs.names.put(cx, r.to_dir, r.to_name, Some(r.from));
    }
    let has_place = |vp: &Vnode| vp.is_dir() || vp.is_noticed();
    if has_place(r.from) {
        r.from.set_parent(cx, r.to_dir, r.to_name);
    }
    if let Some(back) = back.filter(|vp| has_place(vp)) {
        back.set_parent(cx, r.from_dir, r.from_name);
    }
    tell_renamed(
        cx,
        vfs,
        r.from,
        (r.from_dir, r.from_name),
        (r.to_dir, r.to_name),
    );
    match (r.to, back) {
        (_, Some(back)) => tell_renamed(
            cx,
            vfs,
            back,
            (r.to_dir, r.to_name),
            (r.from_dir, r.from_name),
        ),
        (Some(victim), None) => victim.name_gone(cx),
        (None, None) => {}
    }
}

/// Tells those who watch that something has another name now.
fn tell_renamed(
    cx: &Curlwp<'_>,
    vfs: &Vfs,
    vp: &Arc<Vnode>,
    from: (&Arc<Vnode>, &[u8]),
    to: (&Arc<Vnode>, &[u8]),
) {
    if from.0.is_watched() || to.0.is_watched() {
        let cookie = vfs.rename_cookie();
        from.0
            .names_changed(cx, Change::MOVED_FROM, from.1, vp, cookie);
        to.0.names_changed(cx, Change::MOVED_TO, to.1, vp, cookie);
        vp.found_in(cx, to.0, to.1);
    }
    vp.changed(cx, Change::MOVE_SELF);
}

/// Whether `above` is somewhere above `vp`, in the same mount.
fn is_above(cx: &Curlwp<'_>, above: &Arc<Vnode>, vp: &Arc<Vnode>) -> bool {
    let mut at = vp.parent(cx);
    while let Some(dir) = at {
        if Arc::ptr_eq(&dir, above) {
            return true;
        }
        at = dir.parent(cx);
    }
    false
}

/// `ENOTEMPTY` when there is more in a directory than `.` and `..`.
fn require_empty(cx: &Curlwp<'_>, dir: &Arc<Vnode>) -> Result<(), Errno> {
    let mut empty = true;
    dir.ops().readdir(cx, dir, 0, &mut |entry| {
        empty = matches!(entry.name, b"." | b"..");
        empty
    })?;
    if empty { Ok(()) } else { Err(Errno::ENOTEMPTY) }
}

/// The locks of two directories in their order.
struct DirLocks;

impl DirLocks {
    /// An ancestor's first; of two that are not above each other, whose rename nobody else can see, by number.
    fn order<'a>(
        a: &'a Arc<Vnode>,
        b: &'a Arc<Vnode>,
        b_above: bool,
        a_above: bool,
    ) -> (&'a RwLock<()>, Option<&'a RwLock<()>>) {
        if Arc::ptr_eq(a, b) {
            return (&a.dir, None);
        }
        let a_first = a_above || !b_above && a.ino < b.ino;
        if a_first {
            (&a.dir, Some(&b.dir))
        } else {
            (&b.dir, Some(&a.dir))
        }
    }
}

//! namei: from path names to vnodes.
//!
//! A [`Walk`] goes from directory to directory; what it finds at the end is a [`Target`]. Nothing is allocated on the
//! way except to follow a symbolic link, and no lock is shared by the whole mount.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use abi::{AT_FDCWD, Errno};
use kern::{Cred, Curlwp};

use crate::access::{self, Want};
use crate::cwd::Cwd;
use crate::file::VnodeFile;
use crate::namecache::Cached;
use crate::{Vfs, Vnode, VnodeKind};

/// Symbolic links followed in one walk, path_resolution(7).
const MAX_LINKS: u32 = 40;
/// The most bytes of one name.
pub(crate) const NAME_MAX: usize = 255;

/// Limits on a walk, openat2(2).
pub(crate) mod resolve {
    pub(crate) const NO_XDEV: u64 = 0x01;
    pub(crate) const NO_MAGICLINKS: u64 = 0x02;
    pub(crate) const NO_SYMLINKS: u64 = 0x04;
    pub(crate) const BENEATH: u64 = 0x08;
    pub(crate) const IN_ROOT: u64 = 0x10;
    pub(crate) const CACHED: u64 = 0x20;
}

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// To the file; a symbolic link at the end is followed.
    Follow,
    /// To the file, which may be a symbolic link.
    NoFollow,
    /// To the directory in which the last name stands or is to stand.
    Parent,
}

/// What the last component of a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// A name, here in the path.
    Name(Range<usize>),
    Dot,
    DotDot,
    /// There is none: the path is `/`.
    Root,
}

/// Where a walk has come to.
pub(crate) struct Target<'p> {
    /// The directory of the last name (for `.`, `..` and `/`, the directory itself).
    pub(crate) dir: Arc<Vnode>,
    /// What the name stands for, mounts crossed; `None` when there is nothing, or only the parent was asked for.
    pub(crate) vp: Option<Arc<Vnode>>,
    pub(crate) last: Last,
    /// A slash behind the last name: it is meant to be a directory.
    pub(crate) slash: bool,
    path: Cow<'p, [u8]>,
}

impl Target<'_> {
    /// The last name; `otherwise` when the path ends in `.`, `..` or is `/`.
    pub(crate) fn name(&self, otherwise: Errno) -> Result<&[u8], Errno> {
        match &self.last {
            Last::Name(range) => Ok(&self.path[range.clone()]),
            _ => Err(otherwise),
        }
    }
}

/// The vnode of a path. `dirfd` is where a relative one starts.
#[inline]
pub(crate) fn namei(
    cx: &Curlwp<'_>,
    dirfd: i32,
    path: &[u8],
    follow: bool,
) -> Result<Arc<Vnode>, Errno> {
    let goal = if follow { Goal::Follow } else { Goal::NoFollow };
    let cred = cx.cred();
    Walk::new(cx, &cred, dirfd, path, 0)?
        .to(goal)?
        .vp
        .ok_or(Errno::ENOENT)
}

/// The vnode of a path, or with an empty path and `AT_EMPTY_PATH` in `flags` that of the descriptor itself;
/// `AT_SYMLINK_NOFOLLOW` in `flags` does not follow a link at the end.
#[inline]
pub(crate) fn namei_at(
    cx: &Curlwp<'_>,
    dirfd: i32,
    path: &[u8],
    flags: i32,
) -> Result<Arc<Vnode>, Errno> {
    if path.is_empty() && flags & abi::AT_EMPTY_PATH != 0 {
        if dirfd == AT_FDCWD {
            return Ok(Cwd::of(cx)?.cwd());
        }
        return cx.proc().fds().with(dirfd, |of| {
            of.downcast::<VnodeFile>()
                .map(|f| f.vnode().clone())
                .ok_or(Errno::EINVAL)
        });
    }
    namei(cx, dirfd, path, flags & abi::AT_SYMLINK_NOFOLLOW == 0)
}

/// The directory in which the last name of a path stands or is to stand.
pub(crate) fn parent<'p>(cx: &Curlwp<'_>, dirfd: i32, path: &'p [u8]) -> Result<Target<'p>, Errno> {
    let cred = cx.cred();
    Walk::new(cx, &cred, dirfd, path, 0)?.to(Goal::Parent)
}

/// What a name in a directory stands for, mounts not crossed.
#[inline]
pub(crate) fn lookup(
    cx: &Curlwp<'_>,
    vfs: &Vfs,
    dir: &Arc<Vnode>,
    name: &[u8],
) -> Result<Option<Arc<Vnode>>, Errno> {
    if !dir.in_memory() {
        match vfs.names.get(cx, dir, name) {
            Cached::Found(vp) => {
                vp.found_in(cx, dir, name);
                return Ok(Some(vp));
            }
            Cached::Missing => return Ok(None),
            Cached::Unknown => {}
        }
    }
    let _names = dir.dir.read(cx.cpu());
    ask_driver(cx, vfs, dir, name)
}

/// The same, by who holds the directory's lock. `ENOENT` when the directory has been removed.
pub(crate) fn lookup_locked(
    cx: &Curlwp<'_>,
    vfs: &Vfs,
    dir: &Arc<Vnode>,
    name: &[u8],
) -> Result<Option<Arc<Vnode>>, Errno> {
    if !dir.in_memory() {
        match vfs.names.get(cx, dir, name) {
            Cached::Found(vp) => return Ok(Some(vp)),
            Cached::Missing if !dir.is_removed() => return Ok(None),
            _ => {}
        }
    }
    ask_driver(cx, vfs, dir, name)
}

fn ask_driver(
    cx: &Curlwp<'_>,
    vfs: &Vfs,
    dir: &Arc<Vnode>,
    name: &[u8],
) -> Result<Option<Arc<Vnode>>, Errno> {
    if dir.is_removed() {
        return Err(Errno::ENOENT);
    }
    let found = dir.ops().lookup(cx, dir, name)?;
    if let Some(vp) = &found {
        vp.learn_parent(cx, dir, name);
        vp.found_in(cx, dir, name);
    }
    if !dir.in_memory() {
        vfs.names.put(cx, dir, name, found.as_ref());
    }
    Ok(found)
}

/// The directory above, over the roots of mounts; the root of everything is above itself.
pub(crate) fn above(cx: &Curlwp<'_>, vp: &Arc<Vnode>) -> Result<Arc<Vnode>, Errno> {
    let mut at = vp.clone();
    while at.is_mount_root() {
        match at.mount().and_then(|m| m.covered.load_full()) {
            Some(covered) => at = covered,
            None => return Ok(at),
        }
    }
    at.parent(cx).ok_or(Errno::ENOENT)
}

/// What is seen at a directory: the root of what is mounted on it, if anything is.
#[inline]
pub(crate) fn over_mounts(mut vp: Arc<Vnode>) -> Result<Arc<Vnode>, Errno> {
    while vp.is_mount_point() {
        let Some(root) = vp.mounted().map(|mount| mount.root().cloned()) else {
            break;
        };
        vp = root?;
    }
    Ok(vp)
}

/// A walk along a path.
pub(crate) struct Walk<'c, 'p> {
    cx: &'c Curlwp<'c>,
    vfs: &'c Vfs,
    /// Who asks.
    cred: &'c Cred,
    /// Where the walk is.
    at: Arc<Vnode>,
    place: &'c Cwd,
    /// What `/` stands for and `..` does not leave, when it is not the process's root.
    scope: Option<Arc<Vnode>>,
    path: Cow<'p, [u8]>,
    pos: usize,
    links: u32,
    limits: u64,
}

impl<'c, 'p> Walk<'c, 'p> {
    /// At the start of a path, with limits of [`resolve`]. `ENOENT` for an empty path.
    // A walk that is not inlined is copied three times on its way, which costs as much as a lookup.
    #[inline(always)]
    pub(crate) fn new(
        cx: &'c Curlwp<'_>,
        cred: &'c Cred,
        dirfd: i32,
        path: &'p [u8],
        limits: u64,
    ) -> Result<Walk<'c, 'p>, Errno> {
        let place = Cwd::of(cx)?;
        let absolute = *path.first().ok_or(Errno::ENOENT)? == b'/';
        let scoped = limits & (resolve::BENEATH | resolve::IN_ROOT) != 0;
        let at = match absolute && !scoped {
            true => place.root(),
            false => start(cx, place, dirfd)?,
        };
        let walk = Walk {
            cx,
            vfs: Vfs::of(cx)?,
            cred,
            scope: scoped.then(|| at.clone()),
            at,
            place,
            path: Cow::Borrowed(path),
            pos: 0,
            links: 0,
            limits,
        };
        if absolute && limits & resolve::BENEATH != 0 {
            return Err(Errno::EXDEV);
        }
        Ok(walk)
    }

    /// Goes to the end.
    #[inline(always)]
    pub(crate) fn to(mut self, goal: Goal) -> Result<Target<'p>, Errno> {
        loop {
            let start = self.pos + slashes(&self.path[self.pos..]);
            let rest = &self.path[start..];
            if rest.is_empty() {
                return Ok(self.end(None, Last::Root, true));
            }
            let len = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
            if !self.at.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            access::check(self.cx, self.cred, &self.at, Want::EXEC)?;
            let mut name = start..start + len;
            let mut known = None;
            if self.vfs.etfs.may_have(&rest[..len])
                && Arc::ptr_eq(&self.at, self.vfs.root())
                && let Some((vp, taken)) = self.vfs.etfs.find(self.cx, rest)?
            {
                name.end = start + taken;
                known = Some(vp);
            }
            self.pos = name.end + slashes(&self.path[name.end..]);
            let last = self.pos == self.path.len();
            let slash = last && self.pos > name.end;
            match &self.path[name.clone()] {
                b"." => {
                    if last {
                        return Ok(self.end(None, Last::Dot, true));
                    }
                }
                b".." => {
                    self.up()?;
                    if last {
                        return Ok(self.end(None, Last::DotDot, true));
                    }
                }
                component => {
                    if known.is_none() && component.len() > NAME_MAX {
                        return Err(Errno::ENAMETOOLONG);
                    }
                    if last && goal == Goal::Parent {
                        return Ok(Target {
                            dir: self.at,
                            vp: known,
                            last: Last::Name(name),
                            slash,
                            path: self.path,
                        });
                    }
                    let found = match known {
                        Some(vp) => Some(vp),
                        None => lookup(self.cx, self.vfs, &self.at, component)?,
                    };
                    let Some(vp) = found else {
                        if !last {
                            return Err(Errno::ENOENT);
                        }
                        return Ok(Target {
                            dir: self.at,
                            vp: None,
                            last: Last::Name(name),
                            slash,
                            path: self.path,
                        });
                    };
                    if vp.kind == VnodeKind::Symlink && (!last || slash || goal == Goal::Follow) {
                        self.follow(&vp)?;
                        continue;
                    }
                    let vp = self.enter(vp)?;
                    if last {
                        if slash && !vp.is_dir() {
                            return Err(Errno::ENOTDIR);
                        }
                        return Ok(Target {
                            dir: self.at,
                            vp: Some(vp),
                            last: Last::Name(name),
                            slash,
                            path: self.path,
                        });
                    }
                    self.at = vp;
                }
            }
        }
    }

    /// A path that ends in `.`, `..` or a slash from a link: where the walk is.
    fn end(self, vp: Option<Arc<Vnode>>, last: Last, slash: bool) -> Target<'p> {
        let vp = vp.unwrap_or_else(|| self.at.clone());
        Target {
            dir: self.at,
            vp: Some(vp),
            last,
            slash,
            path: self.path,
        }
    }

    /// Crosses into what is mounted on `vp`.
    #[inline]
    fn enter(&self, vp: Arc<Vnode>) -> Result<Arc<Vnode>, Errno> {
        if !vp.is_mount_point() {
            return Ok(vp);
        }
        if self.limits & resolve::NO_XDEV != 0 {
            return Err(Errno::EXDEV);
        }
        over_mounts(vp)
    }

    /// `..`
    fn up(&mut self) -> Result<(), Errno> {
        let at_root = match &self.scope {
            Some(scope) => Arc::ptr_eq(&self.at, scope),
            None => self.place.is_root(&self.at),
        };
        if at_root {
            return if self.limits & resolve::BENEATH != 0 {
                Err(Errno::EXDEV)
            } else {
                Ok(())
            };
        }
        let to = above(self.cx, &self.at)?;
        if self.limits & resolve::NO_XDEV != 0 && !to.mount_weak().ptr_eq(self.at.mount_weak()) {
            return Err(Errno::EXDEV);
        }
        // The directory above may be covered, when a mount was put over the one that a process stands in.
        self.at = to;
        Ok(())
    }

    /// Goes on along the target of a symbolic link, then along the rest of the path.
    fn follow(&mut self, link: &Arc<Vnode>) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS || self.limits & resolve::NO_SYMLINKS != 0 {
            return Err(Errno::ELOOP);
        }
        let target = link.with_use(self.cx, || link.ops().readlink(self.cx, link))?;
        let rest = &self.path[self.pos..];
        if target.is_empty() {
            return Err(Errno::ENOENT);
        }
        // Slashes behind the last name count as a component: what the link points to must be a directory.
        let slash = self.path.get(self.pos.wrapping_sub(1)) == Some(&b'/');
        let mut path = Vec::with_capacity(target.len() + rest.len() + 1);
        path.extend_from_slice(&target);
        if slash {
            path.push(b'/');
        }
        path.extend_from_slice(rest);
        if path.len() >= kern::curlwp::PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if target[0] == b'/' {
            if self.limits & resolve::BENEATH != 0 {
                return Err(Errno::EXDEV);
            }
            let root = self.scope.clone().unwrap_or_else(|| self.place.root());
            if self.limits & resolve::NO_XDEV != 0
                && !root.mount_weak().ptr_eq(self.at.mount_weak())
            {
                return Err(Errno::EXDEV);
            }
            self.at = root;
        }
        self.path = Cow::Owned(path);
        self.pos = 0;
        Ok(())
    }
}

/// Where a relative path starts.
#[inline]
fn start(cx: &Curlwp<'_>, place: &Cwd, dirfd: i32) -> Result<Arc<Vnode>, Errno> {
    if dirfd == AT_FDCWD {
        return Ok(place.cwd());
    }
    cx.proc().fds().with(dirfd, |of| {
        let file = of.downcast::<VnodeFile>().ok_or(Errno::ENOTDIR)?;
        if !file.vnode().is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(file.vnode().clone())
    })
}

fn slashes(path: &[u8]) -> usize {
    path.iter().position(|&b| b != b'/').unwrap_or(path.len())
}

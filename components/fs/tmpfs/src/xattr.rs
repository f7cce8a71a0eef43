//! Extended attributes, xattr(7).

use std::collections::BTreeMap;

use abi::Errno;
use kern::Curlwp;
use sync::Mutex;
use vfs::{Vnode, VnodeKind};

/// The longest name and value, and what the attributes of one file may take together.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 64 << 10;
const TOTAL_MAX: usize = 128 << 10;

/// The attributes of a file, none of which is the usual case. The lock is a leaf.
#[derive(Default)]
pub(crate) struct Xattrs(Mutex<Option<Box<ByName>>>);

type ByName = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Whether the caller may use an attribute of this name on this file; the vfs has looked at the file's permissions.
fn check(cx: &Curlwp<'_>, vp: &Vnode, name: &[u8], absent: Errno) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    let is = |space: &[u8]| name.len() > space.len() && name.starts_with(space);
    if is(b"user.") {
        return match vp.kind {
            VnodeKind::Regular | VnodeKind::Directory => Ok(()),
            _ => Err(absent),
        };
    }
    if is(b"trusted.") {
        return if cx.cred().is_superuser() {
            Ok(())
        } else {
            Err(absent)
        };
    }
    if is(b"security.") {
        return Ok(());
    }
    Err(Errno::EOPNOTSUPP)
}

impl Xattrs {
    pub(crate) fn get(&self, cx: &Curlwp<'_>, vp: &Vnode, name: &[u8]) -> Result<Vec<u8>, Errno> {
        check(cx, vp, name, Errno::ENODATA)?;
        let all = self.0.lock(cx.cpu());
        let value = all.as_ref().and_then(|all| all.get(name));
        value.map(|value| value.to_vec()).ok_or(Errno::ENODATA)
    }

    pub(crate) fn set(
        &self,
        cx: &Curlwp<'_>,
        vp: &Vnode,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), Errno> {
        check(cx, vp, name, Errno::EPERM)?;
        if value.len() > VALUE_MAX {
            return Err(Errno::E2BIG);
        }
        let mut all = self.0.lock(cx.cpu());
        let all = all.get_or_insert_default();
        match all.contains_key(name) {
            true if create => return Err(Errno::EEXIST),
            false if replace => return Err(Errno::ENODATA),
            _ => {}
        }
        let others = all.iter().filter(|(n, _)| ***n != *name);
        let taken: usize = others.map(|(n, v)| n.len() + v.len()).sum();
        if taken + name.len() + value.len() > TOTAL_MAX {
            return Err(Errno::ENOSPC);
        }
        all.insert(name.into(), value.into());
        Ok(())
    }

    pub(crate) fn remove(&self, cx: &Curlwp<'_>, vp: &Vnode, name: &[u8]) -> Result<(), Errno> {
        check(cx, vp, name, Errno::EPERM)?;
        let mut all = self.0.lock(cx.cpu());
        let removed = all.as_mut().and_then(|all| all.remove(name));
        removed.map(drop).ok_or(Errno::ENODATA)
    }

    /// The names the caller may see, each ended by a NUL.
    pub(crate) fn list(&self, cx: &Curlwp<'_>) -> Vec<u8> {
        let superuser = cx.cred().is_superuser();
        let all = self.0.lock(cx.cpu());
        let mut out = Vec::new();
        for name in all.iter().flat_map(|all| all.keys()) {
            if superuser || !name.starts_with(b"trusted.") {
                out.extend_from_slice(name);
                out.push(0);
            }
        }
        out
    }
}

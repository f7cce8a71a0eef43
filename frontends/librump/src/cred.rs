//! rump_pub_cred_*: credentials that a caller makes for the calls below.

use std::sync::Arc;

use kern::{Cred, Curlwp, Errno};

/// C's `kauth_cred_t` points to one.
pub struct CCred(Arc<Cred>);

/// The most groups that credentials have.
const NGROUPS_MAX: usize = 65536;

/// Credentials with all user ids `uid`, all group ids `gid`, and `ngroups` supplementary groups. Null when there are more groups than
/// there can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_cred_create(
    uid: libc::uid_t,
    gid: libc::gid_t,
    ngroups: usize,
    groups: *const libc::gid_t,
) -> *mut CCred {
    if ngroups > NGROUPS_MAX {
        return std::ptr::null_mut();
    }
    let groups = match ngroups {
        0 => &[][..],
        // SAFETY: C gives an array of as many groups.
        n => unsafe { std::slice::from_raw_parts(groups, n) },
    };
    Box::into_raw(Box::new(CCred(Arc::new(Cred::user(uid, gid, groups)))))
}

/// Gives credentials back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_cred_put(cred: *mut CCred) {
    if !cred.is_null() {
        // SAFETY: made by rump_pub_cred_create and given back once.
        drop(unsafe { Box::from_raw(cred) });
    }
}

/// The credentials behind a `kauth_cred_t`; `None` for NULL, `NOCRED` and `FSCRED`, which mean the thread's own.
///
/// # Safety
/// The pointer is one of these or was made by rump_pub_cred_create and not given back.
pub(crate) unsafe fn given(cred: *const CCred) -> Option<Arc<Cred>> {
    const FSCRED: usize = usize::MAX - 1;
    match cred.addr() {
        0 | FSCRED.. => None,
        // SAFETY: the caller's condition.
        _ => Some(unsafe { &*cred }.0.clone()),
    }
}

/// Runs an operation with credentials, or with the thread's own.
pub(crate) fn acting(
    cx: &Curlwp<'_>,
    cred: Option<Arc<Cred>>,
    f: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match cred {
        Some(cred) => cx.with_cred(cred, f),
        None => f(),
    }
}

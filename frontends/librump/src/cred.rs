//! rump_pub_cred_*: credentials that a caller makes for the calls below.

use kern::Cred;

/// C's `kauth_cred_t` points to one.
pub struct CCred(#[allow(dead_code)] Cred);

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
    Box::into_raw(Box::new(CCred(Cred::user(uid, gid, groups))))
}

/// Gives credentials back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_cred_put(cred: *mut CCred) {
    if !cred.is_null() {
        // SAFETY: made by rump_pub_cred_create and given back once.
        drop(unsafe { Box::from_raw(cred) });
    }
}

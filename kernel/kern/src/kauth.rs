//! Credentials, and the questions asked of them.

use smallvec::SmallVec;

/// The user and group identities that a process acts with, credentials(7). Immutable: a change makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields carry their POSIX names
pub struct Cred {
    pub ruid: u32,
    pub euid: u32,
    pub suid: u32,
    pub rgid: u32,
    pub egid: u32,
    pub sgid: u32,
    /// Supplementary groups.
    pub groups: SmallVec<[u32; 4]>,
}

impl Cred {
    /// The superuser's credentials, as the first process has them.
    pub fn root() -> Cred {
        Cred::user(0, 0, &[])
    }

    /// Credentials with all three user ids and all three group ids the same.
    pub fn user(uid: u32, gid: u32, groups: &[u32]) -> Cred {
        Cred {
            ruid: uid,
            euid: uid,
            suid: uid,
            rgid: gid,
            egid: gid,
            sgid: gid,
            groups: groups.into(),
        }
    }

    /// Whether this is the superuser: the one who passes every permission check.
    pub fn is_superuser(&self) -> bool {
        self.euid == 0
    }

    /// Whether the group is the effective or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.egid == gid || self.groups.contains(&gid)
    }
}

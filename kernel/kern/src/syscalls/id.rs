//! Who a process is: its numbers and its credentials, credentials(7). The superuser may become anybody; others move
//! only between the identities they have.

use abi::{Errno, SysResult, UserAddr, args};

use crate::{Cred, Curlwp};

/// An id argument that says "leave it".
const KEEP: u32 = u32::MAX;
const NGROUPS_MAX: usize = 65536;

/// getpid(2).
pub(super) fn getpid(cx: &Curlwp<'_>, _: args::getpid) -> SysResult {
    Ok(i64::from(cx.proc().shown_pid()))
}

/// getppid(2).
pub(super) fn getppid(cx: &Curlwp<'_>, _: args::getppid) -> SysResult {
    Ok(i64::from(cx.proc().ppid()))
}

/// getuid(2).
pub(super) fn getuid(cx: &Curlwp<'_>, _: args::getuid) -> SysResult {
    Ok(i64::from(cx.cred().ruid))
}

/// geteuid(2).
pub(super) fn geteuid(cx: &Curlwp<'_>, _: args::geteuid) -> SysResult {
    Ok(i64::from(cx.cred().euid))
}

/// getgid(2).
pub(super) fn getgid(cx: &Curlwp<'_>, _: args::getgid) -> SysResult {
    Ok(i64::from(cx.cred().rgid))
}

/// getegid(2).
pub(super) fn getegid(cx: &Curlwp<'_>, _: args::getegid) -> SysResult {
    Ok(i64::from(cx.cred().egid))
}

/// getresuid(2).
pub(super) fn getresuid(cx: &Curlwp<'_>, a: args::getresuid) -> SysResult {
    let c = cx.cred();
    copyout_ids(cx, [(c.ruid, a.ruid), (c.euid, a.euid), (c.suid, a.suid)])
}

/// getresgid(2).
pub(super) fn getresgid(cx: &Curlwp<'_>, a: args::getresgid) -> SysResult {
    let c = cx.cred();
    copyout_ids(cx, [(c.rgid, a.rgid), (c.egid, a.egid), (c.sgid, a.sgid)])
}

fn copyout_ids(cx: &Curlwp<'_>, ids: [(u32, UserAddr); 3]) -> SysResult {
    for (id, to) in ids {
        cx.copyout(&id.to_le_bytes(), to)?;
    }
    Ok(0)
}

/// setuid(2).
pub(super) fn setuid(cx: &Curlwp<'_>, a: args::setuid) -> SysResult {
    if a.uid == KEEP {
        return Err(Errno::EINVAL);
    }
    change(cx, |old, new| {
        if old.is_superuser() {
            (new.ruid, new.suid) = (a.uid, a.uid);
        }
        allow(old, a.uid, &[old.ruid, old.suid])?;
        new.euid = a.uid;
        Ok(())
    })
}

/// setgid(2).
pub(super) fn setgid(cx: &Curlwp<'_>, a: args::setgid) -> SysResult {
    if a.gid == KEEP {
        return Err(Errno::EINVAL);
    }
    change(cx, |old, new| {
        if old.is_superuser() {
            (new.rgid, new.sgid) = (a.gid, a.gid);
        }
        allow(old, a.gid, &[old.rgid, old.sgid])?;
        new.egid = a.gid;
        Ok(())
    })
}

/// setreuid(2).
pub(super) fn setreuid(cx: &Curlwp<'_>, a: args::setreuid) -> SysResult {
    change(cx, |old, new| {
        if a.ruid != KEEP {
            allow(old, a.ruid, &[old.ruid, old.euid])?;
            new.ruid = a.ruid;
        }
        if a.euid != KEEP {
            allow(old, a.euid, &[old.ruid, old.euid, old.suid])?;
            new.euid = a.euid;
        }
        if a.ruid != KEEP || (a.euid != KEEP && a.euid != old.ruid) {
            new.suid = new.euid;
        }
        Ok(())
    })
}

/// setregid(2).
pub(super) fn setregid(cx: &Curlwp<'_>, a: args::setregid) -> SysResult {
    change(cx, |old, new| {
        if a.rgid != KEEP {
            allow(old, a.rgid, &[old.rgid, old.egid])?;
            new.rgid = a.rgid;
        }
        if a.egid != KEEP {
            allow(old, a.egid, &[old.rgid, old.egid, old.sgid])?;
            new.egid = a.egid;
        }
        if a.rgid != KEEP || (a.egid != KEEP && a.egid != old.rgid) {
            new.sgid = new.egid;
        }
        Ok(())
    })
}

/// setresuid(2).
pub(super) fn setresuid(cx: &Curlwp<'_>, a: args::setresuid) -> SysResult {
    change(cx, |old, new| {
        let slots = [&mut new.ruid, &mut new.euid, &mut new.suid];
        set_each(
            old,
            slots,
            [a.ruid, a.euid, a.suid],
            [old.ruid, old.euid, old.suid],
        )
    })
}

/// setresgid(2).
pub(super) fn setresgid(cx: &Curlwp<'_>, a: args::setresgid) -> SysResult {
    change(cx, |old, new| {
        let slots = [&mut new.rgid, &mut new.egid, &mut new.sgid];
        set_each(
            old,
            slots,
            [a.rgid, a.egid, a.sgid],
            [old.rgid, old.egid, old.sgid],
        )
    })
}

fn set_each(old: &Cred, slots: [&mut u32; 3], ids: [u32; 3], held: [u32; 3]) -> Result<(), Errno> {
    for (slot, id) in slots.into_iter().zip(ids) {
        if id != KEEP {
            allow(old, id, &held)?;
            *slot = id;
        }
    }
    Ok(())
}

/// getgroups(2).
pub(super) fn getgroups(cx: &Curlwp<'_>, a: args::getgroups) -> SysResult {
    let cred = cx.cred();
    let size = usize::try_from(a.size).map_err(|_| Errno::EINVAL)?;
    if size != 0 {
        if size < cred.groups.len() {
            return Err(Errno::EINVAL);
        }
        let raw: Vec<u8> = cred.groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        cx.copyout(&raw, a.list)?;
    }
    Ok(cred.groups.len() as i64)
}

/// setgroups(2): the superuser's.
pub(super) fn setgroups(cx: &Curlwp<'_>, a: args::setgroups) -> SysResult {
    if a.size > NGROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; a.size * 4];
    cx.copyin(a.list, &mut raw)?;
    let groups: Vec<u32> = raw
        .as_chunks()
        .0
        .iter()
        .map(|g| u32::from_le_bytes(*g))
        .collect();
    change(cx, |old, new| {
        if !old.is_superuser() {
            return Err(Errno::EPERM);
        }
        new.groups = groups.as_slice().into();
        Ok(())
    })
}

/// Changes the process's credentials by what `how` says, which sees the old ones and a copy to change.
fn change(cx: &Curlwp<'_>, how: impl Fn(&Cred, &mut Cred) -> Result<(), Errno>) -> SysResult {
    cx.proc().change_cred(|old| {
        let mut new = old.clone();
        how(old, &mut new)?;
        Ok(new)
    })?;
    Ok(0)
}

/// The superuser may take any id, others one of those they have.
fn allow(old: &Cred, id: u32, held: &[u32]) -> Result<(), Errno> {
    if old.is_superuser() || held.contains(&id) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

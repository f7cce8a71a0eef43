//! The kernel's own calls for etfs.

use abi::{Errno, SysResult, args};
use kern::Curlwp;

use crate::{EtfsNode, EtfsType, Vfs};

/// etfs_register: makes a host file appear under a key. `type_` is one of `ETFS_*`, perhaps with `ETFS_RDONLY`; `size` is
/// `ETFS_SIZE_ENDOFF` for up to the end of the file. For the superuser.
pub(super) fn etfs_register(cx: &Curlwp<'_>, a: args::etfs_register) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let kind = match a.type_ & !abi::ETFS_RDONLY {
        abi::ETFS_REG => EtfsType::Regular,
        abi::ETFS_BLK => EtfsType::Block,
        abi::ETFS_CHR => EtfsType::Character,
        abi::ETFS_DIR => EtfsType::Dir,
        abi::ETFS_DIR_SUBDIRS => EtfsType::DirSubdirs,
        _ => return Err(Errno::EINVAL),
    };
    let size = match a.size {
        abi::ETFS_SIZE_ENDOFF => None,
        size => Some(u64::try_from(size).map_err(|_| Errno::EINVAL)?),
    };
    let node = EtfsNode {
        key: cx.copyin_path(a.key)?.to_vec(),
        host_path: cx.copyin_path(a.hostpath)?.to_vec(),
        kind,
        begin: u64::try_from(a.begin).map_err(|_| Errno::EINVAL)?,
        size,
        read_only: a.type_ & abi::ETFS_RDONLY != 0,
    };
    Vfs::of(cx)?.etfs_register(cx, &node)?;
    Ok(0)
}

/// etfs_remove: takes a key away. For the superuser.
pub(super) fn etfs_remove(cx: &Curlwp<'_>, a: args::etfs_remove) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    Vfs::of(cx)?.etfs_remove(cx, &cx.copyin_path(a.key)?)?;
    Ok(0)
}

//! Making interfaces and taking them away.

use abi::{Errno, SysResult, UserAddr, args};
use kern::Curlwp;

use crate::{LinkType, Net, Params};

/// Text that the caller gave.
fn text(cx: &Curlwp<'_>, at: UserAddr) -> Result<String, Errno> {
    let bytes = cx.copyin_path(at)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Errno::EINVAL)
}

/// ifcreate: makes the interface of a name ("tap0"; "tap" takes the first free number) with parameters ("dev=tap7,mtu=9000");
/// answers its index. Why there is none is said in the message buffer.
pub(super) fn ifcreate(cx: &Curlwp<'_>, a: args::ifcreate) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let (name, params) = (text(cx, a.name)?, text(cx, a.params)?);
    let interfaces = Net::of(cx)?.interfaces();
    let made = Params::parse(&params).and_then(|p| interfaces.create_named(cx, &name, &p));
    match made {
        Ok(interface) => Ok(interface.index().into()),
        Err(error) => {
            cx.kernel().log(format_args!("{name}: {error}"));
            Err(error.errno)
        }
    }
}

/// ifdestroy: brings an interface down and takes it away.
pub(super) fn ifdestroy(cx: &Curlwp<'_>, a: args::ifdestroy) -> SysResult {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let name = text(cx, a.name)?;
    let interfaces = Net::of(cx)?.interfaces();
    let interface = interfaces.by_name(cx.cpu(), &name).ok_or(Errno::ENXIO)?;
    if interface.link() == LinkType::Loopback {
        return Err(Errno::EOPNOTSUPP);
    }
    interfaces.detach(cx, &interface)?;
    Ok(0)
}

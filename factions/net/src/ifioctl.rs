//! The ioctls on interfaces that any socket takes, netdevice(7): names, flags, MTU, link-layer addresses. What concerns
//! addresses of a network layer is that layer's.

use std::sync::Arc;

use abi::{Errno, SysResult, UserAddr};
use kern::Curlwp;

use crate::consts::*;
use crate::{EtherAddr, Ifnet, Interfaces, Net};

/// `struct ifreq`: a name, and what the call is about.
const IFREQ: usize = 40;
/// Where the name ends.
const NAME: usize = 16;
/// What Linux says of a device that has no queue of its own to set.
const TXQLEN: i32 = 1000;

/// Flags that a caller may change, besides `IFF_UP`.
const SETTABLE: u32 = IFF_PROMISC | IFF_ALLMULTI | IFF_NOARP;

/// `None` when it is none of these.
pub(crate) fn ioctl(cx: &Curlwp<'_>, cmd: u32, arg: UserAddr) -> Option<SysResult> {
    let run: fn(&Curlwp<'_>, &Interfaces, u32, &mut [u8; IFREQ]) -> Result<(), Errno> = match cmd {
        SIOCGIFNAME => name_of,
        SIOCGIFFLAGS | SIOCGIFMETRIC | SIOCGIFMTU | SIOCGIFHWADDR | SIOCGIFINDEX
        | SIOCGIFTXQLEN | SIOCGIFMAP => get,
        SIOCSIFFLAGS | SIOCSIFMTU | SIOCSIFNAME | SIOCSIFHWADDR => set,
        SIOCETHTOOL => return Some(Err(Errno::EOPNOTSUPP)),
        _ => return None,
    };
    let with_request = || {
        let net = Net::of(cx)?;
        let mut request = [0; IFREQ];
        cx.copyin(arg, &mut request)?;
        run(cx, net.interfaces(), cmd, &mut request)?;
        cx.copyout(&request, arg)?;
        Ok(0)
    };
    Some(with_request())
}

/// The interface that a request names; `ENODEV` when there is none.
pub fn named(cx: &Curlwp<'_>, all: &Interfaces, request: &[u8]) -> Result<Arc<Ifnet>, Errno> {
    let name = text(request.get(..NAME).ok_or(Errno::EINVAL)?)?;
    // A label behind a colon names an address of the interface, not another one.
    let name = name.split(':').next().unwrap_or_default();
    all.by_name(cx.cpu(), name).ok_or(Errno::ENODEV)
}

fn text(bytes: &[u8]) -> Result<&str, Errno> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).map_err(|_| Errno::EINVAL)
}

fn int(request: &[u8; IFREQ]) -> i32 {
    i32::from_le_bytes([request[16], request[17], request[18], request[19]])
}

fn name_of(
    cx: &Curlwp<'_>,
    all: &Interfaces,
    _: u32,
    request: &mut [u8; IFREQ],
) -> Result<(), Errno> {
    let interface = all.by_index(int(request) as u32).ok_or(Errno::ENODEV)?;
    let name = interface.name(cx.cpu());
    request[..NAME].fill(0);
    request[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn get(
    cx: &Curlwp<'_>,
    all: &Interfaces,
    cmd: u32,
    request: &mut [u8; IFREQ],
) -> Result<(), Errno> {
    let interface = named(cx, all, request)?;
    let value = match cmd {
        SIOCGIFFLAGS => (interface.flags() & 0xffff) as i32,
        SIOCGIFMTU => interface.mtu() as i32,
        SIOCGIFINDEX => interface.index() as i32,
        SIOCGIFTXQLEN => TXQLEN,
        SIOCGIFHWADDR => {
            request[16..18].copy_from_slice(&interface.link().hardware().to_le_bytes());
            request[18..24].copy_from_slice(&interface.address(cx.cpu()));
            request[24..].fill(0);
            return Ok(());
        }
        // SIOCGIFMETRIC, and SIOCGIFMAP of a device without ports or interrupts.
        _ => 0,
    };
    request[16..].fill(0);
    request[16..20].copy_from_slice(&value.to_le_bytes());
    Ok(())
}

fn set(
    cx: &Curlwp<'_>,
    all: &Interfaces,
    cmd: u32,
    request: &mut [u8; IFREQ],
) -> Result<(), Errno> {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let interface = named(cx, all, request)?;
    match cmd {
        SIOCSIFFLAGS => {
            let flags = u32::from(u16::from_le_bytes([request[16], request[17]]));
            interface.change_flags(cx.cpu(), flags & SETTABLE, !flags & SETTABLE);
            interface.set_up(cx, flags & IFF_UP != 0)
        }
        SIOCSIFMTU => {
            let mtu = u32::try_from(int(request)).map_err(|_| Errno::EINVAL)?;
            interface.set_mtu(cx, mtu)
        }
        SIOCSIFHWADDR => {
            let mut address = EtherAddr::default();
            address.copy_from_slice(&request[18..24]);
            if u16::from_le_bytes([request[16], request[17]]) != interface.link().hardware() {
                return Err(Errno::EINVAL);
            }
            if address[0] & 1 != 0 || address == EtherAddr::default() {
                return Err(Errno::EADDRNOTAVAIL);
            }
            interface.set_address(cx.cpu(), address);
            Ok(())
        }
        // SIOCSIFNAME
        _ => {
            let name = text(&request[NAME..2 * NAME])?.to_owned();
            all.rename(cx, &interface, &name)
        }
    }
}

//! rump_pub_netconfig_*: interfaces, addresses and routes by calls. They answer 0 or an error number.

use std::ffi::{CStr, c_char, c_int};
use std::sync::{Mutex, PoisonError};

use inet::netconfig;
use kern::{Curlwp, Errno};
use net::IfError;

use crate::context;
use crate::error::c_str;

/// Runs `f` in the kernel with the texts that C gave.
///
/// # Safety
/// The pointers are null or strings.
unsafe fn with<const N: usize>(
    texts: [*const c_char; N],
    f: impl FnOnce(&Curlwp<'_>, [&str; N]) -> Result<(), Errno>,
) -> c_int {
    let mut words = [""; N];
    for (word, text) in words.iter_mut().zip(texts) {
        // SAFETY: the caller's condition.
        let text = unsafe { c_str(text) };
        match text.and_then(|t: &CStr| t.to_str().map_err(|_| Errno::EINVAL)) {
            Ok(text) => *word = text,
            Err(errno) => return errno.0,
        }
    }
    let done = context::enter(|cx| f(cx, words));
    done.and_then(|r| r).err().map_or(0, |errno| errno.0)
}

/// The length of a prefix that C gave.
fn prefix(len: c_int) -> Result<u8, Errno> {
    u8::try_from(len).map_err(|_| Errno::EINVAL)
}

/// Interfaces that C has made and that wait to be told what they are on (`rump_pub_netconfig_ifsetlinkstr`); until then they are names.
static PLANNED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Forgets a name among the planned; whether it was there.
fn no_longer_planned(name: &str) -> bool {
    let mut planned = PLANNED.lock().unwrap_or_else(PoisonError::into_inner);
    let before = planned.len();
    planned.retain(|n| n != name);
    planned.len() < before
}

/// Plans an interface of a name. `EEXIST` when it is planned already.
fn plan(name: &str) -> Result<(), Errno> {
    let mut planned = PLANNED.lock().unwrap_or_else(PoisonError::into_inner);
    if planned.iter().any(|n| n == name) {
        return Err(Errno::EEXIST);
    }
    planned.push(name.into());
    Ok(())
}

/// Makes an interface by its name, with the parameters that its kind takes behind a comma: "virt0,tap=tap7". What is on something
/// else and is not told so here waits for `rump_pub_netconfig_ifsetlinkstr`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ifcreate(ifname: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe {
        with([ifname], |cx, [name]| {
            let (name, params) = name.split_once(',').unwrap_or((name, ""));
            if params.is_empty() && netconfig::wants_linkstr(cx, name)? {
                return plan(name);
            }
            let made = netconfig::ifcreate(cx, name, params);
            made.map(drop).map_err(|error| told(cx, name, error))
        })
    }
}

/// Says in the message buffer what is wrong.
fn told(cx: &Curlwp<'_>, name: &str, error: IfError) -> Errno {
    cx.kernel().log(format_args!("{name}: {error}"));
    error.errno
}

/// Says what an interface that was made by its name is on: a bus's file ("shmif0"), a tap device ("virt0"). `EBUSY` when that is said
/// already, `ENODEV` when there is no such interface.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ifsetlinkstr(
    ifname: *const c_char,
    linkstr: *const c_char,
) -> c_int {
    // SAFETY: C gives strings.
    unsafe {
        with([ifname, linkstr], |cx, [name, link]| {
            let was_planned = no_longer_planned(name);
            if !was_planned && netconfig::wants_linkstr(cx, name)? {
                return Err(Errno::ENODEV);
            }
            netconfig::ifsetlinkstr(cx, name, link).map_err(|error| {
                if was_planned {
                    // It may be tried again.
                    let _ = plan(name);
                }
                told(cx, name, error)
            })
        })
    }
}

/// Makes an interface a port of a bridge.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_bradd(
    bridge: *const c_char,
    ifname: *const c_char,
) -> c_int {
    // SAFETY: C gives strings.
    unsafe {
        with([bridge, ifname], |cx, [bridge, name]| {
            netconfig::bradd(cx, bridge, name)
        })
    }
}

/// Takes a port away from a bridge.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_brdel(
    bridge: *const c_char,
    ifname: *const c_char,
) -> c_int {
    // SAFETY: C gives strings.
    unsafe {
        with([bridge, ifname], |cx, [bridge, name]| {
            netconfig::brdel(cx, bridge, name)
        })
    }
}

/// Brings an interface up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ifup(ifname: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe { with([ifname], |cx, [name]| netconfig::ifup(cx, name)) }
}

/// Brings an interface down.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ifdown(ifname: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe { with([ifname], |cx, [name]| netconfig::ifdown(cx, name)) }
}

/// Takes an interface away.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ifdestroy(ifname: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe {
        with([ifname], |cx, [name]| {
            if no_longer_planned(name) {
                return Ok(());
            }
            netconfig::ifdestroy(cx, name)
        })
    }
}

/// Gives an interface an IPv4 address and a mask, as "255.255.255.0".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ipv4_ifaddr(
    ifname: *const c_char,
    addr: *const c_char,
    mask: *const c_char,
) -> c_int {
    // SAFETY: C gives strings.
    unsafe {
        with([ifname, addr, mask], |cx, [name, addr, mask]| {
            netconfig::ipv4_ifaddr(cx, name, addr, mask)
        })
    }
}

/// The same with the length of the prefix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ipv4_ifaddr_cidr(
    ifname: *const c_char,
    addr: *const c_char,
    len: c_int,
) -> c_int {
    // SAFETY: C gives strings.
    unsafe {
        with([ifname, addr], |cx, [name, addr]| {
            netconfig::ipv4_ifaddr_cidr(cx, name, addr, prefix(len)?)
        })
    }
}

/// Gives an interface an IPv6 address and the length of its prefix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ipv6_ifaddr(
    ifname: *const c_char,
    addr: *const c_char,
    len: c_int,
) -> c_int {
    // SAFETY: C gives strings.
    unsafe {
        with([ifname, addr], |cx, [name, addr]| {
            netconfig::ipv6_ifaddr(cx, name, addr, prefix(len)?)
        })
    }
}

/// The IPv4 router by which everything else goes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ipv4_gw(addr: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe { with([addr], |cx, [addr]| netconfig::ipv4_gw(cx, addr)) }
}

/// The IPv6 router by which everything else goes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_ipv6_gw(addr: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe { with([addr], |cx, [addr]| netconfig::ipv6_gw(cx, addr)) }
}

/// Asks DHCP for an interface's address and waits for it; unlike the classic one it is kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_dhcp_ipv4_oneshot(ifname: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe {
        with([ifname], |cx, [name]| {
            netconfig::dhcp_ipv4(cx, name).map(drop)
        })
    }
}

/// Has an interface make its IPv6 addresses from what routers say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rump_pub_netconfig_auto_ipv6(ifname: *const c_char) -> c_int {
    // SAFETY: C gives a string.
    unsafe { with([ifname], |cx, [name]| netconfig::auto_ipv6(cx, name)) }
}

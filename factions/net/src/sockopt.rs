//! Options: those of socket(7) that every socket has.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use abi::{Errno, UserAddr};
use kern::Curlwp;
use smallvec::SmallVec;

use crate::common::MAX_BUF;
use crate::consts::*;
use crate::filter::{self, Filter, Insn};
use crate::{Common, Net, Socket};

/// The value of an option, as bytes.
pub type OptValue = SmallVec<[u8; 16]>;

/// The integer that setsockopt(2) was given. `EINVAL` when there are too few bytes for one.
pub fn int_option(value: &[u8]) -> Result<i32, Errno> {
    let bytes: [u8; 4] = value
        .get(..4)
        .and_then(|b| b.try_into().ok())
        .ok_or(Errno::EINVAL)?;
    Ok(i32::from_le_bytes(bytes))
}

fn int(value: i32) -> OptValue {
    OptValue::from_slice(&value.to_le_bytes())
}

/// The options that are on or off.
fn switch(common: &Common, name: i32) -> Option<&AtomicBool> {
    Some(match name {
        SO_REUSEADDR => &common.reuseaddr,
        SO_REUSEPORT => &common.reuseport,
        SO_KEEPALIVE => &common.keepalive,
        SO_BROADCAST => &common.broadcast,
        SO_DONTROUTE => &common.dontroute,
        SO_OOBINLINE => &common.oobinline,
        SO_PASSCRED => &common.passcred,
        _ => return None,
    })
}

/// A `struct timeval` as nanoseconds. `EDOM` when it is none.
fn timeout(value: &[u8]) -> Result<u64, Errno> {
    let bytes: &[u8; 16] = value
        .get(..16)
        .and_then(|b| b.try_into().ok())
        .ok_or(Errno::EINVAL)?;
    let tv = abi::Timeval::from_bytes(bytes);
    if !(0..1_000_000).contains(&tv.tv_usec) {
        return Err(Errno::EDOM);
    }
    let sec = u64::try_from(tv.tv_sec).unwrap_or(0);
    Ok(sec
        .saturating_mul(1_000_000_000)
        .saturating_add(tv.tv_usec as u64 * 1000))
}

/// The program that a `struct sock_fprog` points to.
fn copyin_filter(cx: &Curlwp<'_>, value: &[u8]) -> Result<Filter, Errno> {
    let prog: &[u8; 16] = value.first_chunk().ok_or(Errno::EINVAL)?;
    let len = usize::from(u16::from_le_bytes([prog[0], prog[1]]));
    if len == 0 || len > filter::MAX_INSNS {
        return Err(Errno::EINVAL);
    }
    let [.., a, b, c, d, e, f, g, h] = *prog;
    let at = UserAddr(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    let mut bytes = vec![0; len * Insn::SIZE];
    cx.copyin(at, &mut bytes)?;
    let (insns, _) = bytes.as_chunks();
    let insns: Vec<Insn> = insns.iter().map(|b| Insn::from_bytes(*b)).collect();
    Filter::new(&insns)
}

fn timeval(nanos: u64) -> OptValue {
    let tv = abi::Timeval {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_usec: (nanos % 1_000_000_000 / 1000) as i64,
    };
    OptValue::from_slice(&tv.to_bytes())
}

/// getsockopt(2) at `SOL_SOCKET`. `None`: it is the protocol's to answer.
pub(crate) fn get(cx: &Curlwp<'_>, so: &Socket, name: i32) -> Option<OptValue> {
    let common = so.common();
    if let Some(cell) = switch(common, name) {
        return Some(int(cell.load(Relaxed).into()));
    }
    Some(match name {
        SO_TYPE => int(so.kind().number()),
        SO_DOMAIN => int(so.family()),
        SO_PROTOCOL => int(so.protocol_number()),
        SO_ERROR => int(common.take_error().err().map_or(0, |e| e.0)),
        SO_ACCEPTCONN => int(so.protocol().listening(cx).into()),
        SO_SNDBUF | SO_SNDBUFFORCE => int(common.sndbuf.load(Relaxed) as i32),
        SO_RCVBUF | SO_RCVBUFFORCE => int(common.rcvbuf.load(Relaxed) as i32),
        SO_RCVLOWAT => int(common.rcvlowat.load(Relaxed) as i32),
        SO_SNDLOWAT => int(1),
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => timeval(common.rarely(|rare| rare.rcvtimeo.load(Relaxed))),
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => timeval(common.rarely(|rare| rare.sndtimeo.load(Relaxed))),
        SO_PRIORITY => int(common.rarely(|rare| rare.priority.load(Relaxed))),
        SO_MARK => int(common.rarely(|rare| rare.mark.load(Relaxed)) as i32),
        SO_INCOMING_CPU => int(cx.cpu().index() as i32),
        SO_TIMESTAMP | SO_TIMESTAMPNS => {
            let nanos = common.rarely(|rare| rare.timestamp_nanos.load(Relaxed));
            let on = common.timestamp.load(Relaxed) && nanos == (name == SO_TIMESTAMPNS);
            int(on.into())
        }
        SO_DEBUG | SO_ZEROCOPY | SO_BUSY_POLL => int(0),
        SO_RXQ_OVFL => int(common
            .rarely(|rare| rare.tells_dropped.load(Relaxed))
            .into()),
        SO_COOKIE => OptValue::from_slice(&so.cookie().to_ne_bytes()),
        SO_BINDTOIFINDEX => {
            let name = common.rarely(|rare| rare.device.lock(cx.cpu()).clone());
            let interfaces = Net::of(cx).ok()?.interfaces();
            let interface = interfaces.by_name(cx.cpu(), &name);
            int(interface.map_or(0, |i| i.index()) as i32)
        }
        SO_LINGER => {
            let seconds = common.linger.load(Relaxed);
            let mut value = int((seconds >= 0).into());
            value.extend_from_slice(&seconds.max(0).to_le_bytes());
            value
        }
        SO_BINDTODEVICE => {
            let name = common.rarely(|rare| rare.device.lock(cx.cpu()).clone());
            OptValue::from_slice(name.as_bytes())
        }
        _ => return None,
    })
}

/// setsockopt(2) at `SOL_SOCKET`. `None`: it is the protocol's to take.
pub(crate) fn set(
    cx: &Curlwp<'_>,
    so: &Socket,
    name: i32,
    value: &[u8],
) -> Option<Result<(), Errno>> {
    let common = so.common();
    let superuser = cx.cred().is_superuser();
    let set = || -> Result<bool, Errno> {
        if let Some(cell) = switch(common, name) {
            cell.store(int_option(value)? != 0, Relaxed);
            return Ok(true);
        }
        match name {
            SO_SNDBUF | SO_SNDBUFFORCE => {
                Common::set_buf(&common.sndbuf, int_option(value)?, MAX_BUF);
                common.sndbuf_fixed.store(true, Relaxed);
            }
            SO_RCVBUF | SO_RCVBUFFORCE => {
                Common::set_buf(&common.rcvbuf, int_option(value)?, MAX_BUF);
                common.rcvbuf_fixed.store(true, Relaxed);
            }
            SO_RCVLOWAT => {
                let bytes = u32::try_from(int_option(value)?).map_err(|_| Errno::EINVAL)?;
                common.rcvlowat.store(bytes.clamp(1, MAX_BUF), Relaxed);
            }
            SO_RCVTIMEO | SO_RCVTIMEO_NEW => common.rare().rcvtimeo.store(timeout(value)?, Relaxed),
            SO_SNDTIMEO | SO_SNDTIMEO_NEW => common.rare().sndtimeo.store(timeout(value)?, Relaxed),
            SO_PRIORITY => common.rare().priority.store(int_option(value)?, Relaxed),
            SO_MARK if superuser => common.rare().mark.store(int_option(value)? as u32, Relaxed),
            SO_MARK => return Err(Errno::EPERM),
            SO_TIMESTAMP | SO_TIMESTAMPNS => {
                let on = int_option(value)? != 0;
                common.timestamp.store(on, Relaxed);
                let nanos = on && name == SO_TIMESTAMPNS;
                if nanos || common.rarely(|rare| rare.timestamp_nanos.load(Relaxed)) {
                    common.rare().timestamp_nanos.store(nanos, Relaxed);
                }
            }
            // Programs that are told so send without it; who believed that it is there would wait for notes that never come.
            SO_ZEROCOPY if int_option(value)? != 0 => return Err(Errno::EOPNOTSUPP),
            SO_RXQ_OVFL => {
                let on = int_option(value)? != 0;
                common.rare().tells_dropped.store(on, Relaxed);
            }
            SO_DEBUG | SO_ZEROCOPY | SO_INCOMING_CPU | SO_BUSY_POLL => drop(int_option(value)?),
            SO_LINGER => {
                let on = int_option(value)? != 0;
                let seconds = int_option(value.get(4..).unwrap_or(&[]))?;
                common
                    .linger
                    .store(if on { seconds.max(0) } else { -1 }, Relaxed);
            }
            SO_BINDTODEVICE => {
                let name = value.split(|&b| b == 0).next().unwrap_or(&[]);
                let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
                name.clone_into(&mut common.rare().device.lock(cx.cpu()));
                return Ok(false);
            }
            SO_ATTACH_FILTER => common.set_filter(Some(copyin_filter(cx, value)?)),
            SO_DETACH_FILTER if common.has_filter() => common.set_filter(None),
            SO_DETACH_FILTER => return Err(Errno::ENOENT),
            SO_TYPE | SO_DOMAIN | SO_PROTOCOL | SO_ERROR | SO_ACCEPTCONN | SO_PEERCRED
            | SO_SNDLOWAT | SO_COOKIE => {
                return Err(Errno::ENOPROTOOPT);
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    match set() {
        Ok(false) => None,
        result => Some(result.map(|_| ())),
    }
}

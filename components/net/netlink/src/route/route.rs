//! Routes: `RTM_GETROUTE` and so on, `struct rtmsg`.

use abi::Errno;
use inet::{IfThere, Inet, Prefix, Route, RouteKind, TABLE_MAIN};
use kern::Curlwp;

use super::{RTM_NEWROUTE, family_of, ip, octets, of_family, unspecified};
use crate::message::{Attributes, NLM_F_MULTI, NLM_F_REPLACE, Request, Writer, u32_at};
use crate::socket::Answer;

/// Bytes of a `struct rtmsg`.
const FIXED: usize = 12;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTA_UID: u16 = 25;
const RTAX_MTU: u16 = 2;
/// `RTM_F_CLONED`: the answer of a lookup; of a dump, only routes that the stack made for single addresses, of which there are none.
const RTM_F_CLONED: u32 = 0x200;
/// Bytes of a `struct rta_cacheinfo`.
const CACHEINFO: usize = 32;
/// `RT_SCOPE_NOWHERE`: in a request to delete, any.
const SCOPE_NOWHERE: u8 = 255;

fn kind_number(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Unicast => 1,
        RouteKind::Local => 2,
        RouteKind::Broadcast => 3,
        RouteKind::Multicast => 5,
        RouteKind::Blackhole => 6,
        RouteKind::Unreachable => 7,
        RouteKind::Prohibit => 8,
    }
}

/// `RTCF_*`: what a cache would know of a route besides.
fn rtcf(kind: RouteKind) -> u32 {
    match kind {
        RouteKind::Local => 0x8000_0000,
        RouteKind::Multicast => 0x2000_0000,
        RouteKind::Broadcast => 0x1000_0000,
        _ => 0,
    }
}

fn kind_of(number: u8) -> Option<RouteKind> {
    Some(match number {
        1 => RouteKind::Unicast,
        2 => RouteKind::Local,
        3 => RouteKind::Broadcast,
        5 => RouteKind::Multicast,
        6 => RouteKind::Blackhole,
        7 => RouteKind::Unreachable,
        8 => RouteKind::Prohibit,
        _ => return None,
    })
}

/// Writes a message about a route.
pub(crate) fn describe(writer: &mut Writer, kind: u16, flags: u16, r: &Route) {
    begin(writer, kind, flags, 0, r);
    writer.end();
}

/// Begins one, with `rtm_flags`.
fn begin(writer: &mut Writer, kind: u16, flags: u16, rtm_flags: u32, r: &Route) {
    let [f0, f1, f2, f3] = rtm_flags.to_ne_bytes();
    let fixed = [
        family_of(&r.dst.addr),
        r.dst.len,
        0,
        0,
        u8::try_from(r.table).unwrap_or(0),
        r.protocol,
        r.scope,
        kind_number(r.kind),
        f0,
        f1,
        f2,
        f3,
    ];
    writer.message(kind, flags, &fixed).u32(RTA_TABLE, r.table);
    if r.dst.len != 0 {
        writer.attr(RTA_DST, &octets(&r.dst.addr));
    }
    if let Some(gateway) = &r.gateway {
        writer.attr(RTA_GATEWAY, &octets(gateway));
    }
    if r.oif != 0 {
        writer.u32(RTA_OIF, r.oif);
    }
    if let Some(source) = &r.prefsrc {
        writer.attr(RTA_PREFSRC, &octets(source));
    }
    if r.metric != 0 {
        writer.u32(RTA_PRIORITY, r.metric);
    }
    if r.mtu != 0 {
        writer.nested(RTA_METRICS, |w| {
            w.u32(RTAX_MTU, r.mtu);
        });
    }
}

pub(super) fn get(
    cx: &Curlwp<'_>,
    inet: &Inet,
    request: &Request<'_>,
    out: &mut Answer,
) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let attributes = request.attributes(FIXED);
    if request.is_dump() {
        if u32_at(&fixed, 8).unwrap_or(0) & RTM_F_CLONED != 0 {
            return Ok(());
        }
        let table = attributes.u32(RTA_TABLE).unwrap_or(fixed[4].into());
        let oif = attributes.u32(RTA_OIF).unwrap_or(0);
        for route in inet.routes() {
            let wanted = (table == 0 || table == route.table)
                && (oif == 0 || oif == route.oif)
                && (fixed[5] == 0 || fixed[5] == route.protocol)
                && (fixed[7] == 0 || fixed[7] == kind_number(route.kind));
            if of_family(&route.dst.addr, fixed[0]) && wanted {
                describe(&mut out.writer, RTM_NEWROUTE, NLM_F_MULTI, &route);
                out.breathe();
            }
        }
        return Ok(());
    }
    // Which way to one address: the route, with that address and the source that would be used.
    let to = ip(attributes.get(RTA_DST).ok_or(Errno::EINVAL)?, fixed[0])?;
    let route = inet
        .find_route(&to, attributes.u32(RTA_OIF).unwrap_or(0))
        .ok_or(Errno::ENETUNREACH)?;
    let mut found = Route {
        dst: Prefix::host(to),
        prefsrc: route.prefsrc.or(inet.source_for(&to, route.oif)),
        ..Route::clone(&route)
    };
    let writer = &mut out.writer;
    // Of IPv4 Linux answers what it would have in a cache, of IPv6 the route itself.
    if to.is_ipv4() {
        (found.table, found.protocol, found.scope) = (TABLE_MAIN, 0, 0);
        let flags = RTM_F_CLONED | rtcf(route.kind);
        begin(writer, RTM_NEWROUTE, 0, flags, &found);
        writer.u32(RTA_UID, cx.cred().ruid);
    } else {
        begin(writer, RTM_NEWROUTE, 0, 0, &found);
    }
    // nmap takes the message for shorter than it is: something has to stand behind what it looks for.
    writer.attr(RTA_CACHEINFO, &[0; CACHEINFO]);
    writer.end();
    Ok(())
}

/// The destination that a request names.
fn destination(fixed: &[u8; FIXED], attributes: Attributes<'_>) -> Result<Prefix, Errno> {
    match attributes.get(RTA_DST) {
        Some(bytes) => Prefix::new(ip(bytes, fixed[0])?, fixed[1]),
        None if fixed[1] == 0 => Prefix::new(unspecified(fixed[0]), 0),
        None => Err(Errno::EINVAL),
    }
}

pub(super) fn add(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let attributes = request.attributes(FIXED);
    let address = |kind| attributes.get(kind).map(|b| ip(b, fixed[0])).transpose();
    let metrics = Attributes(attributes.get(RTA_METRICS).unwrap_or(&[]));
    let route = Route {
        dst: destination(&fixed, attributes)?,
        kind: kind_of(fixed[7].max(1)).ok_or(Errno::EINVAL)?,
        gateway: address(RTA_GATEWAY)?,
        oif: attributes.u32(RTA_OIF).unwrap_or(0),
        prefsrc: address(RTA_PREFSRC)?,
        metric: attributes
            .u32(RTA_PRIORITY)
            .unwrap_or(if fixed[0] == 2 { 0 } else { 1024 }),
        table: match attributes.u32(RTA_TABLE).unwrap_or(fixed[4].into()) {
            0 => TABLE_MAIN,
            table => table,
        },
        scope: fixed[6],
        protocol: fixed[5],
        mtu: metrics.u32(RTAX_MTU).unwrap_or(0),
    };
    if let Some(source) = route.prefsrc
        && !inet.is_local(&source)
    {
        return Err(Errno::EINVAL);
    }
    let if_there = match request.flags & NLM_F_REPLACE != 0 {
        true => IfThere::Replace,
        false => IfThere::Fail,
    };
    inet.add_route(cx.cpu(), route, if_there)
}

pub(super) fn delete(cx: &Curlwp<'_>, inet: &Inet, request: &Request<'_>) -> Result<(), Errno> {
    let fixed = request.fixed::<FIXED>()?;
    let attributes = request.attributes(FIXED);
    let gateway = attributes
        .get(RTA_GATEWAY)
        .map(|b| ip(b, fixed[0]))
        .transpose()?;
    let (oif, metric) = (attributes.u32(RTA_OIF), attributes.u32(RTA_PRIORITY));
    let table = match attributes.u32(RTA_TABLE).unwrap_or(fixed[4].into()) {
        0 => TABLE_MAIN,
        table => table,
    };
    inet.delete_route(cx.cpu(), &destination(&fixed, attributes)?, |r| {
        r.table == table
            && (gateway.is_none() || gateway == r.gateway)
            && oif.is_none_or(|oif| oif == r.oif)
            && metric.is_none_or(|metric| metric == r.metric)
            && (fixed[5] == 0 || fixed[5] == r.protocol)
            && (fixed[6] == SCOPE_NOWHERE || fixed[6] == r.scope)
            && (fixed[7] == 0 || fixed[7] == kind_number(r.kind))
    })
}

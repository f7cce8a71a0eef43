//! Options of sockets of messages: IP's, and the few that UDP and raw sockets have of their own.

use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use kern::Curlwp;
use net::consts::{SO_BINDTODEVICE, SOL_SOCKET};
use net::{OptValue, int_option};

use super::{Dgram, Flavour, State};
use crate::leaf;
use crate::options::{Ask, SOL_IP, SOL_IPV6, SOL_UDP, UDP_GRO, UDP_SEGMENT, int};

const UDP_CORK: i32 = 1;
const SOL_RAW: i32 = 255;
const SOL_ICMPV6: i32 = 58;
const ICMP_FILTER: i32 = 1;
const IPV6_CHECKSUM: i32 = 7;

impl Dgram {
    /// getsockopt(2).
    pub(super) fn get_option(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
    ) -> Result<OptValue, Errno> {
        let leaf = leaf(cx.cpu());
        let state = self.state.lock(&leaf);
        if let Some(value) = self.own_option(&state, level, name) {
            return value;
        }
        let (options, peer) = (state.options, state.remote.map(|r| r.addr));
        drop(state);
        match level {
            SOL_IP => options.get(&self.inet, level, name, peer),
            SOL_IPV6 if self.v6 => options.get(&self.inet, level, name, peer),
            SOL_SOCKET => Err(Errno::ENOPROTOOPT),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// setsockopt(2).
    pub(super) fn set_option(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        let leaf = leaf(cx.cpu());
        if (level, name) == (SOL_SOCKET, SO_BINDTODEVICE) {
            let device = self.common.rarely(|rare| rare.device.lock(&leaf).clone());
            let device = match device.is_empty() {
                true => 0,
                false => {
                    let interface = self.inet.interfaces.by_name(cx.cpu(), &device);
                    interface.ok_or(Errno::ENODEV)?.index()
                }
            };
            {
                let mut state = self.state.lock(&leaf);
                state.device = device;
                state.last = None;
            }
            self.rebind(cx);
            return Ok(());
        }
        if let Some(result) = self.set_own_option(cx, level, name, value) {
            return result;
        }
        if level != SOL_IP && !(level == SOL_IPV6 && self.v6) {
            return Err(if level == SOL_SOCKET {
                Errno::ENOPROTOOPT
            } else {
                Errno::EOPNOTSUPP
            });
        }
        let mut options = self.state.lock(&leaf).options;
        let v6only = options.v6only;
        let ask = options.set(cx, &self.inet, level, name, value)?;
        {
            let mut state = self.state.lock(&leaf);
            if options.v6only != v6only && state.port != 0 {
                return Err(Errno::EINVAL);
            }
            state.options = options;
            state.last = None;
        }
        match ask {
            Ask::Nothing => Ok(()),
            Ask::Group(request) => self.change_group(cx, request),
        }
    }

    /// getsockopt(2) of what only some of these sockets have.
    fn own_option(&self, state: &State, level: i32, name: i32) -> Option<Result<OptValue, Errno>> {
        Some(Ok(match (self.flavour, level, name) {
            (Flavour::Udp, SOL_UDP, UDP_CORK) => int(state.cork.into()),
            (Flavour::Udp, SOL_UDP, UDP_SEGMENT) => int(state.segment.into()),
            (Flavour::Udp, SOL_UDP, UDP_GRO) => int(self.together.load(Relaxed).into()),
            (Flavour::Raw(1), SOL_RAW, ICMP_FILTER) => {
                OptValue::from_slice(&state.filter[0].to_ne_bytes())
            }
            (Flavour::Raw(58), SOL_ICMPV6, ICMP_FILTER) => {
                let mut value = OptValue::new();
                state
                    .filter
                    .iter()
                    .for_each(|w| value.extend_from_slice(&w.to_ne_bytes()));
                value
            }
            (Flavour::Raw(_), SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if self.v6 => {
                int(state.checksum_at.map_or(-1, |at| at as i32))
            }
            _ => return None,
        }))
    }

    fn set_own_option(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Option<Result<(), Errno>> {
        let leaf = leaf(cx.cpu());
        let mut state = self.state.lock(&leaf);
        let result = match (self.flavour, level, name) {
            (Flavour::Udp, SOL_UDP, UDP_CORK) => int_option(value).map(|on| state.cork = on != 0),
            (Flavour::Udp, SOL_UDP, UDP_SEGMENT) => int_option(value)
                .and_then(|n| u16::try_from(n).map_err(|_| Errno::EINVAL))
                .map(|n| state.segment = n),
            (Flavour::Udp, SOL_UDP, UDP_GRO) => {
                int_option(value).map(|on| self.together.store(on != 0, Relaxed))
            }
            (Flavour::Raw(1), SOL_RAW, ICMP_FILTER) => {
                int_option(value).map(|mask| state.filter[0] = mask as u32)
            }
            (Flavour::Raw(58), SOL_ICMPV6, ICMP_FILTER) => {
                for (word, bytes) in state.filter.iter_mut().zip(value.chunks_exact(4)) {
                    *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                Ok(())
            }
            (Flavour::Raw(_), SOL_IPV6 | SOL_RAW, IPV6_CHECKSUM) if self.v6 => {
                match int_option(value) {
                    Ok(at) if at >= 0 && at % 2 == 0 => {
                        state.checksum_at = Some(at as usize);
                        Ok(())
                    }
                    Ok(-1) => {
                        state.checksum_at = None;
                        Ok(())
                    }
                    _ => Err(Errno::EINVAL),
                }
            }
            _ => return None,
        };
        let flush = result.is_ok() && (level, name) == (SOL_UDP, UDP_CORK) && !state.cork;
        let corked = if flush { state.corked.take() } else { None };
        drop(state);
        match corked {
            Some((to, data)) => Some(result.and_then(|()| self.send_corked(cx, to, data))),
            None => Some(result),
        }
    }
}

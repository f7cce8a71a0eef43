//! Options of tcp(7).

use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use kern::Curlwp;
use net::consts::{SO_BINDTODEVICE, SOL_SOCKET};
use net::{Addr, OptValue, int_option};
use tcp::{Info, Settings, congestion};

use super::Tcp;
use crate::leaf;
use crate::options::{Ask, IpOptions, SOL_IP, SOL_IPV6, int};

const SOL_TCP: i32 = 6;
const TCP_NODELAY: i32 = 1;
const TCP_MAXSEG: i32 = 2;
const TCP_CORK: i32 = 3;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_SYNCNT: i32 = 7;
const TCP_LINGER2: i32 = 8;
const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_WINDOW_CLAMP: i32 = 10;
const TCP_INFO: i32 = 11;
const TCP_QUICKACK: i32 = 12;
const TCP_CONGESTION: i32 = 13;
const TCP_USER_TIMEOUT: i32 = 18;
const TCP_FASTOPEN: i32 = 23;
const TCP_NOTSENT_LOWAT: i32 = 25;
const TCP_FASTOPEN_CONNECT: i32 = 30;

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// Options that few sockets set.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpOptions {
    pub(super) ip: IpOptions,
    /// The length of `TCP_FASTOPEN`'s queue; 0 is off.
    pub(super) fast_open: i32,
    /// `TCP_DEFER_ACCEPT`, in times that a SYN-ACK would be sent again.
    pub(super) defer: u8,
    pub(super) fast_open_connect: bool,
    /// Where a connect that has been put off will go to.
    pub(super) put_off: Option<Addr>,
}

/// How often a SYN-ACK is sent again within so many seconds: after one, two more, four more, ...
fn turns_of(seconds: i32) -> u8 {
    (0..u8::MAX)
        .find(|&turns| seconds_of(turns) >= seconds)
        .unwrap_or(u8::MAX)
}

/// The seconds after which it has been sent so often.
fn seconds_of(turns: u8) -> i32 {
    const MOST: i32 = 120;
    let wait = |turn: u8| (1 << turn.min(7)).min(MOST);
    (0..turns).map(wait).sum()
}

/// Changes a setting; `None` for what is none.
fn change(settings: &mut Settings, name: i32, value: &[u8]) -> Option<Result<(), Errno>> {
    let number = || int_option(value);
    let seconds = |most: i32| {
        let n = number()?;
        if !(1..=most).contains(&n) {
            return Err(Errno::EINVAL);
        }
        Ok(n as u64 * SECOND)
    };
    let set = || -> Result<bool, Errno> {
        match name {
            TCP_NODELAY => settings.nodelay = number()? != 0,
            TCP_CORK => settings.cork = number()? != 0,
            TCP_QUICKACK => settings.quickack = number()? != 0,
            TCP_MAXSEG => {
                settings.max_segment = match number()? {
                    0 => 0,
                    n @ 88..=32767 => n as u16,
                    _ => return Err(Errno::EINVAL),
                }
            }
            TCP_KEEPIDLE => settings.keepalive.idle = seconds(32767)?,
            TCP_KEEPINTVL => settings.keepalive.interval = seconds(32767)?,
            TCP_KEEPCNT => {
                settings.keepalive.count = match number()? {
                    n @ 1..=127 => n as u8,
                    _ => return Err(Errno::EINVAL),
                }
            }
            TCP_SYNCNT => {
                settings.syn_retries = match number()? {
                    n @ 1..=127 => n as u8,
                    _ => return Err(Errno::EINVAL),
                }
            }
            TCP_LINGER2 => {
                settings.fin_timeout = match number()? {
                    n if n < 0 => 0,
                    n => (n as u64).min(120) * SECOND,
                }
            }
            TCP_WINDOW_CLAMP => drop(number()?),
            TCP_CONGESTION => {
                let name = value.split(|b| *b == 0).next().unwrap_or(&[]);
                let known = congestion::ALGORITHMS.iter().find(|a| a.as_bytes() == name);
                settings.congestion = known.ok_or(Errno::ENOENT)?;
            }
            TCP_USER_TIMEOUT => {
                let n = u64::try_from(number()?).map_err(|_| Errno::EINVAL)?;
                settings.user_timeout = n * MILLISECOND;
            }
            TCP_NOTSENT_LOWAT => {
                settings.notsent_lowat = match number()? as u32 {
                    0 => u32::MAX,
                    n => n,
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    };
    let mut set = set;
    match set() {
        Ok(true) => Some(Ok(())),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    }
}

fn value(settings: &Settings, name: i32) -> Option<OptValue> {
    let seconds = |ns: u64| int((ns / SECOND) as i32);
    Some(match name {
        TCP_NODELAY => int(settings.nodelay.into()),
        TCP_CORK => int(settings.cork.into()),
        TCP_QUICKACK => int(settings.quickack.into()),
        TCP_MAXSEG => int(match settings.max_segment {
            0 => settings.mss.into(),
            n => n.into(),
        }),
        TCP_KEEPIDLE => seconds(settings.keepalive.idle),
        TCP_KEEPINTVL => seconds(settings.keepalive.interval),
        TCP_KEEPCNT => int(settings.keepalive.count.into()),
        TCP_SYNCNT => int(settings.syn_retries.into()),
        TCP_LINGER2 => seconds(settings.fin_timeout),
        TCP_WINDOW_CLAMP => int(settings.recv_buffer.max as i32),
        TCP_CONGESTION => {
            let mut name = [0; 16];
            name[..settings.congestion.len()].copy_from_slice(settings.congestion.as_bytes());
            OptValue::from_slice(&name)
        }
        TCP_USER_TIMEOUT => int((settings.user_timeout / MILLISECOND) as i32),
        TCP_NOTSENT_LOWAT => int(match settings.notsent_lowat {
            u32::MAX => 0,
            n => n as i32,
        }),
        _ => return None,
    })
}

impl Tcp {
    pub(super) fn set_option(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        match level {
            SOL_TCP => self.set_tcp(cx, name, value),
            SOL_SOCKET if name == SO_BINDTODEVICE => self.set_device(cx),
            SOL_SOCKET => Err(Errno::ENOPROTOOPT),
            SOL_IP => self.set_ip(cx, level, name, value),
            SOL_IPV6 if self.v6 => self.set_ip(cx, level, name, value),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    fn set_tcp(&self, cx: &Curlwp<'_>, name: i32, value: &[u8]) -> Result<(), Errno> {
        let inet = self.inet()?;
        let leaf = leaf(cx.cpu());
        if let Some(conn) = self.conn() {
            let mut own = conn.own(cx);
            let mut result = None;
            if matches!(name, TCP_CORK) {
                own.more = false;
            }
            own.configure(&inet, |settings| result = change(settings, name, value));
            if let Some(result) = result {
                return result;
            }
        }
        if let Some(listener) = self.listener() {
            let mut result = None;
            listener.configure(cx.cpu(), |settings| result = change(settings, name, value));
            if let Some(Err(error)) = result {
                return Err(error);
            }
        }
        let mut settings = self.own_settings(cx);
        if let Some(result) = change(&mut settings, name, value) {
            let settings = inet.tcp.profiles.share(cx.cpu(), settings);
            self.state.lock(&leaf).settings = Some(settings);
            return result;
        }
        let mut state = self.state.lock(&leaf);
        let options = state.options.get_or_insert_default();
        match name {
            TCP_FASTOPEN => options.fast_open = int_option(value)?.max(0),
            TCP_DEFER_ACCEPT => options.defer = turns_of(int_option(value)?),
            TCP_FASTOPEN_CONNECT => options.fast_open_connect = int_option(value)? != 0,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        let early = state.early();
        drop(state);
        if let Some(listener) = self.listener() {
            listener.set_limits(cx.cpu(), None, early);
        }
        Ok(())
    }

    /// What was set before there was a connection.
    fn own_settings(&self, cx: &Curlwp<'_>) -> Settings {
        let settings = self.state.lock(&leaf(cx.cpu())).settings.clone();
        settings.as_deref().cloned().unwrap_or_default()
    }

    fn set_device(&self, cx: &Curlwp<'_>) -> Result<(), Errno> {
        let inet = self.inet()?;
        let leaf = leaf(cx.cpu());
        let device = self.common.rarely(|rare| rare.device.lock(&leaf).clone());
        let device = match device.is_empty() {
            true => 0,
            false => {
                let interface = inet.interfaces.by_name(cx.cpu(), &device);
                interface.ok_or(Errno::ENODEV)?.index()
            }
        };
        self.state.lock(&leaf).device = device;
        if let Some(conn) = self.conn() {
            let mut own = conn.own(cx);
            own.interface = device;
            own.hop = None;
        }
        Ok(())
    }

    fn set_ip(&self, cx: &Curlwp<'_>, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let inet = self.inet()?;
        let leaf = leaf(cx.cpu());
        let mut ip = self.state.lock(&leaf).ip();
        let v6only = ip.v6only;
        if !matches!(ip.set(cx, &inet, level, name, value)?, Ask::Nothing) {
            return Err(Errno::EPROTO);
        }
        {
            let mut state = self.state.lock(&leaf);
            if ip.v6only != v6only && self.conn().is_some() {
                return Err(Errno::EINVAL);
            }
            state.options.get_or_insert_default().ip = ip;
        }
        if let Some(listener) = self.listener() {
            listener.set_min_ttl(Tcp::min_ttl(&ip, self.v6));
        }
        if let Some(conn) = self.conn() {
            let v6 = conn.tuple.remote.ip().is_ipv6();
            conn.min_ttl.store(Tcp::min_ttl(&ip, v6), Relaxed);
            let mut own = conn.own(cx);
            (own.ttl, own.tos) = Tcp::ttl_and_tos(&ip, v6);
        }
        Ok(())
    }

    pub(super) fn get_option(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
    ) -> Result<OptValue, Errno> {
        let inet = self.inet()?;
        let leaf = leaf(cx.cpu());
        match level {
            SOL_TCP => {}
            SOL_IP | SOL_IPV6 if level == SOL_IP || self.v6 => {
                let peer = self.conn().map(|c| c.tuple.remote.ip());
                let ip = self.state.lock(&leaf).ip();
                return ip.get(&inet, level, name, peer);
            }
            SOL_SOCKET => return Err(Errno::ENOPROTOOPT),
            _ => return Err(Errno::EOPNOTSUPP),
        }
        if let Some(conn) = self.conn() {
            let own = conn.own(cx);
            if name == TCP_INFO {
                return Ok(info(&own.tcp.info(), inet.now()));
            }
            if name == TCP_MAXSEG {
                return Ok(int(own.tcp.info().snd_mss as i32));
            }
            if let Some(value) = value(own.tcp.settings(), name) {
                return Ok(value);
            }
        }
        if name == TCP_INFO {
            return Ok(self.unconnected_info(cx));
        }
        if let Some(listener) = self.listener()
            && let Some(value) = value(&listener.settings(cx.cpu()), name)
        {
            return Ok(value);
        }
        let options = self
            .state
            .lock(&leaf)
            .options
            .as_deref()
            .cloned()
            .unwrap_or_default();
        let settings = self.own_settings(cx);
        match (value(&settings, name), name) {
            (_, TCP_MAXSEG) if settings.max_segment == 0 => Ok(int(536)),
            (Some(value), _) => Ok(value),
            (_, TCP_FASTOPEN) => Ok(int(options.fast_open)),
            (_, TCP_DEFER_ACCEPT) => Ok(int(seconds_of(options.defer))),
            (_, TCP_FASTOPEN_CONNECT) => Ok(int(options.fast_open_connect.into())),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// `struct tcp_info` of a socket without a connection.
    fn unconnected_info(&self, cx: &Curlwp<'_>) -> OptValue {
        const CLOSE: u8 = 7;
        const LISTEN: u8 = 10;
        let mut out = OptValue::from_elem(0, INFO);
        out[0] = CLOSE;
        if let Some(listener) = self.listener() {
            out[0] = LISTEN;
            // Of a listening socket these two are its queue.
            let (waiting, most) = listener.queue(cx.cpu());
            out[24..28].copy_from_slice(&(waiting as u32).to_ne_bytes());
            out[28..32].copy_from_slice(&(most as u32).to_ne_bytes());
        }
        out
    }
}

/// Bytes of `struct tcp_info`, as of Linux 5.4.
const INFO: usize = 232;

/// `struct tcp_info`, linux/tcp.h.
pub(super) fn info(info: &Info, now: u64) -> OptValue {
    let mut out = OptValue::new();
    let options = u8::from(info.timestamps)
        | u8::from(info.sack) << 1
        | u8::from(info.window_scaling) << 2
        | u8::from(info.ecn) << 3;
    out.extend_from_slice(&[
        info.state.number(),
        info.ca_state,
        info.retransmits,
        info.probes,
        info.backoff,
        options,
        info.snd_wscale | info.rcv_wscale << 4,
        0,
    ]);
    let micros = |ns: u64| (ns / 1000).min(u64::from(u32::MAX)) as u32;
    let ago = |at: u64| (now.saturating_sub(at) / MILLISECOND).min(u64::from(u32::MAX)) as u32;
    let words = [
        micros(info.rto),
        40_000,
        info.snd_mss,
        info.rcv_mss,
        info.unacked,
        info.sacked,
        info.lost,
        info.retrans,
        0,
        ago(info.last_data_sent),
        0,
        ago(info.last_data_recv),
        ago(info.last_ack_recv),
        1500,
        info.rcv_space,
        micros(info.rtt),
        micros(info.rttvar),
        info.snd_ssthresh,
        info.snd_cwnd,
        info.advmss,
        3,
        micros(info.rcv_rtt),
        info.rcv_space,
        info.total_retrans,
    ];
    words
        .iter()
        .for_each(|w| out.extend_from_slice(&w.to_ne_bytes()));
    let longs = [u64::MAX, u64::MAX, info.bytes_acked, info.bytes_received];
    longs
        .iter()
        .for_each(|l| out.extend_from_slice(&l.to_ne_bytes()));
    let min_rtt = if info.min_rtt == u64::MAX {
        u32::MAX
    } else {
        micros(info.min_rtt)
    };
    let words = [
        info.segs_out,
        info.segs_in,
        info.notsent_bytes,
        min_rtt,
        info.data_segs_in,
        info.data_segs_out,
    ];
    words
        .iter()
        .for_each(|w| out.extend_from_slice(&w.to_ne_bytes()));
    // Delivery rate and the times of being busy or limited are not measured.
    out.resize(192, 0);
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&info.delivered_ce.to_ne_bytes());
    out.extend_from_slice(&info.bytes_sent.to_ne_bytes());
    out.extend_from_slice(&info.bytes_retrans.to_ne_bytes());
    out.extend_from_slice(&info.dsack_dups.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&(info.snd_wnd.min(u64::from(u32::MAX)) as u32).to_ne_bytes());
    out.resize(INFO, 0);
    out
}

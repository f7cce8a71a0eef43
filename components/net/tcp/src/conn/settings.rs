//! What a user may set.

use crate::congestion;
use crate::rtt::SEC;

/// The size of a buffer, in bytes. Where `max` is above `size` it grows by itself when the connection has use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Size to begin with.
    pub size: u32,
    /// Size that auto-tuning may reach.
    pub max: u32,
}

impl Buffer {
    /// A buffer that keeps its size, as after SO_RCVBUF or SO_SNDBUF.
    pub fn fixed(size: u32) -> Buffer {
        Buffer { size, max: size }
    }
}

/// Keep-alive (RFC 9293 section 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Whether it is on (SO_KEEPALIVE).
    pub on: bool,
    /// Silence before the first probe, in ns (TCP_KEEPIDLE).
    pub idle: u64,
    /// Between probes, in ns (TCP_KEEPINTVL).
    pub interval: u64,
    /// Probes without an answer that end the connection (TCP_KEEPCNT).
    pub count: u8,
}

/// What is offered in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Window scaling (RFC 7323).
    pub window_scaling: bool,
    /// Timestamps (RFC 7323).
    pub timestamps: bool,
    /// Selective acknowledgements (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification (RFC 3168): asked for when connecting.
    pub ecn: bool,
    /// ECN is agreed to when the peer asks.
    pub ecn_accept: bool,
}

/// A connection's settings. [`Default`] is what a Linux host does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest segment that the interface carries: its MTU less the IP and TCP headers without options (1460, 1440, ...).
    pub mss: u16,
    /// TCP_MAXSEG: a lower limit for it; 0 is none.
    pub max_segment: u16,
    /// TCP_NODELAY: small segments do not wait for an acknowledgement.
    pub nodelay: bool,
    /// TCP_CORK: only full segments leave, for at most 200 ms.
    pub cork: bool,
    /// TCP_QUICKACK: acknowledge at once.
    pub quickack: bool,
    /// SO_OOBINLINE: urgent data stay in the stream.
    pub oob_inline: bool,
    /// SO_RCVBUF.
    pub recv_buffer: Buffer,
    /// SO_SNDBUF.
    pub send_buffer: Buffer,
    /// TCP_NOTSENT_LOWAT, bytes: above so much unsent data the connection is not writable.
    pub notsent_lowat: u32,
    /// Keep-alive.
    pub keepalive: KeepAlive,
    /// TCP_USER_TIMEOUT, in ns: data unacknowledged for so long end the connection; 0 is none.
    pub user_timeout: u64,
    /// TCP_SYNCNT: how often a SYN is sent again.
    pub syn_retries: u8,
    /// How often data are sent again before the connection ends (tcp_retries2).
    pub retries: u8,
    /// TCP_LINGER2, in ns: how long a closed connection waits for the peer's FIN.
    pub fin_timeout: u64,
    /// Handshake.
    pub offer: Offer,
    /// TCP_CONGESTION: one of [`congestion::ALGORITHMS`]; cubic if it is none.
    pub congestion: &'static str,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            mss: 1460,
            max_segment: 0,
            nodelay: false,
            cork: false,
            quickack: false,
            oob_inline: false,
            recv_buffer: Buffer {
                size: 128 << 10,
                max: 6 << 20,
            },
            send_buffer: Buffer {
                size: 64 << 10,
                max: 4 << 20,
            },
            notsent_lowat: u32::MAX,
            keepalive: KeepAlive {
                on: false,
                idle: 7200 * SEC,
                interval: 75 * SEC,
                count: 9,
            },
            user_timeout: 0,
            syn_retries: 6,
            retries: 15,
            fin_timeout: 60 * SEC,
            offer: Offer {
                window_scaling: true,
                timestamps: true,
                sack: true,
                ecn: false,
                ecn_accept: true,
            },
            congestion: congestion::ALGORITHMS[0],
        }
    }
}

impl Settings {
    /// The largest segment to announce and to send.
    pub(crate) fn mss(&self) -> u16 {
        match self.max_segment {
            0 => self.mss,
            max => self.mss.min(max),
        }
    }

    /// The window scale that the receive buffer may come to need.
    pub(crate) fn window_scale(&self) -> u8 {
        let max = self.recv_buffer.max.max(self.recv_buffer.size);
        (0..14).find(|s| max >> s <= 0xffff).unwrap_or(14)
    }
}

//! TCP_INFO.

use super::{Connection, State};
use crate::congestion;
use crate::loss::Phase;

/// What tcp(7)'s TCP_INFO tells. Times are in ns, sizes in bytes unless said otherwise.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "the names are struct tcp_info's, without the prefix"
)]
pub struct Info {
    pub state: State,
    /// As TCP_CA_Open (0), CWR (2), Recovery (3), Loss (4).
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub timestamps: bool,
    pub sack: bool,
    pub window_scaling: bool,
    pub ecn: bool,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    pub rto: u64,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    /// On the way, SACKed, lost, and sent again: in segments.
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub last_data_sent: u64,
    pub last_data_recv: u64,
    pub last_ack_recv: u64,
    pub rtt: u64,
    pub rttvar: u64,
    pub min_rtt: u64,
    pub rcv_rtt: u64,
    /// In segments.
    pub snd_ssthresh: u32,
    /// In segments.
    pub snd_cwnd: u32,
    pub advmss: u32,
    pub reordering: bool,
    pub rcv_space: u32,
    pub snd_wnd: u64,
    pub rcv_wnd: u64,
    pub total_retrans: u32,
    /// Retransmission timeouts, fast recoveries, and such of both as were undone.
    pub timeouts: u32,
    pub recoveries: u32,
    pub undone: u32,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub data_segs_in: u32,
    pub data_segs_out: u32,
    pub notsent_bytes: u32,
    pub delivered_ce: u32,
    pub dsack_dups: u32,
    /// Memory that received data take, with overhead.
    pub rcv_memory: usize,
    /// The congestion-control algorithm.
    pub congestion: &'static str,
}

impl Connection {
    /// How the connection is.
    pub fn info(&self) -> Info {
        let mss = u64::from(self.current_mss()).max(1);
        let segments = |bytes: u64| bytes.div_ceil(mss).min(u64::from(u32::MAX)) as u32;
        let (stats, mishaps) = (&self.stats, &*self.rare);
        Info {
            state: self.state,
            ca_state: match self.flight.recovery.phase {
                Phase::Open => 0,
                Phase::Reduced => 2,
                Phase::Recovery => 3,
                Phase::Loss => 4,
            },
            retransmits: self.flight.timers.retries,
            probes: self.alive.probes,
            backoff: self.rtt.backoff,
            timestamps: self.agreed.timestamps,
            sack: self.agreed.sack,
            window_scaling: self.agreed.window_scaling,
            ecn: self.agreed.ecn,
            snd_wscale: self.tx.scale,
            rcv_wscale: self.rx.scale,
            rto: self.rtt.rto(),
            snd_mss: mss as u32,
            rcv_mss: self.rx.mss,
            unacked: segments(self.tx.nxt - self.tx.una),
            sacked: segments(self.flight.board.sacked()),
            lost: segments(self.flight.board.lost()),
            retrans: segments(self.flight.board.retrans()),
            last_data_sent: self.tx.last_at,
            last_data_recv: stats.last_data_recv,
            last_ack_recv: self.alive.last_heard,
            rtt: self.rtt.srtt,
            rttvar: self.rtt.var,
            min_rtt: self.rtt.min(),
            rcv_rtt: self.rx.rtt(),
            snd_ssthresh: segments(self.window.ssthresh),
            snd_cwnd: segments(self.window.cwnd),
            advmss: u32::from(self.settings.mss()),
            reordering: self.flight.rack.reordering,
            rcv_space: self.rx.buffer,
            snd_wnd: u64::from(self.tx.wnd),
            rcv_wnd: self.rx.adv.saturating_sub(self.rx.nxt),
            total_retrans: mishaps.retransmits,
            timeouts: mishaps.timeouts,
            recoveries: mishaps.recoveries,
            undone: mishaps.undone,
            bytes_acked: (self.tx.una - self.tx.iss()).saturating_sub(1),
            bytes_received: self.rx.nxt.saturating_sub(self.rx.irs() + 1),
            bytes_sent: (self.tx.nxt - self.tx.iss()).saturating_sub(1) + mishaps.bytes_retrans,
            bytes_retrans: mishaps.bytes_retrans,
            segs_out: stats.segs_out,
            segs_in: stats.segs_in,
            data_segs_in: stats.data_segs_in,
            data_segs_out: stats.data_segs_out,
            notsent_bytes: self.unsent() as u32,
            delivered_ce: mishaps.delivered_ce,
            dsack_dups: mishaps.dsack_dups,
            rcv_memory: self.rx.memory(),
            congestion: congestion::known(self.settings.congestion),
        }
    }
}

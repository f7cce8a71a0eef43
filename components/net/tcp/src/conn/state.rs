//! States, errors, and what a user may wait for.

use std::fmt;

/// The state of a connection (RFC 9293 section 3.3.2). LISTEN is [`crate::SynCache`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Data flow.
    Established = 1,
    /// A SYN is out.
    SynSent = 2,
    /// SYNs have crossed or one was answered.
    SynReceived = 3,
    /// We have finished; it is not acknowledged.
    FinWait1 = 4,
    /// We have finished; the peer has not.
    FinWait2 = 5,
    /// Both have finished; old segments may still come.
    TimeWait = 6,
    /// There is no connection (any more).
    Closed = 7,
    /// The peer has finished.
    CloseWait = 8,
    /// Both have finished, ours last; it is not acknowledged.
    LastAck = 9,
    /// Both have finished at once.
    Closing = 11,
}

impl State {
    /// As in TCP_INFO's `tcpi_state`.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Whether the handshake is done and the connection not closed.
    pub fn is_synchronized(self) -> bool {
        !matches!(self, State::Closed | State::SynSent | State::SynReceived)
    }

    /// Whether the user may still send.
    pub fn can_send(self) -> bool {
        matches!(
            self,
            State::Established | State::CloseWait | State::SynSent | State::SynReceived
        )
    }

    /// Whether the peer may still send.
    pub fn can_receive(self) -> bool {
        matches!(
            self,
            State::Established
                | State::FinWait1
                | State::FinWait2
                | State::SynSent
                | State::SynReceived
        )
    }
}

/// Why a connection ended, or a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer refused the connection (ECONNREFUSED).
    Refused,
    /// The peer reset it (ECONNRESET).
    Reset,
    /// The peer did not answer (ETIMEDOUT).
    TimedOut,
    /// The direction is shut down, or there is no connection (EPIPE, ENOTCONN).
    Closed,
    /// It is not there (any more) to be read (EINVAL, for urgent data).
    Absent,
    /// The network says that the peer is out of reach: what [`super::Connection::unreachable`] was told (EHOSTUNREACH,
    /// ENETUNREACH, ...), as its caller's number.
    Unreachable(i32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused => f.write_str("connection refused"),
            Error::Reset => f.write_str("connection reset by peer"),
            Error::TimedOut => f.write_str("connection timed out"),
            Error::Closed => f.write_str("connection closed"),
            Error::Absent => f.write_str("no such data"),
            Error::Unreachable(why) => write!(f, "peer unreachable ({why})"),
        }
    }
}

impl std::error::Error for Error {}

/// What a user may do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes that [`super::Connection::recv`] would give.
    pub readable: usize,
    /// The peer has finished, or the connection is over: reading gives what is there and then the end.
    pub eof: bool,
    /// Bytes that [`super::Connection::send`] would take.
    pub writable: usize,
    /// The handshake is done (and perhaps the connection over since).
    pub connected: bool,
    /// The connection is over.
    pub closed: bool,
    /// An error waits in [`super::Connection::take_error`].
    pub error: bool,
    /// Urgent data can be read (POLLPRI).
    pub urgent: bool,
}

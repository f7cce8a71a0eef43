//! TCP as a library: segments in, segments out, time as a number.
//!
//! The engine does no input or output, starts nothing and waits for nothing. It knows neither the kernel nor IP: its owner parses
//! packets, finds the connection, hands it segments, asks it for segments to send until there are none, and comes back at the time
//! that the connection names. User data are [`bytes::Bytes`] by reference all the way, and one segment may carry up to 64 KiB (GSO
//! and GRO), so a trip through the engine moves that much.
//!
//! ```
//! use tcp::{Connection, Open, Settings};
//!
//! let mut now = 0; // ns, of any clock that does not go back
//! let open = Open { local_port: 40000, remote_port: 80, iss: 7, ts_offset: 0, fast_open: None };
//! let mut connection = Connection::connect(now, open, Settings::default());
//! connection.send(&mut bytes::Bytes::from_static(b"GET / HTTP/1.0\r\n\r\n")).unwrap();
//! let syn = connection.poll_transmit(now, 65535).unwrap();
//! assert!(syn.flags.has(tcp::Flags::SYN));
//! now = connection.next_deadline().unwrap(); // nobody answered
//! connection.on_timer(now);
//! assert_eq!(connection.poll_transmit(now, 65535).unwrap().seq, syn.seq);
//! ```
//!
//! It uses `bytes` and `smallvec` and nothing else. Start reading at [`Connection`] (`conn/mod.rs`): `input` is what a segment does,
//! `ack` what an acknowledgement does, `output` what is sent, `timer` what time does, `rest` what an idle connection gives back. A listening socket is a [`SynCache`]; what is
//! left of a connection at its end is a [`TimeWait`].
#![forbid(unsafe_code)]

pub mod congestion;
mod conn;
mod lazy;
mod listen;
mod loss;
mod queue;
mod rtt;
mod seq;
mod wire;

pub use conn::{
    Buffer, Connection, Error, Info, KeepAlive, Offer, Open, Readiness, Settings, State,
};
pub use listen::{
    Accepted, End, Isn, Key, SynCache, SynLimits, SynReply, TimeWait, TimeWaitReply, Tuple,
};
pub use wire::{Cookie, Ecn, Flags, Malformed, Options, Payload, SackBlocks, Segment, Timestamps};

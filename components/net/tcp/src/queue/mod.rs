//! What waits: data to be sent, data to be read, data that came too early.

mod reassembly;
mod recv;
mod send;

pub(crate) use reassembly::Reassembly;
pub(crate) use recv::RecvQueue;
pub(crate) use send::SendQueue;

/// What a piece in a queue is charged besides its bytes: the node and the least that an allocation behind it takes.
pub(crate) const PIECE: usize = 256;

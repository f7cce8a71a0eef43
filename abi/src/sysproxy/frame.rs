//! Frames and their bodies.

use crate::Errno;

/// Bytes of a frame header.
pub const HEADER: usize = 24;
/// The most bytes of a frame's body. A peer that announces more is malformed, and nothing is allocated for it.
pub const MAX_BODY: usize = 16 << 20;
/// The most bytes of memory that travel with one request or one reply; what is more is copied in pieces during the call.
pub const MAX_INLINE: usize = 1 << 20;
/// The most segments in one request or reply.
pub const MAX_SEGMENTS: usize = 64;
/// Bytes of a system-call request before its segments.
pub const REQUEST_FIXED: usize = 64;
/// Bytes of a system-call reply before its segments.
pub const REPLY_FIXED: usize = 24;
/// Bytes of a [`CopyData`] before its data.
pub const COPY_FIXED: usize = 16;
/// The most bytes of a banner line, with its newline.
pub const MAX_BANNER: usize = 96;
/// What a banner begins with.
pub const PROTOCOL: &str = "RUMPSP-0.4-";
/// The most bytes of a command name.
pub const MAX_COMM: usize = 64;

/// What is wrong with a frame: it announces or contains what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Request, response or refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Class {
    /// Asks for something.
    Request = 0,
    /// Answers a request under its number.
    Response = 1,
    /// Refuses a request under its number; the header's word is an [`ErrorWord`].
    Error = 2,
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident : $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr($repr)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// The meaning of a number on the wire; `None` for one that has none.
            pub const fn from_wire(value: $repr) -> Option<$name> {
                match value {
                    $($value => Some($name::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

words! {
    /// What a frame is about.
    Kind: u16 {
        /// Who the client is; the header's word is a [`Handshake`].
        Handshake = 0,
        /// A system call; the word is its number. Body: [`SyscallRequest`] and [`SyscallReply`].
        Syscall = 1,
        /// Server asks for memory; body: [`CopyData`] without data, answered with data.
        Copyin = 2,
        /// Server asks for a string of at most that length, answered with data up to its NUL.
        Copyinstr = 3,
        /// Server writes memory; body: [`CopyData`] with data. Not answered.
        Copyout = 4,
        /// As `Copyout`, for a string.
        Copyoutstr = 5,
        /// Server asks for fresh memory; body: `u64` size, answered with the address.
        Anonmmap = 6,
        /// Client is about to fork; answered with a cookie.
        Prefork = 7,
        /// Server raises the signal in the word. Not answered.
        Raise = 8,
        /// Client interrupts the call of this request number, which ends with `EINTR` if it sleeps. Not answered.
        Interrupt = 16,
        /// Client hands over a ring: a memfd goes with the frame. Comes after a `RingOffer` that was taken. Word: 0. Answered with a
        /// [`RingReply`].
        RingAttach = 17,
        /// Client interrupts the call that is on the ring whose number is the word, if it is still the call with that request
        /// number: a ring's calls are counted from 1. Not answered.
        RingInterrupt = 18,
        /// Client gives the ring back whose number is the word. Not answered.
        RingDetach = 19,
        /// Client wants to hand over a ring: the server, which otherwise drops descriptors that are sent along, is to look for
        /// one. Answered with a [`RingReply`] whose ring is 0.
        RingOffer = 20,
    }
}

words! {
    /// Who a client is.
    Handshake: u32 {
        /// A new process. Body: [`GuestBody`].
        Guest = 0,
        /// Not used.
        Auth = 1,
        /// The child that was announced by `Prefork`. Body: [`ForkBody`].
        Fork = 2,
        /// The same process after execve(2). Body: [`ExecBody`].
        Exec = 3,
        /// Another connection of a process. Body: the session cookie.
        Join = 16,
        /// A connection on which the server only sends bytes, one when a watched descriptor may be ready. Body: the session cookie.
        Ready = 17,
    }
}

words! {
    /// Why a request is refused.
    ErrorWord: u32 {
        /// It is not.
        None = 0,
        /// The server has no thread or slot left.
        TryAgain = 1,
        /// No handshake came first.
        Auth = 2,
        /// The cookie names nothing.
        InvalidPrefork = 3,
        /// No process could be made.
        RforkFailed = 4,
        /// The process is in the middle of an exec.
        InExec = 5,
        /// No memory.
        NoMem = 6,
        /// The frame makes no sense.
        MalformedRequest = 7,
        /// The memory asked for is not there.
        Fault = 8,
    }
}

impl ErrorWord {
    /// The errno that a refusal becomes.
    pub const fn errno(self) -> Errno {
        match self {
            ErrorWord::None => Errno(0),
            ErrorWord::TryAgain => Errno::EAGAIN,
            ErrorWord::Auth => Errno::EPERM,
            ErrorWord::InvalidPrefork => Errno::ESRCH,
            ErrorWord::RforkFailed => Errno::EIO,
            ErrorWord::InExec => Errno::EBUSY,
            ErrorWord::NoMem => Errno::ENOMEM,
            ErrorWord::MalformedRequest => Errno::EINVAL,
            ErrorWord::Fault => Errno::EFAULT,
        }
    }
}

/// The head of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body that follows.
    pub body: usize,
    /// Pairs an answer with its request; chosen by who asks.
    pub reqno: u64,
    /// Request, response or refusal.
    pub class: Class,
    /// What it is about.
    pub kind: Kind,
    /// System-call number, error, handshake or signal.
    pub word: u32,
}

impl Header {
    /// A header for a body of `body` bytes, at most [`MAX_BODY`].
    pub const fn new(class: Class, kind: Kind, word: u32, reqno: u64, body: usize) -> Header {
        Header {
            body,
            reqno,
            class,
            kind,
            word,
        }
    }

    /// The header as it goes over the wire.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[0..8].copy_from_slice(&((HEADER + self.body) as u64).to_le_bytes());
        out[8..16].copy_from_slice(&self.reqno.to_le_bytes());
        out[16..18].copy_from_slice(&(self.class as u16).to_le_bytes());
        out[18..20].copy_from_slice(&(self.kind as u16).to_le_bytes());
        out[20..24].copy_from_slice(&self.word.to_le_bytes());
        out
    }

    /// Reads a header; every field is checked.
    pub fn decode(bytes: &[u8; HEADER]) -> Result<Header, Malformed> {
        let body = u64_at(bytes, 0)
            .and_then(|len| len.checked_sub(HEADER as u64))
            .filter(|&body| body <= MAX_BODY as u64)
            .ok_or(Malformed)?;
        let class = match u16::from_le_bytes([bytes[16], bytes[17]]) {
            0 => Class::Request,
            1 => Class::Response,
            2 => Class::Error,
            _ => return Err(Malformed),
        };
        Ok(Header {
            body: body as usize,
            reqno: u64_at(bytes, 8).ok_or(Malformed)?,
            class,
            kind: Kind::from_wire(u16::from_le_bytes([bytes[18], bytes[19]])).ok_or(Malformed)?,
            word: u32_at(bytes, 20).ok_or(Malformed)?,
        })
    }
}

/// The `u64` at a place; `None` past the end.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

/// The `u32` at a place; `None` past the end.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// Bytes that `len` bytes of segment data take on the wire: whole words, so that headers stay aligned.
pub const fn padded(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// A piece of client memory in a request or reply: this head, then the data, then padding to a whole word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// Where in the client's memory.
    pub addr: u64,
    /// How many bytes.
    pub len: u32,
}

impl SegmentHead {
    /// Bytes of it.
    pub const SIZE: usize = 16;

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..8].copy_from_slice(&self.addr.to_le_bytes());
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// Reads one. The length is what the peer says, checked against nothing yet.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Result<SegmentHead, Malformed> {
        if u32_at(bytes, 12) != Some(0) {
            return Err(Malformed);
        }
        Ok(SegmentHead {
            addr: u64_at(bytes, 0).ok_or(Malformed)?,
            len: u32_at(bytes, 8).ok_or(Malformed)?,
        })
    }
}

/// Segments of a body whose every length has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Segments<'a> {
    /// `count` segments that fill `bytes` exactly.
    fn check(bytes: &'a [u8], count: u32) -> Result<Segments<'a>, Malformed> {
        let count = usize::try_from(count)
            .ok()
            .filter(|&n| n <= MAX_SEGMENTS)
            .ok_or(Malformed)?;
        let all = Segments { bytes, left: count };
        let mut rest = all;
        for _ in 0..count {
            rest.cut().ok_or(Malformed)?;
        }
        if rest.bytes.is_empty() {
            Ok(all)
        } else {
            Err(Malformed)
        }
    }

    fn cut(&mut self) -> Option<(u64, &'a [u8])> {
        let (head, rest) = self.bytes.split_first_chunk::<{ SegmentHead::SIZE }>()?;
        let head = SegmentHead::decode(head).ok()?;
        let len = head.len as usize;
        let data = rest.get(..len)?;
        self.bytes = rest.get(padded(len)..)?;
        Some((head.addr, data))
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        self.left = self.left.checked_sub(1)?;
        self.cut()
    }
}

/// Whether a request is the only one of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Company {
    /// Nothing else was unanswered when it was sent.
    Alone = 0,
    /// Other threads of the client wait too. A server that reads and runs calls in one thread may have another one read on.
    Others = 1,
}

/// Body of a system-call request: the registers, hints and the memory that goes along.
#[derive(Clone, Copy, Debug)]
pub struct SyscallRequest<'a> {
    /// The six registers.
    pub args: [u64; 6],
    /// Numbers for the descriptors that the call makes, -1 for the lowest free.
    pub hints: [i32; 2],
    /// Whether other requests are unanswered.
    pub company: Company,
    /// Client memory by address.
    pub segments: Segments<'a>,
}

impl<'a> SyscallRequest<'a> {
    /// The part before the segments, of which `count` follow.
    pub fn encode_fixed(
        args: &[u64; 6],
        hints: [i32; 2],
        company: Company,
        count: u32,
    ) -> [u8; REQUEST_FIXED] {
        let mut out = [0; REQUEST_FIXED];
        for (field, arg) in out.chunks_exact_mut(8).zip(args) {
            field.copy_from_slice(&arg.to_le_bytes());
        }
        out[48..52].copy_from_slice(&hints[0].to_le_bytes());
        out[52..56].copy_from_slice(&hints[1].to_le_bytes());
        out[56..60].copy_from_slice(&count.to_le_bytes());
        out[60..64].copy_from_slice(&(company as u32).to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<SyscallRequest<'a>, Malformed> {
        let (fixed, rest) = body.split_first_chunk::<REQUEST_FIXED>().ok_or(Malformed)?;
        let mut args = [0; 6];
        for (i, arg) in args.iter_mut().enumerate() {
            *arg = u64_at(fixed, i * 8).ok_or(Malformed)?;
        }
        let word = |at| u32_at(fixed, at).ok_or(Malformed);
        Ok(SyscallRequest {
            args,
            hints: [word(48)? as i32, word(52)? as i32],
            segments: Segments::check(rest, word(56)?)?,
            company: match word(60)? {
                0 => Company::Alone,
                1 => Company::Others,
                _ => return Err(Malformed),
            },
        })
    }
}

/// Body of a system-call reply: `struct sysresp` of the reference, then the memory that the call has written.
#[derive(Clone, Copy, Debug)]
pub struct SyscallReply<'a> {
    /// The errno, or 0.
    pub error: i32,
    /// What the call returned.
    pub retval: i64,
    /// Client memory by address.
    pub segments: Segments<'a>,
}

impl<'a> SyscallReply<'a> {
    /// The part before the segments, of which `count` follow.
    pub fn encode_fixed(error: i32, retval: i64, count: u32) -> [u8; REPLY_FIXED] {
        let mut out = [0; REPLY_FIXED];
        out[0..4].copy_from_slice(&error.to_le_bytes());
        out[4..8].copy_from_slice(&count.to_le_bytes());
        out[8..16].copy_from_slice(&retval.to_le_bytes());
        out
    }

    /// The fixed part: error, returned value, and how many segments follow.
    pub fn decode_fixed(bytes: &[u8; REPLY_FIXED]) -> Result<(i32, i64, u32), Malformed> {
        let word = |at| u32_at(bytes, at).ok_or(Malformed);
        let retval = u64_at(bytes, 8).ok_or(Malformed)? as i64;
        Ok((word(0)? as i32, retval, word(4)?))
    }

    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<SyscallReply<'a>, Malformed> {
        let (fixed, rest) = body.split_first_chunk::<REPLY_FIXED>().ok_or(Malformed)?;
        let (error, retval, count) = Self::decode_fixed(fixed)?;
        Ok(SyscallReply {
            error,
            retval,
            segments: Segments::check(rest, count)?,
        })
    }
}

/// `struct copydata`: a stretch of client memory, and perhaps what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyData<'a> {
    /// Length of the stretch; with data, exactly the data's.
    pub len: u64,
    /// Its address.
    pub addr: u64,
    /// The bytes; empty in a request.
    pub data: &'a [u8],
}

impl<'a> CopyData<'a> {
    /// The part before the data.
    pub fn encode_fixed(len: u64, addr: u64) -> [u8; COPY_FIXED] {
        let mut out = [0; COPY_FIXED];
        out[0..8].copy_from_slice(&len.to_le_bytes());
        out[8..16].copy_from_slice(&addr.to_le_bytes());
        out
    }

    /// Reads a body that asks: a length of at most [`MAX_INLINE`], and no data.
    pub fn decode_ask(body: &'a [u8]) -> Result<CopyData<'a>, Malformed> {
        let copy = Self::decode_any(body)?;
        if copy.data.is_empty() && copy.len <= MAX_INLINE as u64 {
            Ok(copy)
        } else {
            Err(Malformed)
        }
    }

    /// Reads a body that carries: as much data as it says.
    pub fn decode(body: &'a [u8]) -> Result<CopyData<'a>, Malformed> {
        let copy = Self::decode_any(body)?;
        if copy.data.len() as u64 == copy.len {
            Ok(copy)
        } else {
            Err(Malformed)
        }
    }

    fn decode_any(body: &'a [u8]) -> Result<CopyData<'a>, Malformed> {
        Ok(CopyData {
            len: u64_at(body, 0).ok_or(Malformed)?,
            addr: u64_at(body, 8).ok_or(Malformed)?,
            data: body.get(COPY_FIXED..).ok_or(Malformed)?,
        })
    }
}

/// A number that cannot be guessed: names a forked process, or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cookie(pub [u32; 4]);

impl Cookie {
    /// Bytes of it.
    pub const SIZE: usize = 16;

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        for (field, word) in out.chunks_exact_mut(4).zip(self.0) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads one from the front of a body.
    pub fn decode(body: &[u8]) -> Result<Cookie, Malformed> {
        let word = |i: usize| u32_at(body, i * 4).ok_or(Malformed);
        Ok(Cookie([word(0)?, word(1)?, word(2)?, word(3)?]))
    }
}

/// Wants the console on descriptors 0, 1 and 2.
pub const GUEST_CONSOLE: u32 = 1;

/// Body of a guest's handshake: the command name, and perhaps a NUL and a word of flags (ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestBody<'a> {
    /// The command name; cut at [`MAX_COMM`] bytes.
    pub comm: &'a [u8],
    /// [`GUEST_CONSOLE`] or 0.
    pub flags: u32,
}

impl<'a> GuestBody<'a> {
    /// Reads a body; any is one.
    pub fn decode(body: &'a [u8]) -> GuestBody<'a> {
        let (comm, rest) = comm(body);
        GuestBody {
            comm,
            flags: u32_at(rest, 0).unwrap_or(0),
        }
    }
}

/// Body of a forked child's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkBody {
    /// What `Prefork` answered.
    pub cookie: Cookie,
    /// The fork did not happen: release what was made for it.
    pub cancel: bool,
}

impl ForkBody {
    /// Bytes of it.
    pub const SIZE: usize = 20;

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..16].copy_from_slice(&self.cookie.encode());
        out[16] = u8::from(self.cancel);
        out
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<ForkBody, Malformed> {
        Ok(ForkBody {
            cookie: Cookie::decode(body)?,
            cancel: u32_at(body, 16).ok_or(Malformed)? != 0,
        })
    }
}

/// Body of the handshake after exec: the command name, and on a new connection a NUL and the session cookie (ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecBody<'a> {
    /// The new command name; cut at [`MAX_COMM`] bytes.
    pub comm: &'a [u8],
    /// Which process this is, when the connection is not the process's own.
    pub session: Option<Cookie>,
}

impl<'a> ExecBody<'a> {
    /// Reads a body; any is one.
    pub fn decode(body: &'a [u8]) -> ExecBody<'a> {
        let (comm, rest) = comm(body);
        ExecBody {
            comm,
            session: Cookie::decode(rest).ok(),
        }
    }
}

/// A command name up to its NUL or its limit, and what comes after the NUL.
fn comm(body: &[u8]) -> (&[u8], &[u8]) {
    let end = body.iter().position(|&b| b == 0).unwrap_or(body.len());
    let rest = body.get(end + 1..).unwrap_or(&[]);
    (&body[..end.min(MAX_COMM)], rest)
}

/// Body of the answer to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeReply {
    /// The errno, or 0.
    pub error: i32,
    /// The number of the process in the kernel.
    pub pid: i32,
    /// Names the process to `Join`, `Ready` and `Exec` handshakes.
    pub session: Cookie,
    /// The number of this connection, for [`NR_POLLWATCH`](super::NR_POLLWATCH) to name a readiness connection.
    pub connection: u32,
}

impl HandshakeReply {
    /// Bytes of it.
    pub const SIZE: usize = 32;

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..4].copy_from_slice(&self.error.to_le_bytes());
        out[4..8].copy_from_slice(&self.pid.to_le_bytes());
        out[8..24].copy_from_slice(&self.session.encode());
        out[24..28].copy_from_slice(&self.connection.to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<HandshakeReply, Malformed> {
        let word = |at| u32_at(body, at).ok_or(Malformed);
        Ok(HandshakeReply {
            error: word(0)? as i32,
            pid: word(4)? as i32,
            session: Cookie::decode(body.get(8..).ok_or(Malformed)?)?,
            connection: word(24)?,
        })
    }
}

/// Body of the answer to `RingAttach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingReply {
    /// The errno, or 0.
    pub error: i32,
    /// The number by which `RingInterrupt` and `RingDetach` name the ring.
    pub ring: u32,
}

impl RingReply {
    /// Bytes of it.
    pub const SIZE: usize = 8;

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..4].copy_from_slice(&self.error.to_le_bytes());
        out[4..8].copy_from_slice(&self.ring.to_le_bytes());
        out
    }

    /// Reads a body.
    pub fn decode(body: &[u8]) -> Result<RingReply, Malformed> {
        Ok(RingReply {
            error: u32_at(body, 0).ok_or(Malformed)? as i32,
            ring: u32_at(body, 4).ok_or(Malformed)?,
        })
    }
}

/// Interest in one descriptor, and what is ready of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Watch {
    /// The kernel descriptor.
    pub fd: i32,
    /// The `POLL*` bits that matter.
    pub events: u32,
    /// Those that are true; `POLLNVAL` for a descriptor that is not open.
    pub revents: u32,
}

impl Watch {
    /// Bytes of it.
    pub const SIZE: usize = 12;

    /// As it goes over the wire.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[0..4].copy_from_slice(&self.fd.to_le_bytes());
        out[4..8].copy_from_slice(&self.events.to_le_bytes());
        out[8..12].copy_from_slice(&self.revents.to_le_bytes());
        out
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Watch, Malformed> {
        let word = |at| u32_at(bytes, at).ok_or(Malformed);
        Ok(Watch {
            fd: word(0)? as i32,
            events: word(4)?,
            revents: word(8)?,
        })
    }
}

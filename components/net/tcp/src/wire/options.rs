//! The options of a segment (RFC 9293 section 3.2, 7323, 2018, 7413).

use super::Malformed;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const FAST_OPEN: u8 = 34;

/// How much room a header has for options.
const ROOM: usize = 40;

/// The timestamps option (RFC 7323 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the peer's clock, echoed.
    pub echo: u32,
}

/// A fast-open cookie (RFC 7413 section 4.1.1). An empty one asks for a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookie {
    len: u8,
    bytes: [u8; 16],
}

impl Cookie {
    /// The cookie of these bytes: none, or 4 to 16 of an even number.
    pub fn new(bytes: &[u8]) -> Option<Cookie> {
        let mut cookie = Cookie {
            len: bytes.len() as u8,
            ..Cookie::default()
        };
        if !(bytes.is_empty() || bytes.len() >= 4 && bytes.len().is_multiple_of(2)) {
            return None;
        }
        cookie.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(cookie)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether it only asks for a cookie.
    pub fn is_request(&self) -> bool {
        self.len == 0
    }
}

/// Up to four SACK blocks (RFC 2018): first sequence number, and the one behind the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SackBlocks {
    len: u8,
    blocks: [(u32, u32); 4],
}

impl SackBlocks {
    /// Adds a block; a fifth is left out.
    pub fn push(&mut self, left: u32, right: u32) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.len)) {
            *slot = (left, right);
            self.len += 1;
        }
    }

    /// The blocks in the order of the option.
    pub fn as_slice(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The options that the engine speaks. Others are skipped when parsing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size, on a SYN.
    pub mss: Option<u16>,
    /// Window scale, on a SYN; at most 14.
    pub window_scale: Option<u8>,
    /// Whether selective acknowledgements may be sent, on a SYN.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// Selective acknowledgements.
    pub sack: SackBlocks,
    /// Fast-open cookie or the wish for one, on a SYN.
    pub fast_open: Option<Cookie>,
}

impl Options {
    /// Parses the option part of a header. An option of impossible length ends the parse with an error; a known option of the wrong
    /// length is skipped (RFC 9293, MUST-6, MUST-7).
    pub fn parse(mut bytes: &[u8]) -> Result<Options, Malformed> {
        let mut options = Options::default();
        while let [kind, rest @ ..] = bytes {
            match *kind {
                END => break,
                NOP => bytes = rest,
                kind => {
                    let len = usize::from(*rest.first().ok_or(Malformed::Option)?);
                    let body = bytes.get(2..len).ok_or(Malformed::Option)?;
                    options.take(kind, body);
                    bytes = &bytes[len..];
                }
            }
        }
        Ok(options)
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        let word = |i: usize| u32::from_be_bytes([body[i], body[i + 1], body[i + 2], body[i + 3]]);
        match (kind, body.len()) {
            (MSS, 2) => self.mss = Some(u16::from_be_bytes([body[0], body[1]])),
            // RFC 7323 section 2.3: a shift above 14 counts as 14.
            (WINDOW_SCALE, 1) => self.window_scale = Some(body[0].min(14)),
            (SACK_PERMITTED, 0) => self.sack_permitted = true,
            (SACK, 8 | 16 | 24 | 32) => {
                self.sack = SackBlocks::default();
                for i in (0..body.len()).step_by(8) {
                    self.sack.push(word(i), word(i + 4));
                }
            }
            (TIMESTAMPS, 8) => {
                self.timestamps = Some(Timestamps {
                    value: word(0),
                    echo: word(4),
                });
            }
            (FAST_OPEN, _) => self.fast_open = Cookie::new(body),
            _ => {}
        }
    }

    /// How many bytes of a header they take, a multiple of four.
    pub fn encoded_len(&self) -> usize {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.window_scale.is_some() {
            len += 4;
        }
        if self.sack_permitted {
            len += 4;
        }
        if self.timestamps.is_some() {
            len += 12;
        }
        if let Some(cookie) = &self.fast_open {
            len += (2 + cookie.as_bytes().len()).next_multiple_of(4);
        }
        len + self.sack_len(len)
    }

    /// What is left for SACK blocks behind `used` bytes of other options, and taken.
    fn sack_len(&self, used: usize) -> usize {
        let fits = ROOM.saturating_sub(used + 4) / 8;
        match self.sack.as_slice().len().min(fits) {
            0 => 0,
            n => 4 + 8 * n,
        }
    }

    /// Writes them to `out`, which has at least [`Options::encoded_len`] bytes; says how many. Padding is NOPs before an option, so
    /// that its words are aligned.
    pub(crate) fn emit(&self, out: &mut [u8]) -> usize {
        let mut w = Writer { out, at: 0 };
        if let Some(mss) = self.mss {
            w.put(&[MSS, 4]);
            w.put(&mss.to_be_bytes());
        }
        if let Some(scale) = self.window_scale {
            w.put(&[NOP, WINDOW_SCALE, 3, scale]);
        }
        if self.sack_permitted {
            w.put(&[NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(ts) = self.timestamps {
            w.put(&[NOP, NOP, TIMESTAMPS, 10]);
            w.put(&ts.value.to_be_bytes());
            w.put(&ts.echo.to_be_bytes());
        }
        if let Some(cookie) = &self.fast_open {
            let len = 2 + cookie.as_bytes().len();
            (len..len.next_multiple_of(4)).for_each(|_| w.put(&[NOP]));
            w.put(&[FAST_OPEN, len as u8]);
            w.put(cookie.as_bytes());
        }
        let sack_len = self.sack_len(w.at);
        if sack_len > 0 {
            w.put(&[NOP, NOP, SACK, sack_len as u8 - 2]);
            for (left, right) in &self.sack.as_slice()[..sack_len / 8] {
                w.put(&left.to_be_bytes());
                w.put(&right.to_be_bytes());
            }
        }
        w.at
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

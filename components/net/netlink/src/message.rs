//! Messages and attributes, netlink(7) and rtnetlink(7): a header, a fixed part, and attributes of type, length and value.

use abi::Errno;

/// Bytes of a `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Messages and attributes begin at multiples of this.
const ALIGN: usize = 4;
/// Marks in an attribute's type: it is nested, its value is in network byte order.
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_MULTI: u16 = 2;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_CAPPED: u16 = 0x100;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;

pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// The least type that is not netlink's own.
pub(crate) const NLMSG_MIN_TYPE: u16 = 16;

/// A request: its header, and what is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
    /// The whole message, to be sent back with an error.
    pub(crate) whole: &'a [u8],
}

impl<'a> Request<'a> {
    /// The first message of what was sent, and what is behind it; `None` at the end or where the rest is none.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(Request<'a>, &'a [u8])> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let len = u32_at(header, 0)? as usize;
        let whole = bytes.get(..len)?;
        let request = Request {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            body: whole.get(HEADER..)?,
            whole,
        };
        Some((
            request,
            bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]),
        ))
    }

    /// Whether everything is asked for.
    pub(crate) fn is_dump(&self) -> bool {
        self.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// The fixed part of `N` bytes. What a request leaves out at its end is zero, as old programs do; `EINVAL` when nothing is there.
    pub(crate) fn fixed<const N: usize>(&self) -> Result<[u8; N], Errno> {
        if self.body.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut fixed = [0; N];
        let n = self.body.len().min(N);
        fixed[..n].copy_from_slice(&self.body[..n]);
        Ok(fixed)
    }

    /// The attributes behind a fixed part of `len` bytes.
    pub(crate) fn attributes(&self, len: usize) -> Attributes<'a> {
        Attributes(self.body.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]))
    }
}

/// Attributes, one after the other; they end where the bytes are none.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The last of a type.
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.filter(|(k, _)| *k == kind)
            .last()
            .map(|(_, value)| value)
    }

    /// As a number of four bytes.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        u32_at(self.get(kind)?, 0)
    }

    /// As text that ends at a NUL.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        let value = self.get(kind)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        std::str::from_utf8(&value[..end]).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

/// Messages being written, one behind the other.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Where the message that is being written begins.
    start: usize,
    port: u32,
    sequence: u32,
}

impl Writer {
    /// For answers to a request of the socket with this port number.
    pub(crate) fn new(port: u32, sequence: u32) -> Writer {
        Writer {
            bytes: Vec::new(),
            start: 0,
            port,
            sequence,
        }
    }

    /// Begins a message with its fixed part.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> &mut Writer {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(&flags.to_le_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_le_bytes());
        self.bytes.extend_from_slice(&self.port.to_le_bytes());
        self.bytes.extend_from_slice(fixed);
        self.align();
        self
    }

    /// Adds an attribute. One that is too long for its length field is left out.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Writer {
        if let Ok(len) = u16::try_from(value.len() + 4) {
            self.bytes.extend_from_slice(&len.to_le_bytes());
            self.bytes.extend_from_slice(&kind.to_le_bytes());
            self.bytes.extend_from_slice(value);
            self.align();
        }
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Writer {
        self.attr(kind, &[value])
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Writer {
        self.attr(kind, &value.to_le_bytes())
    }

    /// Text with its NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Writer {
        self.attr(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Attributes within an attribute.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Writer)) -> &mut Writer {
        let at = self.bytes.len();
        self.attr(kind | NLA_F_NESTED, &[]);
        fill(self);
        let len = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&len.to_le_bytes());
        self
    }

    /// Ends the message.
    pub(crate) fn end(&mut self) {
        let len = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn align(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was written.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Whether a request went well, `NLMSG_ERROR`: with the request's header, and all of it when it did not.
    pub(crate) fn result(&mut self, request: &Request<'_>, result: Result<(), Errno>) {
        let code = result.err().map_or(0, |error| -error.0);
        self.message(
            NLMSG_ERROR,
            if code == 0 { NLM_F_CAPPED } else { 0 },
            &code.to_le_bytes(),
        );
        let echo = match code {
            0 => request.whole.get(..HEADER).unwrap_or(&[]),
            _ => request.whole,
        };
        self.bytes.extend_from_slice(echo);
        self.align();
        self.end();
    }

    /// The end of what was asked for with `NLM_F_DUMP`.
    pub(crate) fn done(&mut self) {
        self.message(NLMSG_DONE, NLM_F_MULTI, &0i32.to_le_bytes())
            .end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::new(7, 9);
        writer
            .message(20, 5, &[1, 2, 3, 4, 5])
            .u32(1, 0x1234)
            .text(2, "eth0");
        writer.nested(3, |w| {
            w.u8(1, 8).u8(2, 9);
        });
        writer.end();
        writer.done();
        let bytes = writer.take();
        let (request, rest) = Request::split(&bytes).expect("a message");
        assert_eq!((request.kind, request.flags, request.sequence), (20, 5, 9));
        assert_eq!(request.fixed::<5>(), Ok([1, 2, 3, 4, 5]));
        let attributes = request.attributes(5);
        assert_eq!(attributes.u32(1), Some(0x1234));
        assert_eq!(attributes.text(2), Some("eth0"));
        let inner = Attributes(attributes.get(3).expect("nested"));
        assert_eq!(inner.collect::<Vec<_>>(), [(1, &[8][..]), (2, &[9])]);
        let (done, rest) = Request::split(rest).expect("the end");
        assert_eq!((done.kind, rest.len()), (NLMSG_DONE, 0));
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        assert!(Request::split(&[0; 15]).is_none());
        assert!(
            Request::split(&[0; 16]).is_none(),
            "shorter than its header"
        );
        assert!(Request::split(&[255; 40]).is_none());
        assert_eq!(Attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(Attributes(&[9, 0, 1, 0, 0]).count(), 0);
        assert_eq!(Attributes(&[4, 0, 1, 0, 255]).count(), 1);
    }
}

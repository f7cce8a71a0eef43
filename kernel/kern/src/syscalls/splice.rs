//! Moving bytes between pipes and other files.

use std::sync::Arc;

use abi::{Errno, SysResult, args};

use super::copy::Place;
use crate::pipe::{Pipe, PipeEnd};
use crate::uio::MAX_RW_COUNT;
use crate::{Curlwp, OpenFile, Uio};

/// Bytes that are moved at a time.
const CHUNK: usize = 64 << 10;
const SPLICE_F_NONBLOCK: i32 = 2;
/// `SPLICE_F_MOVE`, `_NONBLOCK`, `_MORE` and `_GIFT`.
const KNOWN: i32 = 15;

/// The two files of a call, with the pipes that they are.
struct Ends {
    from: Arc<OpenFile>,
    to: Arc<OpenFile>,
    from_pipe: Option<Arc<Pipe>>,
    to_pipe: Option<Arc<Pipe>>,
}

impl Ends {
    /// `EBADF` for what cannot be read or written, `EINVAL` for a pipe into itself.
    fn new(cx: &Curlwp<'_>, from: i32, to: i32, flags: i32) -> Result<Ends, Errno> {
        if flags & !KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let (from, to) = (cx.file(from)?, cx.file(to)?);
        if !from.readable() || !to.writable() {
            return Err(Errno::EBADF);
        }
        let pipe = |of: &OpenFile| of.downcast::<PipeEnd>().map(|end| end.pipe().clone());
        let (from_pipe, to_pipe) = (pipe(&from), pipe(&to));
        if let (Some(a), Some(b)) = (&from_pipe, &to_pipe)
            && Arc::ptr_eq(a, b)
        {
            return Err(Errno::EINVAL);
        }
        Ok(Ends {
            from,
            to,
            from_pipe,
            to_pipe,
        })
    }
}

/// splice(2): one of the two is a pipe. The bytes are copied.
pub(super) fn splice(cx: &Curlwp<'_>, a: args::splice) -> SysResult {
    let ends = Ends::new(cx, a.fd_in, a.fd_out, a.flags)?;
    let offsets = [(&ends.from_pipe, a.off_in), (&ends.to_pipe, a.off_out)];
    if offsets
        .iter()
        .any(|(pipe, at)| pipe.is_some() && !at.is_null())
    {
        return Err(Errno::ESPIPE);
    }
    let len = a.len.min(MAX_RW_COUNT);
    let wait = |of: &OpenFile| a.flags & SPLICE_F_NONBLOCK == 0 && !of.nonblocking();
    match (&ends.from_pipe, &ends.to_pipe) {
        (Some(from), _) => {
            if ends.to.appends() {
                return Err(Errno::EINVAL);
            }
            let target = match &ends.to_pipe {
                Some(pipe) => Target::Pipe(pipe, wait(&ends.to)),
                None => Target::File(&ends.to, Place::of(cx, &ends.to, a.off_out)?),
            };
            from_pipe(cx, from, &target, len, wait(&ends.from))
        }
        (None, Some(to)) => {
            let source = Place::of(cx, &ends.from, a.off_in)?;
            to_pipe(cx, &ends.from, &source, to, len, wait(&ends.to))
        }
        (None, None) => Err(Errno::EINVAL),
    }
}

/// Where bytes of a pipe go.
enum Target<'a> {
    Pipe(&'a Pipe, bool),
    File(&'a OpenFile, Place),
}

impl Target<'_> {
    /// Writes some bytes, `done` after the first.
    fn put(&self, cx: &Curlwp<'_>, data: &[u8], done: u64) -> Result<usize, Errno> {
        let moved = match self {
            Target::Pipe(pipe, wait) => return pipe.add(cx, data, false, *wait && done == 0),
            Target::File(of, place) => match place.offset() {
                Some(at) => of.pwrite(cx, &mut Uio::drain(data, at + done)),
                None => of.write(cx, &mut Uio::drain(data, 0)),
            },
        };
        Ok(moved? as usize)
    }

    fn advance(&self, cx: &Curlwp<'_>, by: u64) -> Result<(), Errno> {
        match self {
            Target::Pipe(..) => Ok(()),
            Target::File(of, place) => place.advance(cx, of, by),
        }
    }
}

/// From a pipe: what there is, and no more waiting once something has moved.
fn from_pipe(cx: &Curlwp<'_>, from: &Pipe, to: &Target<'_>, len: usize, wait: bool) -> SysResult {
    let mut buf = vec![0; len.min(CHUNK)];
    let mut done = 0;
    let mut result = Ok(());
    while done < len && result.is_ok() {
        let want = buf.len().min(len - done);
        let taken = match from.take(cx, &mut buf[..want], wait && done == 0) {
            Ok(0) => break,
            Ok(taken) => taken,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        let mut rest = &buf[..taken];
        while !rest.is_empty() {
            match to.put(cx, rest, done as u64) {
                Ok(0) => result = Err(Errno::EIO),
                Ok(moved) => {
                    rest = &rest[moved..];
                    done += moved;
                    continue;
                }
                Err(error) => result = Err(error),
            }
            from.put_back(cx, rest);
            break;
        }
    }
    if done == 0 {
        result?;
    }
    to.advance(cx, done as u64)?;
    Ok(done as i64)
}

/// Into a pipe: as much as it has room for, and no more waiting once something has moved.
fn to_pipe(
    cx: &Curlwp<'_>,
    from: &OpenFile,
    source: &Place,
    to: &Pipe,
    len: usize,
    wait: bool,
) -> SysResult {
    let mut buf = vec![0; len.min(CHUNK)];
    let mut done = 0;
    let mut result = Ok(());
    while done < len {
        let room = match to.wait_for_room(cx, wait && done == 0) {
            Ok(room) => room,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        let want = buf.len().min(len - done).min(room);
        let got = match source.offset() {
            Some(at) => from.pread(cx, &mut Uio::fill(&mut buf[..want], at + done as u64)),
            None => from.read(cx, &mut Uio::fill(&mut buf[..want], 0)),
        };
        let got = match got {
            Ok(0) => break,
            Ok(got) => got as usize,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        result = to.add_all(cx, &buf[..got]);
        if result.is_err() {
            break;
        }
        done += got;
        if source.offset().is_none() {
            // A stream is read once: the next read might wait.
            break;
        }
    }
    if done == 0 {
        result?;
    }
    source.advance(cx, from, done as u64)?;
    Ok(done as i64)
}

/// tee(2): from pipe to pipe, and the bytes stay in the first.
pub(super) fn tee(cx: &Curlwp<'_>, a: args::tee) -> SysResult {
    let ends = Ends::new(cx, a.fd_in, a.fd_out, a.flags)?;
    let (Some(from), Some(to)) = (&ends.from_pipe, &ends.to_pipe) else {
        return Err(Errno::EINVAL);
    };
    let wait = |of: &OpenFile| a.flags & SPLICE_F_NONBLOCK == 0 && !of.nonblocking();
    if a.len == 0 {
        return Ok(0);
    }
    let room = to.wait_for_room(cx, wait(&ends.to))?;
    let mut buf = vec![0; a.len.min(room).min(crate::pipe::MAX_SIZE)];
    let seen = from.peek(cx, &mut buf, wait(&ends.from))?;
    to.add_all(cx, &buf[..seen])?;
    Ok(seen as i64)
}

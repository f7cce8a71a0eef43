//! Wires that carry frames one after the other: a stream socket, with the length before each frame.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::Errno;
use bytes::Bytes;
use smallvec::SmallVec;

use super::{FRAME_MAX, Waker, connect, last_errno, made};
use crate::{InFrame, OutFrame, Wire, WireInfo};

/// Bytes of the length in front of a frame.
const PREFIX: usize = 4;
/// Bytes that are read at a time.
const READ: usize = 256 << 10;
/// Pieces that writev(2) takes in one call.
const PIECES: usize = 1024;

/// A stream of frames with a peer.
///
/// `out` before `peer`; `input` is the receiver's. None is held over a wait but `input`.
pub(super) struct Stream {
    info: WireInfo,
    waker: Waker,
    /// Where peers are waited for, and its path.
    listener: Option<(OwnedFd, Vec<u8>)>,
    peer: Mutex<Option<Arc<OwnedFd>>>,
    /// The end of a frame of which the socket took only the beginning.
    out: Mutex<Vec<u8>>,
    /// Whether [`out`](Self::out) has something, for who waits.
    behind: AtomicBool,
    input: Mutex<Input>,
}

/// What was read and not yet handed over.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    at: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    pub(super) fn open(path: &[u8], listen: bool) -> Result<Stream, Errno> {
        let fd = super::unix_socket(libc::SOCK_STREAM)?;
        let (listener, peer) = match listen {
            true => {
                super::bind(&fd, path)?;
                // SAFETY: listen(2) has no conditions.
                if unsafe { libc::listen(fd.as_raw_fd(), 1) } < 0 {
                    return Err(last_errno());
                }
                (Some((fd, path.to_vec())), None)
            }
            false => {
                connect(&fd, path)?;
                (None, Some(Arc::new(fd)))
            }
        };
        Ok(Stream {
            info: WireInfo {
                name: String::from_utf8_lossy(path).into_owned(),
                frame_max: FRAME_MAX,
                ..WireInfo::default()
            },
            waker: Waker::new()?,
            listener,
            peer: Mutex::new(peer),
            out: Mutex::default(),
            behind: AtomicBool::new(false),
            input: Mutex::default(),
        })
    }

    fn peer(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.peer).clone()
    }

    /// The peer has gone, or does not speak as it should.
    fn lose_peer(&self) -> Result<(), Errno> {
        let mut out = lock(&self.out);
        *lock(&self.peer) = None;
        out.clear();
        self.behind.store(false, Ordering::SeqCst);
        match self.listener {
            Some(_) => Ok(()),
            None => Err(Errno::ENOTCONN),
        }
    }

    /// Takes a peer that wants to connect, if there is one.
    fn accept(&self, listener: &OwnedFd) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: accept4(2) without an address has no conditions.
        let fd = unsafe { libc::accept4(listener.as_raw_fd(), address, len, flags) };
        if let Ok(fd) = made(fd) {
            *lock(&self.input) = Input::default();
            *lock(&self.peer) = Some(Arc::new(fd));
        }
    }

    /// Writes what is left of a frame; whether nothing is left.
    fn catch_up(&self, peer: &OwnedFd, out: &mut Vec<u8>) -> bool {
        if !out.is_empty() {
            let piece = iovec(out);
            let n = write(peer, &[piece]);
            out.drain(..n);
        }
        self.behind.store(!out.is_empty(), Ordering::SeqCst);
        out.is_empty()
    }

    /// Reads once; what came, and whether the peer is still there.
    fn read(&self, peer: &OwnedFd, input: &mut Input) -> Result<bool, Errno> {
        input.bytes.drain(..input.at);
        input.at = 0;
        let have = input.bytes.len();
        input.bytes.resize(have + READ, 0);
        let room = &mut input.bytes[have..];
        // SAFETY: the room is ours to write and as long as said.
        let n = unsafe { libc::read(peer.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        let error = last_errno();
        input.bytes.truncate(have + usize::try_from(n).unwrap_or(0));
        match n {
            1.. => Ok(true),
            0 => Err(Errno::ENOTCONN),
            _ if matches!(error, Errno::EAGAIN | Errno::EINTR) => Ok(false),
            _ => Err(Errno::ENOTCONN),
        }
    }

    /// Receives without waiting; whether anything came.
    fn receive_now(
        &self,
        peer: &OwnedFd,
        into: &mut Vec<InFrame>,
        max: usize,
    ) -> Result<bool, Errno> {
        let mut input = lock(&self.input);
        if input.frames(into, max)? {
            return Ok(true);
        }
        while self.read(peer, &mut input)? {
            if input.frames(into, max)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Input {
    /// Hands over the frames that are whole; whether there were any. `EPROTO` for a length that no frame has.
    fn frames(&mut self, into: &mut Vec<InFrame>, max: usize) -> Result<bool, Errno> {
        let mut count = 0;
        while count < max
            && let Some((prefix, rest)) = self.bytes[self.at..].split_first_chunk::<PREFIX>()
        {
            let len = u32::from_be_bytes(*prefix) as usize;
            if len > FRAME_MAX {
                return Err(Errno::EPROTO);
            }
            let Some(frame) = rest.get(..len) else { break };
            if len > 0 {
                into.push(InFrame {
                    bytes: Bytes::copy_from_slice(frame),
                    ..InFrame::default()
                });
                count += 1;
            }
            self.at += PREFIX + len;
        }
        Ok(count > 0)
    }
}

/// Bytes as they come, a step at a time.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz_frames(bytes: &[u8], step: usize) -> Result<Vec<InFrame>, Errno> {
    let (mut input, mut frames) = (Input::default(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        input.bytes.drain(..input.at);
        input.at = 0;
        input.bytes.extend_from_slice(piece);
        while input.frames(&mut frames, 2)? {}
        assert!(input.bytes.len() - input.at < PREFIX + FRAME_MAX);
    }
    Ok(frames)
}

impl Wire for Stream {
    fn info(&self) -> &WireInfo {
        &self.info
    }

    fn send(&self, frames: &[OutFrame<'_>]) -> usize {
        let mut out = lock(&self.out);
        let Some(peer) = self.peer() else { return 0 };
        if !self.catch_up(&peer, &mut out) {
            return 0;
        }
        let mut sent = 0;
        while sent < frames.len() {
            let part = &frames[sent..][..(frames.len() - sent).min(PIECES / 8)];
            let went = write_frames(&peer, part, &mut out);
            sent += went;
            if went < part.len() || !out.is_empty() {
                break;
            }
        }
        if !out.is_empty() {
            self.behind.store(true, Ordering::SeqCst);
            self.waker.look_again();
        }
        sent
    }

    fn receive(&self, into: &mut Vec<InFrame>, max: usize) -> Result<(), Errno> {
        loop {
            if self.waker.called() {
                return Ok(());
            }
            match (self.peer(), &self.listener) {
                (Some(peer), _) => {
                    match self.receive_now(&peer, into, max) {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(_) => {
                            self.lose_peer()?;
                            continue;
                        }
                    }
                    let mut events = libc::POLLIN;
                    if self.behind.load(Ordering::SeqCst) {
                        self.catch_up(&peer, &mut lock(&self.out));
                        events |= libc::POLLOUT;
                    }
                    self.waker.wait(peer.as_raw_fd(), events);
                }
                (None, Some((listener, _))) => {
                    self.accept(listener);
                    if self.peer().is_none() {
                        self.waker.wait(listener.as_raw_fd(), libc::POLLIN);
                    }
                }
                (None, None) => return Err(Errno::ENOTCONN),
            }
        }
    }

    fn wake(&self) {
        self.waker.wake();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((_, path)) = &self.listener {
            let _ = std::fs::remove_file(super::super::host_path(path));
        }
    }
}

/// Writes frames in one call; how many went. Of the last one the end may be left in `out`.
fn write_frames(peer: &OwnedFd, frames: &[OutFrame<'_>], out: &mut Vec<u8>) -> usize {
    let prefix = |frame: &OutFrame<'_>| (frame.len() as u32).to_be_bytes();
    let prefixes: SmallVec<[[u8; PREFIX]; 16]> = frames.iter().map(prefix).collect();
    let mut pieces: SmallVec<[libc::iovec; 64]> = SmallVec::new();
    let mut whole = frames.len();
    for (at, (frame, prefix)) in frames.iter().zip(&prefixes).enumerate() {
        if pieces.len() + 1 + frame.pieces.len() > PIECES {
            whole = at;
            break;
        }
        pieces.push(iovec(prefix));
        pieces.extend(frame.pieces.iter().map(|piece| iovec(piece)));
    }
    let mut written = write(peer, &pieces);
    for (at, (frame, prefix)) in frames[..whole].iter().zip(&prefixes).enumerate() {
        let len = PREFIX + frame.len();
        if written == 0 {
            return at;
        }
        if written < len {
            let all = std::iter::once(&prefix[..]).chain(frame.pieces.iter().copied());
            out.extend(all.flatten().skip(written));
            return at + 1;
        }
        written -= len;
    }
    whole
}

/// How many bytes the socket took; 0 when it takes none now. That the peer is gone is found by the receiver.
fn write(peer: &OwnedFd, pieces: &[libc::iovec]) -> usize {
    // SAFETY: all zero is an empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut();
    message.msg_iovlen = pieces.len() as _;
    loop {
        // SAFETY: the pieces live for the call, which only reads them.
        let n = unsafe { libc::sendmsg(peer.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        if n >= 0 {
            return n as usize;
        }
        if last_errno() != Errno::EINTR {
            return 0;
        }
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn path(dir: &tempfile::TempDir) -> Vec<u8> {
        dir.path().join("s").into_os_string().into_encoded_bytes()
    }

    fn frame(bytes: &[u8]) -> OutFrame<'_> {
        OutFrame {
            pieces: SmallVec::from_slice(&[bytes]),
            ..OutFrame::default()
        }
    }

    #[test]
    fn frames_are_whole_however_the_stream_is_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("binds");
        let wire = Stream::open(&path(&dir), false).expect("connects");
        let (mut peer, _) = listener.accept().expect("a peer");
        let mut bytes = Vec::new();
        for len in [1usize, 60, 1500, 65_000, 3] {
            bytes.extend((len as u32).to_be_bytes());
            bytes.extend(vec![len as u8; len]);
        }
        let writer = std::thread::spawn(move || {
            for piece in bytes.chunks(777) {
                peer.write_all(piece).expect("writes");
            }
            peer
        });
        let mut got = Vec::new();
        while got.len() < 5 {
            wire.receive(&mut got, 2).expect("frames");
        }
        let lens: Vec<_> = got.iter().map(|frame| frame.bytes.len()).collect();
        assert_eq!(lens, [1, 60, 1500, 65_000, 3]);
        drop(writer.join().expect("ends"));
        assert_eq!(wire.receive(&mut got, 2), Err(Errno::ENOTCONN));
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_and_others_are_lost_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("binds");
        let wire = Arc::new(Stream::open(&path(&dir), false).expect("connects"));
        let (mut peer, _) = listener.accept().expect("a peer");
        let long = vec![9; 60_000];
        let mut sent = 0;
        loop {
            match wire.send(&[frame(&long), frame(&long)]) {
                2 => sent += 2,
                n => {
                    sent += n;
                    break;
                }
            }
        }
        let receiver = {
            let wire = wire.clone();
            std::thread::spawn(move || wire.receive(&mut Vec::new(), 1))
        };
        let mut rest = vec![0; sent * 60_004];
        peer.read_exact(&mut rest).expect("all that was begun");
        assert!(
            rest.chunks(60_004)
                .all(|f| f[..4] == 60_000u32.to_be_bytes())
        );
        assert_eq!(wire.send(&[frame(b"there is room again")]), 1);
        wire.wake();
        assert_eq!(receiver.join().expect("ends"), Ok(()));
    }

    #[test]
    fn a_length_that_no_frame_has_ends_the_connection() {
        let dir = tempfile::tempdir().expect("a directory");
        let wire = Stream::open(&path(&dir), true).expect("listens");
        let mut bad = UnixStream::connect(dir.path().join("s")).expect("connects");
        bad.write_all(&[0xff; 100]).expect("writes");
        let mut good = UnixStream::connect(dir.path().join("s")).expect("connects");
        good.write_all(&[0, 0, 0, 2, 5, 6]).expect("writes");
        let mut got = Vec::new();
        wire.receive(&mut got, 1).expect("the second peer's");
        assert_eq!(&got[0].bytes[..], [5, 6]);
        assert_eq!(bad.read(&mut [0; 1]).expect("its end"), 0);
    }
}

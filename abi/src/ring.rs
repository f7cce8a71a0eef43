//! The shared-memory ring: one client thread's way to one server thread on the same machine.
//!
//! It is a sealed memfd of [`SIZE`] bytes that the client makes and hands over. One call at a time: the client writes
//! the request and counts [`REQUEST`] up, the server runs it, writes the reply and counts [`REPLY`] up. Both words are
//! futexes. Whoever waits looks for a while ([`Spin`](crate::Spin)), then raises its `ASLEEP` word, looks at the futex once more and
//! sleeps; whoever counts up looks at the other's `ASLEEP` word and makes the wake-up call only when it is raised. Both
//! do so in sequentially consistent order, so one of the two sees the other.
//!
//! A request may be answered in parts: before [`DONE`], the server may ask for memory or empty the window of written
//! memory, and the client answers by counting `REQUEST` up again.
//!
//! # Posted calls
//!
//! A call whose answer the client knows beforehand is not waited for. With the answer of an epoll_wait(2) or a poll(2) the server *leases*
//! stream sockets to the client's thread ([`LeaseHead`]): those of what was found ready that have one descriptor in one
//! process, so that nobody else changes them. A lease says what a read would give and how much a write would take. While it
//! stands, the client answers such reads and writes itself, changes of the socket's entry in the instance, and close(2), and *posts*
//! what the server has to do for them: it puts a request into the queue at [`QUEUE`] and moves [`POSTED`] on. What is posted and
//! complete runs in its order before the next call of any thread of the process, when the process forks, execs or ends, however
//! that comes, and at the latest some hundred microseconds after it was posted. An error of it is the socket's, for the next call
//! to tell, as TCP tells errors.
//!
//! The server *recalls* a ring's leases, all of them at once, by setting [`RECALLED`] in [`POSTED`]: before a call of another
//! thread of the process. The client moves the word by compare-and-swap, so what it posts is
//! either before the recall or fails, and the call is then made as any other. Leases end too when the thread waits again, and
//! a socket's when the thread makes another call on it that may change it, which the client sees to by itself.
//!
//! # Memory
//!
//! Memory travels in the segments of [`crate::sysproxy`], in two windows: one that the client fills, one that the server
//! fills. The server copies every head out before it looks at it, because a client may change it at any time; so does
//! the client, because a server may be another's.

use crate::sysproxy::{Malformed, SegmentHead, padded};

/// Bytes of a window: 256 KiB of data and room for heads.
pub const WINDOW: usize = 0x41000;
/// Bytes of a ring.
pub const SIZE: usize = QUEUE + QUEUED + MAX_POST;

/// `u32`: [`MAGIC`], written by the client before it hands the ring over.
pub const AT_MAGIC: usize = 0;
/// `u32`: the host's number of the client thread.
pub const AT_TID: usize = 4;
/// `u32`: counted up by the server when it has sent the client a signal, which lies in the socket: with the next reply, or when it is
/// woken without one, the client looks there.
pub const MAIL: usize = 8;
// One cache line for each direction, so that a call moves as few as can be from processor to processor.

/// `u32` futex: counted up by the client, which shows in [`COUNT`]. Who wakes the server's thread for something else adds
/// [`NUDGE`] before, so that a thread that is just about to sleep does not.
pub const REQUEST: usize = 64;
/// The bits of [`REQUEST`] that say whether there is a request.
pub const COUNT: u32 = NUDGE - 1;
/// Added to [`REQUEST`] by who has no request.
pub const NUDGE: u32 = 1 << 24;
/// `u32`: raised while the server sleeps or is about to: 1, or [`SHORTLY`].
pub const SERVER_ASLEEP: usize = 68;
/// The request's head, [`RequestHead`]. Its end reaches into the next line, where a call with few arguments does not go.
pub const REQUEST_HEAD: usize = 72;
/// `u32` futex: counted up by the server.
pub const REPLY: usize = 192;
/// `u32`: raised while the client sleeps or is about to.
pub const CLIENT_ASLEEP: usize = 196;
/// `u32`: 0 when the client had better not spin, because there are more rings at work than processors; see [`Spin`](crate::Spin).
pub const MAY_SPIN: usize = 200;
/// `u32` futex: the server thread's number and `FUTEX_WAITERS`, as an entry of its robust list, so that the host sets
/// [`OWNER_DIED`] and wakes the client when the thread dies, however it does. 0 while it has not begun.
pub const SERVER: usize = 204;
/// The reply's head, [`ReplyHead`].
pub const REPLY_HEAD: usize = 208;
/// Set by the host in [`SERVER`] when the thread is dead, `FUTEX_OWNER_DIED`.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// The window that the client fills: segments of a request, or bytes that were asked for.
pub const IN: usize = 4096;
/// The window that the server fills: segments that the call has written.
pub const OUT: usize = IN + 2 * WINDOW;
/// Where in the client's window the bytes go that are asked for during a call; the request's segments stay in place.
pub const ASKED: usize = WINDOW;

/// `u32`: where the queue of posted calls ends, in bytes since the ring began, modulo [`RECALLED`]; moved on by the client. With
/// [`RECALLED`] set by the server, who puts it back when it gives out new leases.
pub const POSTED: usize = 256;
/// In [`SERVER_ASLEEP`]: the server sleeps for a call, and looks at the queue of posted ones before long in any case. Else who
/// posts wakes it.
pub const SHORTLY: u32 = 2;
/// Set in [`POSTED`]: the client has no leases.
pub const RECALLED: u32 = 1 << 31;
/// `u32`: how far the server has run what is posted, counted like [`POSTED`].
pub const RAN: usize = 320;
/// `u32`: the number of the readiness connection that the server sends a byte to, plus one, when [`CLIENT_ASLEEP`] is [`ELSEWHERE`].
pub const BELL: usize = 384;
/// In [`CLIENT_ASLEEP`]: the client waits for host descriptors too, in poll(2), and not at the futex.
pub const ELSEWHERE: u32 = 2;
/// The heads of leases, [`LeaseHead`]: as many as [`ReplyHead::want`] says in a reply that is [`DONE`].
pub const LEASES: usize = 512;
/// The most leases at a time.
pub const MAX_LEASES: usize = 64;
/// What reads of leased sockets would give; [`LeaseHead::at`] counts from here.
pub const AHEAD: usize = OUT + WINDOW;
/// Bytes of that.
pub const AHEAD_LEN: usize = 64 << 10;
/// The queue of posted calls: each is a [`RequestHead`] and [`RequestHead::len`] bytes, in whole words. It begins somewhere in
/// the [`QUEUED`] bytes, after which there is room for it to end.
pub const QUEUE: usize = AHEAD + AHEAD_LEN;
/// Bytes of the queue, a power of two: so much is posted at most and has not run.
pub const QUEUED: usize = 64 << 10;
/// The longest posted call, with its head.
pub const MAX_POST: usize = 16 << 10;
/// The address by which a posted call names the bytes that go with it.
pub const POST_ADDR: u64 = 4096;

/// What a ring begins with.
pub const MAGIC: u32 = 0x676e_6972;

/// A request's `nr` by which the client answers a part.
pub const ANSWER: u32 = u32::MAX;

/// What a reply is.
pub const DONE: u32 = 0;
/// The server wants the `len` bytes at `addr`.
pub const WANT: u32 = 1;
/// The server wants the string at `addr`, at most `len` bytes.
pub const WANT_STR: u32 = 2;
/// The window is full: the client writes the segments to its memory and answers.
pub const PART: u32 = 3;

const _: () = assert!(
    REQUEST_HEAD + RequestHead::SHORT == 128
        && REQUEST_HEAD + RequestHead::SIZE <= REPLY
        && REPLY_HEAD + ReplyHead::SIZE <= 256
        && REPLY_HEAD + ReplyHead::SIZE <= POSTED
        && LEASES + MAX_LEASES * LeaseHead::SIZE <= IN
        && QUEUED.is_power_of_two()
        && SIZE.is_multiple_of(4096)
);

macro_rules! head {
    ($(#[$meta:meta])* $name:ident = $size:literal { $($(#[$fmeta:meta])* $field:ident : $ty:ty,)* }) => {
        crate::layout::abi_struct! {
            $(#[$meta])*
            pub struct $name = $size { $($(#[$fmeta])* $field: $ty,)* }
        }
    };
}

head! {
    /// The head of a request.
    RequestHead = 72 {
        /// The call's number, or [`ANSWER`].
        nr: u32,
        /// How many segments are in the window; for an answer, 0 or the errno.
        count: u32,
        /// Bytes of them; for an answer, of what was asked for.
        len: u32,
        /// Zero.
        pad: u32,
        /// Numbers for the descriptors that the call makes, -1 for the lowest free.
        hint0: i32,
        /// The second one.
        hint1: i32,
        /// The registers.
        arg0: u64,
        /// The registers.
        arg1: u64,
        /// The registers.
        arg2: u64,
        /// The registers.
        arg3: u64,
        /// The registers.
        arg4: u64,
        /// The registers.
        arg5: u64,
    }
}

impl RequestHead {
    /// Bytes without the last two registers.
    pub const SHORT: usize = 56;

    /// How many bytes of a head with this number have to be moved: the last two registers only for calls that use them.
    pub fn used(nr: u32) -> usize {
        match crate::sysproxy::desc(nr) {
            Some(desc) if desc.args.len() > 4 => RequestHead::SIZE,
            _ => RequestHead::SHORT,
        }
    }

    /// The six registers.
    pub fn args(&self) -> [u64; 6] {
        [
            self.arg0, self.arg1, self.arg2, self.arg3, self.arg4, self.arg5,
        ]
    }

    /// A head with these registers.
    pub fn call(nr: u32, args: &[u64; 6], hints: [i32; 2], count: u32, len: u32) -> RequestHead {
        let [arg0, arg1, arg2, arg3, arg4, arg5] = *args;
        RequestHead {
            nr,
            count,
            len,
            pad: 0,
            hint0: hints[0],
            hint1: hints[1],
            arg0,
            arg1,
            arg2,
            arg3,
            arg4,
            arg5,
        }
    }
}

head! {
    /// The head of a reply.
    ReplyHead = 40 {
        /// [`DONE`], [`WANT`], [`WANT_STR`] or [`PART`].
        kind: u32,
        /// How many segments are in the window.
        count: u32,
        /// Bytes of them.
        len: u32,
        /// The errno, or 0.
        error: i32,
        /// What the call returned.
        retval: i64,
        /// Where the server wants memory from.
        addr: u64,
        /// How much; of [`DONE`], how many leases there are.
        want: u64,
    }
}

head! {
    /// A stream socket that the client's thread may use ahead of the server. When one comes twice the first counts.
    LeaseHead = 24 {
        /// Its descriptor.
        fd: i32,
        /// The epoll instance that it is in, under that number, or [`LeaseHead::IN_NONE`].
        epfd: i32,
        /// Bytes that a write takes at once; each costs [`LeaseHead::CHARGE`] besides.
        room: u32,
        /// Where what a read gives begins, from [`AHEAD`] on.
        at: u32,
        /// Bytes of it: all that had arrived, or 0 when that is nothing or too much.
        len: u32,
        /// [`LeaseHead::END`] and [`LeaseHead::CLOSES`].
        flags: u32,
    }
}

impl LeaseHead {
    /// In [`epfd`](Self::epfd) when it was found ready by another wait than an instance's. Its complement is no descriptor either.
    pub const IN_NONE: i32 = i32::MIN;
    /// What a write takes of the room beside its bytes.
    pub const CHARGE: u32 = 1024;
    /// A read of what is behind those bytes gives the end.
    pub const END: u32 = 1;
    /// close(2) does not wait.
    pub const CLOSES: u32 = 2;
    /// There is more behind those bytes: a read that wants more than them is the server's.
    pub const MORE: u32 = 4;
}

/// Bytes of the queue that a posted call with so many bytes of data takes; `None` when it is too long to be posted.
pub const fn post_size(data: usize) -> Option<usize> {
    if data > MAX_POST - RequestHead::SIZE {
        return None;
    }
    Some((RequestHead::SIZE + data).next_multiple_of(8))
}

/// Where the data of a segment lies in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address in the client's memory.
    pub addr: u64,
    /// Its first byte in the window.
    pub at: usize,
    /// How many bytes.
    pub len: usize,
}

/// Steps over the segment whose head, copied out of the window, stands at `*at`; `end` is where the segments end. The
/// place it answers lies inside.
pub fn step(
    head: &[u8; SegmentHead::SIZE],
    at: &mut usize,
    end: usize,
) -> Result<Place, Malformed> {
    let head = SegmentHead::decode(head)?;
    let data = at.checked_add(SegmentHead::SIZE).ok_or(Malformed)?;
    let len = head.len as usize;
    let next = data.checked_add(padded(len)).ok_or(Malformed)?;
    if next > end {
        return Err(Malformed);
    }
    *at = next;
    Ok(Place {
        addr: head.addr,
        at: data,
        len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_never_reaches_past_the_end() {
        let head = |addr, len| SegmentHead { addr, len }.encode();
        let mut at = 8;
        assert_eq!(
            step(&head(5, 9), &mut at, 40),
            Ok(Place {
                addr: 5,
                at: 24,
                len: 9
            })
        );
        assert_eq!(at, 40);
        for len in [9, u32::MAX] {
            assert_eq!(step(&head(5, len), &mut 8, 39), Err(Malformed));
        }
        assert_eq!(step(&head(5, 0), &mut (usize::MAX - 3), 39), Err(Malformed));
    }
}

//! Rings of a client that does with them what it likes.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use abi::ring::{
    AT_MAGIC, MAGIC, NUDGE, POSTED, QUEUE, QUEUED, RECALLED, REPLY, REPLY_HEAD, REQUEST,
    REQUEST_HEAD, ReplyHead, RequestHead, SERVER_ASLEEP, SIZE, post_size,
};
use abi::sysproxy::{Class, HEADER, Header, Kind, RingReply};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::{RawClient, eventually};

/// Offers a descriptor as a ring and hands it over; what the server says.
pub fn attach(client: &mut RawClient, fd: BorrowedFd<'_>) -> RingReply {
    let (_, body) = client.ask(Kind::RingOffer, 0, &[]);
    let offer = RingReply::decode(&body).unwrap();
    if offer.error == 0 {
        hand_over(client, fd)
    } else {
        offer
    }
}

pub fn hand_over(client: &mut RawClient, fd: BorrowedFd<'_>) -> RingReply {
    let head = Header::new(Class::Request, Kind::RingAttach, 0, 1 << 40, 0).encode();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let parts = [IoSlice::new(&head)];
    let sent = rustix::net::sendmsg(&client.stream, &parts, &mut control, SendFlags::empty());
    assert_eq!(sent.unwrap(), HEADER);
    let (header, body) = client.receive().unwrap();
    assert_eq!(header.kind, Kind::RingAttach);
    RingReply::decode(&body).unwrap()
}

pub fn memfd(size: usize, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("ring", flags).unwrap();
    rustix::fs::ftruncate(&fd, size as u64).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

/// A ring as a client has it, with nothing checked.
pub struct Ring(*mut u8);

// SAFETY: all access is volatile or atomic; this is a test of what a server makes of anything.
unsafe impl Sync for Ring {}
// SAFETY: as above.
unsafe impl Send for Ring {}

impl Ring {
    pub fn map(fd: &OwnedFd) -> Ring {
        // SAFETY: a new mapping.
        let at = unsafe {
            let rw = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), SIZE, rw, MapFlags::SHARED, fd, 0)
        };
        Ring(at.unwrap().cast())
    }

    pub fn write(&self, at: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            assert!(at + i < SIZE);
            // SAFETY: inside the mapping.
            unsafe { self.0.add(at + i).write_volatile(*byte) };
        }
    }

    pub fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= SIZE);
        // SAFETY: inside the mapping.
        let byte = |i| unsafe { self.0.add(at + i).read_volatile() };
        (0..len).map(byte).collect()
    }

    pub fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: inside the mapping, aligned.
        unsafe { AtomicU32::from_ptr(self.0.add(at).cast()) }
    }

    /// Counts a request in; what the reply's word was before. Wakes nobody who says that he is awake.
    pub fn ask(&self, head: &RequestHead) -> u32 {
        let before = self.word(REPLY).load(Ordering::SeqCst);
        self.write(REQUEST_HEAD, &head.to_bytes());
        let word = self.word(REQUEST);
        word.fetch_add(1, Ordering::SeqCst);
        if self.word(SERVER_ASLEEP).load(Ordering::SeqCst) != 0 {
            let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
        }
        before
    }

    /// Wakes the server, if it says that it sleeps, for something that is no request.
    pub fn nudge(&self) {
        if self.word(SERVER_ASLEEP).swap(0, Ordering::SeqCst) != 0 {
            let word = self.word(REQUEST);
            word.fetch_add(NUDGE, Ordering::SeqCst);
            let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
        }
    }

    pub fn has_reply(&self, before: u32) -> bool {
        self.word(REPLY).load(Ordering::SeqCst) != before
    }

    /// Waits for the reply.
    pub fn reply(&self, before: u32) -> ReplyHead {
        eventually("a reply", || self.has_reply(before));
        let mut raw = [0; ReplyHead::SIZE];
        for (i, byte) in raw.iter_mut().enumerate() {
            // SAFETY: inside the mapping.
            *byte = unsafe { self.0.add(REPLY_HEAD + i).read_volatile() };
        }
        ReplyHead::from_bytes(&raw)
    }

    /// Makes a call.
    pub fn submit(&self, head: &RequestHead) -> ReplyHead {
        let before = self.ask(head);
        self.reply(before)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping made above.
        let _ = unsafe { rustix::mm::munmap(self.0.cast(), SIZE) };
    }
}

pub fn attached(client: &mut RawClient) -> (Ring, u32) {
    let fd = memfd(SIZE, SealFlags::SHRINK);
    let ring = Ring::map(&fd);
    ring.write(AT_MAGIC, &MAGIC.to_le_bytes());
    let reply = attach(client, fd.as_fd());
    assert_eq!(reply.error, 0);
    (ring, reply.ring)
}

pub fn call(nr: u32, args: [u64; 6], count: u32, len: u32) -> RequestHead {
    RequestHead::call(nr, &args, [-1, -1], count, len)
}

/// Posts a call as a client does that has leases; answers where the queue ends then.
pub fn post(ring: &Ring, head: &RequestHead, data: &[u8]) -> u32 {
    let end = ring.word(POSTED).load(Ordering::SeqCst) & !RECALLED;
    let place = QUEUE + end as usize % QUEUED;
    ring.write(place, &head.to_bytes());
    ring.write(place + RequestHead::SIZE, data);
    let size = post_size(data.len()).unwrap() as u32;
    ring.word(POSTED).fetch_add(size, Ordering::SeqCst) + size
}

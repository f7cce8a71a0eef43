//! The workers: they wait for events, read frames and run what is asked.
//!
//! There is always one more worker than is busy, so that whatever arrives finds somebody; one that stays idle beside
//! another leaves after a while.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::sysproxy::{Class, ErrorWord, HEADER, Header, Kind};
use rustix::event::epoll;
use rustix::time::Timespec;

use crate::conn::{Buffer, Conn, OUTPUT, Read, lock};
use crate::core::{Core, LISTENER, WAKE};

/// How long a surplus worker stays, in seconds.
const IDLE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Frames without a pause after which a reader may stay with a connection for good.
const REGULAR: u32 = 64;
/// Connections at most that readers stay with.
const RESIDENTS: usize = 64;

/// What a worker carries from request to request.
#[derive(Default)]
pub(crate) struct Worker {
    pub(crate) input: Buffer,
    pub(crate) output: Vec<u8>,
    /// No worker is left to stand by, and none can be made: calls that may block are refused.
    pub(crate) last: bool,
}

/// What to do after a frame.
pub(crate) enum Next {
    /// Read the next one.
    Read,
    /// Somebody else reads.
    Leave,
    /// End the connection.
    Close,
}

impl Core {
    /// Starts a worker.
    pub(crate) fn spawn_worker(self: &Arc<Self>) -> io::Result<()> {
        let count = self.workers.workers.fetch_add(1, Ordering::SeqCst);
        if count >= self.options.max_workers.max(2) {
            self.workers.workers.fetch_sub(1, Ordering::SeqCst);
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // Counted as idle from here on, so that nobody else starts one for the same reason.
        self.workers.idle.fetch_add(1, Ordering::SeqCst);
        let started = self.spawn("sysproxy", |core| {
            core.work();
            core.workers.workers.fetch_sub(1, Ordering::SeqCst);
        });
        if started.is_err() {
            self.workers.idle.fetch_sub(1, Ordering::SeqCst);
            self.workers.workers.fetch_sub(1, Ordering::SeqCst);
        }
        started
    }

    fn work(self: &Arc<Self>) {
        let mut worker = Worker::default();
        let idle = &self.workers.idle;
        loop {
            let mut room = [MaybeUninit::uninit(); 1];
            let event = match epoll::wait(&*self.epoll, &mut room, Some(&IDLE)) {
                Ok((events, _)) => events.first().map(|e| e.data.u64()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            };
            if self.is_stopping() {
                return;
            }
            let Some(data) = event else {
                let surplus = |n| (n > 1).then(|| n - 1);
                if idle
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, surplus)
                    .is_ok()
                {
                    return;
                }
                continue;
            };
            let left = idle.fetch_sub(1, Ordering::SeqCst) - 1;
            worker.last = left == 0 && self.spawn_worker().is_err();
            self.dispatch(data, &mut worker);
            idle.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn dispatch(self: &Arc<Self>, data: u64, worker: &mut Worker) {
        match data {
            LISTENER => self.accept(),
            WAKE => loop {
                let Some(conn) = lock(&self.handoff).pop() else {
                    break;
                };
                if conn.take_role() {
                    self.read_from(&conn, worker);
                }
            },
            _ => {
                let Some(conn) = self.conn(data as u32) else {
                    return;
                };
                if data & OUTPUT != 0 {
                    if !conn.flush() {
                        conn.close();
                    }
                } else if conn.take_role() {
                    self.read_from(&conn, worker);
                }
            }
        }
    }

    /// Serves a connection as its reader, until it is quiet, somebody else reads, or it ends.
    pub(crate) fn read_from(self: &Arc<Self>, conn: &Arc<Conn>, worker: &mut Worker) {
        let mut frames = 0;
        loop {
            if conn.pause() {
                return;
            }
            let next = match conn.read(&mut worker.input) {
                Read::Frame(header) => {
                    frames += 1;
                    if frames == REGULAR && !worker.last {
                        self.settle(conn);
                    }
                    self.frame(conn, header, worker)
                }
                Read::Idle if self.is_stopping() => Next::Close,
                Read::Idle => {
                    conn.arm();
                    return;
                }
                Read::End => Next::Close,
            };
            match next {
                Next::Read => {}
                Next::Leave => return,
                Next::Close => {
                    self.disconnect(conn);
                    return;
                }
            }
        }
    }

    /// A reader stays with a connection for good, if not too many do already: to wait without a time spares the host setting
    /// an alarm with every frame.
    fn settle(&self, conn: &Conn) {
        let most = RESIDENTS.min(self.options.max_workers / 4);
        let room = |n| (n < most).then_some(n + 1);
        let residents = &self.workers.residents;
        if conn.is_settled()
            || residents
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room)
                .is_err()
        {
            return;
        }
        if !conn.settle() {
            residents.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// One frame, which lies in the worker's input.
    fn frame(self: &Arc<Self>, conn: &Arc<Conn>, header: Header, worker: &mut Worker) -> Next {
        let Some(client) = conn.client.get() else {
            return self.first_frame(conn, header, worker);
        };
        let body = &worker.input.bytes()[HEADER..];
        match (header.class, header.kind) {
            _ if conn.ready.load(Ordering::Relaxed) => Next::Close,
            (Class::Request, Kind::Syscall) => self.syscall(conn, client, header, worker),
            (Class::Request, Kind::Interrupt) => {
                client.with_call((conn.id, header.reqno), |slot| slot.interrupt());
                Next::Read
            }
            (Class::Request, Kind::Handshake) => self.handshake_again(conn, header, worker),
            (Class::Request, Kind::Prefork) => self.prefork(conn, client, header),
            (Class::Request, Kind::RingOffer) => self.ring_offer(conn, header),
            (Class::Request, Kind::RingAttach) => self.ring_attach(conn, client, header),
            (Class::Request, Kind::RingInterrupt) => {
                if let Some(ring) = lock(&client.rings).get(&header.word) {
                    ring.interrupt(header.reqno as u32);
                }
                Next::Read
            }
            (Class::Request, Kind::RingDetach) => {
                let ring = lock(&client.rings).remove(&header.word);
                if let Some(ring) = ring {
                    ring.close();
                }
                Next::Read
            }
            (Class::Response | Class::Error, Kind::Copyin | Kind::Copyinstr) => {
                let bring =
                    |slot: &crate::client::Slot| slot.bring(header.class, header.kind, body);
                match client.with_call((conn.id, header.reqno), bring) {
                    // An answer for a call that has ended is late, not wrong.
                    Some(true) | None => Next::Read,
                    Some(false) => Next::Close,
                }
            }
            _ => conn.refuse(header, ErrorWord::MalformedRequest),
        }
    }
}

impl Conn {
    /// Answers a request with an error word.
    pub(crate) fn refuse(&self, header: Header, why: ErrorWord) -> Next {
        let frame = Header::new(Class::Error, header.kind, why as u32, header.reqno, 0);
        self.reply(&frame.encode())
    }

    /// Answers a request with a small body.
    pub(crate) fn respond(&self, header: Header, body: &[u8]) -> Next {
        let head = Header::new(Class::Response, header.kind, 0, header.reqno, body.len());
        let mut frame = head.encode().to_vec();
        frame.extend(body);
        self.reply(&frame)
    }

    /// Sends a frame; ends the connection when it does not go.
    pub(crate) fn reply(&self, frame: &[u8]) -> Next {
        if self.send(frame) {
            Next::Read
        } else {
            Next::Close
        }
    }
}

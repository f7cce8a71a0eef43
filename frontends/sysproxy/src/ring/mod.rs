//! Rings: one thread here for one thread of a client, with shared memory between them. The layout is `abi::ring`'s.

mod map;
mod memory;
mod pace;
mod posted;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use abi::ring::{
    AT_MAGIC, AT_TID, BELL, CLIENT_ASLEEP, DONE, ELSEWHERE, MAIL, MAY_SPIN, POSTED, RECALLED,
    REPLY, REPLY_HEAD, REQUEST, REQUEST_HEAD, ReplyHead, RequestHead, SERVER_ASLEEP, SHORTLY, Spin,
};
use abi::sysproxy::{ErrorWord, Header, RingReply};
use abi::{Errno, SysResult};
use kern::LwpHandle;
use rustix::thread::futex;
use rustix::time::Timespec;

use crate::call::Call;
use crate::client::{Client, Runner, Slot};
use crate::conn::{Conn, lock};
use crate::core::Core;
use crate::worker::Next;
use map::{Map, Testament};
use memory::RingMemory;
use pace::Pace;
use posted::Posted;

/// How often an idle ring's thread looks whether its client's thread still lives.
const LOOK: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// How long what is posted may wait for a call that comes after it.
const SOON: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000,
};

/// A ring as others reach it. Locks: `now` is a leaf; `posted` has its place in [`crate::lease`].
pub(crate) struct RingControl {
    core: Weak<Core>,
    client: Weak<Client>,
    map: Map,
    posted: Posted,
    closing: AtomicBool,
    slot: Arc<Slot>,
    now: Mutex<Now>,
}

/// Which call is on the ring, and which one is to be interrupted.
#[derive(Default)]
struct Now {
    running: Option<u32>,
    interrupted: Option<u32>,
}

impl RingControl {
    /// Interrupts a call, if it is the present one or one that has not begun.
    pub(crate) fn interrupt(&self, call: u32) {
        let mut now = lock(&self.now);
        now.interrupted = Some(call);
        if now.running == Some(call) {
            self.slot.interrupt();
        }
    }

    /// Has the thread leave, and tells the client that nobody is here any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.map.write(AT_MAGIC, &[0; 4]);
        for at in [REQUEST, REPLY] {
            let word = self.map.word(at);
            word.fetch_xor(1 << 31, Ordering::SeqCst);
            let _ = futex::wake(word, futex::Flags::empty(), u32::MAX >> 1);
        }
        self.ring_bell();
        self.slot.interrupt();
    }

    /// Runs what the client has posted; answers whether there was anything.
    pub(crate) fn run_posted(&self, handle: &LwpHandle) -> bool {
        self.posted.run(&self.map, handle).unwrap_or_else(|_| {
            self.close();
            false
        })
    }

    /// The client has leases from now on.
    pub(crate) fn lend(&self) {
        self.map.word(POSTED).fetch_and(!RECALLED, Ordering::SeqCst);
    }

    /// The client has none any more.
    pub(crate) fn recall(&self) {
        self.map.word(POSTED).fetch_or(RECALLED, Ordering::SeqCst);
    }

    /// Wakes the client's thread, if it sleeps.
    fn wake(&self) {
        match self.map.word(CLIENT_ASLEEP).load(Ordering::SeqCst) {
            0 => {}
            ELSEWHERE => self.ring_bell(),
            _ => drop(futex::wake(self.map.word(REPLY), futex::Flags::empty(), 1)),
        }
    }

    /// Makes the readiness connection readable that the client has named, if it is its own.
    fn ring_bell(&self) {
        let number = self.map.word(BELL).load(Ordering::Relaxed);
        let (Some(core), Some(client)) = (self.core.upgrade(), self.client.upgrade()) else {
            return;
        };
        if number != 0
            && let Some(conn) = core.ready_conn(&client, number - 1)
        {
            conn.send_ready();
        }
    }

    /// Tells the client's thread that there is something for it in the socket.
    pub(crate) fn tell_of_mail(&self) {
        let word = self.map.word(MAIL);
        word.fetch_add(1, Ordering::SeqCst);
        match self.map.word(CLIENT_ASLEEP).load(Ordering::SeqCst) {
            ELSEWHERE => self.ring_bell(),
            _ => drop(futex::wake(word, futex::Flags::empty(), 1)),
        }
    }

    fn begin(&self, call: u32) {
        let mut now = lock(&self.now);
        now.running = Some(call);
        if now.interrupted == Some(call) {
            self.slot.interrupt();
        }
    }

    fn end(&self) {
        lock(&self.now).running = None;
    }
}

impl Core {
    /// A client wants to hand a ring over: what it sends next is looked through for a descriptor.
    pub(crate) fn ring_offer(&self, conn: &Conn, header: Header) -> Next {
        let error = if self.rings.load(Ordering::SeqCst) >= self.options.max_rings {
            Errno::EAGAIN.0
        } else if conn.expect_fd() {
            0
        } else {
            Errno::EOPNOTSUPP.0
        };
        conn.respond(header, &RingReply { error, ring: 0 }.encode())
    }

    /// A client hands a ring over.
    pub(crate) fn ring_attach(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        client: &Arc<Client>,
        header: Header,
    ) -> Next {
        let reply = match self.ring_start(conn, client) {
            Ok(ring) => RingReply { error: 0, ring },
            Err(Errno(error)) => RingReply { error, ring: 0 },
        };
        conn.respond(header, &reply.encode())
    }

    fn ring_start(self: &Arc<Self>, conn: &Arc<Conn>, client: &Arc<Client>) -> Result<u32, Errno> {
        let memfd = conn.take_fd().ok_or(Errno::EINVAL)?;
        if self.rings.fetch_add(1, Ordering::SeqCst) >= self.options.max_rings {
            self.rings.fetch_sub(1, Ordering::SeqCst);
            return Err(Errno::EAGAIN);
        }
        let count = RingCount(self.clone());
        let map = Map::new(&memfd).map_err(|_| Errno::EINVAL)?;
        let runner = client.runner(None).map_err(ErrorWord::errno)?;
        let control = Arc::new(RingControl {
            core: Arc::downgrade(self),
            client: Arc::downgrade(client),
            map,
            posted: Posted::default(),
            closing: AtomicBool::new(false),
            slot: runner.slot.clone(),
            now: Mutex::default(),
        });
        let number = self.next_ring.fetch_add(1, Ordering::Relaxed);
        lock(&client.rings).insert(number, control.clone());
        if client.is_dead() {
            control.close();
        }
        let peer = peer_pid(conn);
        let mut ring = Ring {
            core: self.clone(),
            client: client.clone(),
            control,
            number,
            peer,
            spin: Spin::new(),
            pace: Pace::default(),
            seen: 0,
            looks_soon: false,
            runner: Some(runner),
            _count: count,
        };
        // When the thread does not start, the ring is dropped, and all it has with it.
        self.spawn("sysproxy-ring", move |_| ring.serve())
            .map_err(|_| Errno::EAGAIN)?;
        Ok(number)
    }
}

fn peer_pid(conn: &Conn) -> Option<i32> {
    let cred = rustix::net::sockopt::socket_peercred(conn.socket()).ok()?;
    Some(cred.pid.as_raw_nonzero().get())
}

/// Counts a ring out when it is gone.
struct RingCount(Arc<Core>);

impl Drop for RingCount {
    fn drop(&mut self) {
        self.0.rings.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The server's end of a ring; belongs to its thread.
pub(crate) struct Ring {
    core: Arc<Core>,
    client: Arc<Client>,
    pub(crate) control: Arc<RingControl>,
    number: u32,
    peer: Option<i32>,
    spin: Spin,
    pace: Pace,
    /// The client's word as it was when we last looked.
    seen: u32,
    /// The client's thread may post something any time: it has just been given leases or has used them.
    looks_soon: bool,
    runner: Option<Runner>,
    _count: RingCount,
}

/// Why waiting for the client ended without a request.
pub(crate) struct Closed;

/// Why it ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There is a request.
    Called,
    /// There is something in the queue.
    Posted,
}

/// The reply of a call that has written no memory.
fn done(result: SysResult) -> ReplyHead {
    ReplyHead {
        kind: DONE,
        error: result.err().map_or(0, |e| e.0),
        retval: result.unwrap_or(0),
        ..ReplyHead::default()
    }
}

impl Ring {
    fn serve(&mut self) {
        let Some(runner) = self.runner.take() else {
            return;
        };
        let control = self.control.clone();
        let _testament = Testament::new(&control.map);
        self.core.rings_awake.fetch_add(1, Ordering::SeqCst);
        let mut calls = 0u32;
        while let Ok(woken) = self.wait(None) {
            if woken == Woken::Posted {
                self.control.run_posted(&runner.handle);
                self.looks_soon = true;
                continue;
            }
            calls = calls.wrapping_add(1);
            let head = self.request();
            let reply = self.call(&runner, calls, &head);
            self.reply(&reply);
            self.core.after(head.nr);
        }
        self.client.leases.recall_from(&control, &runner.handle);
        self.core.rings_awake.fetch_sub(1, Ordering::SeqCst);
        lock(&self.client.rings).remove(&self.number);
        self.client.put_back(runner);
    }

    /// Copies the request's head out.
    fn request(&self) -> RequestHead {
        let mut raw = [0; RequestHead::SIZE];
        let (short, rest) = raw.split_at_mut(RequestHead::SHORT);
        let map = &self.control.map;
        map.read(REQUEST_HEAD, short);
        let nr = short.first_chunk().map_or(0, |nr| u32::from_le_bytes(*nr));
        if RequestHead::used(nr) > RequestHead::SHORT {
            map.read(REQUEST_HEAD + RequestHead::SHORT, rest);
        }
        RequestHead::from_bytes(&raw)
    }

    fn call(&mut self, runner: &Runner, call: u32, head: &RequestHead) -> ReplyHead {
        let (core, client, control) =
            (self.core.clone(), self.client.clone(), self.control.clone());
        let _call = client.leases.enter(Some(&control), &runner.handle);
        let Some(memory) = RingMemory::new(self, head) else {
            return done(Err(Errno::EINVAL));
        };
        control.begin(call);
        let what = Call {
            number: head.nr,
            hints: [head.hint0, head.hint1],
            args: head.args(),
        };
        let result = core.run(&client, runner, &memory, None, &what);
        control.end();
        runner.settle();
        let (count, len) = memory.written();
        let mut leases = memory.leases();
        if leases != 0 && !client.leases.give(&control) {
            leases = 0;
        }
        self.looks_soon |= leases != 0;
        ReplyHead {
            count,
            len,
            want: leases.into(),
            ..done(result)
        }
    }

    /// Publishes a reply and wakes the client if it sleeps.
    pub(crate) fn reply(&self, head: &ReplyHead) {
        let map = &self.control.map;
        let may_spin = u32::from(self.may_spin());
        // Plain stores one right after the other: the client, which looks at this cache line again and again, gets no
        // chance to take it away in between.
        let count = map.word(REPLY).load(Ordering::Relaxed).wrapping_add(1);
        map.write_words(REPLY_HEAD, &head.to_bytes());
        map.word(MAY_SPIN).store(may_spin, Ordering::Relaxed);
        map.word(REPLY).store(count, Ordering::Release);
        fence(Ordering::SeqCst);
        self.control.wake();
    }

    /// Spinning helps while each ring that is awake can have two processors.
    fn may_spin(&self) -> bool {
        self.core.rings_awake.load(Ordering::Relaxed) * 2 <= self.core.cpus
    }

    /// Waits until the client has counted its word up; until the deadline, if there is one, and then that is the end. Without
    /// one, what is posted ends it too.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Woken, Closed> {
        let control = self.control.clone();
        let word = control.map.word(REQUEST);
        if self.may_spin() {
            for _ in 0..self.spin.turns() {
                if self.look(word.load(Ordering::Acquire))? {
                    self.spin.won();
                    return Ok(Woken::Called);
                }
                std::hint::spin_loop();
            }
            self.spin.lost();
        }
        self.core.rings_awake.fetch_sub(1, Ordering::SeqCst);
        let result = self.sleep(deadline);
        control.map.word(SERVER_ASLEEP).store(0, Ordering::Relaxed);
        self.core.rings_awake.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// Whether the client has counted up to `value`.
    fn look(&mut self, value: u32) -> Result<bool, Closed> {
        if value == self.seen {
            return Ok(false);
        }
        self.seen = value;
        if self.control.closing.load(Ordering::SeqCst) {
            return Err(Closed);
        }
        Ok(true)
    }

    fn sleep(&mut self, deadline: Option<Instant>) -> Result<Woken, Closed> {
        let control = self.control.clone();
        let word = control.map.word(REQUEST);
        loop {
            let asleep = if self.looks_soon { SHORTLY } else { 1 };
            control
                .map
                .word(SERVER_ASLEEP)
                .store(asleep, Ordering::SeqCst);
            if control.closing.load(Ordering::SeqCst) {
                return Err(Closed);
            }
            if self.look(word.load(Ordering::SeqCst))? {
                return Ok(Woken::Called);
            }
            if deadline.is_none() && control.posted.waits(&control.map) {
                return Ok(Woken::Posted);
            }
            let time = match deadline {
                None if self.looks_soon => SOON,
                None => LOOK,
                Some(at) => {
                    let left = at.checked_duration_since(Instant::now()).ok_or(Closed)?;
                    Timespec {
                        tv_sec: left.as_secs() as i64,
                        tv_nsec: i64::from(left.subsec_nanos()),
                    }
                }
            };
            let end = futex::wait(word, futex::Flags::empty(), self.seen, Some(&time));
            let timed_out = end == Err(rustix::io::Errno::TIMEDOUT);
            if timed_out && std::mem::take(&mut self.looks_soon) {
                continue;
            }
            if timed_out && deadline.is_none() && !self.client_lives() {
                return Err(Closed);
            }
        }
    }

    /// Whether the client's thread is still there, as far as can be seen.
    fn client_lives(&self) -> bool {
        let mut tid = [0; 4];
        self.control.map.read(AT_TID, &mut tid);
        let Some(pid) = self.peer else {
            return true;
        };
        let tasks = format!("/proc/{pid}/task");
        let gone = |path: &str| {
            std::fs::metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
        };
        gone(&tasks) || !gone(&format!("{tasks}/{}", u32::from_le_bytes(tid)))
    }

    /// Whether the call that runs may give the client's thread leases.
    pub(crate) fn may_lease(&self) -> bool {
        self.client.leases.offer(&self.control)
    }

    pub(crate) fn map(&self) -> &Map {
        &self.control.map
    }

    /// Writes data to the client's window.
    pub(crate) fn write(&self, at: usize, data: &[u8]) {
        self.pace.write(self.map(), at, data);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if let Some(runner) = self.runner.take() {
            lock(&self.client.rings).remove(&self.number);
            self.client.put_back(runner);
        }
    }
}

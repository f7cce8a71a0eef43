//! Running system calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use abi::sysproxy::{
    Class, ErrorWord, HEADER, Header, Kind, NR_POLLWATCH, REPLY_FIXED, SyscallReply, SyscallRequest,
};
use abi::{Errno, SysResult, nr};
use kern::UserMemory;
use kern::boot::Phase;

use crate::client::{Client, Runner};
use crate::conn::Conn;
use crate::core::Core;
use crate::memory::RemoteMemory;
use crate::worker::{Next, Worker};

/// Reply buffers longer than this are not kept.
const KEEP: usize = 256 << 10;

impl Core {
    /// A system-call request: the thread that has read it runs it, and sees to it that reading goes on.
    pub(crate) fn syscall(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        client: &Arc<Client>,
        header: Header,
        worker: &mut Worker,
    ) -> Next {
        let Ok(request) = SyscallRequest::decode(&worker.input.bytes()[HEADER..]) else {
            return conn.refuse(header, ErrorWord::MalformedRequest);
        };
        if worker.last {
            return conn.refuse(header, ErrorWord::TryAgain);
        }
        let runner = match client.runner() {
            Ok(runner) => runner,
            Err(why) => return conn.refuse(header, why),
        };
        if !conn.begin(header.reqno, &runner.slot) {
            client.put_back(runner);
            return conn.refuse(header, ErrorWord::MalformedRequest);
        }
        let alone = never_sleeps(header.word) && !conn.has_frame();
        if !alone {
            self.let_others_read(conn);
        }
        let out = &mut worker.output;
        out.clear();
        out.resize(HEADER + REPLY_FIXED, 0);
        let memory =
            RemoteMemory::new(conn, &runner.slot, header.reqno, header.word, &request, out);
        let result = self.run(
            client,
            &runner,
            &memory,
            header.word,
            request.hints,
            &request.args,
        );
        let segments = memory.segments();
        conn.finish(header.reqno);
        client.put_back(runner);
        finish_reply(out, header, result, segments);
        let sent = conn.send(out);
        if out.capacity() > KEEP {
            *out = Vec::new();
        }
        self.after(header.word);
        if !sent {
            conn.close();
        }
        if alone {
            Next::Read
        } else if conn.take_role() {
            conn.disarm();
            Next::Read
        } else {
            Next::Leave
        }
    }

    /// Lays the reader's role down for the time of a call.
    fn let_others_read(&self, conn: &Arc<Conn>) {
        if conn.has_frame() {
            conn.lay_down();
            crate::conn::lock(&self.handoff).push(conn.clone());
            self.call_worker();
        } else {
            conn.arm();
        }
    }

    /// Runs one call as an lwp.
    pub(crate) fn run(
        self: &Arc<Self>,
        client: &Arc<Client>,
        runner: &Runner,
        memory: &dyn UserMemory,
        number: u32,
        hints: [i32; 2],
        args: &[u64; 6],
    ) -> SysResult {
        runner.handle.lwp().set_fd_hints(hints);
        let call = || {
            runner.handle.enter(memory, |cx| {
                if matches!(number, nr::etfs_register | nr::etfs_remove) && !client.is_trusted() {
                    // Root of the kernel is nobody on the host.
                    Err(Errno::EPERM)
                } else if number == NR_POLLWATCH {
                    self.pollwatch(client, cx, args)
                } else {
                    cx.syscall(number, args)
                }
            })
        };
        // A bug in one call must not take the server's thread, and with it other clients, along.
        let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Errno::EIO));
        if number == nr::reboot && self.kernel.phase() == Phase::Halted {
            // Before the caller is answered: who halted a server finds its name gone.
            self.leave_name();
        }
        result
    }

    /// What some calls mean for the server.
    pub(crate) fn after(&self, number: u32) {
        if number == nr::reboot && self.kernel.phase() == Phase::Halted {
            self.set_halted();
        }
    }
}

/// Whether a call is over before anybody else could read: it only looks at its process or the clock.
fn never_sleeps(number: u32) -> bool {
    matches!(
        number,
        nr::getpid
            | nr::getppid
            | nr::getuid
            | nr::geteuid
            | nr::getgid
            | nr::getegid
            | nr::clock_gettime
            | nr::gettimeofday
            | nr::time
            | nr::umask
    )
}

/// Fills in the parts of a reply that stand before the segments.
fn finish_reply(out: &mut [u8], header: Header, result: SysResult, segments: u32) {
    let (error, value) = match result {
        Ok(value) => (0, value),
        Err(errno) => (errno.0, 0),
    };
    let body = out.len() - HEADER;
    let head = Header::new(
        Class::Response,
        Kind::Syscall,
        header.word,
        header.reqno,
        body,
    );
    out[..HEADER].copy_from_slice(&head.encode());
    out[HEADER..HEADER + REPLY_FIXED]
        .copy_from_slice(&SyscallReply::encode_fixed(error, value, segments));
}

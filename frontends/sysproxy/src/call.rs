//! Running system calls.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use abi::sysproxy::{
    Class, ErrorWord, HEADER, Header, Kind, NR_POLLWATCH, REPLY_FIXED, SyscallReply, SyscallRequest,
};
use abi::{Errno, SysResult, nr};
use kern::UserMemory;
use kern::boot::Phase;
use sync::OnBlock;

use crate::client::{Client, Runner};
use crate::conn::Conn;
use crate::core::Core;
use crate::memory::RemoteMemory;
use crate::worker::{Next, Worker};

/// A call as it was asked for.
pub(crate) struct Call {
    pub(crate) number: u32,
    /// Numbers for the descriptors that it makes.
    pub(crate) hints: [i32; 2],
    pub(crate) args: [u64; 6],
}

/// Reply buffers longer than this are not kept.
const KEEP: usize = 256 << 10;

impl Core {
    /// A system-call request: the thread that has read it runs it. The reader's role it keeps, and lays it down when the call
    /// is about to sleep: most calls are over before anybody else could have taken it up.
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
        let runner = match client.runner(Some((conn.id, header.reqno))) {
            Ok(runner) => runner,
            Err(why) => return conn.refuse(header, why),
        };
        let left = Cell::new(false);
        let leave = || {
            if !left.replace(true) {
                self.let_others_read(conn);
            }
        };
        if conn.in_company(request.company) {
            // A long call without sleep would hold the others up.
            leave();
        }
        let out = &mut worker.output;
        out.clear();
        out.resize(HEADER + REPLY_FIXED, 0);
        let in_flight = client.leases.enter(None, &runner.handle);
        let memory =
            RemoteMemory::new(conn, &runner.slot, header.reqno, header.word, &request, out);
        let result = self.run(
            client,
            &runner,
            &memory,
            Some(&leave),
            &Call {
                number: header.word,
                hints: request.hints,
                args: request.args,
            },
        );
        let segments = memory.segments();
        drop(in_flight);
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
        if !left.get() {
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

    /// Runs one call as an lwp; `on_block` is called when it is about to sleep.
    pub(crate) fn run(
        self: &Arc<Self>,
        client: &Arc<Client>,
        runner: &Runner,
        memory: &dyn UserMemory,
        on_block: Option<OnBlock<'_>>,
        &Call {
            number,
            hints,
            args,
        }: &Call,
    ) -> SysResult {
        runner.handle.lwp().set_fd_hints(hints);
        let call = || {
            runner.handle.enter_told(memory, on_block, |cx| {
                if matches!(number, nr::etfs_register | nr::etfs_remove) && !client.is_trusted() {
                    // Root of the kernel is nobody on the host.
                    Err(Errno::EPERM)
                } else if number == NR_POLLWATCH {
                    self.pollwatch(client, cx, &args)
                } else {
                    cx.syscall(number, &args)
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

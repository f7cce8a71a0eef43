//! Who a client is: guest, forked child, the same after exec, or one more connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::sysproxy::{
    Class, Cookie, ErrorWord, ExecBody, ForkBody, GUEST_CONSOLE, GuestBody, HEADER, Handshake,
    HandshakeReply, Header, Kind,
};
use abi::{Errno, O_RDWR, Syscalls};
use kern::{KernelMemory, LwpHandle, RforkFds};

use crate::client::Client;
use crate::conn::{Conn, lock};
use crate::core::{Core, Prefork};
use crate::worker::{Next, Worker};

/// Forks that one client may have announced and not made.
const MAX_PREFORKS: usize = 256;

impl Core {
    /// The first frame of a connection has to be a handshake.
    pub(crate) fn first_frame(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        header: Header,
        worker: &mut Worker,
    ) -> Next {
        let body = &worker.input.bytes()[HEADER..];
        let result = match (header.class, header.kind, Handshake::from_wire(header.word)) {
            (Class::Request, Kind::Handshake, Some(Handshake::Guest)) => self.guest(conn, body),
            (Class::Request, Kind::Handshake, Some(Handshake::Fork)) => match self.forked(body) {
                Ok(Some(client)) => {
                    adopt(conn, &client);
                    Ok(client)
                }
                // The fork was cancelled; there is nothing more to say on this connection.
                Ok(None) => {
                    conn.respond(header, &reply(0, 0, Cookie::default(), conn));
                    return Next::Close;
                }
                Err(why) => Err(why),
            },
            (Class::Request, Kind::Handshake, Some(Handshake::Exec)) => {
                let exec = ExecBody::decode(body);
                let comm = exec.comm.to_vec();
                let client = exec.session.and_then(|session| self.session(session));
                match client {
                    Some(client) => {
                        adopt(conn, &client);
                        return self.exec(conn, &client, header, &comm);
                    }
                    None => Err(ErrorWord::Auth),
                }
            }
            (Class::Request, Kind::Handshake, Some(Handshake::Join)) => {
                self.join(conn, body, false)
            }
            (Class::Request, Kind::Handshake, Some(Handshake::Ready)) => {
                self.join(conn, body, true)
            }
            _ => Err(ErrorWord::Auth),
        };
        match result {
            Ok(client) => conn.respond(header, &reply(0, client.proc.pid, client.session, conn)),
            Err(why) => {
                conn.refuse(header, why);
                Next::Close
            }
        }
    }

    fn guest(self: &Arc<Self>, conn: &Arc<Conn>, body: &[u8]) -> Result<Arc<Client>, ErrorWord> {
        if conn.local && !conn.trusted && !self.options.any_user {
            return Err(ErrorWord::Auth);
        }
        if self.client_count() >= self.options.max_clients {
            return Err(ErrorWord::TryAgain);
        }
        let body = GuestBody::decode(body);
        let handle = self
            .kernel
            .rfork(RforkFds::Clear)
            .map_err(|_| ErrorWord::RforkFailed)?;
        set_comm(&handle, body.comm);
        if body.flags & GUEST_CONSOLE != 0 {
            // A kernel without devices has no console; then the descriptors stay free.
            for _ in 0..3 {
                let _ = handle.open(c"/dev/console", O_RDWR, 0);
            }
        }
        let client = self.new_client(handle);
        adopt(conn, &client);
        Ok(client)
    }

    fn new_client(self: &Arc<Self>, handle: LwpHandle) -> Arc<Client> {
        let client = Arc::new(Client::new(handle, self.cookie()));
        self.deliver_signals(&client);
        lock(&self.sessions).insert(client.session, Arc::downgrade(&client));
        client
    }

    /// The process that a cookie names; `None` when the client takes the fork back.
    fn forked(self: &Arc<Self>, body: &[u8]) -> Result<Option<Arc<Client>>, ErrorWord> {
        let body = ForkBody::decode(body).map_err(|_| ErrorWord::MalformedRequest)?;
        let prefork = lock(&self.preforks)
            .remove(&body.cookie)
            .ok_or(ErrorWord::InvalidPrefork)?;
        Ok((!body.cancel).then(|| self.new_client(prefork.handle)))
    }

    pub(crate) fn session(&self, session: Cookie) -> Option<Arc<Client>> {
        lock(&self.sessions).get(&session)?.upgrade()
    }

    fn join(&self, conn: &Arc<Conn>, body: &[u8], ready: bool) -> Result<Arc<Client>, ErrorWord> {
        let session = Cookie::decode(body).map_err(|_| ErrorWord::MalformedRequest)?;
        let client = self.session(session).ok_or(ErrorWord::Auth)?;
        conn.ready.store(ready, Ordering::SeqCst);
        if !ready {
            adopt(conn, &client);
        } else if conn.client.set(client.clone()).is_err() {
            return Err(ErrorWord::MalformedRequest);
        }
        Ok(client)
    }

    /// A handshake on a connection that is one of a process already: cancelling a fork, or the reference's exec.
    pub(crate) fn handshake_again(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        header: Header,
        worker: &mut Worker,
    ) -> Next {
        let body = &worker.input.bytes()[HEADER..];
        let Some(client) = conn.client.get() else {
            return Next::Close;
        };
        match Handshake::from_wire(header.word) {
            Some(Handshake::Exec) => {
                let comm = ExecBody::decode(body).comm.to_vec();
                self.exec(conn, client, header, &comm)
            }
            Some(Handshake::Fork) => match ForkBody::decode(body) {
                Ok(fork) if fork.cancel => match self.forked(body) {
                    Ok(_) => conn.respond(header, &reply(0, client.proc.pid, client.session, conn)),
                    Err(why) => conn.refuse(header, why),
                },
                _ => conn.refuse(header, ErrorWord::MalformedRequest),
            },
            _ => conn.refuse(header, ErrorWord::MalformedRequest),
        }
    }

    /// A new program in the same process: what the old one was doing ends, its other connections and its rings go, and
    /// so do descriptors that close on exec.
    fn exec(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        client: &Arc<Client>,
        header: Header,
        comm: &[u8],
    ) -> Next {
        for other in self.conns_of(client) {
            if other.id != conn.id {
                other.close();
            }
        }
        let _ = client.with_main(|handle| client.leases.recall(handle));
        for ring in std::mem::take(&mut *lock(&client.rings)).into_values() {
            ring.close();
        }
        if !client.quiesce() {
            return conn.refuse(header, ErrorWord::InExec);
        }
        let done = client.with_main(|handle| {
            let comm = String::from_utf8_lossy(comm);
            handle.enter(&KernelMemory, |cx| kern::lwproc::exec_alone(cx, &comm));
        });
        let error = done.err().map_or(0, |Errno(e)| e);
        conn.respond(header, &reply(error, client.proc.pid, client.session, conn))
    }

    /// Announces a fork: makes the child with a copy of the descriptors, and a cookie for it.
    pub(crate) fn prefork(&self, conn: &Arc<Conn>, client: &Arc<Client>, header: Header) -> Next {
        let mine = |p: &&Prefork| p.parent == client.session;
        if lock(&self.preforks).values().filter(mine).count() >= MAX_PREFORKS {
            return conn.refuse(header, ErrorWord::TryAgain);
        }
        let runner = match client.runner(None) {
            Ok(runner) => runner,
            Err(why) => return conn.refuse(header, why),
        };
        let in_flight = client.leases.enter(None, &runner.handle);
        let child = runner.handle.rfork(RforkFds::Copy);
        drop(in_flight);
        client.put_back(runner);
        let Ok(handle) = child else {
            return conn.refuse(header, ErrorWord::RforkFailed);
        };
        let cookie = self.cookie();
        let prefork = Prefork {
            handle,
            parent: client.session,
        };
        lock(&self.preforks).insert(cookie, prefork);
        if client.is_dead() {
            drop(lock(&self.preforks).remove(&cookie));
        }
        conn.respond(header, &cookie.encode())
    }
}

/// Makes the connection one that keeps the client alive.
fn adopt(conn: &Conn, client: &Arc<Client>) {
    if client.connections.fetch_add(1, Ordering::SeqCst) == 0 {
        client.trusted.store(conn.trusted, Ordering::SeqCst);
    }
    if conn.client.set(client.clone()).is_err() {
        client.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

fn reply(error: i32, pid: i32, session: Cookie, conn: &Conn) -> [u8; HandshakeReply::SIZE] {
    HandshakeReply {
        error,
        pid,
        session,
        connection: conn.id,
    }
    .encode()
}

fn set_comm(handle: &LwpHandle, comm: &[u8]) {
    let comm = String::from_utf8_lossy(comm);
    handle.enter(&KernelMemory, |cx| cx.proc().set_comm(cx, &comm));
}

//! The socket: what a descriptor stands for.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::{Errno, Stat, SysResult, UserAddr};
use hypercall::BackingFile;
use kern::poll::{Events, Watcher};
use kern::{Ahead, Curlwp, File, OpenFile, Uio, anon};

use crate::consts::{SO_BINDTODEVICE, SO_BINDTOIFINDEX, SOL_SOCKET};
use crate::{Common, Incoming, Kind, Net, OptValue, Outgoing, Protocol, ifioctl, sockopt};

const S_IFSOCK: u32 = 0o140000;

/// A socket: its options, and the protocol that does the work.
pub struct Socket {
    family: u16,
    kind: Kind,
    number: i32,
    protocol: Arc<dyn Protocol>,
    owner: anon::Owner,
}

impl Socket {
    /// A socket of a protocol that exists already: one just made, or a connection that was accepted.
    pub fn new(
        cx: &Curlwp<'_>,
        family: i32,
        kind: Kind,
        number: i32,
        protocol: Arc<dyn Protocol>,
    ) -> Arc<Socket> {
        Arc::new(Socket {
            family: family as u16,
            kind,
            number,
            protocol,
            owner: anon::Owner::new(cx),
        })
    }

    /// A number that no other socket of the kernel has.
    pub(crate) fn cookie(&self) -> u64 {
        self.owner.ino()
    }

    /// The address family.
    pub fn family(&self) -> i32 {
        self.family.into()
    }

    /// The type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The protocol's number.
    pub fn protocol_number(&self) -> i32 {
        self.number
    }

    /// Options and readiness.
    pub fn common(&self) -> &Arc<Common> {
        self.protocol.common()
    }

    /// The protocol.
    pub fn protocol(&self) -> &Arc<dyn Protocol> {
        &self.protocol
    }

    /// getsockopt(2), with what the caller's buffer holds.
    pub fn getsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        input: &[u8],
    ) -> Result<OptValue, Errno> {
        if level == SOL_SOCKET
            && !self.protocol.owns_option(name)
            && let Some(value) = sockopt::get(cx, self, name)
        {
            return Ok(value);
        }
        self.protocol.getsockopt_with(cx, level, name, input)
    }

    /// setsockopt(2).
    pub fn setsockopt(
        &self,
        cx: &Curlwp<'_>,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> Result<(), Errno> {
        let owned = level == SOL_SOCKET && self.protocol.owns_option(name);
        if (level, name) == (SOL_SOCKET, SO_BINDTOIFINDEX) && !owned {
            let device = match sockopt::int_option(value)? {
                0 => String::new(),
                index => {
                    let interface = Net::of(cx)?.interfaces().by_index(index as u32);
                    interface.ok_or(Errno::ENODEV)?.name(cx.cpu())
                }
            };
            return self.setsockopt(cx, level, SO_BINDTODEVICE, device.as_bytes());
        }
        if level == SOL_SOCKET
            && !owned
            && let Some(result) = sockopt::set(cx, self, name, value)
        {
            if result.is_ok() {
                self.protocol.option_changed(cx, name);
            }
            return result;
        }
        self.protocol.setsockopt(cx, level, name, value)
    }
}

impl File for Socket {
    fn read(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        if uio.resid() == 0 {
            return Ok(());
        }
        let mut message = Incoming {
            uio,
            flags: 0,
            wait: self.common().receive_wait(of.nonblocking()),
            wants_control: false,
        };
        let received = self.protocol.receive(cx, &mut message)?;
        received.control.into_iter().for_each(|c| c.release(cx));
        Ok(())
    }

    fn write(&self, cx: &Curlwp<'_>, of: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let mut control = Vec::new();
        let mut message = Outgoing {
            uio,
            to: None,
            control: &mut control,
            flags: 0,
            wait: self.common().send_wait(of.nonblocking()),
        };
        self.protocol.send(cx, &mut message)
    }

    fn poll(&self, cx: &Curlwp<'_>, events: Events, watcher: Option<&Arc<dyn Watcher>>) -> Events {
        if let Some(watcher) = watcher {
            self.common().poll.watch(cx.cpu(), watcher);
        }
        let mut now = self.protocol.poll(cx);
        if self.common().has_error() {
            now = now | Events::ERR;
        }
        now & (events | Events::ALWAYS)
    }

    fn available(&self, cx: &Curlwp<'_>, _: &OpenFile, events: Events) -> i64 {
        match events.intersects(Events::OUT) {
            true => self.protocol.room(cx),
            false => self.protocol.available(cx),
        }
    }

    fn ahead(&self, cx: &Curlwp<'_>, most: usize) -> Option<Ahead> {
        let common = self.common();
        let plain = common.rcvlowat.load(Ordering::Relaxed) == 1 && !common.has_error();
        plain.then(|| self.protocol.ahead(cx, most))?
    }

    fn ioctl(&self, cx: &Curlwp<'_>, _: &OpenFile, cmd: u32, arg: UserAddr) -> SysResult {
        match ifioctl::ioctl(cx, cmd, arg) {
            Some(result) => result,
            None => self.protocol.ioctl(cx, cmd, arg),
        }
    }

    fn map(
        &self,
        cx: &Curlwp<'_>,
        _: &OpenFile,
        _offset: u64,
        _len: u64,
    ) -> Result<Arc<dyn BackingFile>, Errno> {
        self.protocol.memory(cx).ok_or(Errno::ENODEV)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        Ok(self.owner.stat(S_IFSOCK | 0o777))
    }

    fn still_held(&self, cx: &Curlwp<'_>, of: &Arc<OpenFile>) {
        self.protocol.still_held(cx, of);
    }

    fn close(&self, cx: &Curlwp<'_>, _: &OpenFile) {
        self.protocol.close(cx);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

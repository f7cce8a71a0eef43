//! The local domain, unix(7): stream, datagram and sequenced-packet sockets within one kernel, with names in the file
//! system, abstract names, descriptor passing and credentials.
//!
//! An `End` is one socket's side: what others have sent it waits in its inbox, as reference-counted
//! pieces that are never copied between the sender's memory and the receiver's. Connected ends refer to each other
//! weakly, so closing one frees it whatever the other does. Descriptors that nobody has received yet are in flight (`flight`);
//! sockets that nothing but each other's inboxes keeps open are found and closed (`garbage`).
//!
//! It may use the net faction and what is below it. Start reading at `end`.
#![forbid(unsafe_code)]

mod connect;
mod end;
mod flight;
mod garbage;
mod inbox;
mod locked;
mod names;
mod transfer;

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use abi::Errno;
use kern::{Component, Curlwp, Stage};
use net::consts::AF_UNIX;
use net::{Common, Domain, Kind, Net, Protocol, SocketEntry};

/// The component, for the list of components.
pub static LOCAL: Component = Component {
    name: "local",
    stage: Stage::Net,
    requires: &["net"],
    init: attach,
};

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let domain = Local {
        names: Arc::default(),
        flight: Arc::new(flight::Flight::new(cx.kernel().host().clone())),
    };
    let names = domain.names.clone();
    let report = move |cx: &Curlwp<'_>| report(cx, &names);
    cx.kernel().reports().add(cx, "net/unix", report);
    let net = Net::of(cx)?;
    net.offer(cx, domain.names.clone());
    cx.kernel().at_shutdown(cx, "local", halt);
    net.register(cx, AF_UNIX, Arc::new(domain))
}

/// Closes what is in flight: sockets in each other's inboxes would outlive the kernel.
fn halt(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let mut files = VecDeque::new();
    let names = Net::of(cx)?.service::<names::Names>(cx);
    for end in names.iter().flat_map(|names| names.ends(cx.cpu())) {
        end.lock_inbox(cx).empty(&mut files);
    }
    flight::settle(cx, files);
    Ok(())
}

/// The sockets, as `net/unix` of proc(5) has them.
fn report(cx: &Curlwp<'_>, names: &names::Names) -> String {
    const LISTENS: u8 = 10;
    let mut out = "Num       RefCount Protocol Flags    Type St Inode Path\n".to_owned();
    for socket in names.ends(cx.cpu()).iter().map(|end| end.entry(cx)) {
        // SO_ACCEPTCON; SS_UNCONNECTED or SS_CONNECTED.
        let flags = if socket.state == LISTENS { 0x10000 } else { 0 };
        let state = if socket.peer == 0 { 1 } else { 3 };
        let (kind, number) = (socket.kind.number(), socket.number);
        let _ = write!(
            out,
            "{number:016x}: 00000002 00000000 {flags:08X} {kind:04X} {state:02X} {number:>5}"
        );
        let name = match socket.name.strip_suffix(&[0]) {
            Some(path) if socket.name[0] != 0 => path,
            _ => &socket.name,
        };
        if !name.is_empty() {
            let name = String::from_utf8_lossy(name).replace('\0', "@");
            let _ = write!(out, " {name}");
        }
        out.push('\n');
    }
    out
}

/// The domain of a kernel.
struct Local {
    names: Arc<names::Names>,
    flight: Arc<flight::Flight>,
}

impl Domain for Local {
    fn socket(
        &self,
        cx: &Curlwp<'_>,
        kind: Kind,
        protocol: i32,
        common: &Arc<Common>,
    ) -> Result<Arc<dyn Protocol>, Errno> {
        if protocol != 0 && protocol != i32::from(AF_UNIX) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        // A raw socket of this family is a datagram one, as on Linux.
        let kind = if kind == Kind::Raw { Kind::Dgram } else { kind };
        Ok(end::End::new(
            cx.cpu(),
            kind,
            common.clone(),
            self.names.clone(),
            self.flight.clone(),
        ))
    }

    fn sockets(&self, cx: &Curlwp<'_>) -> Vec<SocketEntry> {
        let ends = self.names.ends(cx.cpu());
        ends.iter().map(|end| end.entry(cx)).collect()
    }
}

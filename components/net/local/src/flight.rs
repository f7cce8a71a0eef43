//! Descriptors in flight: those that lie in inboxes, as parts of messages that nobody has received yet.
//!
//! A message that goes astray gives its descriptors back, which may close sockets with more of them in their inboxes. Sockets
//! that lie in one another's inboxes are kept open by nothing else when their descriptors are gone: see [`crate::garbage`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use abi::Errno;
use hypercall::Host;
use kern::{Curlwp, OpenFile, fd};
use net::{Control, Credentials, Outgoing, Socket};
use sync::Mutex;

use crate::end::End;

/// What a kernel knows of its descriptors in flight.
///
/// Locks: `graph` before the locks of ends, `users` behind them, a leaf. Messages without local sockets among their descriptors do
/// not want `graph`, and those without descriptors neither of them.
pub(crate) struct Flight {
    /// For who drops what a kernel has left behind, and has no lwp any more.
    pub(crate) host: Arc<dyn Host>,
    pub(crate) graph: Mutex<Graph>,
    /// How many descriptors of each user are in flight.
    users: Mutex<HashMap<u32, usize>>,
    /// Sockets may lie in each other's inboxes in a circle. Set, with `graph` held, when the last piece of one could have come to
    /// its place; cleared when no sockets are in flight. Who drops a descriptor reads this afterwards, and who sets it counts
    /// descriptors afterwards: of two at the same time one sees what the other did, hence `SeqCst`.
    tangled: AtomicBool,
}

/// Which sockets lie in which inboxes; the inboxes themselves know that, this is the lock. It is held by who puts sockets into an
/// inbox, takes some out, or accepts a connection that has some; and by who looks for circles and must see all that stand still.
/// Calls may go on after their descriptor is closed: what they took out before is in their hands, afterwards they find nothing.
#[derive(Default)]
pub(crate) struct Graph {
    /// Sockets in flight, each as often as it lies somewhere.
    sockets: usize,
}

/// The descriptors of a message.
#[derive(Default)]
pub(crate) struct Rights {
    /// Each is held.
    pub(crate) files: Vec<Arc<OpenFile>>,
    /// There are sockets of this domain among them.
    pub(crate) has_sockets: bool,
    /// Who is charged with them.
    user: u32,
}

/// What a message has besides its bytes: who sent it, and descriptors.
pub(crate) struct Along {
    pub(crate) sender: Credentials,
    pub(crate) rights: Option<Box<Rights>>,
}

/// The end that a descriptor stands for, where it is one of this domain.
pub(crate) fn end_of(of: &OpenFile) -> Option<&End> {
    let socket = of.downcast::<Socket>()?;
    socket.protocol().as_any().downcast_ref()
}

impl Rights {
    /// The sockets of this domain, with their ends.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (&End, &Arc<OpenFile>)> {
        let sockets = self.files.iter().filter(|_| self.has_sockets);
        sockets.filter_map(|of| Some((end_of(of)?, of)))
    }

    /// Other descriptors for the same files.
    pub(crate) fn duplicate(&self) -> Vec<Arc<OpenFile>> {
        self.files.iter().for_each(|of| fd::hold(of));
        self.files.clone()
    }
}

impl Along {
    /// Takes what goes along with a message. `ETOOMANYREFS` when the user has too many descriptors in flight: more than the
    /// process may have open, or, if it is the superuser, could be allowed to.
    pub(crate) fn take(
        cx: &Curlwp<'_>,
        flight: &Flight,
        message: &mut Outgoing<'_, '_>,
    ) -> Result<Along, Errno> {
        let mut along = Along {
            sender: Credentials::current(cx),
            rights: None,
        };
        if message.control.is_empty() {
            return Ok(along);
        }
        let count = |c: &Control| match c {
            Control::Rights(files) => files.len(),
            _ => 0,
        };
        let user = cx.cred().ruid;
        flight.charge(cx, user, message.control.iter().map(count).sum())?;
        let mut files = Vec::new();
        for control in message.control.drain(..) {
            match control {
                Control::Rights(more) => files.extend(more),
                Control::Credentials(cred) => along.sender = cred,
                // What is for other domains goes nowhere.
                Control::Other(..) => {}
            }
        }
        along.rights = (!files.is_empty()).then(|| {
            let has_sockets = files.iter().any(|of| end_of(of).is_some());
            Box::new(Rights {
                files,
                has_sockets,
                user,
            })
        });
        Ok(along)
    }

    /// Gives back what did not go.
    pub(crate) fn give_back(self, cx: &Curlwp<'_>, flight: &Flight) {
        if let Some(rights) = self.rights {
            settle(cx, flight.land(cx, *rights).into());
        }
    }
}

impl Flight {
    pub(crate) fn new(host: Arc<dyn Host>) -> Flight {
        Flight {
            host,
            graph: Mutex::default(),
            users: Mutex::default(),
            tangled: AtomicBool::new(false),
        }
    }

    fn charge(&self, cx: &Curlwp<'_>, user: u32, count: usize) -> Result<(), Errno> {
        if count == 0 {
            return Ok(());
        }
        let limit = match cx.cred().is_superuser() {
            true => fd::FD_MAX,
            false => cx.proc().fd_limit(cx),
        };
        let mut users = self.users.lock(cx.cpu());
        let before = users.entry(user).or_default();
        if *before > limit {
            return Err(Errno::ETOOMANYREFS);
        }
        *before += count;
        Ok(())
    }

    /// The descriptors of a message are in flight no more.
    pub(crate) fn land(&self, cx: &Curlwp<'_>, rights: Rights) -> Vec<Arc<OpenFile>> {
        let mut users = self.users.lock(cx.cpu());
        if let Some(count) = users.get_mut(&rights.user) {
            *count = count.saturating_sub(rights.files.len());
            if *count == 0 {
                users.remove(&rights.user);
            }
        }
        rights.files
    }

    /// Descriptors go into an inbox.
    pub(crate) fn enter(&self, graph: &mut Graph, to: &End, rights: &Rights) {
        for (end, _) in rights.sockets() {
            end.in_flight.fetch_add(1, SeqCst);
            to.carries.fetch_add(1, SeqCst);
            graph.sockets += 1;
        }
        // In a circle the end lies in an inbox itself, or the listener does that has not accepted it, and what is put there has
        // something in its own. (A listener that has not is in a circle by what was put into its connections.)
        let closes = |end: &End| end.carries.load(SeqCst) != 0;
        if to.unaccepted.load(SeqCst)
            || to.in_flight.load(SeqCst) != 0 && rights.sockets().any(|(end, _)| closes(end))
        {
            self.tangled.store(true, SeqCst);
        }
    }

    /// Descriptors come out of an inbox.
    pub(crate) fn leave(&self, graph: &mut Graph, from: &End, rights: &Rights) {
        for (end, _) in rights.sockets() {
            end.in_flight.fetch_sub(1, SeqCst);
            from.carries.fetch_sub(1, SeqCst);
            graph.sockets -= 1;
        }
        if graph.sockets == 0 {
            self.tangled.store(false, SeqCst);
        }
    }

    /// Whether sockets may lie in one another in a circle.
    pub(crate) fn is_tangled(&self) -> bool {
        self.tangled.load(SeqCst)
    }
}

/// Drops descriptors that go nowhere, and those in the inboxes of sockets that are closed by that, and so on. A list and no
/// recursion, which would be as deep as sockets lie in one another.
pub(crate) fn settle(cx: &Curlwp<'_>, mut files: VecDeque<Arc<OpenFile>>) {
    while let Some(of) = files.pop_front() {
        match end_of(&of) {
            None => fd::release(cx, &of),
            Some(end) if fd::give_up(cx, &of) => end.shut(cx, &mut files),
            Some(end) => end.flight.collect(cx, end, &of, &mut files),
        }
    }
}

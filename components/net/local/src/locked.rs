//! An inbox while it is locked.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use abi::Errno;
use kern::{Curlwp, OpenFile};
use net::{Control, Wait};
use sync::{Condvar, MutexGuard};

use crate::end::End;
use crate::flight::{Along, Graph, Rights};
use crate::garbage::suspect;
use crate::inbox::{Inbox, Piece};

/// The inbox of an end, locked, and with it the graph where sockets go in or come out.
pub(crate) struct Locked<'a> {
    cx: &'a Curlwp<'a>,
    end: &'a End,
    inbox: MutexGuard<'a, Inbox>,
    graph: Option<MutexGuard<'a, Graph>>,
}

impl End {
    /// Locks the inbox.
    pub(crate) fn lock_inbox<'a>(&'a self, cx: &'a Curlwp<'_>) -> Locked<'a> {
        Locked {
            cx,
            end: self,
            inbox: self.inbox.lock(cx.cpu()),
            graph: None,
        }
    }

    /// Locks the inbox for a message to be put into it.
    pub(crate) fn lock_inbox_for<'a>(&'a self, cx: &'a Curlwp<'_>, along: &Along) -> Locked<'a> {
        match &along.rights {
            Some(rights) if rights.has_sockets => self.lock_inbox_and_graph(cx),
            _ => self.lock_inbox(cx),
        }
    }

    fn lock_inbox_and_graph<'a>(&'a self, cx: &'a Curlwp<'_>) -> Locked<'a> {
        let graph = self.flight.graph.lock(cx.cpu());
        let mut locked = self.lock_inbox(cx);
        locked.graph = Some(graph);
        locked
    }
}

impl<'a> Locked<'a> {
    /// The same inbox, ready for its first message to be taken: with the graph when that has sockets.
    pub(crate) fn for_taking(self) -> Locked<'a> {
        let rights = self.inbox.first().and_then(|piece| piece.rights.as_ref());
        match rights {
            Some(rights) if rights.has_sockets && self.graph.is_none() => self.with_graph(),
            _ => self,
        }
    }

    /// Sleeps on a condition variable of the inbox, as [`Wait::on`]; no longer than that the graph is held.
    pub(crate) fn wait(self, wait: &mut Wait, cv: &Condvar) -> Result<Locked<'a>, Errno> {
        let (end, cx) = (self.end, self.cx);
        let with_graph = self.graph.is_some();
        drop(self.graph);
        let inbox = wait.on(cx, cv, self.inbox)?;
        if with_graph {
            drop(inbox);
            return Ok(end.lock_inbox_and_graph(cx));
        }
        Ok(Locked {
            cx,
            end,
            inbox,
            graph: None,
        })
    }

    /// Puts a message into the inbox, which is locked [for it](End::lock_inbox_for).
    pub(crate) fn put(mut self, piece: Piece) {
        let (end, cx) = (self.end, self.cx);
        let mut suspects = Vec::new();
        if let (Some(graph), Some(rights)) = (&mut self.graph, &piece.rights) {
            end.flight.enter(graph, end, rights);
            if end.flight.is_tangled() {
                suspects.extend(rights.sockets().map(|(_, of)| of.clone()));
            }
        }
        self.inbox.push(piece);
        drop(self);
        // They may have been closed while they were on their way here.
        suspects.iter().for_each(|of| suspect(cx, of));
    }

    /// What went along with a message that was taken out.
    pub(crate) fn land(&mut self, rights: Option<Box<Rights>>) -> Vec<Control> {
        let rights = rights.map(|rights| Control::Rights(self.landed(*rights)));
        rights.into_iter().collect()
    }

    fn landed(&mut self, rights: Rights) -> Vec<Arc<OpenFile>> {
        let flight = &self.end.flight;
        if let Some(graph) = &mut self.graph {
            flight.leave(graph, self.end, &rights);
        }
        flight.land(self.cx, rights)
    }

    /// What goes along with the first message, for who only looks at it: other descriptors for the same files.
    pub(crate) fn look(&self) -> Vec<Control> {
        let first = self.inbox.first();
        let rights = first.and_then(|piece| piece.rights.as_deref());
        let control = rights.map(|rights| Control::Rights(rights.duplicate()));
        control.into_iter().collect()
    }

    /// Empties the inbox; the descriptors that lay in it go to `files`. Answers whether there was anything.
    pub(crate) fn empty(mut self, files: &mut VecDeque<Arc<OpenFile>>) -> bool {
        if self.graph.is_none() && self.end.carries.load(SeqCst) != 0 {
            self = self.with_graph();
        }
        let pieces = self.inbox.drain();
        let unread = !pieces.is_empty();
        for rights in pieces.into_iter().filter_map(|piece| piece.rights) {
            files.extend(self.landed(*rights));
        }
        unread
    }

    fn with_graph(self) -> Locked<'a> {
        let (end, cx) = (self.end, self.cx);
        drop(self);
        end.lock_inbox_and_graph(cx)
    }
}

impl Deref for Locked<'_> {
    type Target = Inbox;
    fn deref(&self) -> &Inbox {
        &self.inbox
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Inbox {
        &mut self.inbox
    }
}

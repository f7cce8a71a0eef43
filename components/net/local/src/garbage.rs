//! Sockets that nobody can reach any more, because they lie in each other's inboxes and nowhere else.
//!
//! Counting descriptors, as for all open files, never closes them. They come into being in two ways: the last descriptor that a
//! process has of a socket in flight is closed, or was closed while another was on its way into an inbox. Then, if there can be
//! circles at all ([`Flight::is_tangled`]), the sockets that lie in its inbox are looked at, those in theirs, and so on. A socket
//! with more descriptors than were found there can be reached, and so can all that lies in its inbox. Of the others the inboxes and
//! queues of connections are emptied.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use kern::{Curlwp, OpenFile};
use sync::{OffCpu, Parker};

use crate::end::End;
use crate::flight::{Flight, end_of, settle};

/// A socket of which some descriptor is gone, perhaps the last one outside of inboxes: closes what nobody can reach.
pub(crate) fn suspect(cx: &Curlwp<'_>, of: &Arc<OpenFile>) {
    let mut files = VecDeque::new();
    if let Some(end) = end_of(of) {
        end.flight.collect(cx, end, of, &mut files);
    }
    settle(cx, files);
}

/// A socket that was found.
struct Node {
    end: Arc<End>,
    of: Arc<OpenFile>,
    /// In how many inboxes of nodes it lies, one as often as it does.
    found: usize,
    /// What lies in its inbox.
    holds: Vec<usize>,
    reachable: bool,
}

impl Flight {
    /// Empties the inboxes of sockets that nobody can reach into `files`: those that came to be so with the last change, which is
    /// why they are found from `end`.
    pub(crate) fn collect(
        &self,
        cx: &Curlwp<'_>,
        end: &End,
        of: &Arc<OpenFile>,
        files: &mut VecDeque<Arc<OpenFile>>,
    ) {
        let in_flight = end.in_flight.load(SeqCst);
        if in_flight == 0 || !self.is_tangled() || of.holders() > in_flight {
            return;
        }
        let Ok(end) = end.arc() else { return };
        let mut graph = self.graph.lock(cx.cpu());
        let mut nodes = survey(cx, end, of.clone());
        reach(&mut nodes);
        let mut waiting = Vec::new();
        for node in nodes.iter().filter(|node| !node.reachable) {
            let end = &node.end;
            waiting.extend(end.take_waiting(cx));
            let pieces = end.inbox.lock(cx.cpu()).drain();
            for rights in pieces.into_iter().filter_map(|piece| piece.rights) {
                self.leave(&mut graph, end, &rights);
                files.extend(self.land(cx, *rights));
            }
        }
        drop(graph);
        waiting.iter().for_each(|end| end.shut(cx, files));
    }
}

impl End {
    /// Whose inboxes can be read by who has a descriptor of this one: itself, or connections that it can accept.
    fn inboxes(self: &Arc<Self>, cx: &Curlwp<'_>) -> Vec<Arc<End>> {
        let state = self.state.lock(cx.cpu());
        let waiting = state.listening.iter().flat_map(|l| &l.queue);
        waiting.chain([self]).cloned().collect()
    }

    /// The connections that it could accept, which it cannot any more.
    fn take_waiting(&self, cx: &Curlwp<'_>) -> VecDeque<Arc<End>> {
        let mut state = self.state.lock(cx.cpu());
        let queue = state.listening.as_mut().map(|l| &mut l.queue);
        queue.map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for End {
    /// Anything is left in it only when its kernel is gone and has not closed it. That is dropped here one by one, which would
    /// go as deep as sockets lie in one another.
    fn drop(&mut self) {
        if self.inbox.get_mut().is_empty() && self.state.get_mut().listening.is_none() {
            return;
        }
        let parker = OffCpu(&*self.flight.host);
        let mut files = Vec::new();
        self.spill(&parker, &mut files);
        while let Some(of) = files.pop() {
            if let (1, Some(end)) = (Arc::strong_count(&of), end_of(&of)) {
                end.spill(&parker, &mut files);
            }
        }
    }
}

impl End {
    /// Moves what lies in it, and in connections that it could accept, to `files`.
    fn spill(&self, parker: &dyn Parker, files: &mut Vec<Arc<OpenFile>>) {
        let listening = self.state.lock(parker).listening.take();
        let waiting = listening.iter().flat_map(|l| &l.queue);
        for end in waiting.map(Arc::as_ref).chain([self]) {
            let pieces = end.inbox.lock(parker).drain();
            let rights = pieces.into_iter().filter_map(|piece| piece.rights);
            files.extend(rights.flat_map(|rights| rights.files));
        }
    }
}

/// The socket and what can be reached from it. The graph is locked.
fn survey(cx: &Curlwp<'_>, end: Arc<End>, of: Arc<OpenFile>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut places = HashMap::new();
    let mut place_of = |nodes: &mut Vec<Node>, end: Arc<End>, of: &Arc<OpenFile>| {
        *places.entry(Arc::as_ptr(&end)).or_insert_with(|| {
            nodes.push(Node {
                end,
                of: of.clone(),
                found: 0,
                holds: Vec::new(),
                reachable: false,
            });
            nodes.len() - 1
        })
    };
    place_of(&mut nodes, end, &of);
    let mut at = 0;
    while at < nodes.len() {
        for end in nodes[at].end.inboxes(cx) {
            let inbox = end.inbox.lock(cx.cpu());
            for (end, of) in inbox.sockets() {
                let Ok(end) = end.arc() else { continue };
                let place = place_of(&mut nodes, end, of);
                nodes[place].found += 1;
                nodes[at].holds.push(place);
            }
        }
        at += 1;
    }
    nodes
}

/// Marks the nodes that can be reached.
fn reach(nodes: &mut [Node]) {
    let outside = |node: &Node| node.of.holders() > node.found;
    let mut next: Vec<usize> = (0..nodes.len()).filter(|&at| outside(&nodes[at])).collect();
    while let Some(at) = next.pop() {
        if !std::mem::replace(&mut nodes[at].reachable, true) {
            next.extend(&nodes[at].holds);
        }
    }
}

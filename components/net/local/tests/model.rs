//! Sockets that are sent, received, accepted and closed, against a model that follows every descriptor: a socket is there as long as
//! somebody could get at it.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;

use abi::Syscalls;
use common::*;
use kern::{Kernel, LwpHandle};
use proptest::prelude::*;

/// What a listener's queue holds besides one.
const BACKLOG: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dgram,
    Listener,
    /// One side of a connection, and the other.
    Stream(usize),
}

/// A socket.
struct Node {
    kind: Kind,
    /// Unknown of a connection that is not accepted.
    file: Option<Gone>,
    /// The sockets in each message of its inbox.
    inbox: VecDeque<Vec<usize>>,
    /// Connections that it has not accepted.
    waiting: VecDeque<usize>,
    alive: bool,
}

/// The model, and beside it the kernel.
struct World {
    kernel: Arc<Kernel>,
    p: LwpHandle,
    /// What sends to datagram sockets.
    by: i32,
    nodes: Vec<Node>,
    /// Descriptors, and what they stand for.
    fds: Vec<(i32, usize)>,
}

impl World {
    fn new() -> World {
        let (kernel, p) = process();
        let by = p.socket(UNIX, DGRAM, 0).expect("a socket") as i32;
        World {
            kernel,
            p,
            by,
            nodes: Vec::new(),
            fds: Vec::new(),
        }
    }

    fn node(&mut self, kind: Kind, fd: Option<i32>) -> usize {
        let number = self.nodes.len();
        self.nodes.push(Node {
            kind,
            file: fd.map(|fd| file(&self.p, fd)),
            inbox: VecDeque::new(),
            waiting: VecDeque::new(),
            alive: true,
        });
        self.fds.extend(fd.map(|fd| (fd, number)));
        number
    }

    /// A descriptor by chance.
    fn any(&self, chance: usize) -> Option<(i32, usize)> {
        (!self.fds.is_empty()).then(|| self.fds[chance % self.fds.len()])
    }

    /// A living socket of a kind by chance, whether it has a descriptor or not.
    fn living(&self, kind: Kind, chance: usize) -> Option<usize> {
        let is = |node: &Node| node.alive && node.kind == kind;
        let all: Vec<usize> = (0..self.nodes.len())
            .filter(|&n| is(&self.nodes[n]))
            .collect();
        (!all.is_empty()).then(|| all[chance % all.len()])
    }

    fn step(&mut self, op: u8, [a, b, c]: [usize; 3]) -> Option<()> {
        match op {
            0 => {
                let fd = named(&self.p, DGRAM | NONBLOCK, self.nodes.len());
                self.node(Kind::Dgram, Some(fd));
            }
            1 => {
                let fd = named(&self.p, STREAM | NONBLOCK, self.nodes.len());
                self.p.listen(fd, BACKLOG).expect("listens");
                self.node(Kind::Listener, Some(fd));
            }
            2 => self.connect(self.living(Kind::Listener, a)?),
            3 => self.accept(self.any(a)?),
            4..7 => {
                let to = self.living(Kind::Dgram, a)?;
                let what = [self.any(b)?, self.any(c)?];
                self.give(self.by, &what[..1 + c % 2], to, Some(to));
            }
            7..9 => {
                let (fd, node) = self.any(a)?;
                let Kind::Stream(to) = self.nodes[node].kind else {
                    return None;
                };
                let what = [self.any(b)?, self.any(c)?];
                self.give(fd, &what[..1 + c % 2], to, None);
            }
            9 | 10 => self.take(self.any(a)?, 0),
            11 => self.take(self.any(a)?, MSG_PEEK),
            _ => {
                let (fd, _) = self.any(a)?;
                close(&self.p, fd);
                self.fds.retain(|(other, _)| *other != fd);
            }
        }
        Some(())
    }

    fn connect(&mut self, listener: usize) {
        let fd = self.p.socket(UNIX, STREAM | NONBLOCK, 0).expect("a socket") as i32;
        let name = name(listener);
        let result = self.p.connect(fd, &name, name.len());
        let fits = self.nodes[listener].waiting.len() <= BACKLOG as usize;
        assert_eq!(result.is_ok(), fits);
        if !fits {
            return close(&self.p, fd);
        }
        let client = self.node(Kind::Stream(self.nodes.len() + 1), Some(fd));
        let served = self.node(Kind::Stream(client), None);
        self.nodes[listener].waiting.push_back(served);
    }

    fn accept(&mut self, (fd, node): (i32, usize)) {
        let result = self.p.accept(fd, &mut [], &mut []);
        let want = self.nodes[node].waiting.pop_front();
        assert_eq!(result.is_ok(), want.is_some());
        if let (Ok(fd), Some(served)) = (result, want) {
            self.nodes[served].file = Some(file(&self.p, fd as i32));
            self.fds.push((fd as i32, served));
        }
    }

    fn give(&mut self, by: i32, what: &[(i32, usize)], to: usize, name: Option<usize>) {
        let (fds, nodes): (Vec<i32>, Vec<usize>) = what.iter().copied().unzip();
        let result = give(&self.p, by, &fds, name);
        assert_eq!(result.is_ok(), self.nodes[to].alive);
        if result.is_ok() {
            self.nodes[to].inbox.push_back(nodes);
        }
    }

    fn take(&mut self, (fd, node): (i32, usize), flags: i32) {
        let got = take(&self.p, fd, flags).unwrap_or_default();
        let inbox = &mut self.nodes[node].inbox;
        let want = match flags {
            MSG_PEEK => inbox.front().cloned(),
            _ => inbox.pop_front(),
        };
        let want = want.unwrap_or_default();
        assert_eq!(got.len(), want.len());
        for (fd, node) in got.into_iter().zip(want) {
            let known = self.nodes[node].file.as_ref().expect("it had a descriptor");
            assert!(known.ptr_eq(&file(&self.p, fd)));
            self.fds.push((fd, node));
        }
    }

    /// Follows all descriptors; what is not found is gone, in the model and in the kernel.
    fn compare(&mut self) {
        let mut found = vec![false; self.nodes.len()];
        let mut next: Vec<usize> = self.fds.iter().map(|(_, node)| *node).collect();
        while let Some(node) = next.pop() {
            if !std::mem::replace(&mut found[node], true) {
                let node = &self.nodes[node];
                next.extend(node.inbox.iter().flatten().chain(&node.waiting));
            }
        }
        for (node, found) in self.nodes.iter_mut().zip(&found) {
            node.alive = *found;
            if !found {
                node.inbox.clear();
                node.waiting.clear();
            }
            if let Some(file) = &node.file {
                assert_eq!(is_gone(file), !found);
            }
        }
        let alive = found.iter().filter(|found| **found).count();
        assert_eq!(sockets(&self.kernel), alive + 1);
    }
}

proptest! {
    #[test]
    fn a_socket_is_there_as_long_as_somebody_can_get_at_it(
        ops in prop::collection::vec((0u8..15, any::<[u16; 3]>()), 1..120),
    ) {
        let mut world = World::new();
        for (op, chances) in ops {
            world.step(op, chances.map(usize::from));
            world.compare();
        }
        world.p.close_range(0, u32::MAX, 0).expect("all closed");
        prop_assert_eq!(sockets(&world.kernel), 0);
        prop_assert!(world.nodes.iter().filter_map(|node| node.file.as_ref()).all(is_gone));
    }
}

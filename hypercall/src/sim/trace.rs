//! What happened in a run, as bytes: two runs are the same when their traces are.

use std::fmt::Write;

use crate::Nanos;

/// One thing that happened. Nothing in it depends on addresses or on the host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    Spawn(&'a str),
    Run,
    Park,
    Timeout,
    Unpark(u32),
    Device,
    End,
}

/// A hash of everything, and the text of it where it is wanted.
pub(super) struct Trace {
    hash: u64,
    text: Option<String>,
}

impl Trace {
    pub(super) fn new(keep: bool) -> Trace {
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            text: keep.then(String::new),
        }
    }

    pub(super) fn add(&mut self, now: Nanos, thread: usize, event: Event<'_>) {
        let code = match event {
            Event::Spawn(name) => 1 + ((name.len() as u64) << 8),
            Event::Run => 2,
            Event::Park => 3,
            Event::Timeout => 4,
            Event::Unpark(n) => 5 + (u64::from(n) << 8),
            Event::Device => 6,
            Event::End => 7,
        };
        // FNV-1a, a word at a time: good enough to tell two runs apart, and cheap.
        for word in [now, thread as u64, code] {
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x0000_0100_0000_01b3)
                .rotate_left(23);
        }
        if let Some(text) = &mut self.text {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{now:>12} {thread} {event:?}");
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("")
    }
}

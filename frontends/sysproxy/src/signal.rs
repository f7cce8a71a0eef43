//! Signals of the kernel for a client: a raise frame on its connection.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use kern::Pid;
use kern::signal::SignalSink;

use crate::client::Client;
use crate::core::Core;

struct Sink {
    core: Weak<Core>,
    client: Weak<Client>,
}

impl Core {
    /// Has the signals of a client's process sent to it.
    pub(crate) fn deliver_signals(self: &Arc<Self>, client: &Arc<Client>) {
        client.proc.set_signal_sink(Arc::new(Sink {
            core: Arc::downgrade(self),
            client: Arc::downgrade(client),
        }));
    }
}

impl SignalSink for Sink {
    /// Nothing waits for the client: what its socket does not take is kept.
    fn raise(&self, _: Pid, signo: u32) -> bool {
        let (Some(core), Some(client)) = (self.core.upgrade(), self.client.upgrade()) else {
            return false;
        };
        let conns = core.conns_of(&client);
        let mut calls = conns.iter().filter(|c| !c.ready.load(Ordering::SeqCst));
        if !calls.any(|conn| conn.raise(signo)) {
            return false;
        }
        client.tell_of_mail();
        true
    }
}

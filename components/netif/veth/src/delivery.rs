//! Handing up on one kernel: a software interrupt for all of its pairs.

use std::sync::{Arc, OnceLock, Weak};

use abi::Errno;
use kern::Curlwp;
use kern::softint::Softint;
use net::Ifnet;
use sync::{Cpu, PerCpu};

use crate::queue::Queue;

/// Batches of one end that are handed up before others have their turn.
const ROUNDS: usize = 16;

/// An end that has something to be handed up.
pub(crate) type Due = (Arc<Queue>, Weak<Ifnet>);

/// What is due on each virtual CPU. An end is in one of the lists at most, so that its packets keep their order.
pub(crate) struct Delivery {
    due: PerCpu<Vec<Due>>,
    softint: OnceLock<Softint>,
}

impl Delivery {
    pub(crate) fn establish(cx: &Curlwp<'_>) -> Result<Arc<Delivery>, Errno> {
        let delivery = Arc::new(Delivery {
            due: PerCpu::new(cx.kernel().cpus(), |_| Vec::new()),
            softint: OnceLock::new(),
        });
        let weak = Arc::downgrade(&delivery);
        let softint = Softint::establish(cx, move |cpu| {
            if let Some(delivery) = weak.upgrade() {
                delivery.run(cpu);
            }
        })?;
        let _ = delivery.softint.set(softint);
        Ok(delivery)
    }

    /// Has the packets of an end handed up soon, on this virtual CPU.
    pub(crate) fn schedule(&self, cpu: &Cpu<'_>, due: Due) {
        self.due.with(cpu, |list| list.push(due));
        if let Some(softint) = self.softint.get() {
            softint.schedule(cpu);
        }
    }

    fn run(&self, cpu: &Cpu<'_>) {
        for due in self.due.with(cpu, std::mem::take) {
            self.hand_up(cpu, due);
        }
    }

    fn hand_up(&self, cpu: &Cpu<'_>, (queue, interface): Due) {
        let Some(up) = interface.upgrade() else {
            return;
        };
        let mut batch = Vec::new();
        for _ in 0..ROUNDS {
            queue.take(cpu, &mut batch);
            if batch.is_empty() {
                return;
            }
            for packet in batch.drain(..) {
                up.input(cpu, packet);
            }
        }
        self.schedule(cpu, (queue, interface));
    }
}

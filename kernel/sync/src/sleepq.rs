//! Sleep queues: waiting on an identity, tsleep and wakeup.

use std::sync::Arc;

use hypercall::Nanos;

use crate::{Cpu, Mutex, MutexGuard, Parker, Sleeper, Wake};

/// Queues that identities hash to.
const BUCKETS: usize = 16;

/// Where lwps sleep on an identity, any number that sleeper and waker agree on: the classic way to wait where a condition
/// variable has no natural home.
///
/// Each bucket's mutex is a leaf. A sleeper is in its queue before it lets go of the mutex it came with, so a wake-up
/// under that mutex is never lost.
#[derive(Default)]
pub struct SleepQueues {
    buckets: [Mutex<Vec<Waiter>>; BUCKETS],
}

struct Waiter {
    ident: usize,
    sleeper: Arc<Sleeper>,
}

impl SleepQueues {
    fn bucket(&self, ident: usize) -> &Mutex<Vec<Waiter>> {
        // Identities are often addresses: their low bits say little.
        &self.buckets[(ident >> 6 ^ ident >> 12) % BUCKETS]
    }

    /// Sleeps until woken by identity, interrupted, or the deadline on the monotonic clock. Without a mutex a wake-up that
    /// comes before the sleep is not seen: see [`mtsleep`](Self::mtsleep).
    pub fn tsleep(
        &self,
        cpu: &Cpu<'_>,
        ident: usize,
        wmesg: &'static str,
        deadline: Option<Nanos>,
    ) -> Wake {
        self.enqueue(cpu, ident);
        self.sleep(cpu, ident, wmesg, deadline)
    }

    /// The same, letting go of a mutex meanwhile.
    pub fn mtsleep<'a, T: ?Sized>(
        &self,
        cpu: &Cpu<'_>,
        ident: usize,
        wmesg: &'static str,
        guard: MutexGuard<'a, T>,
        deadline: Option<Nanos>,
    ) -> (MutexGuard<'a, T>, Wake) {
        self.enqueue(cpu, ident);
        let (mutex, parker) = guard.parts();
        drop(guard);
        let wake = self.sleep(cpu, ident, wmesg, deadline);
        (mutex.lock(parker), wake)
    }

    fn enqueue(&self, cpu: &Cpu<'_>, ident: usize) {
        let sleeper = cpu.sleeper();
        sleeper.prepare(true);
        self.bucket(ident).lock(cpu).push(Waiter {
            ident,
            sleeper: sleeper.clone(),
        });
    }

    fn sleep(
        &self,
        cpu: &Cpu<'_>,
        ident: usize,
        wmesg: &'static str,
        deadline: Option<Nanos>,
    ) -> Wake {
        cpu.host().waits_for(wmesg);
        let sleeper = cpu.sleeper();
        let wake = sleeper.sleep(cpu, deadline);
        if wake != Wake::Woken {
            self.bucket(ident)
                .lock(cpu)
                .retain(|w| !Arc::ptr_eq(&w.sleeper, sleeper));
        }
        wake
    }

    /// Wakes everybody who sleeps on the identity; answers how many.
    pub fn wakeup(&self, parker: &dyn Parker, ident: usize) -> usize {
        let claimed: Vec<Waiter> = self
            .bucket(ident)
            .lock(parker)
            .extract_if(.., |w| w.ident == ident)
            .filter(|w| w.sleeper.claim())
            .collect();
        for waiter in &claimed {
            waiter.sleeper.unpark(parker.host());
        }
        claimed.len()
    }

    /// Wakes the one who has slept longest on the identity; answers whether there was one.
    pub fn wakeup_one(&self, parker: &dyn Parker, ident: usize) -> bool {
        let mut queue = self.bucket(ident).lock(parker);
        while let Some(at) = queue.iter().position(|w| w.ident == ident) {
            let waiter = queue.remove(at);
            if waiter.sleeper.claim() {
                drop(queue);
                waiter.sleeper.unpark(parker.host());
                return true;
            }
        }
        false
    }
}

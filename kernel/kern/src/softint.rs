//! Software interrupts, as softint(9) has them: short work that is put off until the virtual CPU on which it came up
//! is next given up, which is soon, and before the lwp there sleeps or leaves the kernel.

use std::sync::{Arc, OnceLock};

use abi::Errno;
use sync::{Cpu, Mutex};

use crate::Curlwp;

/// The most that a kernel can have.
pub const MAX: usize = 32;

/// What runs: on the virtual CPU where it was scheduled, as whatever lwp is there. It may not wait.
type Function = Box<dyn Fn(&Cpu<'_>) + Send + Sync>;

/// The software interrupts of a kernel. `count` guards the giving out of places.
#[derive(Default)]
pub(crate) struct Softints {
    functions: [OnceLock<Function>; MAX],
    count: Mutex<usize>,
}

impl Softints {
    /// Runs those whose bits are set.
    pub(crate) fn run(&self, cpu: &Cpu<'_>, mut bits: u32) {
        while bits != 0 {
            let at = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            if let Some(function) = self.functions[at].get() {
                function(cpu);
            }
        }
    }
}

/// A software interrupt.
#[derive(Clone)]
pub struct Softint(u32);

impl Softint {
    /// Makes one. `ENOSPC` when there are [`MAX`]. The function should hold nothing that keeps the kernel alive.
    pub fn establish(
        cx: &Curlwp<'_>,
        function: impl Fn(&Cpu<'_>) + Send + Sync + 'static,
    ) -> Result<Softint, Errno> {
        let softints: &Arc<Softints> = cx.kernel().softints();
        let mut count = softints.count.lock(cx.cpu());
        let slot = softints.functions.get(*count).ok_or(Errno::ENOSPC)?;
        let _ = slot.set(Box::new(function));
        *count += 1;
        Ok(Softint(1 << (*count - 1)))
    }

    /// Has it run on the virtual CPU that is held. Scheduled again before it ran, it runs once.
    #[inline]
    pub fn schedule(&self, cpu: &Cpu<'_>) {
        cpu.cpus().post(cpu.index(), self.0);
    }

    pub(crate) fn bits(&self) -> u32 {
        self.0
    }
}

//! Per-CPU data.

use std::cell::UnsafeCell;
use std::sync::Arc;

use crate::host::atomic::{AtomicBool, Ordering};
use crate::{Cpu, Cpus};

/// One cell, alone on its cache lines.
#[repr(align(128))]
struct Slot<T> {
    in_use: AtomicBool,
    value: UnsafeCell<T>,
}

/// A value for each virtual CPU, reached without a lock by who holds that CPU.
///
/// Using it and blocking exclude each other: an lwp that gives its CPU up inside [`with`](Self::with) keeps the cell
/// in use, and the next one to come by panics, which shows the mistake instead of corrupting data.
pub struct PerCpu<T> {
    /// Whose CPUs these are: a CPU of another kernel must not open a cell here.
    identity: Arc<()>,
    slots: Box<[Slot<T>]>,
}

// SAFETY: a value is reached only by the thread that holds the cell's CPU (and `in_use` catches the one way round
// that, blocking inside `with`), so values only move between threads, which `T: Send` allows.
unsafe impl<T: Send> Sync for PerCpu<T> {}
// SAFETY: owning the cells is owning the values.
unsafe impl<T: Send> Send for PerCpu<T> {}

impl<T> PerCpu<T> {
    /// One value for each CPU, made by `make` from the CPU's index.
    pub fn new(cpus: &Cpus, mut make: impl FnMut(usize) -> T) -> PerCpu<T> {
        let slot = |i| Slot {
            in_use: AtomicBool::new(false),
            value: UnsafeCell::new(make(i)),
        };
        PerCpu {
            identity: cpus.identity().clone(),
            slots: (0..cpus.count()).map(slot).collect(),
        }
    }

    /// Uses the value of the CPU that is held. `f` may not block.
    ///
    /// # Panics
    /// When the cell is in use (`f` blocked, or came back here), or belongs to another kernel.
    #[inline]
    pub fn with<R>(&self, cpu: &Cpu<'_>, f: impl FnOnce(&mut T) -> R) -> R {
        struct InUse<'a>(&'a AtomicBool);
        impl Drop for InUse<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        assert!(
            Arc::ptr_eq(&self.identity, cpu.cpus().identity()),
            "per-CPU data of another kernel"
        );
        let slot = &self.slots[cpu.index()];
        assert!(
            !slot.in_use.load(Ordering::Acquire),
            "per-CPU data is in use: its user blocked or came back"
        );
        slot.in_use.store(true, Ordering::Relaxed);
        let _in_use = InUse(&slot.in_use);
        // SAFETY: this thread holds this kernel's CPU, so no other thread is between the check and the store above; a thread
        // that gave the CPU up inside its `f` has left `in_use` set, and we do not come here.
        f(unsafe { &mut *slot.value.get() })
    }

    /// Every value, by who owns them all.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().map(|slot| slot.value.get_mut())
    }
}

//! Rings that a thread of the server looks after besides its own.
//!
//! A thread whose call has caused events for waits that are parked at other rings makes those waits again itself when it is
//! done: it is awake, and their own threads are not. Of the ring that it has answered it then becomes the guardian, for as
//! long as it stays awake: what that client asks for next is likely to come soon, and finds somebody who looks, so that
//! nobody has to be woken. What may sleep is left to the ring's own thread, and a guardian that may sleep itself lets its
//! wards go before.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use abi::ring::{REQUEST, SERVER_ASLEEP, SHORTLY};

use super::control::RingControl;
use super::seat::{SOON, Work, asleep};
use crate::core::Core;

/// So many wards at most: to look at them costs their guardian time.
const MOST: usize = 8;

struct Ward {
    control: Arc<RingControl>,
    /// The client's word as it was at the last look.
    word: u32,
    /// Its client wakes the ring's own thread, for its guardian sleeps.
    rests: bool,
    /// When something was first seen in the queue that has not run since.
    posted: Option<Instant>,
}

impl Ward {
    /// Whether it asks for something, or has posted something long ago.
    fn asks(&mut self) -> bool {
        let word = self.control.map.word(REQUEST).load(Ordering::Acquire);
        let asks = word != self.word || is_overdue(&self.control, &mut self.posted);
        self.word = word;
        asks
    }
}

/// Whether something has been in the queue for as long as it may; `posted` is when it was first seen.
pub(super) fn is_overdue(control: &RingControl, posted: &mut Option<Instant>) -> bool {
    if !control.has_posted() {
        *posted = None;
        return false;
    }
    posted.get_or_insert_with(Instant::now).elapsed() > SOON
}

thread_local! {
    /// This thread will come by and serve what it has been told of.
    static COLLECTS: Cell<bool> = const { Cell::new(false) };
    static DUE: RefCell<Vec<Arc<RingControl>>> = const { RefCell::new(Vec::new()) };
    static WARDS: RefCell<Vec<Ward>> = const { RefCell::new(Vec::new()) };
}

/// Does something that does not sleep, and notes which parked waits it causes events for.
pub(super) fn collecting<R>(f: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            COLLECTS.set(self.0);
        }
    }
    let _before = Before(COLLECTS.replace(true));
    f()
}

/// Notes a ring whose parked wait is to be made again; false when this thread does not do that.
pub(super) fn collect(control: Arc<RingControl>) -> bool {
    let collects = COLLECTS.get();
    if collects {
        DUE.with_borrow_mut(|due| due.push(control));
    }
    collects
}

/// Makes the waits again that were noted, until there are none.
pub(super) fn serve_due(core: &Arc<Core>) {
    while let Some(control) = DUE.with_borrow_mut(|due| due.pop()) {
        let ours = std::ptr::eq(control.core.as_ptr(), Arc::as_ptr(core));
        if ours && serve(&control) {
            adopt(core, control);
        } else {
            control.kick();
        }
    }
}

/// Serves a ring without sleep; false when that is for its own thread.
fn serve(control: &Arc<RingControl>) -> bool {
    let Some(mut seat) = control.seat_if_free() else {
        return false;
    };
    match seat.work(control) {
        Work::Nothing => true,
        work => seat.serve_by_other(control, work),
    }
}

fn adopt(core: &Core, control: Arc<RingControl>) {
    let word = control.map.word(REQUEST).load(Ordering::SeqCst);
    WARDS.with_borrow_mut(|wards| {
        let known = wards.iter().any(|w| Arc::ptr_eq(&w.control, &control));
        if !known && wards.len() < MOST {
            control.map.word(SERVER_ASLEEP).store(0, Ordering::SeqCst);
            core.rings_awake.fetch_add(1, Ordering::SeqCst);
            // A request that has come before is seen by the next look.
            wards.push(Ward {
                control,
                word: word.wrapping_sub(1),
                rests: false,
                posted: None,
            });
        }
    });
}

/// Serves the wards that ask for something, and what that causes; whether one did.
pub(super) fn look(core: &Arc<Core>) -> bool {
    let mut served = false;
    let mut at = 0;
    loop {
        let next = WARDS.with_borrow_mut(|wards| {
            let from = wards.get_mut(at..)?;
            at += from.iter_mut().position(Ward::asks)?;
            Some(wards[at].control.clone())
        });
        let Some(control) = next else {
            return served;
        };
        served = true;
        at += 1;
        if !serve(&control) {
            WARDS.with_borrow_mut(|wards| {
                if let Some(place) = wards.iter().position(|w| Arc::ptr_eq(&w.control, &control)) {
                    at = at.min(place);
                    wards.remove(place);
                    core.rings_awake.fetch_sub(1, Ordering::SeqCst);
                }
            });
            leave_to_own(&control);
        }
        serve_due(core);
    }
}

/// What comes of [`rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rest {
    /// Sleep. `true`: wards may post something, and this thread is who looks for it before long.
    Sleep(bool),
    /// A ward had something to do after all: no sleep yet.
    Served,
}

/// The thread is about to sleep: from here on the clients of its wards wake the rings' own threads.
pub(super) fn rest(core: &Arc<Core>) -> Rest {
    let mut result = Rest::Sleep(false);
    for ward in WARDS.take() {
        let control = ward.control;
        core.rings_awake.fetch_sub(1, Ordering::SeqCst);
        let Some(mut seat) = control.seat_if_free() else {
            // Its own thread is awake.
            leave_to_own(&control);
            continue;
        };
        let flag = asleep(seat.looks_soon);
        control
            .map
            .word(SERVER_ASLEEP)
            .store(flag, Ordering::SeqCst);
        match seat.work(&control) {
            // What is posted is seen to after a while, with what else has been by then.
            Work::Nothing | Work::Posted if seat.looks_soon => {
                drop(seat);
                let rests = true;
                WARDS.with_borrow_mut(|wards| {
                    wards.push(Ward {
                        control,
                        rests,
                        ..ward
                    })
                });
                result = result.max(Rest::Sleep(true));
            }
            Work::Nothing => {}
            work => {
                let done = seat.serve_by_other(&control, work);
                drop(seat);
                match done {
                    true => adopt(core, control),
                    false => control.kick(),
                }
                result = Rest::Served;
            }
        }
    }
    if DUE.with_borrow(|due| !due.is_empty()) {
        result = Rest::Served;
        serve_due(core);
    }
    result
}

fn leave_to_own(control: &RingControl) {
    control.map.word(SERVER_ASLEEP).store(1, Ordering::SeqCst);
    control.kick();
}

/// The thread has slept: wards that it still has find it awake, or go their way because their own threads were woken.
pub(super) fn resume(core: &Core) {
    WARDS.with_borrow_mut(|wards| {
        wards.retain_mut(|ward| {
            if !ward.rests {
                return true;
            }
            ward.rests = false;
            let flag = ward.control.map.word(SERVER_ASLEEP);
            let still = flag
                .compare_exchange(SHORTLY, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok();
            core.rings_awake.fetch_add(still.into(), Ordering::SeqCst);
            still
        });
    });
}

/// The time is over in which wards might have posted something: those that have not are no longer looked after.
pub(super) fn expire(core: &Core) {
    resume(core);
    for ward in WARDS.take() {
        let control = ward.control;
        let Some(mut seat) = control.seat_if_free() else {
            core.rings_awake.fetch_sub(1, Ordering::SeqCst);
            leave_to_own(&control);
            continue;
        };
        let work = seat.work(&control);
        if work == Work::Posted && seat.serve_by_other(&control, work) {
            drop(seat);
            WARDS.with_borrow_mut(|wards| wards.push(Ward { control, ..ward }));
            continue;
        }
        seat.looks_soon = false;
        core.rings_awake.fetch_sub(1, Ordering::SeqCst);
        control.map.word(SERVER_ASLEEP).store(1, Ordering::SeqCst);
        if seat.work(&control) != Work::Nothing {
            control.kick();
        }
    }
}

/// The thread may sleep, or leaves: whoever it would have served is left to the rings' own threads.
pub(super) fn let_go() {
    for control in DUE.take() {
        control.kick();
    }
    for ward in WARDS.take() {
        let control = ward.control;
        if let Some(core) = control.core.upgrade() {
            core.rings_awake
                .fetch_sub(usize::from(!ward.rests), Ordering::SeqCst);
        }
        let Some(seat) = control.seat_if_free() else {
            leave_to_own(&control);
            continue;
        };
        control.map.word(SERVER_ASLEEP).store(1, Ordering::SeqCst);
        if seat.looks_soon || seat.work(&control) != Work::Nothing {
            control.kick();
        }
    }
}

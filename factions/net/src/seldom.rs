//! What hardly ever is there and is looked for with every packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::{ArcSwapOption, Guard};

/// A value that is read with every packet, seldom there, and swapped whole when it changes. To find that it is not there takes one
/// plain load.
#[derive(Debug)]
pub struct Seldom<T> {
    value: ArcSwapOption<T>,
    /// Not zero while there is a value. Counts it, and those who may be about to put one there.
    there: AtomicU32,
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Seldom {
            value: ArcSwapOption::empty(),
            there: AtomicU32::new(0),
        }
    }
}

impl<T> Seldom<T> {
    /// The value, if there is one.
    #[inline]
    pub fn load(&self) -> Guard<Option<Arc<T>>> {
        match self.there.load(Ordering::Acquire) {
            0 => Guard::from_inner(None),
            _ => self.value.load(),
        }
    }

    /// Puts another value in its place.
    pub fn store(&self, value: Option<T>) {
        let is_there = value.is_some();
        self.there.fetch_add(1, Ordering::SeqCst);
        let old = self.value.swap(value.map(Arc::new));
        self.leave(is_there, old.is_some());
    }

    /// Ends a change: of its count and the old value's what is there now needs one at most.
    fn leave(&self, is_there: bool, was_there: bool) {
        let gone = u32::from(!is_there) + u32::from(was_there);
        self.there.fetch_sub(gone, Ordering::SeqCst);
    }
}

impl<T: Clone> Seldom<Vec<T>> {
    /// Changes a list, which is not there when it is empty. `f` may be called several times, on what was there each time.
    pub fn change(&self, f: impl Fn(&mut Vec<T>)) {
        self.there.fetch_add(1, Ordering::SeqCst);
        let mut is_there = false;
        let old = self.value.rcu(|list| {
            let mut list = list.as_deref().cloned().unwrap_or_default();
            f(&mut list);
            is_there = !list.is_empty();
            is_there.then(|| Arc::new(list))
        });
        self.leave(is_there, old.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_there_until_another_takes_its_place() {
        let seldom = Seldom::default();
        assert!(seldom.load().is_none());
        for n in 0..3 {
            seldom.store(Some(n));
            assert_eq!(seldom.load().as_deref(), Some(&n));
        }
        seldom.store(None);
        seldom.store(None);
        assert!(seldom.load().is_none());
        assert_eq!(seldom.there.into_inner(), 0);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // the test's own threads
    fn what_many_put_into_a_list_is_seen_until_they_take_it_out() {
        let seldom = &Seldom::default();
        std::thread::scope(|scope| {
            for n in 0..4 {
                scope.spawn(move || {
                    for _ in 0..2000 {
                        seldom.change(|list: &mut Vec<u32>| list.push(n));
                        assert!(seldom.load().as_ref().is_some_and(|list| list.contains(&n)));
                        seldom.change(|list| list.retain(|m| *m != n));
                        assert!(seldom.load().as_ref().is_none_or(|list| !list.contains(&n)));
                    }
                });
            }
        });
        assert!(seldom.load().is_none());
        assert_eq!(seldom.there.load(Ordering::SeqCst), 0);
    }
}

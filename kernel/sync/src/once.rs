//! A value that is made when it is first needed.

use std::sync::OnceLock;

use crate::{Mutex, Parker};

/// A value that is made by the first who needs it. The standard library's cell blocks the others with their virtual CPUs held,
/// which the one who makes the value may be waiting for; this one is for values whose making may take a lock.
pub struct Once<T> {
    value: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Once<T> {
    /// Nothing yet.
    pub const fn new() -> Once<T> {
        Once {
            value: OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    /// The value, if somebody has made it.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, made now if it was not yet.
    pub fn get_or_init(&self, parker: &dyn Parker, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.value.get() {
            return value;
        }
        let _making = self.making.lock(parker);
        if let Some(value) = self.value.get() {
            return value;
        }
        let value = make();
        self.value.get_or_init(|| value)
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once::new()
    }
}

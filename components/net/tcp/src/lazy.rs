//! State that takes memory only while it says something.

use std::ops::{Deref, DerefMut};

/// What a state is before anything has happened.
pub(crate) trait Blank: Sized + 'static {
    /// One to begin with.
    const BLANK: Self;

    /// One to look at.
    fn blank() -> &'static Self;
}

/// A state that is blank until it is changed: then it gets a box, and whoever knows that it says nothing any more
/// [clears](Lazy::clear) it.
#[derive(Debug)]
pub(crate) struct Lazy<T>(Option<Box<T>>);

impl<T> Lazy<T> {
    pub(crate) const fn new() -> Lazy<T> {
        Lazy(None)
    }

    /// Whether it is blank and takes no memory.
    pub(crate) fn is_clear(&self) -> bool {
        self.0.is_none()
    }

    /// Makes it blank again.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl<T: Blank> Deref for Lazy<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::blank(),
        }
    }
}

impl<T: Blank> DerefMut for Lazy<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::BLANK))
    }
}

/// Says what is blank, and keeps one to look at.
macro_rules! blank {
    ($type:ty = $value:expr) => {
        impl crate::lazy::Blank for $type {
            const BLANK: Self = $value;

            fn blank() -> &'static Self {
                static BLANK: $type = <$type as crate::lazy::Blank>::BLANK;
                &BLANK
            }
        }
    };
}

pub(crate) use blank;

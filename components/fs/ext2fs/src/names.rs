//! Names that a directory may have, so that rsext4 need not search for those that it cannot have: before a file is made
//! the vfs asks for its name, and rsext4 looks for it once more when it makes the file.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};

/// Names that are remembered of a directory.
const MOST: usize = 1 << 16;

/// The hashes of all names that a directory has ever had.
#[derive(Default)]
pub(crate) struct Names(HashSet<u64>);

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish()
}

impl Names {
    /// Whether there may be such a name; `false` is certain.
    pub(crate) fn may_have(&self, name: &[u8]) -> bool {
        matches!(name, b"." | b"..") || self.0.contains(&hash(name))
    }

    /// Adds a name. `false` when there are too many to go on.
    pub(crate) fn learn(&mut self, name: &[u8]) -> bool {
        self.0.insert(hash(name));
        self.0.len() <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_may_be_there_and_nothing_else() {
        let mut names = Names::default();
        assert!(names.may_have(b"..") && !names.may_have(b"a"));
        assert!(names.learn(b"a"));
        assert!(names.may_have(b"a") && !names.may_have(b"b"));
    }

    #[test]
    fn too_many_are_told() {
        let mut names = Names::default();
        assert!((0..MOST as u64).all(|i| names.learn(&i.to_le_bytes())));
        assert!(!names.learn(b"one more"));
    }
}

//! A radix tree from 64-bit keys to values: the index of a file's pages.

const BITS: u32 = 6;
const FANOUT: usize = 1 << BITS;

/// A map from `u64` to `T` whose lookups cost one step for each six bits of the largest key, and none in a tree that
/// holds key 0 alone. Keys are visited in order. Branches that become empty are freed.
pub(super) struct Radix<T> {
    root: Option<Box<Node<T>>>,
    /// Levels of branches above the values.
    height: u32,
}

// A value of the one use there is, a leaf of pages, is as large as a branch.
#[allow(clippy::large_enum_variant)]
enum Node<T> {
    Value(T),
    Branch(Branch<T>),
}

struct Branch<T> {
    used: u64,
    slots: [Option<Box<Node<T>>>; FANOUT],
}

impl<T> Default for Radix<T> {
    fn default() -> Self {
        Radix {
            root: None,
            height: 0,
        }
    }
}

/// The slot of a key in a branch whose children are `level` levels above the values.
#[inline]
fn slot(key: u64, level: u32) -> usize {
    (key >> (level * BITS)) as usize % FANOUT
}

/// Whether a tree of this height has a place for the key.
#[inline]
fn fits(key: u64, height: u32) -> bool {
    height * BITS >= u64::BITS || key >> (height * BITS) == 0
}

impl<T> Radix<T> {
    #[inline]
    pub(super) fn get(&self, key: u64) -> Option<&T> {
        if !fits(key, self.height) {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Value(value) => return Some(value),
                Node::Branch(branch) => {
                    level -= 1;
                    node = branch.slots[slot(key, level)].as_deref()?;
                }
            }
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        if !fits(key, self.height) {
            return None;
        }
        let mut node = self.root.as_deref_mut()?;
        let mut level = self.height;
        loop {
            match node {
                Node::Value(value) => return Some(value),
                Node::Branch(branch) => {
                    level -= 1;
                    node = branch.slots[slot(key, level)].as_deref_mut()?;
                }
            }
        }
    }

    /// The value of a key, made by `make` where there is none.
    pub(super) fn get_or_insert_with(&mut self, key: u64, make: impl FnOnce() -> T) -> &mut T {
        self.grow(key);
        let mut place = &mut self.root;
        for level in (0..self.height).rev() {
            let node = place.get_or_insert_with(|| Box::new(Node::Branch(Branch::default())));
            let Node::Branch(branch) = &mut **node else {
                unreachable!("values are at level 0");
            };
            let slot = slot(key, level);
            branch.used |= 1 << slot;
            place = &mut branch.slots[slot];
        }
        match &mut **place.get_or_insert_with(|| Box::new(Node::Value(make()))) {
            Node::Value(value) => value,
            Node::Branch(_) => unreachable!("branches are above level 0"),
        }
    }

    /// Adds levels until the key has a place.
    fn grow(&mut self, key: u64) {
        if self.root.is_none() {
            self.height = 0;
        }
        while !fits(key, self.height) {
            if let Some(root) = self.root.take() {
                let mut branch = Branch {
                    used: 1,
                    ..Branch::default()
                };
                branch.slots[0] = Some(root);
                self.root = Some(Box::new(Node::Branch(branch)));
            }
            self.height += 1;
        }
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        if !fits(key, self.height) {
            return None;
        }
        remove(&mut self.root, key, self.height)
    }

    /// The first key from `from` on, with its value.
    pub(super) fn next(&self, from: u64) -> Option<(u64, &T)> {
        if !fits(from, self.height) {
            return None;
        }
        next(self.root.as_deref()?, from, 0, self.height)
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.root.is_none()
    }
}

impl<T> Default for Branch<T> {
    fn default() -> Self {
        Branch {
            used: 0,
            slots: [const { None }; FANOUT],
        }
    }
}

fn remove<T>(place: &mut Option<Box<Node<T>>>, key: u64, level: u32) -> Option<T> {
    if let Node::Branch(branch) = &mut **place.as_mut()? {
        let slot = slot(key, level - 1);
        let value = remove(&mut branch.slots[slot], key, level - 1)?;
        if branch.slots[slot].is_none() {
            branch.used &= !(1 << slot);
        }
        if branch.used == 0 {
            *place = None;
        }
        return Some(value);
    }
    match *place.take()? {
        Node::Value(value) => Some(value),
        Node::Branch(_) => None,
    }
}

/// The first key from `from` on below a node at `level`, all of whose keys begin with `prefix`.
fn next<T>(node: &Node<T>, from: u64, prefix: u64, level: u32) -> Option<(u64, &T)> {
    let branch = match node {
        Node::Value(value) => return Some((prefix, value)),
        Node::Branch(branch) => branch,
    };
    let level = level - 1;
    let shift = level * BITS;
    let first = slot(from, level);
    let mut left = branch.used & (u64::MAX << first);
    while left != 0 {
        let slot = left.trailing_zeros() as usize;
        left &= left - 1;
        let prefix = prefix | (slot as u64) << shift;
        // Below a later sibling everything comes after `from`.
        let from = if slot == first { from } else { prefix };
        if let Some(found) = next(branch.slots[slot].as_deref()?, from, prefix, level) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn key() -> impl Strategy<Value = u64> {
        prop_oneof![0..200u64, 0..100_000u64, any::<u64>(), Just(u64::MAX)]
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(u64, u32),
        Take(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (key(), any::<u32>()).prop_map(|(k, v)| Op::Put(k, v)),
            key().prop_map(Op::Take)
        ]
    }

    proptest! {
        #[test]
        fn it_behaves_as_an_ordered_map(
            ops in proptest::collection::vec(op(), 0..200),
            looks in proptest::collection::vec(key(), 0..50),
        ) {
            let mut tree = Radix::default();
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Put(k, v) => {
                        *tree.get_or_insert_with(k, || 0) = v;
                        model.insert(k, v);
                    }
                    Op::Take(k) => prop_assert_eq!(tree.remove(k), model.remove(&k)),
                }
                prop_assert_eq!(tree.is_empty(), model.is_empty());
            }
            for k in looks.into_iter().chain(model.keys().copied().collect::<Vec<_>>()) {
                prop_assert_eq!(tree.get(k), model.get(&k));
                prop_assert_eq!(tree.get_mut(k).copied(), model.get(&k).copied());
                let want = model.range(k..).next().map(|(k, v)| (*k, *v));
                prop_assert_eq!(tree.next(k).map(|(k, v)| (k, *v)), want);
            }
        }
    }
}

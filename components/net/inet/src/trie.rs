//! Longest-prefix match: a path-compressed binary trie that is never changed in place.
//!
//! A change copies the path from the root to where it happens and shares the rest, so who looks something up needs no
//! lock: it takes the root there was.

use std::sync::Arc;

use smallvec::SmallVec;

/// A prefix: its bits from the left, the others zero, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bits {
    pub(crate) bits: u128,
    pub(crate) len: u8,
}

impl Bits {
    /// The first `len` (at most 128) of some bits.
    pub(crate) fn new(bits: u128, len: u8) -> Bits {
        Bits {
            bits: bits & mask(len),
            len,
        }
    }

    fn contains(self, bits: u128) -> bool {
        bits & mask(self.len) == self.bits
    }

    fn common(self, other: Bits) -> u8 {
        ((self.bits ^ other.bits).leading_zeros() as u8).min(self.len.min(other.len))
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(len.min(128)))
        .unwrap_or(0)
}

/// The bit behind the first `at`, as an index of children.
fn bit(bits: u128, at: u8) -> usize {
    (bits >> (127 - at.min(127)) & 1) as usize
}

/// Values by prefixes.
#[derive(Clone)]
pub(crate) struct Trie<T> {
    root: Link<T>,
}

type Link<T> = Option<Arc<Node<T>>>;

struct Node<T> {
    at: Bits,
    value: Option<T>,
    children: [Link<T>; 2],
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Trie { root: None }
    }
}

impl<T: Clone> Trie<T> {
    /// What `pick` makes of the longest prefix of these bits that it makes anything of.
    pub(crate) fn longest<'t, R>(
        &'t self,
        bits: u128,
        pick: impl Fn(&'t T) -> Option<R>,
    ) -> Option<R> {
        let mut found: SmallVec<[&T; 8]> = SmallVec::new();
        let mut next = self.root.as_deref();
        while let Some(node) = next {
            if !node.at.contains(bits) {
                break;
            }
            found.extend(node.value.as_ref());
            next = match node.at.len {
                128.. => None,
                len => node.children[bit(bits, len)].as_deref(),
            };
        }
        found.into_iter().rev().find_map(pick)
    }

    /// The value of a prefix itself.
    pub(crate) fn get(&self, at: Bits) -> Option<&T> {
        let mut next = self.root.as_deref();
        while let Some(node) = next {
            if node.at == at {
                return node.value.as_ref();
            }
            if node.at.len >= at.len || !node.at.contains(at.bits) {
                return None;
            }
            next = node.children[bit(at.bits, node.at.len)].as_deref();
        }
        None
    }

    /// The trie with another value for a prefix, or none.
    pub(crate) fn with(&self, at: Bits, value: Option<T>) -> Trie<T> {
        Trie {
            root: with(&self.root, at, value),
        }
    }

    /// All values, each prefix before the longer ones in it.
    pub(crate) fn values(&self) -> Vec<&T> {
        let mut out = Vec::new();
        let mut stack: Vec<&Node<T>> = self.root.as_deref().into_iter().collect();
        while let Some(node) = stack.pop() {
            out.extend(node.value.as_ref());
            stack.extend(node.children.iter().rev().filter_map(|c| c.as_deref()));
        }
        out
    }
}

fn with<T: Clone>(link: &Link<T>, at: Bits, value: Option<T>) -> Link<T> {
    let Some(node) = link else {
        return value.map(|value| leaf(at, value));
    };
    let common = node.at.common(at);
    if common == node.at.len {
        if common == at.len {
            return join(at, value, node.children.clone());
        }
        let mut children = node.children.clone();
        let side = bit(at.bits, common);
        children[side] = with(&children[side], at, value);
        return join(node.at, node.value.clone(), children);
    }
    let Some(value) = value else {
        return link.clone();
    };
    let mut children = [None, None];
    children[bit(node.at.bits, common)] = link.clone();
    if common == at.len {
        return join(at, Some(value), children);
    }
    children[bit(at.bits, common)] = Some(leaf(at, value));
    join(Bits::new(at.bits, common), None, children)
}

fn leaf<T>(at: Bits, value: T) -> Arc<Node<T>> {
    Arc::new(Node {
        at,
        value: Some(value),
        children: [None, None],
    })
}

/// A node, or what is as good when it has no value and at most one child.
fn join<T>(at: Bits, value: Option<T>, children: [Link<T>; 2]) -> Link<T> {
    match (value, children) {
        (None, [None, only] | [only, None]) => only,
        (value, children) => Some(Arc::new(Node {
            at,
            value,
            children,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> impl Strategy<Value = Bits> {
        (
            any::<u8>(),
            0u8..=8,
            prop_oneof![Just(0u32), Just(64), Just(120)],
        )
            .prop_map(|(byte, len, shift)| {
                let base = if shift == 0 { 0 } else { 0xfd << 120 };
                let bits = base | u128::from(byte) << 120 >> shift;
                Bits::new(bits, len + shift as u8)
            })
    }

    proptest! {
        #[test]
        fn a_trie_finds_what_a_list_finds(changes in proptest::collection::vec((prefix(), proptest::option::weighted(0.7, 0u32..100)), 1..60), probes in proptest::collection::vec(prefix(), 1..20)) {
            let mut trie = Trie::default();
            let mut model: Vec<(Bits, u32)> = Vec::new();
            for (at, value) in changes {
                trie = trie.with(at, value);
                model.retain(|(p, _)| *p != at);
                model.extend(value.map(|v| (at, v)));
            }
            prop_assert_eq!(trie.values().len(), model.len());
            for probe in probes {
                let bits = probe.bits | 1;
                let expected = model.iter().filter(|(p, _)| p.contains(bits)).max_by_key(|(p, _)| p.len).map(|(_, v)| *v);
                prop_assert_eq!(trie.longest(bits, |v| Some(*v)), expected);
                let expected = model.iter().find(|(p, _)| *p == probe).map(|(_, v)| *v);
                prop_assert_eq!(trie.get(probe).copied(), expected);
            }
        }
    }
}

//! Components: the drivers that make up a kernel.

use abi::Errno;

use crate::{Curlwp, Kernel};

/// When a component starts, in boot order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// With the kernel proper, before any faction.
    Kern,
    /// The vfs faction itself.
    FactionVfs,
    /// Part of the vfs faction: file systems.
    Vfs,
    /// The net faction itself.
    FactionNet,
    /// Part of the net faction: protocols.
    Net,
    /// Network interfaces.
    NetIf,
    /// The dev faction itself.
    FactionDev,
    /// Part of the dev faction: devices.
    Dev,
    /// Of the kernel proper, but needs the vfs.
    KernVfs,
    /// After everything else.
    PostInit,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 10] = [
        Stage::Kern,
        Stage::FactionVfs,
        Stage::Vfs,
        Stage::FactionNet,
        Stage::Net,
        Stage::NetIf,
        Stage::FactionDev,
        Stage::Dev,
        Stage::KernVfs,
        Stage::PostInit,
    ];
}

/// A driver that plugs into a faction: a small static item in the component's crate, listed explicitly by whoever
/// builds the kernel.
pub struct Component {
    /// Its name, as `tmpfs`.
    pub name: &'static str,
    /// When it starts.
    pub stage: Stage,
    /// Names of components that must have started before. Those of the same stage are started in that order; one
    /// that is missing makes boot fail.
    pub requires: &'static [&'static str],
    /// Starts it: registers what it offers. An error makes boot fail.
    pub init: fn(&Curlwp<'_>) -> Result<(), Errno>,
}

/// Sorts components by stage and by what they require within a stage; otherwise in the order given. The names of
/// what is missing, or in a circle, are in the error.
pub(crate) fn sort(list: &[&'static Component]) -> Result<Vec<&'static Component>, String> {
    let mut sorted: Vec<&'static Component> = Vec::with_capacity(list.len());
    let mut waiting: Vec<&'static Component> = list.to_vec();
    waiting.sort_by_key(|c| c.stage);
    for (i, c) in waiting.iter().enumerate() {
        if waiting[..i].iter().any(|other| other.name == c.name) {
            return Err(format!("component {} is listed twice", c.name));
        }
    }
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|c| {
            c.requires
                .iter()
                .all(|name| sorted.iter().any(|done| done.name == *name))
                && waiting.iter().all(|other| other.stage >= c.stage)
        });
        match ready {
            Some(at) => sorted.push(waiting.remove(at)),
            None => {
                let first = waiting[0];
                let missing: Vec<&str> = first
                    .requires
                    .iter()
                    .copied()
                    .filter(|name| !sorted.iter().any(|done| done.name == *name))
                    .collect();
                return Err(format!(
                    "component {} requires {}, which did not start before it",
                    first.name,
                    missing.join(", ")
                ));
            }
        }
    }
    Ok(sorted)
}

impl Kernel {
    /// How many components of a stage have started.
    pub fn component_count(&self, stage: Stage) -> usize {
        self.components()
            .iter()
            .filter(|c| c.stage == stage)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &Curlwp<'_>) -> Result<(), Errno> {
        Ok(())
    }

    static VFS: Component = Component {
        name: "vfs",
        stage: Stage::FactionVfs,
        requires: &[],
        init: nothing,
    };
    static A: Component = Component {
        name: "a",
        stage: Stage::Vfs,
        requires: &["b"],
        init: nothing,
    };
    static B: Component = Component {
        name: "b",
        stage: Stage::Vfs,
        requires: &["vfs"],
        init: nothing,
    };
    static C: Component = Component {
        name: "c",
        stage: Stage::Vfs,
        requires: &["d"],
        init: nothing,
    };
    static D: Component = Component {
        name: "d",
        stage: Stage::Vfs,
        requires: &["c"],
        init: nothing,
    };

    #[test]
    fn what_is_required_comes_first() {
        let names: Vec<_> = sort(&[&A, &B, &VFS])
            .unwrap()
            .iter()
            .map(|c| c.name)
            .collect();
        assert_eq!(names, ["vfs", "b", "a"]);
    }

    #[test]
    fn missing_circular_and_double_components_are_named() {
        assert!(sort(&[&B]).err().unwrap().contains("requires vfs"));
        assert!(sort(&[&C, &D]).err().unwrap().contains("requires"));
        assert!(sort(&[&VFS, &VFS]).err().unwrap().contains("twice"));
    }
}

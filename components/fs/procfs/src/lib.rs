//! procfs: what a kernel tells about itself, as the files of proc(5) that programs read. Reports of the kernel's parts
//! ([`kern::report`]) are under their names (`net/dev`), the sysctl variables of the network below `sys/net`.
//!
//! The tree is what there is at the moment of each look; nothing is kept but vnodes in use. A file's text is made when it is
//! opened. It may use `vfs`, `kern` and what is below them. Start reading at `tree`.
#![forbid(unsafe_code)]

mod file;
mod node;
#[cfg(test)]
mod tests;
mod tree;

use std::any::Any;
use std::sync::Arc;

use abi::Errno;
use kern::{Component, Curlwp, Stage};
use vfs::{FsStat, FsType, Mount, MountArgs, MountOps, Vfs};

/// The component, for the list of components.
pub static PROCFS: Component = Component {
    name: "procfs",
    stage: Stage::Vfs,
    requires: &["vfs"],
    init: attach,
};

static TYPE: FsType = FsType {
    name: "proc",
    aliases: &["procfs"],
    mount,
};

/// `PROC_SUPER_MAGIC`.
const MAGIC: u64 = 0x9fa0;

fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    Vfs::of(cx)?.register(cx, &TYPE)
}

fn mount(cx: &Curlwp<'_>, args: &MountArgs<'_>) -> Result<Arc<Mount>, Errno> {
    Mount::new(args, "proc", false, Box::new(Mounted), |mount| {
        Ok(node::root(cx, mount))
    })
}

/// A mounted one has no state.
struct Mounted;

impl MountOps for Mounted {
    fn statfs(&self, _: &Curlwp<'_>, _: &Mount) -> Result<FsStat, Errno> {
        Ok(FsStat {
            magic: MAGIC,
            bsize: 4096,
            namelen: 255,
            ..FsStat::default()
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

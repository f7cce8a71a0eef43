//! What the faction keeps for the whole kernel.

use std::sync::Arc;

use abi::Errno;
use kern::{Curlwp, FactionId};
use sync::Mutex;

use crate::FsType;

/// The faction's state: the file-system types there are. Its lock is a leaf.
#[derive(Default)]
pub struct Vfs {
    types: Mutex<Vec<&'static FsType>>,
}

impl Vfs {
    /// The state of this kernel's faction; `EOPNOTSUPP` where there is no vfs faction.
    pub fn of<'a>(cx: &'a Curlwp<'_>) -> Result<&'a Vfs, Errno> {
        cx.kernel()
            .faction(FactionId::Vfs)
            .and_then(|state| state.downcast_ref())
            .ok_or(Errno::EOPNOTSUPP)
    }

    /// Makes a type of file system mountable. `EEXIST` when there is one of that name.
    pub fn register(&self, cx: &Curlwp<'_>, fstype: &'static FsType) -> Result<(), Errno> {
        let mut types = self.types.lock(cx.cpu());
        if types.iter().any(|t| t.name == fstype.name) {
            return Err(Errno::EEXIST);
        }
        types.push(fstype);
        Ok(())
    }

    /// The type of a name. `ENODEV` when there is none.
    pub fn fstype(&self, cx: &Curlwp<'_>, name: &[u8]) -> Result<&'static FsType, Errno> {
        let is = |t: &&&FsType| {
            t.name.as_bytes() == name || t.aliases.iter().any(|a| a.as_bytes() == name)
        };
        self.types
            .lock(cx.cpu())
            .iter()
            .find(is)
            .copied()
            .ok_or(Errno::ENODEV)
    }

    /// Makes the state for a kernel that boots.
    pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
        cx.kernel()
            .set_faction(FactionId::Vfs, Arc::new(Vfs::default()));
        Ok(())
    }
}

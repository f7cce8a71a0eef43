//! Names of sockets in the file system: nodes that lead to what a process has bound there.

use std::sync::{Arc, Weak};

use abi::{AT_FDCWD, Errno};
use kern::Curlwp;
use kern::hooks::{SocketNames, SocketPoint};

use crate::access::{self, Want};
use crate::names::{self, Create};
use crate::{VnodeKind, namei};

/// What the vfs offers the net faction.
pub(crate) struct VfsSocketNames;

impl SocketNames for VfsSocketNames {
    fn bind(
        &self,
        cx: &Curlwp<'_>,
        path: &[u8],
        point: Weak<SocketPoint>,
    ) -> Result<Arc<SocketPoint>, Errno> {
        let target = namei::parent(cx, AT_FDCWD, path)?;
        let new = Create {
            kind: VnodeKind::Socket,
            perm: 0o777,
            rdev: 0,
            target: &[],
        };
        let vp = names::create(cx, &target, &new).map_err(|error| match error {
            Errno::EEXIST => Errno::EADDRINUSE,
            other => other,
        })?;
        let _ = vp.socket.set(Box::new(point));
        Ok(vp)
    }

    fn find(&self, cx: &Curlwp<'_>, path: &[u8]) -> Result<Arc<SocketPoint>, Errno> {
        let vp = namei::namei(cx, AT_FDCWD, path, true)?;
        access::check(cx, &cx.cred(), &vp, Want::WRITE)?;
        if vp.kind != VnodeKind::Socket {
            return Err(Errno::ECONNREFUSED);
        }
        vp.socket
            .get()
            .and_then(|point| point.upgrade())
            .ok_or(Errno::ECONNREFUSED)
    }
}

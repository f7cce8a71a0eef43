//! Names of local sockets: paths in the file system, and abstract names, which begin with a NUL byte.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use abi::Errno;
use kern::Curlwp;
use kern::hooks::SocketPoint;
use net::Addr;
use net::consts::AF_UNIX;
use sync::{Mutex, Parker};

use crate::end::End;

/// `sizeof(sun_path)`.
const PATH_MAX: usize = 108;

/// The abstract names of a kernel, and all of its ends. `taken` and `ends` are leaves.
#[derive(Default)]
pub(crate) struct Names {
    taken: Mutex<Abstract>,
    /// The last number that an end got.
    last: AtomicU32,
    ends: Mutex<BTreeMap<u32, Weak<End>>>,
}

#[derive(Default)]
struct Abstract {
    ends: HashMap<Vec<u8>, Weak<End>>,
    /// Where the search for an automatic name goes on.
    next: u32,
}

/// The name in an address.
pub(crate) enum Name<'a> {
    /// None: bind chooses one.
    Unnamed,
    /// A path.
    Path(&'a [u8]),
    /// An abstract name, without its NUL byte.
    Abstract(&'a [u8]),
}

/// The name in an address that a caller gave. `EINVAL` when it is of another family or too long.
pub(crate) fn parse(addr: &Addr) -> Result<Name<'_>, Errno> {
    if addr.family() != AF_UNIX || addr.data().len() > PATH_MAX {
        return Err(Errno::EINVAL);
    }
    match addr.data() {
        [] => Ok(Name::Unnamed),
        [0, name @ ..] => Ok(Name::Abstract(name)),
        path => {
            let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
            Ok(Name::Path(&path[..end]))
        }
    }
}

/// The address of a name's bytes, as getsockname(2) gives it.
fn addr(parts: &[&[u8]]) -> Addr {
    let mut bytes = AF_UNIX.to_le_bytes().to_vec();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Addr::new(&bytes)
}

impl Names {
    /// A number for a new end.
    pub(crate) fn next_number(&self) -> u32 {
        self.last.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// Notes an end, until it is [struck](Self::strike).
    pub(crate) fn note(&self, parker: &dyn Parker, end: &Arc<End>) {
        self.ends
            .lock(parker)
            .insert(end.number, Arc::downgrade(end));
    }

    /// An end is closed.
    pub(crate) fn strike(&self, parker: &dyn Parker, number: u32) {
        self.ends.lock(parker).remove(&number);
    }

    /// All ends.
    pub(crate) fn ends(&self, parker: &dyn Parker) -> Vec<Arc<End>> {
        self.ends
            .lock(parker)
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Gives an end a name; answers the name as an address, and what keeps the name's node in memory. `EADDRINUSE`.
    pub(crate) fn bind(
        &self,
        cx: &Curlwp<'_>,
        name: &Name<'_>,
        end: &Arc<End>,
    ) -> Result<(Addr, Option<Arc<SocketPoint>>), Errno> {
        match name {
            Name::Path(path) => {
                let point: Weak<End> = Arc::downgrade(end);
                let node = cx.kernel().socket_names()?.bind(cx, path, point)?;
                Ok((addr(&[path, &[0]]), Some(node)))
            }
            Name::Abstract(name) => {
                let mut taken = self.taken.lock(cx.cpu());
                taken.take(name, end)?;
                Ok((addr(&[&[0], name]), None))
            }
            Name::Unnamed => {
                let mut taken = self.taken.lock(cx.cpu());
                for _ in 0..0x10_0000 {
                    let name = format!("{:05x}", taken.next & 0xf_ffff);
                    taken.next = taken.next.wrapping_add(1);
                    if taken.take(name.as_bytes(), end).is_ok() {
                        return Ok((addr(&[&[0], name.as_bytes()]), None));
                    }
                }
                Err(Errno::ENOSPC)
            }
        }
    }

    /// The end of a name. `ECONNREFUSED` when there is none.
    pub(crate) fn find(&self, cx: &Curlwp<'_>, name: &Name<'_>) -> Result<Arc<End>, Errno> {
        match name {
            Name::Unnamed => Err(Errno::EINVAL),
            Name::Abstract(name) => {
                let taken = self.taken.lock(cx.cpu());
                let end = taken.ends.get(*name).and_then(Weak::upgrade);
                end.ok_or(Errno::ECONNREFUSED)
            }
            Name::Path(path) => {
                let point = cx.kernel().socket_names()?.find(cx, path)?;
                point.downcast::<End>().map_err(|_| Errno::ECONNREFUSED)
            }
        }
    }

    /// Gives an abstract name back.
    pub(crate) fn forget(&self, cx: &Curlwp<'_>, addr: &Addr, end: &End) {
        if let [0, name @ ..] = addr.data() {
            let mut taken = self.taken.lock(cx.cpu());
            if taken
                .ends
                .get(name)
                .is_some_and(|e| std::ptr::eq(e.as_ptr(), end))
            {
                taken.ends.remove(name);
            }
        }
    }
}

impl Abstract {
    fn take(&mut self, name: &[u8], end: &Arc<End>) -> Result<(), Errno> {
        if self.ends.get(name).is_some_and(|e| e.strong_count() != 0) {
            return Err(Errno::EADDRINUSE);
        }
        self.ends.insert(name.to_vec(), Arc::downgrade(end));
        Ok(())
    }
}

//! What a process has mapped of files, mmap(2) with `MAP_SHARED`. The mapping itself is the client's, of memory that the file keeps for it in
//! the kernel's host process; the kernel knows who has which, so that a file that is mapped stays open, and what was written to it is not lost.

use std::sync::Arc;

use abi::{Errno, SysResult};
use sync::Mutex;

use crate::{Curlwp, OpenFile, fd};

/// Pages may be written, mmap(2).
const PROT_WRITE: i32 = 2;

/// A mapping: the host descriptor of its memory, which is its name, and the file.
#[derive(Clone)]
struct Mapped {
    host_fd: i32,
    file: Arc<OpenFile>,
}

/// The mappings of a process.
///
/// The lock is a leaf.
#[derive(Default)]
pub(crate) struct Mappings(Mutex<Vec<Mapped>>);

impl Mappings {
    /// Maps a part of an open file. Answers the host descriptor, in the kernel's host process, of the memory to map, at the
    /// file's offset.
    pub(crate) fn map(
        &self,
        cx: &Curlwp<'_>,
        file: Arc<OpenFile>,
        prot: i32,
        offset: u64,
        len: u64,
    ) -> SysResult {
        if !file.readable() || prot & PROT_WRITE != 0 && !file.writable() {
            return Err(Errno::EACCES);
        }
        let memory = file.file().map(cx, &file, offset, len)?;
        let Some(host_fd) = memory.host_fd() else {
            file.file().unmap(cx, &file);
            return Err(Errno::ENODEV);
        };
        fd::hold(&file);
        self.0.lock(cx.cpu()).push(Mapped { host_fd, file });
        Ok(i64::from(host_fd))
    }

    /// Unmaps. `EINVAL` when there is no such mapping.
    pub(crate) fn unmap(&self, cx: &Curlwp<'_>, host_fd: i32) -> SysResult {
        let mut all = self.0.lock(cx.cpu());
        let at = all.iter().position(|mapped| mapped.host_fd == host_fd);
        let mapped = all.swap_remove(at.ok_or(Errno::EINVAL)?);
        drop(all);
        mapped.end(cx);
        Ok(0)
    }

    /// Makes durable what was written to a mapped file.
    pub(crate) fn sync(&self, cx: &Curlwp<'_>, host_fd: i32) -> SysResult {
        let all = self.0.lock(cx.cpu());
        let mapped = all.iter().find(|mapped| mapped.host_fd == host_fd).cloned();
        drop(all);
        mapped.ok_or(Errno::EINVAL)?.file.file().sync(cx)?;
        Ok(0)
    }

    /// Has what the parent has, in a child of fork.
    pub(crate) fn inherit(&self, cx: &Curlwp<'_>, parent: &Mappings) {
        let all = parent.0.lock(cx.cpu()).clone();
        for mapped in &all {
            fd::hold(&mapped.file);
            mapped.file.file().map_again(cx, &mapped.file);
        }
        *self.0.lock(cx.cpu()) = all;
    }

    /// Unmaps all, as the process ends or goes on as another program.
    pub(crate) fn clear(&self, cx: &Curlwp<'_>) {
        let all = std::mem::take(&mut *self.0.lock(cx.cpu()));
        for mapped in all {
            mapped.end(cx);
        }
    }
}

impl Mapped {
    fn end(&self, cx: &Curlwp<'_>) {
        self.file.file().unmap(cx, &self.file);
        fd::let_go(cx, &self.file);
    }
}

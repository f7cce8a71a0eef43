//! A process of a kernel with the face of `std::fs`.

use std::ffi::CString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use abi::{AT_FDCWD, Errno, Invoke, Stat, Syscalls};
use kern::{Kernel, LwpHandle, RforkFds};

/// A process of a kernel: in this process over an [`LwpHandle`], or of a remote one over its client.
///
/// Methods are named after those of [`std::fs`] and answer with [`io::Error`]s that carry Linux's errno. Dropping the process closes what
/// it has open.
pub struct Process<S = LwpHandle> {
    sys: S,
}

impl Process {
    /// A new process of a kernel: root, no descriptors, `/` as its directory.
    pub fn new(kernel: &Arc<Kernel>) -> io::Result<Process> {
        kernel
            .rfork(RforkFds::Clear)
            .map(Process::over)
            .map_err(error)
    }
}

impl<S: Invoke> Process<S> {
    /// The process that `sys` makes calls for.
    pub fn over(sys: S) -> Process<S> {
        Process { sys }
    }

    /// What makes its calls: every call of the table is a method of it by [`Syscalls`].
    pub fn sys(&self) -> &S {
        &self.sys
    }

    /// Opens a file for reading.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File<'_, S>> {
        self.open_with(path, abi::O_RDONLY, 0)
    }

    /// Opens a file for writing, made or cut to nothing.
    pub fn create(&self, path: impl AsRef<Path>) -> io::Result<File<'_, S>> {
        self.open_with(path, abi::O_RDWR | abi::O_CREAT | abi::O_TRUNC, 0o666)
    }

    /// open(2) with its flags and mode.
    pub fn open_with(
        &self,
        path: impl AsRef<Path>,
        flags: i32,
        mode: u32,
    ) -> io::Result<File<'_, S>> {
        let path = c_path(path)?;
        let fd = self
            .sys
            .openat(AT_FDCWD, &path, flags | abi::O_CLOEXEC, mode)
            .map_err(error)?;
        Ok(File {
            process: self,
            fd: fd as i32,
        })
    }

    /// A whole file.
    pub fn read(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a whole file.
    pub fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.create(path)?.write_all(bytes.as_ref())
    }

    /// Makes a directory, mode 0755.
    pub fn create_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = c_path(path)?;
        self.sys.mkdir(&path, 0o755).map(drop).map_err(error)
    }

    /// Makes a directory and those above it that are missing.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        match self.create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().ok_or(e)?;
                self.create_dir_all(parent)?;
                self.create_dir_all(path)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    /// Takes a name of a file away.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = c_path(path)?;
        self.sys.unlink(&path).map(drop).map_err(error)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = c_path(path)?;
        self.sys.rmdir(&path).map(drop).map_err(error)
    }

    /// stat(2), symbolic links followed.
    pub fn metadata(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        let path = c_path(path)?;
        let mut stat = [0; Stat::SIZE];
        self.sys.stat(&path, &mut stat).map_err(error)?;
        Ok(Stat::from_bytes(&stat))
    }

    /// The names in a directory, without `.` and `..`, in the directory's order.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> io::Result<Vec<Vec<u8>>> {
        let dir = self.open_with(path, abi::O_RDONLY | abi::O_DIRECTORY, 0)?;
        let mut names = Vec::new();
        let mut buf = vec![0; 32 * 1024];
        loop {
            let len = buf.len();
            let n = self.sys.getdents64(dir.fd, &mut buf, len).map_err(error)?;
            if n == 0 {
                return Ok(names);
            }
            names.extend(
                dirents(&buf[..n as usize]).filter(|n| !matches!(n.as_slice(), b"." | b"..")),
            );
        }
    }

    /// Writes everything that is not on its disk yet there.
    pub fn sync(&self) -> io::Result<()> {
        self.sys.sync().map(drop).map_err(error)
    }
}

/// The names in a buffer that getdents64(2) filled.
fn dirents(mut buf: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        // struct linux_dirent64: u64 d_ino, i64 d_off, u16 d_reclen, u8 d_type, name and NUL.
        let reclen = usize::from(u16::from_le_bytes([*buf.get(16)?, *buf.get(17)?]));
        let name = buf.get(19..reclen)?;
        let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
        buf = &buf[reclen..];
        Some(name[..end].to_vec())
    })
}

/// An open file of a [`Process`], closed when dropped.
pub struct File<'p, S: Invoke = LwpHandle> {
    process: &'p Process<S>,
    fd: i32,
}

impl<S: Invoke> File<'_, S> {
    /// Its descriptor.
    pub fn fd(&self) -> i32 {
        self.fd
    }

    /// fstat(2).
    pub fn metadata(&self) -> io::Result<Stat> {
        let mut stat = [0; Stat::SIZE];
        self.sys().fstat(self.fd, &mut stat).map_err(error)?;
        Ok(Stat::from_bytes(&stat))
    }

    /// fsync(2): what was written is on its disk.
    pub fn sync_all(&self) -> io::Result<()> {
        self.sys().fsync(self.fd).map(drop).map_err(error)
    }

    /// ftruncate(2).
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        let size = i64::try_from(size).map_err(|_| error(Errno::EFBIG))?;
        self.sys().ftruncate(self.fd, size).map(drop).map_err(error)
    }

    /// pread(2).
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let (len, offset) = (buf.len(), offset as i64);
        let n = self.sys().pread64(self.fd, buf, len, offset);
        n.map(|n| n as usize).map_err(error)
    }

    /// pwrite(2).
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let n = self.sys().pwrite64(self.fd, buf, buf.len(), offset as i64);
        n.map(|n| n as usize).map_err(error)
    }

    fn sys(&self) -> &S {
        &self.process.sys
    }
}

impl<S: Invoke> Read for File<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len();
        let n = self.sys().read(self.fd, buf, len);
        n.map(|n| n as usize).map_err(error)
    }
}

impl<S: Invoke> Write for File<'_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.sys().write(self.fd, buf, buf.len());
        n.map(|n| n as usize).map_err(error)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Invoke> Seek for File<'_, S> {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        let (offset, whence) = match pos {
            SeekFrom::Start(n) => (
                i64::try_from(n).map_err(|_| error(Errno::EINVAL))?,
                abi::SEEK_SET,
            ),
            SeekFrom::Current(n) => (n, abi::SEEK_CUR),
            SeekFrom::End(n) => (n, abi::SEEK_END),
        };
        let at = self.sys().lseek(self.fd, offset, whence);
        at.map(|at| at as u64).map_err(error)
    }
}

impl<S: Invoke> Drop for File<'_, S> {
    fn drop(&mut self) {
        // What close(2) may have to tell, sync_all tells who wants to know.
        let _ = self.sys().close(self.fd);
    }
}

/// An errno as an [`io::Error`].
pub(crate) fn error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

/// A path as the kernel takes it.
pub(crate) fn c_path(path: impl AsRef<Path>) -> io::Result<CString> {
    Ok(CString::new(path.as_ref().as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::dirents;

    #[test]
    fn names_are_taken_from_records_and_cut_ones_end_the_list() {
        let mut buf = vec![0u8; 24];
        buf[16] = 24;
        buf[19..22].copy_from_slice(b"abc");
        let mut two = buf.clone();
        two.extend_from_slice(&buf);
        assert_eq!(dirents(&two).count(), 2);
        assert_eq!(dirents(&two).next().as_deref(), Some(&b"abc"[..]));
        assert_eq!(dirents(&two[..30]).count(), 1);
        buf[16] = 3;
        assert_eq!(dirents(&buf).count(), 0);
    }
}

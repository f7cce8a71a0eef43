//! Backing files: host files, devices and memory without a name.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::Errno;
use smallvec::SmallVec;

use super::block::Engine;
use super::{errno_of, host_path};
use crate::{BackingFile, BlockRequest, Mapping, OpenMode};

/// A host file that is read and written at offsets.
pub(super) struct PosixFile {
    file: Arc<File>,
    device: bool,
    engine: Arc<Engine>,
    /// It has a claim, which is to be given back.
    claimed: AtomicBool,
}

impl PosixFile {
    pub(super) fn open(
        path: &[u8],
        mode: OpenMode,
        engine: Arc<Engine>,
    ) -> Result<PosixFile, Errno> {
        let file = File::options()
            .read(true)
            .write(mode.write)
            .create(mode.create && mode.write)
            .create_new(mode.exclusive && mode.create && mode.write)
            .mode(0o644)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(host_path(path))
            .map_err(|e| errno_of(&e))?;
        let kind = file.metadata().map_err(|e| errno_of(&e))?.file_type();
        if kind.is_dir() {
            return Err(Errno::EISDIR);
        }
        Ok(PosixFile {
            file: Arc::new(file),
            device: kind.is_block_device(),
            engine,
            claimed: AtomicBool::new(false),
        })
    }

    pub(super) fn memfd(name: &str, size: u64, engine: Arc<Engine>) -> Result<PosixFile, Errno> {
        let name = std::ffi::CString::new(name).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the name is a C string that lives for the call.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(errno_of(&std::io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(size).map_err(|e| errno_of(&e))?;
        Ok(PosixFile {
            file: Arc::new(file),
            device: false,
            engine,
            claimed: AtomicBool::new(false),
        })
    }
}

impl Drop for PosixFile {
    fn drop(&mut self) {
        if *self.claimed.get_mut() {
            // Closing is not enough: a program that is just being started has the open file too, until it is executed.
            let _ = self.lock(libc::F_UNLCK, 0, 0);
        }
    }
}

impl PosixFile {
    /// Sets an open-file-description lock: it goes with this open file, not with the process, and two windows of one file do
    /// not meet.
    fn lock(&self, kind: i32, start: libc::off_t, len: libc::off_t) -> Result<(), Errno> {
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: len,
            l_pid: 0,
        };
        // SAFETY: the descriptor is ours and the structure is read only during the call.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
            0 => Ok(()),
            _ => Err(errno_of(&std::io::Error::last_os_error())),
        }
    }

    /// Fills a buffer as far as the file goes.
    fn read_whole(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        Ok(done)
    }
}

/// Buffers that preadv(2) takes in one call.
const AT_ONCE: usize = 1024;

fn off(n: u64) -> Result<libc::off_t, Errno> {
    libc::off_t::try_from(n).map_err(|_| Errno::EFBIG)
}

/// The size of a block device: the end that lseek(2) finds.
pub(super) fn device_size(path: &[u8]) -> Result<u64, Errno> {
    let file = File::open(host_path(path)).map_err(|e| errno_of(&e))?;
    end_of(&file)
}

fn end_of(file: &File) -> Result<u64, Errno> {
    use std::io::{Seek, SeekFrom};
    let mut file = file;
    file.seek(SeekFrom::End(0)).map_err(|e| errno_of(&e))
}

impl BackingFile for PosixFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        loop {
            match self.file.read_at(buf, offset) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result.map_err(|e| errno_of(&e)),
            }
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno> {
        self.file
            .write_all_at(buf, offset)
            .map_err(|e| errno_of(&e))
    }

    fn read_vectored_at(&self, bufs: &mut [&mut [u8]], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        for bufs in bufs.chunks_mut(AT_ONCE) {
            let len: usize = bufs.iter().map(|buf| buf.len()).sum();
            let slices: SmallVec<[libc::iovec; 32]> = bufs
                .iter_mut()
                .map(|buf| libc::iovec {
                    iov_base: buf.as_mut_ptr().cast(),
                    iov_len: buf.len(),
                })
                .collect();
            let at = off(offset + done as u64)?;
            // SAFETY: the vector names buffers that are borrowed for writing during the call.
            let n = unsafe {
                libc::preadv(
                    self.file.as_raw_fd(),
                    slices.as_ptr(),
                    slices.len() as i32,
                    at,
                )
            };
            if usize::try_from(n) == Ok(len) {
                done += len;
                continue;
            }
            // The end of the file, an interruption or an error: one by one they tell which.
            for buf in bufs {
                let n = self.read_whole(buf, offset + done as u64)?;
                done += n;
                if n < buf.len() {
                    return Ok(done);
                }
            }
        }
        Ok(done)
    }

    fn write_vectored_at(&self, bufs: &[&[u8]], mut offset: u64) -> Result<(), Errno> {
        for bufs in bufs.chunks(AT_ONCE) {
            let len: usize = bufs.iter().map(|buf| buf.len()).sum();
            let slices: SmallVec<[libc::iovec; 32]> = bufs
                .iter()
                .map(|buf| libc::iovec {
                    iov_base: buf.as_ptr().cast_mut().cast(),
                    iov_len: buf.len(),
                })
                .collect();
            let at = off(offset)?;
            // SAFETY: the vector names buffers that are borrowed during the call, in which they are only read.
            let n = unsafe {
                libc::pwritev(
                    self.file.as_raw_fd(),
                    slices.as_ptr(),
                    slices.len() as i32,
                    at,
                )
            };
            if usize::try_from(n) != Ok(len) {
                for buf in bufs {
                    self.write_at(buf, offset)?;
                    offset += buf.len() as u64;
                }
                continue;
            }
            offset += len as u64;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        match self.file.sync_data() {
            // A character device has nothing to make durable.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result.map_err(|e| errno_of(&e)),
        }
    }

    fn size(&self) -> Result<u64, Errno> {
        if self.device {
            return end_of(&self.file);
        }
        self.file
            .metadata()
            .map(|m| m.len())
            .map_err(|e| errno_of(&e))
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        self.file.set_len(size).map_err(|e| errno_of(&e))
    }

    fn claim(&self, start: u64, size: Option<u64>, alone: bool) -> Result<(), Errno> {
        let kind = if alone { libc::F_WRLCK } else { libc::F_RDLCK };
        match self.lock(kind, off(start)?, off(size.unwrap_or(0))?) {
            Ok(()) => {
                self.claimed.store(true, Ordering::SeqCst);
                Ok(())
            }
            Err(Errno::EAGAIN | Errno::EACCES) => Err(Errno::EBUSY),
            // A file system of the host that knows no locks: there is nothing to compare.
            Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn map(&self) -> Result<Arc<dyn Mapping>, Errno> {
        Ok(Arc::new(super::map::map(&self.file)?))
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>, Errno> {
        // SAFETY: moves the descriptor's own offset, which nobody uses.
        let at = unsafe { libc::lseek(self.file.as_raw_fd(), off(offset)?, libc::SEEK_DATA) };
        match u64::try_from(at) {
            Ok(at) => Ok(Some(at)),
            Err(_) => match errno_of(&std::io::Error::last_os_error()) {
                Errno::ENXIO => Ok(None),
                errno => Err(errno),
            },
        }
    }

    fn punch(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: changes the file only.
        match unsafe { libc::fallocate(self.file.as_raw_fd(), how, off(offset)?, off(len)?) } {
            0 => Ok(()),
            _ => Err(errno_of(&std::io::Error::last_os_error())),
        }
    }

    fn submit(&self, batch: Vec<BlockRequest>) {
        self.engine.submit(&self.file, batch, || {
            Arc::new(PosixFile {
                file: self.file.clone(),
                device: self.device,
                engine: self.engine.clone(),
                claimed: AtomicBool::new(false),
            })
        });
    }

    fn host_fd(&self) -> Option<i32> {
        Some(self.file.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_file_reads_back_what_was_written_and_says_what_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let path = path.as_os_str().as_bytes();
        let rw = OpenMode {
            write: true,
            ..OpenMode::default()
        };
        let open = |mode| PosixFile::open(path, mode, Engine::new());
        assert_eq!(open(rw).err(), Some(Errno::ENOENT));
        let new = OpenMode {
            create: true,
            exclusive: true,
            ..rw
        };
        let file = open(new).expect("a new file");
        assert_eq!(open(new).err(), Some(Errno::EEXIST));
        file.write_at(b"hello", 3).expect("written");
        assert_eq!(file.size(), Ok(8));
        let mut buf = [1; 16];
        assert_eq!(file.read_at(&mut buf, 0), Ok(8));
        assert_eq!(&buf[..8], b"\0\0\0hello");
        assert_eq!(file.read_at(&mut buf, 8), Ok(0));
        file.sync().expect("synced");
        let reader = open(OpenMode::default()).expect("read-only");
        assert_eq!(reader.write_at(b"x", 0), Err(Errno::EBADF));
        let dir = dir.path().as_os_str().as_bytes();
        assert_eq!(
            PosixFile::open(dir, OpenMode::default(), Engine::new()).err(),
            Some(Errno::EISDIR)
        );
    }

    #[test]
    fn many_buffers_go_and_come_as_one() {
        let mem = PosixFile::memfd("m", 0, Engine::new()).expect("memory");
        let data: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        let parts: Vec<&[u8]> = data.chunks(13).collect();
        mem.write_vectored_at(&parts, 5).expect("written");
        let mut back = vec![0; 40_010];
        let mut parts: Vec<&mut [u8]> = back.chunks_mut(17).collect();
        assert_eq!(mem.read_vectored_at(&mut parts, 5), Ok(40_000));
        assert_eq!(back[..40_000], data);
        assert_eq!(mem.read_vectored_at(&mut [&mut [0; 4][..]], 50_000), Ok(0));
    }

    #[test]
    fn shared_memory_is_zero_and_has_a_descriptor() {
        let mem = PosixFile::memfd("m", 8192, Engine::new()).expect("memory");
        let mut buf = [1; 8192];
        assert_eq!(mem.read_at(&mut buf, 0), Ok(8192));
        assert!(buf.iter().all(|&b| b == 0));
        assert!(mem.host_fd().is_some());
    }

    #[test]
    fn mappings_of_one_file_share_their_words_and_wake_each_other() {
        use std::sync::atomic::Ordering;
        let file = Arc::new(PosixFile::memfd("m", 4096, Engine::new()).expect("memory"));
        let (a, b) = (file.map().expect("mapped"), file.map().expect("mapped"));
        let waiter = std::thread::spawn(move || {
            let word = a.region().word32(64).expect("a word");
            while word.load(Ordering::SeqCst) == 0 {
                a.wait(64, 0, None);
            }
            let mut seen = [0; 3];
            a.region().read(100, &mut seen).expect("within");
            seen
        });
        b.region().write(100, b"abc").expect("within");
        b.region()
            .word32(64)
            .expect("a word")
            .store(1, Ordering::SeqCst);
        b.wake(64, u32::MAX);
        assert_eq!(&waiter.join().expect("ends"), b"abc");
    }

    #[test]
    fn claims_meet_only_where_they_overlap_and_end_with_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("f");
        std::fs::write(&path, [0; 100]).expect("a file");
        let open = || {
            let mode = OpenMode {
                write: true,
                ..OpenMode::default()
            };
            let path = path.as_os_str().as_encoded_bytes();
            PosixFile::open(path, mode, Engine::new()).expect("the file")
        };
        let (a, b) = (open(), open());
        assert_eq!(a.claim(0, Some(50), true), Ok(()));
        assert_eq!(b.claim(40, None, false), Err(Errno::EBUSY));
        assert_eq!(b.claim(50, None, true), Ok(()));
        // As a child process has it between fork and exec.
        let copy = a.file.try_clone().expect("a descriptor");
        drop(a);
        assert_eq!(open().claim(0, Some(50), false), Ok(()));
        drop(copy);
        assert_eq!(open().claim(90, None, false), Err(Errno::EBUSY));
        drop(b);
        let (a, b) = (open(), open());
        assert_eq!(
            (a.claim(0, None, false), b.claim(0, None, false)),
            (Ok(()), Ok(()))
        );
    }
}

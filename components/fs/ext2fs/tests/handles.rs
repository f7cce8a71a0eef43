//! File handles of files whose vnodes are not in memory.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use abi::{AT_FDCWD, Errno, Syscalls, UserAddr, nr};
use common::{Image, Machine, c, pattern};
use kern::{PathBytes, UserMemory};

/// The test's own memory, by address.
struct Own<'a>(std::cell::RefCell<&'a mut [u8]>, &'a std::ffi::CStr);

const HANDLE: u64 = 0x10_0000;
const MOUNT: u64 = HANDLE + 40;
const PATH: u64 = 0x20_0000;

impl UserMemory for Own<'_> {
    fn copyin(&self, _: &sync::Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let at = (from.0 - HANDLE) as usize;
        to.copy_from_slice(&self.0.borrow()[at..at + to.len()]);
        Ok(())
    }

    fn copyout(&self, _: &sync::Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        let at = (to.0 - HANDLE) as usize;
        self.0.borrow_mut()[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn copyinstr(
        &self,
        _: &sync::Cpu<'_>,
        _: UserAddr,
        _: usize,
        to: &mut PathBytes,
    ) -> Result<(), Errno> {
        to.extend_from_slice(self.1.to_bytes());
        Ok(())
    }
}

fn handle(m: &Machine, path: &str) -> [u8; 48] {
    let mut raw = [0; 48];
    raw[0] = 24;
    let path = c(path);
    let memory = Own((&mut raw[..]).into(), &path);
    let args = [AT_FDCWD as u64, PATH, HANDLE, MOUNT, 0, 0];
    m.lwp
        .syscall(&memory, nr::name_to_handle_at, &args)
        .expect("a handle");
    raw
}

fn open(m: &Machine, mut handle: [u8; 48]) -> Result<i32, Errno> {
    let memory = Own((&mut handle[..]).into(), c"");
    let args = [AT_FDCWD as u64, HANDLE, 0, 0, 0, 0];
    let fd = m.lwp.syscall(&memory, nr::open_by_handle_at, &args)?;
    Ok(fd as i32)
}

#[test]
fn a_handle_loads_the_inode_and_a_directory_knows_where_it_is() {
    let image = Image::make("-t ext4 -b 4096", "8M");
    let m = Machine::with(&image.path);
    for dir in ["/m/a", "/m/a/b", "/m/a/b/c"] {
        m.lwp.mkdir(&c(dir), 0o755).expect("made");
    }
    m.write("/m/a/b/f", &pattern(1, 10_000)).expect("written");
    m.write("/m/gone", b"x").expect("written");
    m.sync().expect("synced");
    let [file, dir, gone] = ["/m/a/b/f", "/m/a/b/c", "/m/gone"].map(|path| handle(&m, path));
    m.lwp.unlink(c"/m/gone").expect("unlinked");
    m.unmount().expect("unmounts");
    // Another kernel gives its first mount the same number, and has none of these in memory.
    let m = Machine::with(&image.path);
    let fd = open(&m, file).expect("open");
    let mut buf = vec![0; 10_000];
    assert_eq!(m.lwp.read(fd, &mut buf, 10_000), Ok(10_000));
    assert!(buf == pattern(1, 10_000));
    let fd = open(&m, dir).expect("open");
    m.lwp.fchdir(fd).expect("there");
    let mut cwd = [0; 32];
    assert_eq!(m.lwp.getcwd(&mut cwd, 32), Ok(9));
    assert_eq!(&cwd[..9], b"/m/a/b/c\0");
    assert_eq!(open(&m, gone), Err(Errno::ESTALE));
}

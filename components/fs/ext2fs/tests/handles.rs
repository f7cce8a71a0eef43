//! File handles of files whose vnodes are not in memory.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use abi::{AT_FDCWD, Errno, Syscalls, nr};
use common::{Image, Machine, c, pattern};
use testing::Memory;

fn handle(m: &Machine, path: &str) -> Vec<u8> {
    let memory = Memory::new(256);
    let handle = memory.put(0, &[24]);
    let path = memory.put(100, path.as_bytes());
    let args = [AT_FDCWD as u64, path, handle, Memory::at(50), 0, 0];
    m.lwp
        .syscall(&memory, nr::name_to_handle_at, &args)
        .expect("a handle");
    memory.get(0, 48)
}

fn open(m: &Machine, handle: Vec<u8>) -> Result<i32, Errno> {
    let args = [AT_FDCWD as u64, Memory::at(0), 0, 0, 0, 0];
    let memory = Memory::of(handle);
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

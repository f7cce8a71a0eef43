//! File handles: name_to_handle_at and open_by_handle_at.

use abi::*;
use kern::{Cred, Kernel, LwpHandle};
use testing::Memory;

use super::{boot, c, open, stat};

/// A handle as it lies in memory, of `room` bytes.
fn handle_of(lwp: &LwpHandle, path: &str, room: u32, flags: i32) -> Result<Vec<u8>, (Errno, u32)> {
    let memory = Memory::new(2000);
    let handle = memory.put(0, &room.to_le_bytes());
    let name = memory.put(1000, path.as_bytes());
    let mount = Memory::at(500);
    let args = [AT_FDCWD as u64, name, handle, mount, flags as u64, 0];
    let result = lwp.syscall(&memory, nr::name_to_handle_at, &args);
    let len = u32::from_le_bytes(memory.get(0, 4).try_into().expect("four"));
    match result {
        Ok(_) => {
            let dev = stat(lwp, path).expect("there").st_dev as i32;
            assert_eq!(memory.get(500, 4), dev.to_le_bytes());
            Ok(memory.get(0, 8 + len as usize))
        }
        Err(error) => Err((error, len)),
    }
}

fn open_handle(lwp: &LwpHandle, handle: &[u8], flags: i32) -> Result<i32, Errno> {
    let memory = Memory::of(handle.to_vec());
    let args = [AT_FDCWD as u64, Memory::at(0), flags as u64, 0, 0, 0];
    let fd = lwp.syscall(&memory, nr::open_by_handle_at, &args)?;
    Ok(fd as i32)
}

fn getcwd(lwp: &LwpHandle) -> String {
    let mut buf = [0; 64];
    let n = lwp.getcwd(&mut buf, 64).expect("somewhere") as usize;
    String::from_utf8_lossy(&buf[..n - 1]).into_owned()
}

#[test]
fn a_handle_finds_the_file_whatever_its_name_until_it_is_gone() {
    let (kernel, lwp) = boot();
    lwp.mkdir(c"/d", 0o755).expect("a directory");
    let fd = open(&lwp, "/d/f", O_CREAT | O_RDWR).expect("a file");
    lwp.write(fd, b"hello", 5).expect("written");
    lwp.close(fd).expect("closed");
    let handle = handle_of(&lwp, "/d/f", 128, 0).expect("a handle");
    lwp.rename(c"/d/f", c"/g").expect("renamed");
    let fd = open_handle(&lwp, &handle, O_RDONLY).expect("open");
    let mut buf = [0; 8];
    assert_eq!(lwp.read(fd, &mut buf, 8), Ok(5));
    assert_eq!(&buf[..5], b"hello");
    lwp.unlink(c"/g").expect("unlinked");
    let again = open_handle(&lwp, &handle, O_RDONLY).expect("as long as it is open");
    lwp.close(again).expect("closed");
    lwp.close(fd).expect("closed");
    assert_eq!(open_handle(&lwp, &handle, O_RDONLY), Err(Errno::ESTALE));

    // A link itself, or what it leads to.
    lwp.symlink(c"/d", c"/l").expect("a link");
    let link = handle_of(&lwp, "/l", 24, 0).map(|_| ());
    assert_eq!(link, Ok(()));
    let dir = handle_of(&lwp, "/l", 24, AT_SYMLINK_FOLLOW).expect("a handle");
    let fd = open_handle(&lwp, &dir, O_RDONLY | O_DIRECTORY).expect("open");
    lwp.fchdir(fd).expect("there");
    assert_eq!(getcwd(&lwp), "/d");

    // Too small, too large, and what is none.
    assert_eq!(handle_of(&lwp, "/d", 0, 0), Err((Errno::EOVERFLOW, 24)));
    assert_eq!(handle_of(&lwp, "/d", 129, 0), Err((Errno::EINVAL, 129)));
    assert_eq!(handle_of(&lwp, "/none", 24, 0), Err((Errno::ENOENT, 24)));
    for at in 0..dir.len() {
        let mut bad = dir.clone();
        bad[at] ^= 0x55;
        let error = open_handle(&lwp, &bad, O_RDONLY).expect_err("no such file");
        assert!(
            matches!(error, Errno::ESTALE | Errno::EINVAL | Errno::EFAULT),
            "{at}: {error}"
        );
    }
    let user = kernel.spawn("user", Cred::user(5, 5, &[])).expect("a user");
    assert_eq!(open_handle(&user, &dir, O_RDONLY), Err(Errno::EPERM));
}

/// A file system whose names go through the cache, so that its vnodes come and go.
fn mount_cached(kernel: &std::sync::Arc<Kernel>, lwp: &LwpHandle) {
    kernel.implicit(&kern::KernelMemory, |cx| {
        let vfs = crate::Vfs::of(cx).expect("vfs");
        let _ = vfs.register(cx, &crate::rumpfs::CACHED);
    });
    lwp.mount(c"x", c"/m", c"rumpfs", 0, c"").expect("mounted");
}

#[test]
fn a_handle_is_good_as_long_as_its_mount() {
    let (kernel, lwp) = boot();
    lwp.mkdir(c"/m", 0o755).expect("a directory");
    mount_cached(&kernel, &lwp);
    lwp.mkdir(c"/m/d", 0o755).expect("a directory");
    let handle = handle_of(&lwp, "/m/d", 24, 0).expect("a handle");
    assert!(open_handle(&lwp, &handle, O_PATH).is_ok_and(|fd| lwp.close(fd).is_ok()));
    lwp.umount2(c"/m", 0).expect("unmounted");
    assert_eq!(open_handle(&lwp, &handle, O_PATH), Err(Errno::ESTALE));
    mount_cached(&kernel, &lwp);
    lwp.mkdir(c"/m/d", 0o755).expect("a directory");
    assert_eq!(open_handle(&lwp, &handle, O_PATH), Err(Errno::ESTALE));
}

#[test]
fn fchroot_makes_a_directory_the_root() {
    let (kernel, lwp) = boot();
    lwp.mkdir(c"/d", 0o755).expect("a directory");
    lwp.mkdir(c"/d/e", 0o755).expect("a directory");
    let fd = open(&lwp, "/d", O_RDONLY | O_DIRECTORY).expect("open");
    let file = open(&lwp, "/f", O_CREAT | O_RDWR).expect("open");
    assert_eq!(lwp.fchroot(file), Err(Errno::ENOTDIR));
    assert_eq!(lwp.fchroot(99), Err(Errno::EBADF));
    lwp.fchroot(fd).expect("rooted");
    assert!(stat(&lwp, "/e").is_ok());
    assert_eq!(lwp.chdir(&c("/d")), Err(Errno::ENOENT));
    let user = kernel.spawn("user", Cred::user(5, 5, &[])).expect("a user");
    let fd = open(&user, "/", O_RDONLY | O_DIRECTORY).expect("open");
    assert_eq!(user.fchroot(fd), Err(Errno::EPERM));
}

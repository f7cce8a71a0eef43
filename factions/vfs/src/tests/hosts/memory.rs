//! Files in a page cache that holds far less than they have.

use std::sync::Arc;

use abi::*;
use kern::{KernelMemory, LwpHandle};
use testing::{Setup, Testbed};

use super::{c, dice, open, with_vfs};

const FILE: usize = 60_000;

/// Eighteen pages; each of the files has fifteen.
fn tight() -> Setup {
    Setup::new().param("RUMP_MEMLIMIT", "72k")
}

/// A disk of zeroes in the root, as a block device.
fn disk(bed: &Arc<Testbed>, lwp: &LwpHandle) -> String {
    let path = bed.host_file(&vec![0; 3 * FILE]);
    lwp.etfs_register(c"/dev/disk", &c(&path), ETFS_BLK, 0, ETFS_SIZE_ENDOFF)
        .expect("registered");
    path
}

#[test]
fn what_was_written_is_read_however_little_memory_there_is() {
    with_vfs(tight(), |bed| {
        let lwp = bed.process();
        let host = disk(bed, &lwp);
        let on = bed.clone();
        bed.users(3, move |user, lwp| {
            let mut dice = dice(&on, user);
            let fd = open(lwp, "/dev/disk", O_RDWR).expect("open");
            let mut model = vec![0u8; FILE];
            let base = user * FILE;
            for _ in 0..5 {
                let at = dice.below(FILE as u64 - 9000) as usize;
                let len = 1 + dice.below(9000) as usize;
                if dice.below(2) == 0 {
                    let data = vec![dice.next() as u8; len];
                    let n = lwp.pwrite64(fd, &data, len, (base + at) as i64);
                    assert_eq!(n, Ok(len as i64));
                    model[at..at + len].copy_from_slice(&data);
                } else {
                    let mut data = vec![0; len];
                    let n = lwp.pread64(fd, &mut data, len, (base + at) as i64);
                    assert_eq!(n, Ok(len as i64));
                    assert!(data == model[at..at + len], "user {user}: {len} at {at}");
                }
                if dice.below(4) == 0 {
                    lwp.fsync(fd).expect("synced");
                }
            }
            let mut all = vec![0; FILE];
            assert_eq!(
                lwp.pread64(fd, &mut all, FILE, base as i64),
                Ok(FILE as i64)
            );
            assert!(all == model, "user {user}");
            lwp.close(fd).expect("closed");
        });
        let fd = open(&lwp, "/dev/disk", O_RDWR).expect("open");
        let mut all = vec![0; 3 * FILE];
        let len = all.len();
        assert_eq!(lwp.pread64(fd, &mut all, len, 0), Ok(len as i64));
        lwp.fsync(fd).expect("synced");
        assert!(bed.host_content(&host) == all, "the disk has what is read");
        lwp.close(fd).expect("closed");
        bed.kernel().implicit(&KernelMemory, |cx| {
            let limit = cx.kernel().memory_limit();
            let used = crate::Vfs::of(cx).expect("vfs").page_cache().memory();
            assert!(used <= limit, "{used} of {limit}");
        });
    });
}

#[test]
fn files_in_memory_have_their_limit_and_leave_the_cache_its_own() {
    with_vfs(tight(), |bed| {
        let lwp = bed.process();
        let _host = disk(bed, &lwp);
        bed.users(3, |user, lwp| {
            let path = format!("/tmp/f{user}");
            for _ in 0..3 {
                let fd = open(lwp, &path, O_CREAT | O_RDWR).expect("open");
                let mut written = 0;
                // All three do not fit at once.
                let data = vec![user as u8 + 1; 10_000];
                while written < FILE {
                    match lwp.write(fd, &data, data.len()) {
                        Ok(n) => written += n as usize,
                        Err(error) => {
                            assert_eq!(error, Errno::ENOSPC);
                            break;
                        }
                    }
                }
                let mut all = vec![0; written];
                assert_eq!(lwp.pread64(fd, &mut all, written, 0), Ok(written as i64));
                assert!(all.iter().all(|&b| b == user as u8 + 1));
                // A disk works beside them.
                let disk = open(lwp, "/dev/disk", O_RDWR).expect("open");
                let at = (user * FILE) as i64;
                assert_eq!(lwp.pwrite64(disk, &data, 5000, at), Ok(5000));
                let mut back = vec![0; 5000];
                assert_eq!(lwp.pread64(disk, &mut back, 5000, at), Ok(5000));
                assert!(back == data[..5000]);
                lwp.close(disk).expect("closed");
                lwp.close(fd).expect("closed");
                lwp.unlink(&c(&path)).expect("gone");
            }
        });
    });
}

#[test]
fn a_file_is_cut_and_grown_under_those_who_read_it() {
    with_vfs(tight(), |bed| {
        let lwp = bed.process();
        let fd = open(&lwp, "/tmp/f", O_CREAT | O_RDWR).expect("a file");
        lwp.close(fd).expect("closed");
        let on = bed.clone();
        bed.users(3, move |user, lwp| {
            let mut dice = dice(&on, user);
            let fd = open(lwp, "/tmp/f", O_RDWR).expect("open");
            for _ in 0..5 {
                let at = dice.below(40_000) as i64;
                match dice.below(3) {
                    0 => drop(lwp.ftruncate(fd, at).expect("cut")),
                    1 => {
                        let n = lwp.pwrite64(fd, &[7; 5000], 5000, at).expect("written");
                        assert_eq!(n, 5000);
                    }
                    _ => {
                        let mut data = [1; 5000];
                        let n = lwp.pread64(fd, &mut data, 5000, at).expect("read") as usize;
                        // What was written, or the zeroes between.
                        assert!(data[..n].iter().all(|&b| b == 7 || b == 0));
                    }
                }
            }
            lwp.close(fd).expect("closed");
        });
    });
}

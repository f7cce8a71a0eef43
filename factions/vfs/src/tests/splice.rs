//! splice between files and pipes.

use abi::*;
use kern::LwpHandle;

use super::{boot, open};

fn pipe(lwp: &LwpHandle) -> (i32, i32) {
    let mut both = [0; 8];
    lwp.pipe2(&mut both, O_NONBLOCK).expect("a pipe");
    let number = |at: usize| i32::from_le_bytes(both[at..at + 4].try_into().expect("four"));
    (number(0), number(4))
}

#[test]
fn bytes_move_between_a_file_and_a_pipe() {
    let (_kernel, lwp) = boot();
    let (r, w) = pipe(&lwp);
    let f = open(&lwp, "/f", O_CREAT | O_RDWR).expect("a file");
    let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    lwp.write(f, &data, data.len()).expect("written");
    // As much as the pipe holds, from an offset of the caller's.
    let mut at = 100u64.to_le_bytes();
    assert_eq!(lwp.splice(f, &mut at, w, &mut [], 99_000, 0), Ok(65536));
    assert_eq!(u64::from_le_bytes(at), 65636);
    assert_eq!(lwp.lseek(f, 0, SEEK_CUR), Ok(100_000));
    assert_eq!(lwp.splice(f, &mut at, w, &mut [], 1, 0), Err(Errno::EAGAIN));
    // To a file's own offset, which moves on.
    let g = open(&lwp, "/g", O_CREAT | O_RDWR).expect("a file");
    lwp.lseek(g, 10, SEEK_SET).expect("there");
    assert_eq!(lwp.splice(r, &mut [], g, &mut [], 70_000, 0), Ok(65536));
    assert_eq!(lwp.lseek(g, 0, SEEK_CUR), Ok(65546));
    let mut back = vec![0; 65536];
    assert_eq!(lwp.pread64(g, &mut back, 65536, 10), Ok(65536));
    assert!(back[..] == data[100..65636]);
    // The end of the file.
    let mut end = 100_000u64.to_le_bytes();
    assert_eq!(lwp.splice(f, &mut end, w, &mut [], 1, 0), Ok(0));
    assert_eq!(lwp.splice(f, &mut [], g, &mut [], 1, 0), Err(Errno::EINVAL));
    let append = open(&lwp, "/g", O_WRONLY | O_APPEND).expect("a file");
    lwp.write(w, b"x", 1).expect("written");
    assert_eq!(
        lwp.splice(r, &mut [], append, &mut [], 1, 0),
        Err(Errno::EINVAL)
    );
    // What cannot be written stays in the pipe.
    let full = open(&lwp, "/dev/full", O_WRONLY).expect("a device");
    let moved = lwp.splice(r, &mut [], full, &mut [], 1, 0);
    assert_eq!(moved, Err(Errno::ENOSPC));
    assert_eq!(lwp.read(r, &mut [0; 2], 2), Ok(1));
}

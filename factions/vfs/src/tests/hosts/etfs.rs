//! Host files in the root: many that use them, and registrations that come and go.

use abi::*;
use testing::{Dice, Setup};

use super::{c, dice, open, stat, with_vfs};

#[test]
fn registrations_come_and_go_under_those_who_use_them() {
    with_vfs(Setup::new(), |bed| {
        let path = bed.host_file(&[b'x'; 5000]);
        let on = bed.clone();
        bed.users(4, move |user, lwp| {
            let mut dice = dice(&on, user);
            let key = |dice: &mut Dice| c(["/key0", "/dev/key1"][dice.below(2) as usize]);
            for _ in 0..8 {
                let key = key(&mut dice);
                match dice.below(4) {
                    0 => {
                        let kind = [ETFS_REG, ETFS_BLK][dice.below(2) as usize];
                        let made = lwp.etfs_register(&key, &c(&path), kind, 0, ETFS_SIZE_ENDOFF);
                        // One kernel has a device alone: under two names it is not had.
                        assert!(
                            matches!(made, Ok(_) | Err(Errno::EEXIST | Errno::EBUSY)),
                            "{made:?}"
                        );
                    }
                    1 => {
                        let gone = lwp.etfs_remove(&key);
                        assert!(
                            matches!(gone, Ok(_) | Err(Errno::ENOENT | Errno::EBUSY)),
                            "{gone:?}"
                        );
                    }
                    _ => match lwp.open(&key, O_RDWR, 0) {
                        Ok(fd) => {
                            let mut byte = [0; 1];
                            let at = dice.below(5000) as i64;
                            assert_eq!(lwp.pread64(fd as i32, &mut byte, 1, at), Ok(1));
                            assert_eq!(byte, *b"x");
                            assert_eq!(lwp.pwrite64(fd as i32, b"x", 1, at), Ok(1));
                            lwp.close(fd as i32).expect("closed");
                        }
                        Err(error) => assert!(
                            matches!(error, Errno::ENOENT | Errno::ENXIO | Errno::EBUSY),
                            "{error}"
                        ),
                    },
                }
            }
        });
        let lwp = bed.process();
        for key in [c"/key0", c"/dev/key1"] {
            let _ = lwp.etfs_remove(key);
            assert_eq!(
                stat(&lwp, key.to_str().expect("text")),
                Err(Errno::ENOENT),
                "nobody has it open"
            );
        }
    });
}

#[test]
fn a_host_file_is_one_file_for_all_who_open_it() {
    with_vfs(Setup::new(), |bed| {
        let path = bed.host_file(&[0; 4000]);
        let lwp = bed.process();
        lwp.etfs_register(c"/f", &c(&path), ETFS_REG, 0, ETFS_SIZE_ENDOFF)
            .expect("registered");
        bed.users(4, |user, lwp| {
            let fd = open(lwp, "/f", O_RDWR).expect("open");
            let at = user as i64 * 1000;
            for n in 1..4u8 {
                assert_eq!(lwp.pwrite64(fd, &[n; 1000], 1000, at), Ok(1000));
                let mut back = [0; 1000];
                assert_eq!(lwp.pread64(fd, &mut back, 1000, at), Ok(1000));
                assert_eq!(back, [n; 1000]);
            }
            lwp.fsync(fd).expect("synced");
            lwp.close(fd).expect("closed");
        });
        assert!(bed.host_content(&path) == vec![3; 4000]);
    });
}

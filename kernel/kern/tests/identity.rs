//! Credentials, limits, names and the end.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests run on the host

mod common;

use std::ffi::CStr;

use abi::{Errno, Rlimit, Syscalls};
use common::{boot, process, user};
use kern::{Cred, Howto, RforkFds};

const KEEP: u32 = u32::MAX;

#[test]
fn the_superuser_becomes_anybody_and_nobody_comes_back() {
    let k = boot();
    let p = process(&k);
    assert_eq!(p.setgroups(2, &[5, 0, 0, 0, 6, 0, 0, 0]), Ok(0));
    assert_eq!(p.setgid(100), Ok(0));
    assert_eq!(p.setuid(1000), Ok(0));
    assert_eq!((p.getuid(), p.geteuid()), (Ok(1000), Ok(1000)));
    assert_eq!(p.setuid(0), Err(Errno::EPERM));
    assert_eq!(p.setgid(0), Err(Errno::EPERM));
    assert_eq!(p.setgroups(0, &[]), Err(Errno::EPERM));
    let mut groups = [0; 8];
    assert_eq!(p.getgroups(0, &mut []), Ok(2));
    assert_eq!(p.getgroups(1, &mut groups), Err(Errno::EINVAL));
    assert_eq!(p.getgroups(2, &mut groups), Ok(2));
    assert_eq!(groups, [5, 0, 0, 0, 6, 0, 0, 0]);
}

#[test]
fn a_user_moves_between_the_ids_it_has() {
    let k = boot();
    let mixed = Cred {
        euid: 20,
        suid: 30,
        ..Cred::user(10, 1, &[])
    };
    let p = k.spawn("mixed", mixed).expect("a process");
    assert_eq!(p.setresuid(KEEP, 30, KEEP), Ok(0));
    assert_eq!(p.setresuid(KEEP, 20, KEEP), Err(Errno::EPERM), "given up");
    assert_eq!(p.setreuid(KEEP, 10), Ok(0));
    assert_eq!(p.seteuid_like(30), Ok(0), "the saved id was kept");
    assert_eq!(p.setreuid(30, 10), Ok(0));
    let mut ids = [[0; 4]; 3];
    let [r, e, s] = &mut ids;
    assert_eq!(p.getresuid(r, e, s), Ok(0));
    assert_eq!(
        ids.map(u32::from_le_bytes),
        [30, 10, 10],
        "the saved id follows a change of the real one"
    );
}

trait SetEuid {
    fn seteuid_like(&self, uid: u32) -> Result<i64, Errno>;
}

impl SetEuid for kern::LwpHandle {
    fn seteuid_like(&self, uid: u32) -> Result<i64, Errno> {
        self.setresuid(KEEP, uid, KEEP)
    }
}

#[test]
fn limits_go_down_freely_and_up_only_for_the_superuser() {
    let k = boot();
    let p = user(&k, 1000, 1000);
    let limit = |cur, max| {
        Rlimit {
            rlim_cur: cur,
            rlim_max: max,
        }
        .to_bytes()
    };
    assert_eq!(p.setrlimit(7, &limit(3, 10)), Ok(0));
    assert_eq!(p.setrlimit(7, &limit(11, 11)), Err(Errno::EPERM));
    assert_eq!(p.setrlimit(7, &limit(5, 4)), Err(Errno::EINVAL));
    assert_eq!(p.setrlimit(16, &limit(1, 1)), Err(Errno::EINVAL));
    assert_eq!(common::pipe(&p, 0), Ok((0, 1)));
    assert_eq!(p.dup(0), Ok(2));
    assert_eq!(p.dup(0), Err(Errno::EMFILE));
    assert_eq!(common::pipe(&p, 0), Err(Errno::EMFILE));
    let root = process(&k);
    let mut old = [0; 16];
    let to = limit(20, 20);
    assert_eq!(root.prlimit64(p.pid(), 7, &to, &mut old), Ok(0));
    assert_eq!(old, limit(3, 10));
    assert_eq!(p.prlimit64(root.pid(), 7, &[], &mut old), Err(Errno::EPERM));
}

#[test]
fn the_hostname_is_the_superusers_to_set_and_everybodys_to_see() {
    let k = boot();
    let (root, p) = (process(&k), user(&k, 1, 1));
    assert_eq!(p.sethostname(b"x", 1), Err(Errno::EPERM));
    assert_eq!(root.sethostname(&[b'a'; 65], 65), Err(Errno::EINVAL));
    assert_eq!(root.sethostname(b"guest", 5), Ok(0));
    let mut uts = [0; 390];
    assert_eq!(p.uname(&mut uts), Ok(0));
    let field = |i: usize| CStr::from_bytes_until_nul(&uts[i * 65..]).expect("a string");
    assert_eq!((field(0), field(1)), (c"Linux", c"guest"));
}

#[test]
fn reboot_is_the_superusers_and_ends_the_service() {
    let k = boot();
    let (root, p) = (process(&k), user(&k, 1, 1));
    let magic = 0xfee1_dead_u32 as i32;
    assert_eq!(
        p.reboot(magic, 672_274_793, 0x4321_fedc, 0),
        Err(Errno::EPERM)
    );
    assert_eq!(
        root.reboot(1, 672_274_793, 0x4321_fedc, 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(k.halted(), None);
    let waiter = {
        let k = k.clone();
        std::thread::spawn(move || k.wait_halted())
    };
    assert_eq!(root.reboot(magic, 672_274_793, 0x4321_fedc, 0), Ok(0));
    assert_eq!(waiter.join().expect("ended"), Howto::PowerOff);
    assert_eq!(p.getpid(), Err(Errno::ESHUTDOWN));
}

#[test]
fn messages_are_everybodys_to_read() {
    let k = boot();
    let (root, p) = (process(&k), user(&k, 1, 1));
    let mut buf = [0; 4096];
    let n = p.syslog(3, &mut buf, 4096).expect("messages") as usize;
    assert!(buf[..n].starts_with(b"rumpkit"));
    assert_eq!(p.syslog(5, &mut [], 0), Err(Errno::EPERM));
    assert_eq!(root.syslog(5, &mut [], 0), Ok(0));
    assert_eq!(p.syslog(3, &mut buf, 4096), Ok(0));
}

#[test]
fn children_of_a_process_that_ended_are_the_first_ones() {
    let k = boot();
    let p = process(&k);
    let child = p.rfork(kern::RforkFds::Copy).expect("a child");
    assert_eq!(p.getppid(), Ok(1));
    assert_eq!(child.getppid(), Ok(i64::from(p.pid())));
    drop(p);
    assert_eq!(child.getppid(), Ok(1));
}

#[test]
fn there_are_no_more_processes_than_allowed() {
    let k = boot();
    let p = process(&k);
    k.set_maxproc(3);
    let child = p.rfork(kern::RforkFds::Copy).expect("a child");
    assert_eq!(p.rfork(kern::RforkFds::Copy).err(), Some(Errno::EAGAIN));
    assert_eq!(k.rfork(kern::RforkFds::Clear).err(), Some(Errno::EAGAIN));
    drop(child);
    assert!(p.rfork(kern::RforkFds::Copy).is_ok());
}

#[test]
fn groups_and_sessions_are_inherited_and_changed_by_the_rules() {
    let k = boot();
    let p = process(&k);
    let pid = p.pid();
    assert_eq!((p.getpgrp(), p.getsid(0)), (Ok(1), Ok(1)));
    assert_eq!(p.setpgid(0, 0), Ok(0));
    assert_eq!(p.getpgrp(), Ok(pid.into()));
    // The leader of a group starts no session.
    assert_eq!(p.setsid(), Err(Errno::EPERM));
    let child = p.rfork(RforkFds::Clear).expect("a child");
    assert_eq!(child.getpgrp(), Ok(pid.into()));
    assert_eq!(child.setsid(), Ok(child.pid().into()));
    assert_eq!(p.getsid(child.pid()), Ok(child.pid().into()));
    assert_eq!(p.getpgid(child.pid()), Ok(child.pid().into()));
    // Of another session; no child; no group; no such process.
    assert_eq!(p.setpgid(child.pid(), pid), Err(Errno::EPERM));
    assert_eq!(child.setpgid(pid, 0), Err(Errno::ESRCH));
    assert_eq!(child.setpgid(0, pid), Err(Errno::EPERM));
    assert_eq!(p.setpgid(0, 77), Err(Errno::EPERM));
    assert_eq!(p.setpgid(0, -1), Err(Errno::EINVAL));
    assert_eq!(p.getpgid(7777), Err(Errno::ESRCH));
    let second = p.rfork(RforkFds::Clear).expect("a child");
    assert_eq!(p.setpgid(second.pid(), 0), Ok(0));
    assert_eq!(second.getpgrp(), Ok(second.pid().into()));
    assert_eq!(p.setpgid(second.pid(), pid), Ok(0));
    assert_eq!(second.getpgrp(), Ok(pid.into()));
}

#[test]
fn a_login_is_the_sessions() {
    let k = boot();
    let p = process(&k);
    let mut name = [0xff; 17];
    assert_eq!(p.__getlogin(&mut name, 17), Ok(0));
    assert_eq!(name[0], 0);
    assert_eq!(p.setsid(), Ok(p.pid().into()));
    assert_eq!(p.__setlogin(c"somebody"), Ok(0));
    let child = p.rfork(RforkFds::Clear).expect("a child");
    assert_eq!(child.__getlogin(&mut name, 17), Ok(0));
    assert_eq!(&name[..9], b"somebody\0");
    assert_eq!(child.__getlogin(&mut name, 8), Err(Errno::ERANGE));
    assert_eq!(process(&k).__getlogin(&mut name, 17), Ok(0));
    assert_eq!(name[0], 0);
    assert_eq!(p.__setlogin(c"12345678901234567"), Err(Errno::EINVAL));
    assert_eq!(user(&k, 5, 5).__setlogin(c"me"), Err(Errno::EPERM));
}

#[test]
fn an_lwp_acts_with_other_credentials_for_a_time_and_its_process_keeps_its_own() {
    let k = boot();
    let p = process(&k);
    let other = k.newlwp(p.pid()).expect("an lwp");
    let euid = |lwp: &kern::LwpHandle| lwp.enter(&kern::KernelMemory, |cx| cx.cred().euid);
    p.enter(&kern::KernelMemory, |cx| {
        let cred = |uid| std::sync::Arc::new(Cred::user(uid, uid, &[]));
        cx.with_cred(cred(5), || {
            assert_eq!(cx.cred().euid, 5);
            cx.with_cred(cred(6), || assert_eq!(cx.cred().euid, 6));
            assert_eq!(cx.cred().euid, 5);
            assert_eq!(cx.proc().cred().euid, 0);
        });
        assert_eq!(cx.cred().euid, 0);
    });
    assert_eq!((euid(&p), euid(&other)), (0, 0));
}

//! A disk that fails at one request or from one request on, tried for every request of each operation: who asked is told what went
//! wrong, the kernel goes on, and what was synced before stays.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // tests are on the host's side

mod common;

use std::path::Path;

use abi::{Errno, O_CREAT, O_RDWR, Syscalls};
use common::{Image, Machine, c, pattern, repair};
use hypercall::sim::{Faults, SimConfig, SimHost};

const DISK: &str = "/disk";

/// What is done while the disk fails.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Create,
    Write,
    Fsync,
    Rename,
    Unmount,
}

/// How the disk fails, at the request of this number in the operation.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Once(u64, Errno),
    From(u64, Errno),
}

/// What came of it.
struct Outcome {
    /// Requests of the operation.
    requests: u64,
    /// What the operation answered, step by step.
    answers: Vec<Result<(), Errno>>,
    /// Paths with content that must be on the disk from here on, because a sync said so.
    promised: Vec<(String, Vec<u8>)>,
    disk: Vec<u8>,
}

/// Does an operation on a disk of this content, which fails as told.
fn act(image: Vec<u8>, operation: Operation, fault: Option<Fault>) -> Outcome {
    let run = SimHost::run(SimConfig::new(5), move |host| {
        host.put_file(DISK.as_bytes(), host.new_file(image));
        let disk = host.file(DISK.as_bytes()).expect("put there");
        let m = Machine::on(host.clone());
        m.mount(Path::new(DISK), "").expect("mounts");
        let kept = vec![
            ("/m/kept".to_owned(), pattern(1, 7000)),
            ("/m/d/kept".to_owned(), pattern(2, 300)),
        ];
        m.lwp.mkdir(&c("/m/d"), 0o755).expect("made");
        for (path, content) in &kept {
            m.write(path, content).expect("written");
        }
        m.write("/m/moves", &pattern(3, 2000)).expect("written");
        m.sync().expect("synced");
        let fd = m.open("/m/open", O_RDWR | O_CREAT).expect("opened");
        m.write_at(fd, &pattern(4, 9000), 0).expect("written");
        if matches!(operation, Operation::Unmount) {
            m.close(fd);
        }

        let before = disk.operations();
        disk.set_faults(match fault {
            None => Faults::default(),
            Some(Fault::Once(n, errno)) => Faults {
                fail_once: Some((before + n, errno)),
                ..Faults::default()
            },
            Some(Fault::From(n, errno)) => Faults {
                fail_from: Some((before + n, errno)),
                ..Faults::default()
            },
        });
        let mut promised = kept;
        let mut answers = Vec::new();
        let sync = |path: &str| {
            let fd = m.open(path, O_RDWR)?;
            let synced = m.fsync(fd);
            m.close(fd);
            synced
        };
        match operation {
            Operation::Create => {
                let made = m.write("/m/d/new", &pattern(5, 5000));
                answers.push(made);
                answers.push(made.and_then(|()| sync("/m/d/new")));
                if answers.iter().all(Result::is_ok) {
                    promised.push(("/m/d/new".to_owned(), pattern(5, 5000)));
                }
            }
            Operation::Write => {
                answers.push(m.write_at(fd, &pattern(6, 20_000), 3000));
                answers.push(m.fsync(fd));
                if answers.iter().all(Result::is_ok) {
                    let mut content = pattern(4, 9000);
                    content.truncate(3000);
                    content.extend(pattern(6, 20_000));
                    promised.push(("/m/open".to_owned(), content));
                }
            }
            Operation::Fsync => {
                answers.push(m.fsync(fd));
                if answers[0].is_ok() {
                    promised.push(("/m/open".to_owned(), pattern(4, 9000)));
                }
            }
            Operation::Rename => {
                let renamed = m.lwp.rename(&c("/m/moves"), &c("/m/d/moved")).map(drop);
                answers.push(renamed);
                answers.push(renamed.and_then(|()| sync("/m/d/moved")));
                if answers.iter().all(Result::is_ok) {
                    promised.push(("/m/d/moved".to_owned(), pattern(3, 2000)));
                }
            }
            Operation::Unmount => answers.push(m.unmount()),
        }
        let requests = disk.operations() - before;
        // Another file system does not notice.
        m.write("/tmp/elsewhere", b"goes on").expect("written");
        assert_eq!(m.read("/tmp/elsewhere").expect("read"), b"goes on");
        disk.set_faults(Faults::default());
        if !matches!(operation, Operation::Unmount) {
            // What is there can be read again, and what a sync now promises holds.
            for (path, content) in &promised {
                assert!(&m.read(path).expect("read") == content, "{path}");
            }
            let later = pattern(7, 4000);
            if m.write("/m/later", &later).is_ok() && sync("/m/later").is_ok() {
                promised.push(("/m/later".to_owned(), later));
            }
            m.close(fd);
            let _ = m.unmount();
        }
        let log = m.log();
        assert!(!log.contains("broke down"), "{log}");
        let _ = m.kernel.shutdown(true);
        Outcome {
            requests,
            answers,
            promised,
            disk: disk.content(),
        }
    });
    run.result
        .unwrap_or_else(|failure| panic!("{operation:?}, {fault:?}: {failure:?}"))
}

/// Mends what an operation left and looks whether it has what was promised.
fn check(image: &Image, what: &str, outcome: &Outcome) {
    std::fs::write(&image.path, &outcome.disk).expect("written");
    repair(&image.path);
    let disk = std::fs::read(&image.path).expect("read");
    let promised = outcome.promised.clone();
    let run = SimHost::run(SimConfig::new(6), move |host| {
        host.put_file(DISK.as_bytes(), host.new_file(disk));
        let m = Machine::on(host.clone());
        m.mount(Path::new(DISK), "").expect("mounts");
        for (path, content) in &promised {
            assert!(&m.read(path).expect("read") == content, "{path}");
        }
        m.unmount().expect("unmounts");
    });
    if let Err(failure) = run.result {
        panic!("{what}: {failure:?}");
    }
}

fn fail_everywhere(args: &str, size: &str) {
    let image = Image::small(args, size);
    let fresh = std::fs::read(&image.path).expect("read");
    let mut tried = 0;
    for operation in [
        Operation::Create,
        Operation::Write,
        Operation::Fsync,
        Operation::Rename,
        Operation::Unmount,
    ] {
        let good = act(fresh.clone(), operation, None);
        assert!(good.answers.iter().all(Result::is_ok), "{:?}", good.answers);
        check(&image, &format!("{operation:?}"), &good);
        let mut told = 0;
        for n in 0..good.requests {
            for fault in [
                Fault::Once(n, Errno::EIO),
                Fault::From(n, Errno::EIO),
                Fault::Once(n, Errno::ENOSPC),
                Fault::From(n, Errno::ENOSPC),
            ] {
                let (Fault::Once(_, errno) | Fault::From(_, errno)) = fault;
                let what = format!("{args}: {operation:?}, {fault:?} of {}", good.requests);
                let outcome = act(fresh.clone(), operation, Some(fault));
                // A host that is full leaves no way to make changes durable; from then on there are none, and EIO says so.
                let right = [Ok(()), Err(errno), Err(Errno::EIO), Err(Errno::EROFS)];
                for answer in &outcome.answers {
                    assert!(right.contains(answer), "{what}: {:?}", outcome.answers);
                }
                told += u32::from(outcome.answers.iter().any(Result::is_err));
                check(&image, &what, &outcome);
                tried += 1;
            }
        }
        assert!(told > 0, "{operation:?}: nobody was told of anything");
    }
    println!("{args}: {tried} faults");
}

#[test]
fn ext2_tells_of_every_failing_request_and_goes_on() {
    fail_everywhere("-t ext2 -b 1024 -N 32", "1M");
}

#[test]
fn ext4_tells_of_every_failing_request_and_goes_on() {
    fail_everywhere("-t ext4 -b 1024 -N 32 -J size=1", "3M");
}

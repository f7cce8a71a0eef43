//! What a kernel is told by its environment: each variable does what it says, and one that makes no sense is refused with its text.

use std::sync::Arc;

use hypercall::sim::SimConfig;
use rumpkit::{Errno, Kernel, Process, Syscalls, kern, sim};

/// Boots a kernel with these parameters on a host of its own, lets `f` look at it, and answers what the console was told.
fn booted<R: Send + 'static>(
    params: &[(&str, &str)],
    f: impl FnOnce(Result<&Arc<Kernel>, Errno>) -> R + Send + 'static,
) -> (R, String) {
    let config = SimConfig::new(1);
    let config = params
        .iter()
        .fold(config, |config, (name, value)| config.param(name, value));
    let run = sim::run_with(config, move |world| {
        let kernel = world
            .kernel()
            .map_err(|e| Errno(e.raw_os_error().unwrap_or(0)));
        f(kernel.as_ref().map_err(|errno| *errno))
    });
    let console = String::from_utf8_lossy(&run.console).into_owned();
    (run.result.expect("it ends"), console)
}

fn refused(name: &str, values: &[&str]) {
    for value in values {
        let (errno, console) = booted(&[(name, value)], |kernel| kernel.err());
        assert_eq!(errno, Some(Errno::EINVAL), "{name}={value}");
        let text = format!("rump: {name}={value}: want");
        assert!(console.contains(&text), "{name}={value}: {console:?}");
    }
}

#[test]
fn rump_ncpu_is_a_number_or_the_hosts() {
    let count = |value: &str| {
        let (count, _) = booted(&[("RUMP_NCPU", value)], |kernel| {
            (
                kernel.unwrap().cpus().count(),
                kernel.unwrap().host().ncpu(),
            )
        });
        count
    };
    assert_eq!(count("1").0, 1);
    assert_eq!(count("7").0, 7);
    let (count, host) = count("host");
    assert_eq!(count, host);
    refused("RUMP_NCPU", &["0", "257", "-1", "two", "", "1 ", "HOST"]);
}

#[test]
fn rump_memlimit_is_a_size() {
    for (value, bytes) in [
        ("65536", 65536),
        ("64k", 64 << 10),
        ("3m", 3 << 20),
        ("1G", 1 << 30),
    ] {
        let (limit, _) = booted(&[("RUMP_MEMLIMIT", value)], |kernel| {
            kernel.unwrap().memory_limit()
        });
        assert_eq!(limit, bytes, "{value}");
    }
    refused(
        "RUMP_MEMLIMIT",
        &["0", "", "m", "-1", "1t", "64mb", "99999999999g", "much"],
    );
}

#[test]
fn rump_threads_0_has_the_kernel_do_without_and_what_needs_one_say_so() {
    let ((made, messages, text), _) = booted(&[("RUMP_THREADS", "0")], |kernel| {
        let kernel = kernel.unwrap();
        let made = kernel.implicit(&kern::KernelMemory, |cx| {
            kernel.kthread_create(cx, "wanted", |_| ())
        });
        // What threads would do is done by calls.
        let process = Process::new(kernel).unwrap();
        process.write("/tmp/f", "written").unwrap();
        process.sys().sync().unwrap();
        (
            made,
            String::from_utf8_lossy(&kernel.messages()).into_owned(),
            process.read("/tmp/f").unwrap(),
        )
    });
    assert_eq!(made, Err(Errno::EOPNOTSUPP));
    assert!(messages.contains("wanted: RUMP_THREADS=0"), "{messages}");
    assert_eq!(text, b"written");
    let (made, _) = booted(&[("RUMP_THREADS", "1")], |kernel| {
        let kernel = kernel.unwrap();
        kernel.implicit(&kern::KernelMemory, |cx| {
            kernel.kthread_create(cx, "wanted", |_| ())
        })
    });
    assert_eq!(made, Ok(()));
}

#[test]
fn rump_verbose_shows_the_boot() {
    let boot = |value: &str| booted(&[("RUMP_VERBOSE", value)], |kernel| assert!(kernel.is_ok())).1;
    assert!(boot("1").contains("rump virtual cpu"));
    assert!(!boot("0").contains("rump virtual cpu"));
}

#[test]
fn rump_nvnodes_is_a_number() {
    let (kept, _) = booted(&[("RUMP_NVNODES", "64")], |kernel| {
        let process = Process::new(kernel.unwrap()).unwrap();
        for i in 0..200 {
            process.write(format!("/tmp/{i}"), "x").unwrap();
        }
        (0..200).all(|i| process.read(format!("/tmp/{i}")).unwrap() == b"x")
    });
    assert!(kept, "fewer in memory, and none is lost");
    refused("RUMP_NVNODES", &["0", "", "-1", "many", "4k"]);
}

#[test]
fn rump_blkfail_is_so_many_of_ten_thousand() {
    let (_, console) = booted(
        &[("RUMP_BLKFAIL", "5"), ("RUMP_BLKFAIL_SEED", "77")],
        |kernel| assert!(kernel.is_ok()),
    );
    assert!(
        console.contains("5 of 10000 block transfers fail, RUMP_BLKFAIL_SEED=77"),
        "{console}"
    );
    refused("RUMP_BLKFAIL", &["10001", "", "-1", "all", "1%"]);
    refused("RUMP_BLKFAIL_SEED", &["", "-1", "x"]);
}

#[test]
fn rump_blksectshift_is_a_power_of_two() {
    let (_, console) = booted(&[("RUMP_BLKSECTSHIFT", "12")], |kernel| {
        assert!(kernel.is_ok())
    });
    assert!(!console.contains("want"), "{console}");
    refused("RUMP_BLKSECTSHIFT", &["8", "13", "", "x"]);
}

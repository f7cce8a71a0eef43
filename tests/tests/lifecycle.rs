//! A kernel is a value: booted and dropped as often as one likes.

use rumpkit::{Kernel, MountSpec, PosixHost, Process};
use support::Image;

/// Resident KiB, threads and descriptors of this process.
fn size() -> (u64, u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    (field("VmRSS:"), field("Threads:"), descriptors)
}

fn live(image: &Image, round: u32) {
    let kernel = rumpkit::builder().boot().unwrap();
    let process = Process::new(&kernel).unwrap();
    process.mount(&MountSpec::tmpfs("/t").unwrap()).unwrap();
    process.write("/t/f", vec![1; 100_000]).unwrap();
    if round.is_multiple_of(10) {
        process.mount(&image.at("/m").parse().unwrap()).unwrap();
        process.write("/m/f", format!("round {round}")).unwrap();
    }
    drop(process);
    kernel.shutdown(true).unwrap();
}

#[test]
fn a_thousand_kernels_in_one_process_leave_nothing() {
    let image = Image::ext4(16);
    (0..100).for_each(|round| live(&image, round));
    let (memory, threads, descriptors) = size();
    (100..1000).for_each(|round| live(&image, round));
    let after = size();
    assert!(
        after.0 < memory + 4096,
        "resident KiB: {memory}, after 900 more {}",
        after.0
    );
    assert!(after.1 <= threads, "threads: {threads}, then {}", after.1);
    assert!(
        after.2 <= descriptors,
        "descriptors: {descriptors}, then {}",
        after.2
    );
    image.is_clean();
}

#[test]
fn kernels_side_by_side_do_not_see_each_other() {
    let kernels: Vec<_> = (0..20)
        .map(|_| rumpkit::builder().boot().unwrap())
        .collect();
    let processes: Vec<_> = kernels.iter().map(|k| Process::new(k).unwrap()).collect();
    for (i, process) in processes.iter().enumerate() {
        process.write("/tmp/f", format!("{i}")).unwrap();
    }
    for (i, process) in processes.iter().enumerate() {
        assert_eq!(process.read("/tmp/f").unwrap(), format!("{i}").into_bytes());
    }
}

#[test]
fn a_kernel_without_a_faction_answers_for_it() {
    use rumpkit::Syscalls;
    let kernel = Kernel::builder(PosixHost::new()).boot().unwrap();
    let process = Process::new(&kernel).unwrap();
    assert!(process.sys().getpid().unwrap() > 1);
    let open = process.open("/etc").err().and_then(|e| e.raw_os_error());
    assert!(
        matches!(open, Some(38 | 95)),
        "ENOSYS or EOPNOTSUPP, not {open:?}"
    );
}

#[test]
fn a_halted_kernel_refuses_calls_and_halts_once() {
    let kernel = rumpkit::builder().boot().unwrap();
    let process = Process::new(&kernel).unwrap();
    kernel.shutdown(true).unwrap();
    kernel.shutdown(true).unwrap();
    assert!(process.write("/tmp/f", "x").is_err());
}

//! Whole kernels on both hosts: processes that work on the same files; on the simulated host every switch is drawn from a seed.

use std::ffi::CString;
use std::sync::Arc;

use abi::Syscalls;
use hypercall::sim::SimConfig;
use rumpkit::sim::{self, World};
use testing::{Setup, Testbed};

const O_CREAT: i32 = 0o100;
const O_RDWR: i32 = 2;
const O_APPEND: i32 = 0o2000;

/// A kernel with every component.
fn whole() -> Setup {
    Setup::new().components(rumpkit::COMPONENTS)
}

fn path(text: String) -> CString {
    CString::new(text).expect("no NUL")
}

/// What processes do that share a directory: make, link, rename, remove, list. Any answer is right that an order of the
/// operations explains; what is checked is that all come to an end and the names that stay can be opened.
fn play_with_names(bed: &Arc<Testbed>, dir: &'static str) {
    let chance = bed.clone();
    bed.users(3, move |_, p| {
        let name = || path(format!("{dir}/{}", chance.draw(4)));
        for _ in 0..12 {
            match chance.draw(6) {
                0 => {
                    if let Ok(fd) = p.open(&name(), O_CREAT | O_RDWR | O_APPEND, 0o644) {
                        let _ = p.write(fd as i32, b"four", 4);
                        assert_eq!(p.close(fd as i32), Ok(0));
                    }
                }
                1 => drop(p.mkdir(&name(), 0o755)),
                2 => drop(p.rename(&name(), &name())),
                3 => drop(p.link(&name(), &name())),
                4 => drop(p.unlink(&name())),
                _ => drop(p.rmdir(&name())),
            }
        }
    });
    let p = bed.process();
    for n in 0..4 {
        let mut stat = [0; 144];
        if p.stat(&path(format!("{dir}/{n}")), &mut stat).is_ok() {
            let fd = p
                .open(&path(format!("{dir}/{n}")), 0, 0)
                .expect("what is there opens");
            let size = i64::from_le_bytes(stat[48..56].try_into().expect("8 bytes"));
            let is_dir = u32::from_le_bytes(stat[24..28].try_into().expect("4 bytes")) & 0o170000
                == 0o040000;
            assert!(is_dir || size % 4 == 0, "a write was torn: {size} bytes");
            assert_eq!(p.close(fd as i32), Ok(0));
        }
    }
}

#[test]
fn names_in_rumpfs_stay_whole_in_any_order() {
    whole().run(|bed| play_with_names(bed, "/tmp"));
}

#[test]
fn names_in_tmpfs_stay_whole_in_any_order() {
    whole().run(|bed| {
        let p = bed.process();
        p.mkdir(c"/t", 0o755).expect("made");
        p.mount(c"t", c"/t", c"tmpfs", 0, c"").expect("mounted");
        drop(p);
        play_with_names(bed, "/t");
    });
}

#[test]
fn appends_of_many_processes_do_not_overlap() {
    whole().run(|bed| {
        bed.users(3, |i, p| {
            let fd = p
                .open(c"/tmp/log", O_CREAT | O_RDWR | O_APPEND, 0o644)
                .expect("opens") as i32;
            for _ in 0..8 {
                let record = [b'a' + i as u8; 1000];
                assert_eq!(p.write(fd, &record, record.len()), Ok(1000));
            }
        });
        let p = bed.process();
        let fd = p.open(c"/tmp/log", 0, 0).expect("opens") as i32;
        let mut all = vec![0; 30_000];
        let len = all.len();
        assert_eq!(p.read(fd, &mut all, len), Ok(24_000));
        for record in all[..24_000].chunks(1000) {
            assert!(record.iter().all(|b| *b == record[0]));
        }
    });
}

#[test]
fn a_whole_kernel_runs_the_same_twice() {
    for seed in 0..20 {
        // A name cache that is always full drops the same names in both.
        let once = || {
            let config = SimConfig {
                keep_trace: true,
                ..SimConfig::new(seed)
            };
            let setup = whole().param("RUMP_NVNODES", "8");
            setup.sim(config, |bed| play_with_names(bed, "/tmp"))
        };
        let (one, other) = (once(), once());
        assert!(one.result.is_ok() && one.trace.len() > 1000);
        assert_eq!(one.trace, other.trace);
    }
}

#[test]
fn search_finds_the_seed_of_a_race_and_none_without() {
    /// Two programs write to a file; whether they look first whether the other has is the question.
    fn scenario(careful: bool) -> impl Fn(&World) -> std::io::Result<()> + Send + Sync + 'static {
        move |world| {
            let kernel = world.kernel()?;
            for name in ["a", "b"] {
                world.program(&kernel, name, move |p| {
                    if p.metadata("/tmp/taken").is_err() {
                        let exclusive = if careful { 0o200 } else { 0 };
                        if p.open_with("/tmp/taken", O_CREAT | O_RDWR | exclusive, 0o644)
                            .is_ok()
                        {
                            let log = p.open_with("/tmp/log", O_CREAT | O_RDWR | O_APPEND, 0o644);
                            std::io::Write::write_all(&mut log.expect("opened"), b"mine\n")
                                .expect("written");
                        }
                    }
                })?;
            }
            world.join_all();
            let log = rumpkit::Process::new(&kernel)?.read("/tmp/log")?;
            assert_eq!(log, b"mine\n", "two owners");
            Ok(())
        }
    }
    let found = sim::search(0..500, scenario(false)).expect("two that look before either takes");
    assert!(
        sim::run(found.seed, scenario(false)).result.is_err(),
        "a seed shows the same run again"
    );
    assert!(sim::search(0..500, scenario(true)).is_none());
}

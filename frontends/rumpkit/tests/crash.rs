//! Power cuts under a host file that is seen through etfs.

use std::ffi::CString;

use abi::*;
use hypercall::sim::{SimConfig, SimHost};
use rumpkit::{LwpHandle, RforkFds};
use testing::Dice;

fn open(lwp: &LwpHandle, path: &str, flags: i32) -> Result<i32, Errno> {
    let path = CString::new(path).expect("no NUL");
    lwp.open(&path, flags, 0o644).map(|fd| fd as i32)
}

/// Files of a tmpfs and what is saved of them in a host file: with the power cut at every write of it, what was synced is
/// there.
#[test]
fn what_was_synced_to_a_host_file_is_there_whenever_the_power_goes() {
    for (kind, seed) in [(ETFS_REG, 0), (ETFS_BLK, 1), (ETFS_REG, 2), (ETFS_BLK, 3)] {
        let run = SimHost::run(SimConfig::new(seed), move |host| {
            let file = host.new_file(vec![0; 40_000]);
            host.put_file(b"/host", file.clone());
            let kernel = rumpkit::builder_on(host.clone()).boot().expect("boots");
            let lwp = kernel.rfork(RforkFds::Clear).expect("a process");
            lwp.mkdir(c"/t", 0o755).expect("made");
            lwp.mount(c"t", c"/t", c"tmpfs", 0, c"").expect("mounted");
            lwp.etfs_register(c"/dev/saved", c"/host", kind, 0, ETFS_SIZE_ENDOFF)
                .expect("registered");
            file.record();
            let mut dice = Dice::new(seed);
            let mut model = vec![0u8; 40_000];
            // After how many events the file has to have which content, at least where nobody has changed it since.
            let mut synced = vec![(0, model.clone(), vec![false; 40_000])];
            let saved = open(&lwp, "/dev/saved", O_RDWR).expect("open");
            for n in 0..30u8 {
                let len = 1 + dice.below(3000) as usize;
                let at = dice.below(37_000) as usize;
                let path = format!("/t/{}", n % 4);
                let from = open(&lwp, &path, O_CREAT | O_RDWR | O_TRUNC).expect("open");
                let data = vec![n + 1; len];
                assert_eq!(lwp.write(from, &data, len), Ok(len as i64));
                let copied = lwp.pread64(from, &mut vec![0; len], len, 0);
                assert_eq!(copied, Ok(len as i64));
                lwp.close(from).expect("closed");
                assert_eq!(lwp.pwrite64(saved, &data, len, at as i64), Ok(len as i64));
                model[at..at + len].copy_from_slice(&data);
                if let Some((_, _, dirty)) = synced.last_mut() {
                    dirty[at..at + len].fill(true);
                }
                if dice.below(3) == 0 {
                    lwp.fsync(saved).expect("synced");
                    synced.push((file.recorded(), model.clone(), vec![false; 40_000]));
                }
            }
            lwp.close(saved).expect("closed");
            drop(lwp);
            kernel.shutdown(true).expect("halts");
            (file.history(), synced)
        });
        let (history, synced) = run.result.expect("the workload ends");
        let mut dice = Dice::new(seed);
        let mut cuts = 0;
        for cut in history.cuts() {
            cuts += 1;
            let (_, content, dirty) = synced
                .iter()
                .rfind(|(events, ..)| *events <= cut.events)
                .expect("the first one");
            for disk in [cut.in_order(), cut.torn(&mut |bound| dice.below(bound))] {
                for (i, byte) in disk.iter().enumerate() {
                    assert!(
                        dirty[i] || *byte == content[i],
                        "byte {i} after {} events",
                        cut.events
                    );
                }
            }
        }
        assert!(cuts > 10 && synced.len() > 5);
    }
}

//! Threads that share a file, on both hosts: on the simulated one every switch is drawn from a seed.

use testing::{Setup, Testbed};

use super::*;

/// Writes and reads stripes of a file, of which each thread has every fourth, so that all share pages; in between it
/// flushes and evicts what belongs to all. Whatever the order, a thread reads what it wrote.
fn stripes(bed: &Testbed, vp: &Arc<Vnode>, thread: u64) {
    const STRIPE: u64 = 9000;
    let mut model = [0u8; 6];
    for round in 0..16u8 {
        let which = bed.draw(6) as usize;
        let offset = (which as u64 * 4 + thread) * STRIPE;
        bed.kernel()
            .implicit(&KernelMemory, |cx| match bed.draw(6) {
                0 | 1 => {
                    let byte = (round + 1) | ((thread as u8) << 6);
                    if write_at(cx, vp, offset, &[byte; STRIPE as usize]) == Ok(STRIPE as usize) {
                        model[which] = byte;
                    } else {
                        model[which] = read_at(cx, vp, offset, 1).map_or(0, |b| b[0]);
                    }
                }
                2 => {
                    let _ = flush(cx, vp);
                    evict(cx, vp, 0, u64::MAX);
                }
                3 => evict(cx, vp, 0, u64::MAX),
                4 => readahead(cx, vp, offset, STRIPE * 3),
                _ => {
                    let got = read_at(cx, vp, offset, STRIPE as usize).expect("read");
                    let want = model[which];
                    assert!(got.iter().all(|b| *b == want), "stripe {which} of {thread}");
                }
            });
    }
}

#[test]
fn nothing_is_lost_whatever_the_order() {
    // Ten pages for what has more than fifty.
    let setup = Setup::new().component(&VFS).param("RUMP_MEMLIMIT", "40k");
    setup.run(|bed| {
        let (mount, vp, disk) = bed.kernel().implicit(&KernelMemory, |cx| {
            let mount = fake_mount(cx);
            let (vp, disk) = file(&Arc::downgrade(&mount), false);
            truncate(cx, &vp, 24 * 9000).expect("a size");
            (mount, vp, disk)
        });
        let (on, shared) = (bed.clone(), vp.clone());
        bed.users(4, move |thread, _| stripes(&on, &shared, thread as u64));
        bed.kernel().implicit(&KernelMemory, |cx| {
            flush(cx, &vp).expect("flushed");
            let now = read_at(cx, &vp, 0, 24 * 9000).expect("read");
            assert!(
                disk.stored(24 * 9000) == now,
                "what is stored is what is read"
            );
            assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
            drop_mount(cx, &mount);
            assert_eq!(memory::cache(cx).expect("a cache").memory(), 0);
        });
    });
}

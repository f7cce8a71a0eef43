//! Write-back, read-ahead and discarding, one situation a test.

use super::*;

#[test]
fn an_error_of_write_back_is_told_once_and_nothing_is_lost() {
    kernel(None).implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        let (a, b) = (error_mark(&vp), error_mark(&vp));
        write_at(cx, &vp, 0, b"precious").expect("written");
        disk.failing_writes.store(1, Ordering::SeqCst);
        assert_eq!(flush_mount(cx, &mount), Err(Errno::EIO));
        assert_eq!(fsync(cx, &vp, false, &a), Err(Errno::EIO));
        assert_eq!(fsync(cx, &vp, false, &a), Ok(()));
        assert_eq!(fsync(cx, &vp, false, &b), Err(Errno::EIO));
        assert_eq!(disk.stored(8), b"precious");
        drop_mount(cx, &mount);
        assert_eq!(Arc::strong_count(&vp), 1);
    });
}

#[test]
fn dirty_pages_are_written_in_large_runs() {
    kernel(None).implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        for page in (0..512u64).rev() {
            write_at(cx, &vp, page * 4096, &[7; 4096]).expect("written");
        }
        flush_mount(cx, &mount).expect("synced");
        assert_eq!(disk.writes.load(Ordering::SeqCst), 2);
        assert_eq!(disk.reads.load(Ordering::SeqCst), 0);
        assert_eq!(disk.attr_writes.load(Ordering::SeqCst), 1);
        discard(cx, &vp);
        assert!(read_at(cx, &vp, 0, 2 << 20).expect("read") == [7; 2 << 20]);
        assert!(disk.reads.load(Ordering::SeqCst) <= 6);
    });
}

#[test]
fn a_discarded_file_is_never_written() {
    let kernel = kernel(None);
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[1; 10_000]).expect("written");
        discard(cx, &vp);
        flush_mount(cx, &mount).expect("nothing to sync");
        assert_eq!(disk.writes.load(Ordering::SeqCst), 0);
        assert_eq!(Arc::strong_count(&vp), 1);
    });
}

#[test]
fn concurrent_writers_and_readers_see_whole_writes() {
    let kernel = kernel(Some(64 * 4096));
    let shared: OnceLock<(Arc<Mount>, Arc<Vnode>)> = OnceLock::new();
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, _) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[0; 6000]).expect("written");
        let _ = shared.set((mount, vp));
    });
    let (_, vp) = shared.get().expect("a file");
    std::thread::scope(|scope| {
        for writer in 0..2u8 {
            let kernel = &kernel;
            scope.spawn(move || {
                for round in 0..300u32 {
                    kernel.implicit(&KernelMemory, |cx| {
                        let fill = (round as u8).wrapping_mul(2).wrapping_add(writer);
                        write_at(cx, vp, 0, &[fill; 6000]).expect("written");
                        if round % 7 == 0 {
                            flush(cx, vp).expect("flushed");
                        }
                        let mut uio = Uio::drain(&[9; 100], 0);
                        write(cx, vp, &mut uio, true).expect("appended");
                    });
                }
            });
        }
        for _ in 0..2 {
            let kernel = &kernel;
            scope.spawn(move || {
                for _ in 0..600 {
                    kernel.implicit(&KernelMemory, |cx| {
                        let got = read_at(cx, vp, 0, 6000).expect("read");
                        assert!(got.iter().all(|b| *b == got[0]), "a torn write");
                    });
                }
            });
        }
    });
    kernel.implicit(&KernelMemory, |cx| {
        assert_eq!(vp.attr(cx).size, 6000 + 2 * 300 * 100);
        let tail = read_at(cx, vp, 6000, 2 * 300 * 100).expect("read");
        assert!(tail.iter().all(|b| *b == 9), "an append was overwritten");
    });
}

#[test]
fn a_file_is_usable_while_it_is_written_back() {
    let kernel = kernel(None);
    let (mount, vp, disk) = kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[1; 8192]).expect("written");
        (mount, vp, disk)
    });
    disk.gate.set_closed(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| flush(cx, &vp)));
        disk.gate.wait_for_somebody();
        kernel.implicit(&KernelMemory, |cx| {
            write_at(cx, &vp, 4096, &[2; 4096]).expect("written");
            assert_eq!(read_at(cx, &vp, 4095, 2), Ok(vec![1, 2]));
        });
        let cutter = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| truncate(cx, &vp, 6000)));
        disk.gate.set_closed(false);
        assert_eq!(writer.join().expect("ended"), Ok(()));
        assert_eq!(cutter.join().expect("ended"), Ok(()));
    });
    kernel.implicit(&KernelMemory, |cx| {
        flush(cx, &vp).expect("flushed");
        let mut want = [[1; 4096], [2; 4096]].concat();
        want.truncate(6000);
        assert!(read_at(cx, &vp, 0, 8192).expect("read") == want);
        assert!(disk.stored(6000) == want);
        assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
        drop_mount(cx, &mount);
    });
}

#[test]
fn an_unlinked_file_is_discarded_although_it_is_being_written_back() {
    let kernel = kernel(None);
    let (mount, vp, disk) = kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        write_at(cx, &vp, 0, &[1; 8192]).expect("written");
        (mount, vp, disk)
    });
    disk.gate.set_closed(true);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| flush(cx, &vp)));
        disk.gate.wait_for_somebody();
        let discarder = scope.spawn(|| kernel.implicit(&KernelMemory, |cx| discard(cx, &vp)));
        disk.gate.set_closed(false);
        assert_eq!(writer.join().expect("ended"), Ok(()));
        discarder.join().expect("ended");
    });
    kernel.implicit(&KernelMemory, |cx| {
        let cache = memory::cache(cx).expect("a cache");
        assert_eq!((cache.memory(), cache.dirty()), (0, 0));
        assert_eq!(Arc::strong_count(&vp), 1, "the cache has forgotten it");
        drop(mount);
    });
}

#[test]
fn a_reader_in_order_finds_the_next_pages_there() {
    let kernel = kernel(None);
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), false);
        *disk.bytes.lock().unwrap() = vec![5; 8 << 20];
        vp.update(cx, |attr| attr.size = 8 << 20);
        for at in 0..2048 {
            assert_eq!(read_at(cx, &vp, at * 4096, 4096), Ok(vec![5; 4096]));
        }
        let reads = disk.reads.load(Ordering::SeqCst);
        assert!(reads <= 32, "{reads} reads of a disk for 2048 of a program");
        drop_mount(cx, &mount);
    });
}

#[test]
fn no_mapping_reaches_behind_the_largest_offset() {
    kernel(None).implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, _) = file(&Arc::downgrade(&mount), false);
        for (offset, len) in [(0, u64::MAX), (4096, u64::MAX), (1 << 63, 4096)] {
            let mapped = map(cx, &vp, offset, len, true).map(drop);
            assert_eq!(mapped, Err(Errno::EOVERFLOW));
        }
        drop_mount(cx, &mount);
        assert_eq!(Arc::strong_count(&vp), 1);
    });
}

//! Random operations on a file, and on a vector.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Read(u64, usize),
    Write(u64, usize, u8),
    Append(usize, u8),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Flush,
    FailWrites(u64),
    FailReads(u64),
    Ahead(u64, u64),
    Evict(u64, u64),
    /// Maps pages from one on.
    Map(u64, u64),
    /// Writes through a mapping, without a call.
    Store(u64, usize, u8),
    /// Ends the oldest mapping.
    Unmap,
}

const MOST: u64 = 200_000;

fn op() -> impl Strategy<Value = Op> {
    let at = || prop_oneof![0..MOST, (0..48u64).prop_map(|page| page * 4096)];
    let len = || prop_oneof![1..9000usize, Just(4096usize), 1..60_000usize];
    prop_oneof![
        4 => (at(), len()).prop_map(|(at, len)| Op::Read(at, len)),
        4 => (at(), len(), 1..=255u8).prop_map(|(at, len, fill)| Op::Write(at, len, fill)),
        2 => (len(), 1..=255u8).prop_map(|(len, fill)| Op::Append(len, fill)),
        2 => at().prop_map(Op::Truncate),
        2 => (at(), len()).prop_map(|(at, len)| Op::Punch(at, len as u64)),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, keep)| Op::Zero(at, len as u64, keep)),
        1 => Just(Op::Flush),
        1 => (1..4u64).prop_map(Op::FailWrites),
        1 => (1..4u64).prop_map(Op::FailReads),
        1 => (at(), len()).prop_map(|(at, len)| Op::Ahead(at, len as u64)),
        1 => (at(), len()).prop_map(|(at, len)| Op::Evict(at, len as u64)),
        1 => (0..48u64, 1..20u64).prop_map(|(page, pages)| Op::Map(page, pages)),
        3 => (at(), len(), 1..=255u8).prop_map(|(at, len, fill)| Op::Store(at, len, fill)),
        1 => Just(Op::Unmap),
    ]
}

fn model_write(model: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if model.len() < end {
        model.resize(end, 0);
    }
    model[at..end].copy_from_slice(data);
}

/// Carries out operations on a file and on a vector. An operation may fail while the disk does, and then only what it
/// says was written counts; no content may be lost.
fn against_model(resident: bool, memlimit: Option<u64>, ops: Vec<Op>) {
    let kernel = kernel(memlimit);
    kernel.implicit(&KernelMemory, |cx| {
        let mount = fake_mount(cx);
        let (vp, disk) = file(&Arc::downgrade(&mount), resident);
        let mut model: Vec<u8> = Vec::new();
        let mut mapped = Vec::new();
        for op in ops {
            match op {
                Op::Read(at, len) => {
                    let from = (at as usize).min(model.len());
                    let to = (at as usize + len).min(model.len());
                    if let Ok(got) = read_at(cx, &vp, at, len) {
                        assert!(got == model[from..to], "read {at} {len}");
                    }
                }
                Op::Write(at, len, fill) => {
                    let data: Vec<u8> = (0..len).map(|i| fill ^ i as u8).collect();
                    if let Ok(done) = write_at(cx, &vp, at, &data) {
                        model_write(&mut model, at as usize, &data[..done]);
                    }
                }
                Op::Append(len, fill) => {
                    let data = vec![fill; len];
                    let mut uio = Uio::drain(&data, 0);
                    let _ = write(cx, &vp, &mut uio, true);
                    let done = len - uio.resid();
                    let end = model.len();
                    model_write(&mut model, end, &data[..done]);
                }
                Op::Truncate(size) => {
                    truncate(cx, &vp, size).expect("cut");
                    model.resize(size as usize, 0);
                }
                Op::Punch(at, len) => {
                    punch(cx, &vp, at, len).expect("a hole");
                    let to = ((at + len) as usize).min(model.len());
                    let from = (at as usize).min(to);
                    model[from..to].fill(0);
                }
                Op::Zero(at, len, keep) => {
                    let full = zero(cx, &vp, at, len, keep);
                    if full.is_err() {
                        // How far it came is not told: what was zeroed is, the rest is as before.
                        let size = vp.attr(cx).size as usize;
                        if model.len() < size {
                            model.resize(size, 0);
                        }
                        disk.failing_reads.store(0, Ordering::SeqCst);
                        disk.failing_writes.store(0, Ordering::SeqCst);
                        let Ok(now) = read_at(cx, &vp, 0, size) else {
                            continue;
                        };
                        for (i, byte) in now.iter().enumerate() {
                            let inside = i as u64 >= at && (i as u64) < at + len;
                            assert!(*byte == model[i] || (inside && *byte == 0));
                        }
                        model = now;
                        continue;
                    }
                    let mut end = (at + len) as usize;
                    if keep {
                        end = end.min(model.len());
                    }
                    if at as usize <= end && (at as usize) < end {
                        model_write(&mut model, at as usize, &vec![0; end - at as usize]);
                    }
                }
                Op::Flush => {
                    if flush(cx, &vp).is_ok() && !resident {
                        assert!(
                            disk.stored(model.len()) == model,
                            "what is stored after a flush"
                        );
                        assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
                    }
                }
                Op::FailWrites(n) => disk.failing_writes.store(n, Ordering::SeqCst),
                Op::FailReads(n) => disk.failing_reads.store(n, Ordering::SeqCst),
                Op::Evict(at, len) => evict(cx, &vp, at, len),
                Op::Ahead(at, len) => readahead(cx, &vp, at, len),
                Op::Map(page, pages) => {
                    let range = page * 4096..(page + pages) * 4096;
                    let len = range.end - range.start;
                    if let Ok(memory) = map(cx, &vp, range.start, len, true) {
                        mapped.push((memory, range));
                    }
                }
                Op::Store(at, len, fill) => {
                    let has = |(_, range): &&(_, std::ops::Range<u64>)| range.contains(&at);
                    if let Some((memory, range)) = mapped.iter().find(has) {
                        let end = range.end.min(model.len() as u64).min(at + len as u64);
                        let data = vec![fill; end.saturating_sub(at) as usize];
                        memory.write_at(&data, at).expect("stored");
                        if !data.is_empty() {
                            model_write(&mut model, at as usize, &data);
                        }
                    }
                }
                Op::Unmap => {
                    if !mapped.is_empty() {
                        drop(mapped.remove(0));
                        unmap(cx, &vp);
                    }
                }
            }
            assert_eq!(vp.attr(cx).size, model.len() as u64);
            let cache = memory::cache(cx).expect("a cache");
            let windowed = vp.pages.io.read(cx.cpu()).window.is_some();
            // What a program stores in holes nobody refuses.
            if let Some(limit) = memlimit.filter(|_| !windowed) {
                assert!(cache.memory() <= limit, "over the limit");
            }
        }
        disk.failing_reads.store(0, Ordering::SeqCst);
        disk.failing_writes.store(0, Ordering::SeqCst);
        for _ in mapped {
            unmap(cx, &vp);
        }
        assert!(read_at(cx, &vp, 0, model.len()).expect("readable") == model);
        if flush(cx, &vp).is_ok() && !resident {
            assert!(vp.pages.io.read(cx.cpu()).window.is_none());
            assert!(disk.stored(model.len()) == model);
        }
        let cache = memory::cache(cx).expect("a cache").clone();
        drop_mount(cx, &mount);
        let pages = {
            let data = vp.pages.io.read(cx.cpu());
            data.pages() + data.window.as_ref().map_or(0, |window| window.known())
        };
        assert_eq!(cache.memory(), pages * 4096);
        discard(cx, &vp);
        assert_eq!((cache.memory(), cache.dirty()), (0, 0));
        assert_eq!(disk.reserved.load(Ordering::SeqCst), 0);
        drop(vp);
        drop(mount);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_behaves_as_a_vector(ops in proptest::collection::vec(op(), 1..60)) {
        against_model(false, None, ops);
    }

    #[test]
    fn a_file_behaves_as_a_vector_when_memory_is_short(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        against_model(false, Some(8 * 4096), ops);
    }

    #[test]
    fn a_resident_file_behaves_as_a_vector(ops in proptest::collection::vec(op(), 1..60)) {
        against_model(true, None, ops);
    }

    #[test]
    fn a_resident_file_is_refused_more_than_the_limit(
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        against_model(true, Some(8 * 4096), ops);
    }
}

//! Asynchronous block I/O: io_uring where the host has it, a few threads where not.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use super::pool::Pool;
use super::uring::Ring;
use crate::{BackingFile, BlockRequest};

/// What carries out the requests of one host. Either way is made with the first request.
#[derive(Default)]
pub(super) struct Engine {
    /// `None` once the host has refused a ring.
    ring: OnceLock<Option<Ring>>,
    pool: Arc<Pool>,
}

impl Engine {
    /// One that tries io_uring first.
    pub(super) fn new() -> Arc<Engine> {
        Arc::default()
    }

    /// One that never tries io_uring (`RUMP_IO_URING=0`).
    pub(super) fn without_ring() -> Arc<Engine> {
        Arc::new(Engine {
            ring: OnceLock::from(None),
            pool: Arc::default(),
        })
    }

    /// Starts requests on a file; `backing` makes it a file that a thread can use by itself.
    pub(super) fn submit(
        &self,
        file: &Arc<File>,
        batch: Vec<BlockRequest>,
        backing: impl FnOnce() -> Arc<dyn BackingFile>,
    ) {
        match self.ring.get_or_init(|| Ring::new().ok()) {
            Some(ring) => ring.submit(file, batch),
            None => self.pool.submit(backing(), batch),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::file::PosixFile;
    use super::*;
    use crate::BlockOp;
    use abi::Errno;
    use std::sync::mpsc;

    type Answer = (BlockOp, Result<(), Errno>);

    fn request(tx: &mpsc::Sender<Answer>, op: BlockOp, offset: u64) -> BlockRequest {
        let tx = tx.clone();
        BlockRequest {
            op,
            offset,
            done: Box::new(move |op, result| {
                tx.send((op, result)).expect("somebody listens");
            }),
        }
    }

    pub(in super::super) fn every_request_completes(engine: Arc<Engine>) {
        let file = PosixFile::memfd("m", 0, engine).expect("memory");
        let (tx, rx) = mpsc::channel();
        let writes =
            (0..1000u64).map(|i| request(&tx, BlockOp::Write(vec![i as u8; 512].into()), i * 512));
        file.submit(writes.collect());
        for _ in 0..1000 {
            rx.recv().expect("a completion").1.expect("written");
        }
        file.submit(vec![
            request(&tx, BlockOp::Sync, 0),
            request(&tx, BlockOp::Read(vec![9; 1024].into()), 999 * 512),
            request(&tx, BlockOp::Read(Box::default()), 0),
        ]);
        for _ in 0..3 {
            let (op, result) = rx.recv().expect("a completion");
            result.expect("done");
            if let BlockOp::Read(buf) = op
                && !buf.is_empty()
            {
                let (there, beyond) = buf.split_at(512);
                assert!(there.iter().all(|&b| b == 999u64 as u8));
                assert!(beyond.iter().all(|&b| b == 0), "past the end is zero");
            }
        }
    }

    #[test]
    fn every_request_completes_with_its_buffer() {
        every_request_completes(Engine::new());
    }

    #[test]
    fn requests_outlive_the_thread_that_made_them_and_their_file() {
        let (tx, rx) = mpsc::channel();
        std::thread::spawn(move || {
            let file = PosixFile::memfd("m", 1 << 20, Engine::new()).expect("memory");
            let batch = (0..500).map(|_| request(&tx, BlockOp::Read(vec![9; 4096].into()), 0));
            file.submit(batch.collect());
        })
        .join()
        .expect("ends");
        assert_eq!(rx.iter().filter(|(_, r)| r.is_ok()).count(), 500);
    }

    #[test]
    fn a_refused_request_says_why() {
        let (tx, rx) = mpsc::channel();
        for engine in [Engine::new(), Engine::without_ring()] {
            let mode = crate::OpenMode::default();
            let file = PosixFile::open(b"/proc/self/status", mode, engine).expect("opens");
            file.submit(vec![request(&tx, BlockOp::Write(vec![0; 8].into()), 0)]);
            assert!(rx.recv().expect("a completion").1.is_err());
        }
    }
}

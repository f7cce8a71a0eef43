//! A host whose backing files can be watched and can fail.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use abi::Errno;
use hypercall::{
    BackingFile, BlockOp, BlockRequest, Clock, DirEntry, FileInfo, Host, JoinHandle, Nanos,
    OpenMode, PosixHost, Signal, ThreadBody, WakeReason,
};

/// What happens to a file.
#[derive(Clone, Debug)]
pub enum Event {
    Write(u64, Vec<u8>),
    Sync,
}

/// What has happened to the files of a host, and what is to go wrong.
#[derive(Default)]
pub struct Script {
    pub record: bool,
    pub events: Vec<Event>,
    pub fail_reads: bool,
    pub fail_writes: bool,
}

pub struct ScriptedHost {
    host: Arc<PosixHost>,
    pub script: Arc<Mutex<Script>>,
}

impl ScriptedHost {
    pub fn new() -> Arc<ScriptedHost> {
        Arc::new(ScriptedHost {
            host: PosixHost::new(),
            script: Arc::default(),
        })
    }
}

struct ScriptedFile {
    file: Arc<dyn BackingFile>,
    script: Arc<Mutex<Script>>,
}

impl BackingFile for ScriptedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        if self.script.lock().unwrap().fail_reads {
            return Err(Errno::EIO);
        }
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno> {
        let mut script = self.script.lock().unwrap();
        if script.fail_writes {
            return Err(Errno::EIO);
        }
        if script.record {
            script.events.push(Event::Write(offset, buf.to_vec()));
        }
        self.file.write_at(buf, offset)
    }

    fn sync(&self) -> Result<(), Errno> {
        let mut script = self.script.lock().unwrap();
        if script.fail_writes {
            return Err(Errno::EIO);
        }
        if script.record {
            script.events.push(Event::Sync);
            return Ok(());
        }
        self.file.sync()
    }

    fn size(&self) -> Result<u64, Errno> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        self.file.set_size(size)
    }

    fn submit(&self, batch: Vec<BlockRequest>) {
        for BlockRequest {
            mut op,
            offset,
            done,
        } in batch
        {
            let result = match &mut op {
                BlockOp::Read(buf) => self.read_at(buf, offset).map(drop),
                BlockOp::Write(buf) => self.write_at(buf, offset),
                BlockOp::Sync => self.sync(),
            };
            done(op, result);
        }
    }
}

impl Host for ScriptedHost {
    fn spawn(&self, name: &str, body: ThreadBody) -> Result<Box<dyn JoinHandle>, Errno> {
        self.host.spawn(name, body)
    }
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        self.host.park(word, expected, deadline)
    }
    fn unpark(&self, word: &AtomicU32, count: u32) {
        self.host.unpark(word, count);
    }
    fn relax(&self) {
        self.host.relax();
    }
    fn now(&self, clock: Clock) -> Nanos {
        self.host.now(clock)
    }
    fn thread_hint(&self) -> usize {
        self.host.thread_hint()
    }
    fn random(&self, buf: &mut [u8]) {
        self.host.random(buf);
    }
    fn param(&self, name: &str) -> Option<String> {
        self.host.param(name)
    }
    fn ncpu(&self) -> usize {
        self.host.ncpu()
    }
    fn hostname(&self) -> String {
        self.host.hostname()
    }
    fn console_write(&self, bytes: &[u8]) {
        self.host.console_write(bytes);
    }
    fn console_read(&self, buf: &mut [u8]) -> Result<usize, Errno> {
        self.host.console_read(buf)
    }
    fn file_info(&self, path: &[u8]) -> Result<FileInfo, Errno> {
        self.host.file_info(path)
    }
    fn open(&self, path: &[u8], mode: OpenMode) -> Result<Arc<dyn BackingFile>, Errno> {
        let file = self.host.open(path, mode)?;
        Ok(Arc::new(ScriptedFile {
            file,
            script: self.script.clone(),
        }))
    }
    fn read_dir(&self, path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
        self.host.read_dir(path)
    }
    fn shared_memory(&self, name: &str, size: u64) -> Result<Arc<dyn BackingFile>, Errno> {
        self.host.shared_memory(name, size)
    }
    fn raise(&self, signal: Signal) {
        self.host.raise(signal);
    }
    fn exit(&self, status: i32) -> ! {
        self.host.exit(status)
    }
    fn abort(&self) -> ! {
        self.host.abort()
    }
}

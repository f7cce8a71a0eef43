//! Commit and checkpoint: how the running transaction gets into the log, and what is in the log home.

use abi::Errno;
use hypercall::Nanos;
use vfs::BlockDev;

use super::Store;
use crate::journal::Journal;
use crate::superblock;

/// Bytes that the running transaction may have without a journal.
const RUNNING_BYTES: usize = 16 << 20;
/// Bytes that go to the device at once.
const CHUNK: usize = 1 << 20;

impl Store {
    /// Whether the running transaction is so large that it should be committed.
    pub(crate) fn is_full(&self) -> bool {
        let limit = match &self.journal {
            Some(journal) => journal.capacity() / 4,
            None => RUNNING_BYTES / self.block_size(),
        };
        self.running.len() + self.revoked.len() >= limit
    }

    /// Makes everything written so far durable: data, and the running transaction as a whole.
    pub(crate) fn commit(&mut self, now: Nanos) -> Result<(), Errno> {
        self.seal()?;
        if !self.writable || (self.running.is_empty() && self.revoked.is_empty()) {
            return self.dev.sync();
        }
        let Some(mut journal) = self.journal.take() else {
            return self.write_running();
        };
        let result = self.commit_to(&mut journal, now);
        self.journal = Some(journal);
        result
    }

    fn commit_to(&mut self, journal: &mut Journal, now: Nanos) -> Result<(), Errno> {
        let needed = journal.needed(self.running.len(), self.revoked.len());
        if !journal.has_room(needed) {
            self.checkpoint(journal)?;
        }
        if !journal.has_room(needed) {
            // An operation larger than the log: its blocks go home one after the other.
            return self.write_running();
        }
        let images: Vec<(u64, &[u8])> = self
            .running
            .iter()
            .filter_map(|block| Some((*block, &*self.blocks.get(block)?.data)))
            .collect();
        let revoked: Vec<u64> = self.revoked.iter().copied().collect();
        journal.commit(&self.dev, &images, &revoked, now)?;
        self.revoked.clear();
        for block in std::mem::take(&mut self.running) {
            if let Some(buf) = self.blocks.get_mut(&block) {
                (buf.frozen, buf.before) = (None, None);
            }
            self.logged.insert(block);
        }
        Ok(())
    }

    /// Writes home what is in the log, and empties it.
    fn checkpoint(&mut self, journal: &mut Journal) -> Result<(), Errno> {
        let mut homes: Vec<u64> = self.logged.iter().copied().collect();
        homes.sort_unstable();
        let size = self.block_size();
        let mut run = Run::new(&self.dev, size);
        for block in homes {
            if let Some(buf) = self.blocks.get(&block) {
                run.put(block, buf.frozen.as_ref().unwrap_or(&buf.data))?;
            }
        }
        run.finish()?;
        self.dev.sync()?;
        for block in self.logged.drain() {
            if let Some(buf) = self.blocks.get_mut(&block) {
                buf.frozen = None;
            }
        }
        journal.empty(&self.dev)
    }

    /// Writes the running transaction home.
    fn write_running(&mut self) -> Result<(), Errno> {
        let size = self.block_size();
        let mut run = Run::new(&self.dev, size);
        for block in &self.running {
            if let Some(buf) = self.blocks.get(block) {
                run.put(*block, &buf.data)?;
            }
        }
        run.finish()?;
        self.dev.sync()?;
        for block in std::mem::take(&mut self.running) {
            if let Some(buf) = self.blocks.get_mut(&block) {
                (buf.frozen, buf.before) = (None, None);
            }
        }
        self.revoked.clear();
        Ok(())
    }

    /// Brings everything home and says in the superblock that nothing has to be replayed.
    pub(crate) fn close(&mut self, now: Nanos) -> Result<(), Errno> {
        self.commit(now)?;
        let Some(mut journal) = self.journal.take() else {
            return Ok(());
        };
        let result = self
            .checkpoint(&mut journal)
            .and_then(|()| self.flag_recovery(false));
        if result.is_err() {
            self.journal = Some(journal);
        }
        result
    }

    /// Brings everything home for a mount that becomes read-only; the journal stays open.
    pub(crate) fn rest(&mut self) -> Result<(), Errno> {
        if let Some(mut journal) = self.journal.take() {
            let result = self
                .checkpoint(&mut journal)
                .and_then(|()| self.flag_recovery(false));
            self.journal = Some(journal);
            return result;
        }
        Ok(())
    }

    /// The mount is written again.
    pub(crate) fn wake(&mut self) -> Result<(), Errno> {
        if self.journal.is_some() {
            return self.flag_recovery(true);
        }
        Ok(())
    }

    /// Says in the superblock on the disk whether the journal has to be replayed.
    pub(crate) fn flag_recovery(&mut self, recover: bool) -> Result<(), Errno> {
        let (block, at) = self.superblock_place();
        let buf = self.get(block)?;
        if let Ok(raw) =
            <&mut [u8; superblock::SIZE]>::try_from(&mut buf.data[at..at + superblock::SIZE])
        {
            superblock::show_journal(raw, recover);
        }
        let image = buf.data.clone();
        self.dev.write_at(&image, block * image.len() as u64)?;
        self.dev.sync()
    }

    /// From now on the superblock says that e2fsck should look.
    pub(crate) fn flag_errors(&mut self) {
        self.errors = true;
        if self.writable {
            let (block, _) = self.superblock_place();
            // A change that changes nothing but the flag; if the block cannot be read there is nothing to mark.
            let _ = self.change(block, |_| {});
        }
    }
}

/// Puts blocks that lie side by side together, to write them at once.
struct Run<'a> {
    dev: &'a BlockDev,
    size: usize,
    first: u64,
    buf: Vec<u8>,
}

impl<'a> Run<'a> {
    fn new(dev: &'a BlockDev, size: usize) -> Run<'a> {
        Run {
            dev,
            size,
            first: 0,
            buf: Vec::new(),
        }
    }

    fn put(&mut self, block: u64, data: &[u8]) -> Result<(), Errno> {
        let next = self.first + (self.buf.len() / self.size) as u64;
        if block != next || self.buf.len() >= CHUNK {
            self.finish()?;
            self.first = block;
        }
        self.buf.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Errno> {
        if !self.buf.is_empty() {
            self.dev
                .write_at(&self.buf, self.first * self.size as u64)?;
            self.buf.clear();
        }
        Ok(())
    }
}

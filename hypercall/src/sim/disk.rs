//! Backing files in memory that lose what was not synced, tear sectors, fail and fill up.

use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use abi::Errno;

use super::{SimHost, lock};
use crate::{BackingFile, BlockOp, BlockRequest, Host, Mapping, Nanos, Region, WakeReason};

/// What a device makes durable as a whole, in bytes.
const SECTOR: usize = 512;
/// How long a request takes, at most, in nanoseconds of virtual time.
const LATENCY: u64 = 200_000;

/// What goes wrong with a file, and when. Operations (reads, writes, syncs) are counted from 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// From this operation on, everything answers this error.
    pub fail_from: Option<(u64, Errno)>,
    /// Only this operation answers this error.
    pub fail_once: Option<(u64, Errno)>,
    /// Writes beyond this size answer `ENOSPC`.
    pub full_at: Option<u64>,
}

/// A file of the simulated host. A write is seen by reads at once and is durable after the next sync;
/// [`after_crash`](SimFile::after_crash) shows what a power cut leaves.
///
/// `state` and `claims` are held for the length of one operation, never over a wait.
pub struct SimFile {
    me: Weak<SimFile>,
    host: Weak<SimHost>,
    state: Mutex<State>,
    mapped: OnceLock<Arc<Region>>,
    claims: Mutex<Vec<Claim>>,
    opens: AtomicU64,
}

/// Part of a file that an open file has for itself, or shares with others who do not write.
struct Claim {
    open: u64,
    range: std::ops::Range<u64>,
    alone: bool,
}

/// A file as one who opened it has it: his claims end with it.
pub(super) struct Opened {
    file: Arc<SimFile>,
    number: u64,
}

impl Opened {
    pub(super) fn new(file: Arc<SimFile>) -> Opened {
        let number = file.opens.fetch_add(1, Ordering::Relaxed);
        Opened { file, number }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        lock(&self.file.claims).retain(|claim| claim.open != self.number);
    }
}

impl BackingFile for Opened {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno> {
        self.file.write_at(buf, offset)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.file.sync()
    }

    fn size(&self) -> Result<u64, Errno> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        self.file.set_size(size)
    }

    fn claim(&self, start: u64, size: Option<u64>, alone: bool) -> Result<(), Errno> {
        let range = start..size.map_or(u64::MAX, |size| start.saturating_add(size));
        let mut claims = lock(&self.file.claims);
        let meets = |claim: &Claim| {
            claim.open != self.number
                && (claim.alone || alone)
                && claim.range.start < range.end
                && range.start < claim.range.end
        };
        if claims.iter().any(meets) {
            return Err(Errno::EBUSY);
        }
        claims.push(Claim {
            open: self.number,
            range,
            alone,
        });
        Ok(())
    }

    fn map(&self) -> Result<Arc<dyn Mapping>, Errno> {
        self.file.map()
    }

    fn submit(&self, batch: Vec<BlockRequest>) {
        self.file.submit(batch);
    }
}

/// A file in memory. From the first time that it is mapped on it has two lives: what is written to the file is not seen there.
struct SimMapping {
    region: Arc<Region>,
    host: Weak<SimHost>,
}

impl Mapping for SimMapping {
    fn region(&self) -> &Region {
        &self.region
    }

    fn wait(&self, offset: usize, expected: u32, deadline: Option<Nanos>) -> WakeReason {
        match (self.host.upgrade(), self.region.word32(offset)) {
            (Some(host), Some(word)) => host.park(word, expected, deadline),
            _ => WakeReason::Woken,
        }
    }

    fn wake(&self, offset: usize, count: u32) {
        if let (Some(host), Some(word)) = (self.host.upgrade(), self.region.word32(offset)) {
            host.unpark(word, count);
        }
    }
}

#[derive(Default)]
struct State {
    /// What reads see.
    content: Vec<u8>,
    /// What is durable.
    durable: Vec<u8>,
    /// Changes since the last sync, in order.
    pending: Vec<Change>,
    faults: Faults,
    operations: u64,
    /// Everything that has happened since it was asked for.
    history: Option<History>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    Size(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => put(content, *offset, data),
            Change::Size(size) => content.resize(*size as usize, 0),
        }
    }

    /// What a power cut leaves of it: all, some of its sectors, or nothing.
    fn tear(&self, content: &mut Vec<u8>, draw: &mut dyn FnMut(u64) -> u64) {
        match self {
            Change::Size(_) => {
                if draw(2) == 0 {
                    self.apply(content);
                }
            }
            Change::Write(offset, data) => match draw(3) {
                0 => self.apply(content),
                1 => {
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        if draw(2) == 0 {
                            put(content, offset + (i * SECTOR) as u64, sector);
                        }
                    }
                }
                _ => {}
            },
        }
    }
}

/// What has happened to a file from some moment on, so that the power can be cut at any point of it afterwards.
#[derive(Clone, Default)]
pub struct History {
    /// What was durable at that moment.
    base: Vec<u8>,
    /// Changes in order; `None` is a sync.
    events: Vec<Option<Change>>,
}

impl History {
    /// How many changes and syncs it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The power cuts before the first event, after it, after the second, and so on.
    pub fn cuts(&self) -> impl Iterator<Item = Cut<'_>> {
        let mut cut = Cut {
            events: 0,
            durable: self.base.clone(),
            pending: Vec::new(),
        };
        let rest = self.events.iter().map(move |event| {
            cut.advance(event.as_ref());
            cut.clone()
        });
        let first = Cut {
            events: 0,
            durable: self.base.clone(),
            pending: Vec::new(),
        };
        std::iter::once(first).chain(rest)
    }
}

/// A file at the moment when the power goes.
#[derive(Clone)]
pub struct Cut<'a> {
    /// How many changes and syncs there have been.
    pub events: usize,
    durable: Vec<u8>,
    pending: Vec<&'a Change>,
}

impl<'a> Cut<'a> {
    fn advance(&mut self, event: Option<&'a Change>) {
        self.events += 1;
        match event {
            Some(change) => self.pending.push(change),
            None => {
                for change in take(&mut self.pending) {
                    change.apply(&mut self.durable);
                }
            }
        }
    }

    /// What is left when the device had written everything: what comes after a process that is killed, and what a device gives
    /// that writes in order.
    pub fn in_order(&self) -> Vec<u8> {
        let mut content = self.durable.clone();
        self.pending
            .iter()
            .for_each(|change| change.apply(&mut content));
        content
    }

    /// What is left when of each write since the last sync, by chance, all, some sectors or nothing was written.
    pub fn torn(&self, draw: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
        let mut content = self.durable.clone();
        self.pending
            .iter()
            .for_each(|change| change.tear(&mut content, draw));
        content
    }
}

impl SimFile {
    pub(super) fn new(host: Weak<SimHost>, content: Vec<u8>) -> Arc<SimFile> {
        Arc::new_cyclic(|me| SimFile {
            me: me.clone(),
            host,
            state: Mutex::new(State {
                durable: content.clone(),
                content,
                ..State::default()
            }),
            mapped: OnceLock::new(),
            claims: Mutex::default(),
            opens: AtomicU64::new(0),
        })
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.state).faults = faults;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// What reads see now.
    pub fn content(&self) -> Vec<u8> {
        lock(&self.state).content.clone()
    }

    /// What a power cut now would leave: what is durable, and of every later write, by chance, all, some of its
    /// sectors, or nothing.
    pub fn after_crash(&self, draw: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
        let state = lock(&self.state);
        let mut content = state.durable.clone();
        state
            .pending
            .iter()
            .for_each(|change| change.tear(&mut content, draw));
        content
    }

    /// Keeps from now on what happens to the file. What was not synced before counts as synced.
    pub fn record(&self) {
        let mut state = lock(&self.state);
        let base = state.content.clone();
        state.durable.clone_from(&base);
        state.pending.clear();
        state.history = Some(History {
            base,
            events: Vec::new(),
        });
    }

    /// What has happened since [`record`](Self::record), up to now.
    pub fn history(&self) -> History {
        lock(&self.state).history.clone().unwrap_or_default()
    }

    /// How many changes and syncs there have been since [`record`](Self::record).
    pub fn recorded(&self) -> usize {
        lock(&self.state).history.as_ref().map_or(0, History::len)
    }

    fn carry_out(&self, op: &mut BlockOp, offset: u64) -> Result<(), Errno> {
        match op {
            BlockOp::Write(data) => self.write_at(data, offset),
            BlockOp::Sync => self.sync(),
            BlockOp::Read(buf) => {
                let n = self.read_at(buf, offset)?;
                buf[n..].fill(0);
                Ok(())
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = offset as usize;
    let end = start + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(data);
}

impl State {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        if let Some(history) = &mut self.history {
            history.events.push(Some(change.clone()));
        }
        self.pending.push(change);
    }

    fn count(&mut self) -> Result<(), Errno> {
        let number = self.operations;
        self.operations += 1;
        match (self.faults.fail_from, self.faults.fail_once) {
            (Some((from, error)), _) if number >= from => Err(error),
            (_, Some((at, error))) if number == at => Err(error),
            _ => Ok(()),
        }
    }
}

impl BackingFile for SimFile {
    fn map(&self) -> Result<Arc<dyn Mapping>, Errno> {
        let region = self.mapped.get_or_init(|| {
            let content = &lock(&self.state).content;
            let region = Region::zeroed(content.len());
            // As long as the content.
            let _ = region.write(0, content);
            Arc::new(region)
        });
        Ok(Arc::new(SimMapping {
            region: region.clone(),
            host: self.host.clone(),
        }))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut state = lock(&self.state);
        state.count()?;
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(state.content.len());
        let n = buf.len().min(state.content.len() - start);
        buf[..n].copy_from_slice(&state.content[start..start + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        state.count()?;
        let end = offset.checked_add(buf.len() as u64).ok_or(Errno::EFBIG)?;
        if state.faults.full_at.is_some_and(|full| end > full) {
            return Err(Errno::ENOSPC);
        }
        state.change(Change::Write(offset, buf.into()));
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        state.count()?;
        for change in take(&mut state.pending) {
            change.apply(&mut state.durable);
        }
        if let Some(history) = &mut state.history {
            history.events.push(None);
        }
        Ok(())
    }

    fn size(&self) -> Result<u64, Errno> {
        Ok(lock(&self.state).content.len() as u64)
    }

    fn set_size(&self, size: u64) -> Result<(), Errno> {
        let mut state = lock(&self.state);
        state.count()?;
        if state.faults.full_at.is_some_and(|full| size > full) {
            return Err(Errno::ENOSPC);
        }
        state.change(Change::Size(size));
        Ok(())
    }

    fn submit(&self, batch: Vec<BlockRequest>) {
        let Some(host) = self.host.upgrade() else {
            return;
        };
        for request in batch {
            let BlockRequest {
                mut op,
                offset,
                done,
            } = request;
            let file = self.me.upgrade();
            let delay = 1 + host.draw(LATENCY);
            let work = Box::new(move || {
                let result = match file {
                    Some(file) => file.carry_out(&mut op, offset),
                    None => Err(Errno::EIO),
                };
                done(op, result);
            });
            lock(&host.sched).after(delay, work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimConfig;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let file = SimFile::new(Weak::new(), vec![0; 1024]);
        file.write_at(&[1; 512], 0).expect("written");
        file.sync().expect("synced");
        file.write_at(&[2; 1024], 0).expect("written");
        let mut draws = [1, 1, 0].into_iter();
        let torn = file.after_crash(&mut |_| draws.next().unwrap_or(0));
        assert_eq!(
            (torn[0], torn[512]),
            (1, 2),
            "the second sector of the write alone"
        );
        assert_eq!(file.after_crash(&mut |_| 2)[..512], [1; 512]);
        assert_eq!(file.after_crash(&mut |_| 0), vec![2; 1024]);
    }

    #[test]
    fn the_power_can_be_cut_after_each_event_of_a_history() {
        let file = SimFile::new(Weak::new(), vec![0; 512]);
        file.record();
        file.write_at(&[1; 512], 0).expect("written");
        file.sync().expect("synced");
        file.write_at(&[2; 512], 512).expect("written");
        let history = file.history();
        let seen: Vec<_> = history
            .cuts()
            .map(|cut| (cut.events, cut.in_order(), cut.torn(&mut |_| 2)))
            .collect();
        assert_eq!(seen[0], (0, vec![0; 512], vec![0; 512]));
        assert_eq!(seen[1], (1, vec![1; 512], vec![0; 512]));
        assert_eq!(seen[2], (2, vec![1; 512], vec![1; 512]));
        assert_eq!(seen[3].1[512..], [2; 512]);
        assert_eq!((seen.len(), &seen[3].2), (4, &vec![1; 512]));
    }

    #[test]
    fn faults_come_when_told() {
        let file = SimFile::new(Weak::new(), Vec::new());
        file.set_faults(Faults {
            fail_once: Some((1, Errno::EIO)),
            full_at: Some(8),
            ..Faults::default()
        });
        assert_eq!(file.write_at(&[0; 8], 0), Ok(()));
        assert_eq!(file.sync(), Err(Errno::EIO));
        assert_eq!(file.write_at(&[0; 8], 1), Err(Errno::ENOSPC));
        assert_eq!(file.sync(), Ok(()));
    }

    #[test]
    fn requests_complete_in_any_order_but_all_do() {
        let run = SimHost::run(SimConfig::new(7), |host| {
            let file = host.new_file(vec![0; 4096]);
            let left = Arc::new(AtomicU32::new(8));
            let batch = (0..8u64).map(|i| {
                let (left, host) = (left.clone(), host.clone());
                BlockRequest {
                    op: BlockOp::Write(vec![i as u8; 512].into()),
                    offset: i * 512,
                    done: Box::new(move |_, result| {
                        result.expect("written");
                        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                            crate::Host::unpark(&*host, &left, 1);
                        }
                    }),
                }
            });
            file.submit(batch.collect());
            loop {
                match left.load(Ordering::SeqCst) {
                    0 => return file.content()[7 * 512],
                    seen => crate::Host::park(&**host, &left, seen, None),
                };
            }
        });
        assert_eq!(run.result.expect("a value"), 7);
    }
}

//! A bus file, attached to: which port is ours, and who else is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use abi::Errno;
use hypercall::{BackingFile, Clock, Host, Mapping, Nanos, OpenMode};
use net::IfError;

use crate::layout::{
    AT_ACTIVE, AT_MAGIC, AT_PORTS, AT_RING, CURSORS, FILTER, Filter, Geometry, HEAD, MAGIC, PAGE,
    TAIL, WORD,
};

/// How long somebody else may take to attach before we give up.
const PATIENCE: Nanos = 10_000_000_000;
/// The byte of the file that who attaches has claimed. A port's is the first of its page.
const ATTACHING: u64 = 0;

/// A port of a bus.
///
/// Ports are told apart from dead ones by a claim on a byte of the file, which the host takes back when a process ends, however it ends. There is
/// no lock in the file: each ring has one writer, and what it has not finished nobody sees.
pub(crate) struct Bus {
    /// Holds the claim on our port.
    _file: Arc<dyn BackingFile>,
    map: Arc<dyn Mapping>,
    geometry: Geometry,
    port: u32,
}

impl Bus {
    /// **May block.** Takes a port of the bus in a file; makes it, `as_new`, when the file is missing or empty.
    pub(crate) fn attach(host: &dyn Host, path: &str, as_new: Geometry) -> Result<Bus, IfError> {
        let mode = OpenMode {
            write: true,
            create: true,
            exclusive: false,
        };
        let open = || {
            host.open(path.as_bytes(), mode)
                .map_err(|errno| IfError::new(errno, cannot_open(path, errno)))
        };
        let fail = |errno: Errno| IfError::new(errno, format!("{path}: {errno}"));
        // Claims of this one end with this function.
        let attaching = open()?;
        claim_patiently(host, &*attaching, path)?;
        let file = open()?;
        let (map, geometry) = prepare(&*file, path, as_new)?;
        let port = (0..geometry.ports)
            .find(|&port| claim(&*file, geometry, port))
            .ok_or_else(|| {
                let text = format!(
                    "{path}: all {} ports are taken; use another bus",
                    geometry.ports
                );
                IfError::new(Errno::ENOSPC, text)
            })?;
        if map.region().len() < geometry.size() {
            return Err(fail(Errno::EINVAL));
        }
        let bus = Bus {
            _file: file,
            map,
            geometry,
            port,
        };
        bus.bury(port);
        for other in bus.others() {
            if claim(&*attaching, geometry, other) {
                bus.bury(other);
            }
        }
        Ok(bus)
    }

    /// A port whose owner is gone is no longer up. What he had finished can still be read, what he had begun never was.
    fn bury(&self, port: u32) {
        self.active().fetch_and(!(1 << port), Ordering::SeqCst);
        self.port_word(port, FILTER).store(0, Ordering::SeqCst);
        self.sleep_word(port).store(0, Ordering::SeqCst);
    }

    /// Takes part from now on.
    pub(crate) fn join(&self, filter: Filter) {
        self.set_filter(filter);
        self.active().fetch_or(1 << self.port, Ordering::SeqCst);
    }

    /// Takes part no longer.
    pub(crate) fn leave(&self) {
        self.active().fetch_and(!(1 << self.port), Ordering::SeqCst);
        self.set_filter(Filter::default());
    }

    pub(crate) fn set_filter(&self, filter: Filter) {
        self.port_word(self.port, FILTER)
            .store(filter.0, Ordering::SeqCst);
    }

    pub(crate) fn map(&self) -> &dyn Mapping {
        &*self.map
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// The rings of all other ports: who has left may have written something before.
    pub(crate) fn rings(&self) -> impl Iterator<Item = u32> + use<> {
        let own = self.port;
        (0..self.geometry.ports).filter(move |port| *port != own)
    }

    /// The other ports that are up.
    pub(crate) fn others(&self) -> impl Iterator<Item = u32> + use<> {
        let bits = self.active().load(Ordering::Acquire) & !(1 << self.port);
        (0..self.geometry.ports).filter(move |port| bits & 1 << port != 0)
    }

    pub(crate) fn filter(&self, port: u32) -> Filter {
        Filter(self.port_word(port, FILTER).load(Ordering::Relaxed))
    }

    pub(crate) fn head(&self, port: u32) -> &AtomicU64 {
        self.port_word(port, HEAD)
    }

    pub(crate) fn tail(&self, port: u32) -> &AtomicU64 {
        self.port_word(port, TAIL)
    }

    /// How far a port has read another's ring.
    pub(crate) fn cursor(&self, reader: u32, writer: u32) -> &AtomicU64 {
        self.port_word(reader, CURSORS + 8 * writer as usize)
    }

    pub(crate) fn sleep_word(&self, port: u32) -> &AtomicU32 {
        let word = self.map.region().word32(self.sleep_word_at(port));
        word.expect("the file was long enough when it was mapped")
    }

    pub(crate) fn sleep_word_at(&self, port: u32) -> usize {
        self.geometry.port_at(port) + WORD
    }

    /// Wakes those of the ports (a bit each) who sleep. What they are to see was stored before.
    pub(crate) fn wake(&self, ports: u64) {
        fence(Ordering::SeqCst);
        let mut left = ports;
        while left != 0 {
            let port = left.trailing_zeros();
            left &= left - 1;
            let word = self.sleep_word(port);
            if word.load(Ordering::SeqCst) != 0 && word.swap(0, Ordering::SeqCst) != 0 {
                self.map.wake(self.sleep_word_at(port), 1);
            }
        }
    }

    /// Ends as in a process that is killed: the claim goes, and nothing else is done.
    #[cfg(test)]
    pub(crate) fn die(self) {
        let mut dead = std::mem::ManuallyDrop::new(self);
        let host = hypercall::PosixHost::new();
        let other = host.shared_memory("other", 4096).expect("memory");
        // The host counts a mapping as one more who has the file open.
        dead.map = other.map().expect("mapped");
        dead._file = other;
    }

    fn active(&self) -> &AtomicU64 {
        self.word(AT_ACTIVE)
    }

    fn port_word(&self, port: u32, at: usize) -> &AtomicU64 {
        self.word(self.geometry.port_at(port) + at)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        let word = self.map.region().word64(at);
        word.expect("the file was long enough when it was mapped")
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Claims a port; whether it was free.
fn claim(file: &dyn BackingFile, geometry: Geometry, port: u32) -> bool {
    file.claim(geometry.port_at(port) as u64, Some(1), true)
        .is_ok()
}

/// Waits for others who are attaching; it takes them a moment.
fn claim_patiently(host: &dyn Host, file: &dyn BackingFile, path: &str) -> Result<(), IfError> {
    let deadline = host.now(Clock::Monotonic) + PATIENCE;
    while let Err(errno) = file.claim(ATTACHING, Some(1), true) {
        if errno != Errno::EBUSY || host.now(Clock::Monotonic) > deadline {
            let text = format!(
                "{path}: somebody else is attaching to this bus and does not finish; see who has it open: fuser {path}"
            );
            return Err(IfError::new(errno, text));
        }
        host.relax();
    }
    Ok(())
}

/// Maps the file, made a bus if there is nothing in it.
fn prepare(
    file: &dyn BackingFile,
    path: &str,
    as_new: Geometry,
) -> Result<(Arc<dyn Mapping>, Geometry), IfError> {
    let fail = |errno: Errno| IfError::new(errno, format!("{path}: {errno}"));
    let no_bus = |why: &str| {
        let text =
            format!("{path}: no bus ({why}); name a file that does not exist, and it will be made");
        IfError::new(Errno::EINVAL, text)
    };
    let mut first = [0; PAGE];
    let size = file.size().map_err(fail)?;
    file.read_at(&mut first, 0).map_err(fail)?;
    // Who made it may have ended before it was finished.
    if first.iter().all(|&b| b == 0) && (size == 0 || size == as_new.size() as u64) {
        file.set_size(as_new.size() as u64).map_err(fail)?;
        let map = file.map().map_err(fail)?;
        let region = map.region();
        for (at, number) in [(AT_PORTS, as_new.ports), (AT_RING, as_new.ring)] {
            region
                .write(at, &number.to_ne_bytes())
                .ok_or(fail(Errno::EIO))?;
        }
        let magic = region.word64(AT_MAGIC).ok_or(fail(Errno::EIO))?;
        magic.store(MAGIC, Ordering::Release);
        return Ok((map, as_new));
    }
    if size < PAGE as u64 {
        return Err(no_bus("it is too short"));
    }
    let map = file.map().map_err(fail)?;
    let region = map.region();
    let word = |at| region.word32(at).map_or(0, |w| w.load(Ordering::Acquire));
    let magic = region
        .word64(AT_MAGIC)
        .map_or(0, |w| w.load(Ordering::Acquire));
    if magic != MAGIC {
        return Err(no_bus(&format!("its magic is {magic:#x}")));
    }
    let geometry = Geometry {
        ports: word(AT_PORTS),
        ring: word(AT_RING),
    };
    if !geometry.is_good() {
        return Err(no_bus("its header makes no sense"));
    }
    if region.len() < geometry.size() {
        return Err(no_bus("it was cut off"));
    }
    Ok((map, geometry))
}

fn cannot_open(path: &str, errno: Errno) -> String {
    match errno {
        Errno::ENOENT => format!("{path}: there is no such directory; make it first"),
        Errno::EACCES | Errno::EPERM | Errno::EROFS => format!(
            "{path}: the host does not let us write this bus; see: ls -l {path}; or use a path in /dev/shm"
        ),
        Errno::EISDIR => format!("{path}: a directory; name a file in it, and it will be made"),
        other => format!("{path}: {other}"),
    }
}

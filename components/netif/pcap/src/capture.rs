//! A capture: taps, and the thread that writes.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use abi::Errno;
use hypercall::{BackingFile, Clock, OpenMode};
use kern::Curlwp;
use net::{IfError, Ifnet, Interfaces, LinkEvent, Tap, complete_checksum};
use sync::{Condvar, Cpu, Mutex};

use crate::format;
use crate::queue::{Entry, Port, Queue};

/// What a capture came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets in the file.
    pub packets: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Packets that are missing, because the file was too slow.
    pub dropped: u64,
    /// Why the file is not whole, if it is not.
    pub error: Option<Errno>,
}

/// A capture to a file, until it is stopped or the kernel ends.
///
/// `taps` and `ended` are leaves.
pub struct Capture {
    queue: Arc<Queue>,
    taps: Mutex<Vec<Attached>>,
    ended: Mutex<Option<Summary>>,
    end: Condvar,
}

/// An interface, and our tap on it.
type Attached = (Weak<Ifnet>, Arc<dyn Tap>);

impl Capture {
    /// Starts a capture to a file of the host, which is made or emptied, with at most `snaplen` bytes of each packet. It captures nothing yet.
    pub fn start(cx: &Curlwp<'_>, path: &str, snaplen: u32) -> Result<Arc<Capture>, IfError> {
        let mode = OpenMode {
            write: true,
            create: true,
            exclusive: false,
        };
        let host = cx.kernel().host();
        let file = cx.unscheduled(|| {
            let file = host.open(path.as_bytes(), mode)?;
            file.set_size(0)?;
            Ok(file)
        });
        let file = file.map_err(|errno: Errno| {
            let text = format!("{path}: {errno}; captures need a file that can be written");
            IfError::new(errno, text)
        })?;
        let capture = Arc::new(Capture {
            queue: Arc::default(),
            taps: Mutex::default(),
            ended: Mutex::new(None),
            end: Condvar::new("pcapend"),
        });
        let writes = capture.clone();
        cx.kernel()
            .kthread_create(cx, "pcap", move |cx| writes.write(cx, &*file, snaplen))
            .map_err(|errno| {
                let text = format!("{path}: no thread to write the capture: {errno}");
                IfError::new(errno, text)
            })?;
        Ok(capture)
    }

    /// Captures what an interface sends and receives from now on.
    pub fn add(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>) {
        self.tap(cpu, interface, false);
    }

    /// Captures what an interface receives from now on. On all ports of a bridge that is each packet once.
    pub fn add_incoming(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>) {
        self.tap(cpu, interface, true);
    }

    fn tap(&self, cpu: &Cpu<'_>, interface: &Arc<Ifnet>, incoming_only: bool) {
        let port: Arc<dyn Tap> = Arc::new(Port {
            number: self.queue.add_interface(cpu, interface),
            incoming_only,
            queue: self.queue.clone(),
        });
        self.taps
            .lock(cpu)
            .push((Arc::downgrade(interface), port.clone()));
        interface.add_tap(port);
    }

    /// Captures every interface that there is, and every one to come.
    pub fn add_all(self: &Arc<Self>, cpu: &Cpu<'_>, interfaces: &Arc<Interfaces>) {
        let (capture, all) = (Arc::downgrade(self), Arc::downgrade(interfaces));
        interfaces.listen(Box::new(move |cpu, event| {
            if let LinkEvent::Attached(index) = event
                && let (Some(capture), Some(all)) = (capture.upgrade(), all.upgrade())
                && let Some(interface) = all.by_index(*index)
                && !capture.is_over(cpu)
            {
                capture.add(cpu, &interface);
            }
        }));
        for interface in interfaces.list().iter() {
            self.add(cpu, interface);
        }
    }

    fn is_over(&self, cpu: &Cpu<'_>) -> bool {
        self.ended.lock(cpu).is_some()
    }

    /// Ends the capture; what was captured is in the file then.
    pub fn stop(&self, cx: &Curlwp<'_>) -> Summary {
        let taps = std::mem::take(&mut *self.taps.lock(cx.cpu()));
        for (interface, tap) in taps {
            if let Some(interface) = interface.upgrade() {
                interface.remove_tap(&tap);
            }
        }
        self.queue.close(cx.cpu());
        let mut ended = self.ended.lock(cx.cpu());
        loop {
            if let Some(summary) = *ended {
                return summary;
            }
            ended = self.end.wait(cx.cpu(), ended);
        }
    }

    /// What the thread does.
    fn write(&self, cx: &Curlwp<'_>, file: &dyn BackingFile, snaplen: u32) {
        let mut writer = Writer {
            file,
            snaplen,
            out: Vec::new(),
            summary: Summary::default(),
        };
        format::section(&mut writer.out);
        while let Some(entries) = self.queue.take(cx) {
            cx.unscheduled(|| writer.write(entries));
        }
        // What comes now is too late.
        self.queue.close(cx.cpu());
        let dropped = self.queue.dropped(cx.cpu());
        let now = cx.now(Clock::Realtime);
        for (number, dropped) in dropped.iter().enumerate() {
            format::statistics(&mut writer.out, number as u32, now, *dropped);
        }
        cx.unscheduled(|| writer.flush());
        writer.summary.dropped = dropped.iter().sum();
        if let Some(error) = writer.summary.error {
            cx.log(format_args!("the capture is not whole: {error}"));
        }
        *self.ended.lock(cx.cpu()) = Some(writer.summary);
        self.end.broadcast(cx.cpu());
    }
}

/// Bytes that are written at a time.
const CHUNK: usize = 1 << 20;

struct Writer<'a> {
    file: &'a dyn BackingFile,
    snaplen: u32,
    out: Vec<u8>,
    summary: Summary,
}

impl Writer<'_> {
    fn write(&mut self, entries: VecDeque<Entry>) {
        for entry in entries {
            match entry {
                Entry::Interface { name, link } => {
                    format::interface(&mut self.out, &name, link, self.snaplen);
                }
                Entry::Packet {
                    interface,
                    at,
                    direction,
                    mut packet,
                } => {
                    // One that cannot be completed is shown as it is.
                    let _ = complete_checksum(&mut packet);
                    let out = &mut self.out;
                    format::packet(out, interface, at, direction, &packet, self.snaplen);
                    self.summary.packets += 1;
                }
            }
            if self.out.len() >= CHUNK {
                self.flush();
            }
        }
        self.flush();
    }

    /// After an error nothing more is written, so that the file ends with a whole block or in the middle of one.
    fn flush(&mut self) {
        if self.summary.error.is_none() {
            match self.file.write_at(&self.out, self.summary.bytes) {
                Ok(()) => self.summary.bytes += self.out.len() as u64,
                Err(error) => self.summary.error = Some(error),
            }
        }
        self.out.clear();
    }
}

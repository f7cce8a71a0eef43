//! `rump trace`: where the kernel's trace goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};
use rumpkit::Kernel;

/// A kernel that is traced. Lines are written by a thread of their own, so that no call waits for them.
pub(crate) struct Tracing {
    kernel: Arc<Kernel>,
    writer: JoinHandle<io::Result<()>>,
}

impl Tracing {
    /// Has the kernel's calls written to a file, or to the standard error output.
    pub(crate) fn start(kernel: &Arc<Kernel>, output: Option<&Path>) -> Result<Tracing> {
        let to: Box<dyn Write + Send> = match output {
            Some(path) => {
                let file = File::create(path)
                    .with_context(|| format!("{}: the trace cannot be written", path.display()))?;
                Box::new(BufWriter::new(file))
            }
            None => Box::new(io::stderr()),
        };
        let (sender, lines) = channel();
        let writer = thread::Builder::new()
            .name("trace".into())
            .spawn(move || write(lines, to))
            .context("no thread for the trace")?;
        kernel.trace(Some(Box::new(move |pid, line| {
            // It fails only when the output has failed, which is told at the end.
            let _ = sender.send(format!("[pid {pid:>4}] {line}\n"));
        })));
        Ok(Tracing {
            kernel: kernel.clone(),
            writer,
        })
    }

    /// Ends the trace; everything is written then.
    pub(crate) fn stop(self) -> Result<()> {
        self.kernel.trace(None);
        let written = self
            .writer
            .join()
            .map_err(|_| anyhow!("the trace ended early"))?;
        written.context("the trace cannot be written")
    }
}

fn write(lines: Receiver<String>, mut to: impl Write) -> io::Result<()> {
    for line in lines {
        to.write_all(line.as_bytes())?;
    }
    to.flush()
}

//! The kernel that lives in this process: booting it, mounting what was asked for, and the way down.

use std::io;
use std::sync::Arc;

use abi::Errno;
use anyhow::{Result, anyhow, bail};
use rumpkit::kern::Stage;
use rumpkit::kern::config::parse_size;
use rumpkit::module::Library;
use rumpkit::{Kernel, MountSpec, Process, Syscalls};

use crate::cli::{KernelOptions, Mounts, Network};

/// What a kernel is made of.
pub(crate) enum Parts {
    /// Every component, with a network of its own.
    All,
    /// Those that go with the host's sockets.
    Sockin,
}

impl Parts {
    /// What the network that was asked for needs.
    pub(crate) fn of(network: &Network) -> Result<Parts> {
        Ok(match network.sockin()? {
            true => Parts::Sockin,
            false => Parts::All,
        })
    }
}

/// Boots a kernel. The kernel itself says on the console why it does not boot.
pub(crate) fn boot(options: &KernelOptions, parts: Parts) -> Result<Arc<Kernel>> {
    boot_with(options, parts, Vec::new())
}

/// The same with component libraries that have been loaded, in this order.
pub(crate) fn boot_with(
    options: &KernelOptions,
    parts: Parts,
    libraries: Vec<Library>,
) -> Result<Arc<Kernel>> {
    let ncpu = options.ncpu.as_deref().map(cpus).transpose()?;
    let memlimit = options.memlimit.as_deref().map(memory).transpose()?;
    let verbose = options.verbose;
    let builder = match parts {
        Parts::All => rumpkit::builder(),
        Parts::Sockin => rumpkit::sockin_builder(),
    };
    let kernel = builder
        .config(move |config| {
            config.verbose |= verbose;
            config.ncpu = ncpu.unwrap_or(config.ncpu);
            config.memlimit = memlimit.or(config.memlimit);
        })
        .step(Stage::PostInit, move |cx| {
            libraries.iter().try_for_each(|library| {
                library.start(cx).map_err(|error| {
                    eprintln!("rump: {error}");
                    error.errno
                })
            })
        })
        .boot()
        .map_err(|errno| anyhow!("the kernel does not boot: {errno}"))?;
    see_oneself_as_programs_do(&kernel)?;
    Ok(kernel)
}

/// Programs call the kernel's root /rump, also in the symbolic links that they make: there the kernel must find itself under
/// that name.
fn see_oneself_as_programs_do(kernel: &Arc<Kernel>) -> Result<()> {
    let made = Process::new(kernel)?.sys().symlink(c"/", c"/rump");
    made.map_err(|errno| anyhow!("/rump cannot be made in the kernel: {errno}"))?;
    Ok(())
}

fn cpus(text: &str) -> Result<usize> {
    const MOST: usize = 256;
    let host = || std::thread::available_parallelism().map_or(1, usize::from);
    match text {
        "host" => Ok(host()),
        _ => text
            .parse()
            .ok()
            .filter(|n| (1..=MOST).contains(n))
            .ok_or_else(|| {
                anyhow!("-c {text}: want a number of CPUs from 1 to {MOST}, or \"host\"")
            }),
    }
}

fn memory(text: &str) -> Result<u64> {
    parse_size(text)
        .filter(|&n| n > 0)
        .ok_or_else(|| anyhow!("-r {text}: want a number of bytes, as 64m (k, m, g)"))
}

/// Mounts everything; on failure the kernel is halted and the error says what is wrong with which image.
pub(crate) fn mount_all(kernel: &Arc<Kernel>, mounts: &Mounts) -> Result<()> {
    let process = Process::new(kernel)?;
    for spec in mounts.in_order() {
        if let Err(error) = mount_one(kernel, &process, spec) {
            drop(process);
            let _ = kernel.shutdown(true);
            return Err(error);
        }
    }
    Ok(())
}

/// Mounts; the error says what is wrong with which image.
pub(crate) fn mount_one(kernel: &Kernel, process: &Process, spec: &MountSpec) -> Result<()> {
    let before = kernel.messages();
    process
        .mount(spec)
        .map_err(|error| explain(spec, &error, &news(&before, &kernel.messages())))
}

/// Syncs, unmounts, ends. An error means that something may not be on its disk.
pub(crate) fn halt(kernel: &Arc<Kernel>) -> Result<()> {
    let before = kernel.messages();
    if let Err(errno) = kernel.shutdown(true) {
        let said = news(&before, &kernel.messages());
        bail!(
            "the kernel did not come down in order: {errno}\n{said}run e2fsck on the image before it is used again"
        );
    }
    Ok(())
}

/// The lines that came to a message buffer; it is a ring, so the old ones may have moved or gone.
pub(crate) fn news(before: &[u8], after: &[u8]) -> String {
    let new = (0..=before.len())
        .find_map(|gone| after.strip_prefix(&before[gone..]))
        .unwrap_or(after);
    String::from_utf8_lossy(new).into_owned()
}

/// Why a mount failed, in words that name the thing, the cause and the way out.
pub(crate) fn explain(spec: &MountSpec, error: &io::Error, said: &str) -> anyhow::Error {
    // The driver's own words come first, what mount(2) adds to them last.
    let said = said.lines().next().unwrap_or_default();
    let Some(image) = &spec.image else {
        return anyhow!(
            "{} at {}: {}",
            spec.fstype,
            spec.dir.display(),
            cause(error, said)
        );
    };
    let name = image.display();
    match Errno(error.raw_os_error().unwrap_or(0)) {
        _ if !image.exists() => anyhow!(
            "{name}: no such image; make one with: truncate -s 1G {name} && mkfs.ext4 {name}"
        ),
        _ if image.is_dir() => {
            anyhow!("{name}: is a directory; give the file or device that holds the image")
        }
        Errno::EBUSY => anyhow!(
            "{name}: in use by another kernel; halt that one, or mount it read-only (:ro) in both"
        ),
        Errno::EACCES | Errno::EPERM => anyhow!(
            "{name}: may not be opened for {}; see its permissions{}",
            if spec.read_only { "reading" } else { "writing" },
            if spec.read_only {
                ""
            } else {
                ", or mount it read-only (:ro)"
            },
        ),
        Errno::ENODEV if said.is_empty() => anyhow!(
            "{}: no such type of file system; there are ext2, ext3, ext4 and tmpfs",
            spec.fstype
        ),
        _ => anyhow!("{name}: cannot be mounted: {}", cause(error, said)),
    }
}

/// What the kernel said about it, else the errno's text.
fn cause(error: &io::Error, said: &str) -> String {
    if said.is_empty() {
        error.to_string()
    } else {
        format!("{said} ({})", Errno(error.raw_os_error().unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_what_came_after() {
        assert_eq!(news(b"", b"a\n"), "a\n");
        assert_eq!(news(b"a\n", b"a\nb\n"), "b\n");
        assert_eq!(news(b"a\nb\n", b"b\nc\n"), "c\n");
        assert_eq!(news(b"a\n", b"z\n"), "z\n");
    }

    #[test]
    fn a_missing_image_is_named_with_the_way_to_make_one() {
        let spec: MountSpec = "ext4:/no/such.img:/data".parse().unwrap();
        let error = io::Error::from_raw_os_error(2);
        let text = explain(&spec, &error, "").to_string();
        assert!(
            text.contains("/no/such.img") && text.contains("mkfs.ext4"),
            "{text}"
        );
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for bad in ["0", "257", "two", ""] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        assert!(memory("0").is_err());
        assert_eq!(memory("64m").ok(), Some(64 << 20));
    }
}

//! The labs that run, as the files of a directory: `$XDG_RUNTIME_DIR/rump`, else `/tmp/rump-UID`.
//!
//! Each lab has a directory there with a socket for each kernel and a file `lock`, which holds the number of the lab's process and is locked
//! as long as that lives. Others may enter the directories (0711) and write nothing there: programs may become other users, and the
//! servers look at who asks. Whoever gets the lock knows that the rest is left over, whatever the process died of.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getuid, pidfd_open};

const LOCK: &str = "lock";
const SOCKET: &str = ".sock";

/// The directory of all labs, made when it is missing.
fn base() -> Result<PathBuf> {
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir).join("rump"),
        None => PathBuf::from(format!("/tmp/rump-{}", getuid().as_raw())),
    };
    let name = dir.display();
    match DirBuilder::new().mode(0o711).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| {
                format!("{name}: cannot be made for the labs that run; see XDG_RUNTIME_DIR")
            });
        }
        _ => {}
    }
    // In /tmp it may be somebody else's, or a link to elsewhere.
    let data = fs::symlink_metadata(&dir).with_context(|| name.to_string())?;
    if !data.is_dir() || data.uid() != getuid().as_raw() || data.mode() & 0o022 != 0 {
        bail!("{name}: is not a directory that you alone write; remove it, or set XDG_RUNTIME_DIR");
    }
    Ok(dir)
}

/// A lab's own place while it runs; removed in the end.
pub(crate) struct Claim {
    dir: PathBuf,
    _lock: File,
}

impl Claim {
    /// Takes a lab's place. What a dead one left is removed.
    pub(crate) fn take(lab: &str) -> Result<Claim> {
        let dir = base()?.join(lab);
        loop {
            match DirBuilder::new().mode(0o711).create(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| dir.display().to_string());
                }
                _ => {}
            }
            let Some(mut lock) = open_lock(&dir, true)? else {
                continue;
            };
            if !is_free(&lock)? {
                bail!("the lab {lab} runs already; end it with: rump down {lab}");
            }
            // Somebody may have removed it in between.
            if !is_still(&dir, &lock) {
                continue;
            }
            for socket in sockets(&dir) {
                let _ = fs::remove_file(socket);
            }
            lock.set_len(0)?;
            lock.write_all(std::process::id().to_string().as_bytes())?;
            return Ok(Claim { dir, _lock: lock });
        }
    }

    /// Where a kernel of it is served.
    pub(crate) fn url(&self, kernel: &str) -> String {
        url(&self.dir.join(format!("{kernel}{SOCKET}")))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// A lab that runs.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) pid: i32,
    /// Its process.
    pub(crate) process: OwnedFd,
    /// Name and URL of each kernel, by name.
    pub(crate) kernels: Vec<(String, String)>,
}

/// The labs that run, by name. What dead ones left is removed, and `left` is told the URLs of a dead one's kernels.
pub(crate) fn running(mut left: impl FnMut(&[String])) -> Result<Vec<Running>> {
    let base = base()?;
    let mut labs = Vec::new();
    for entry in fs::read_dir(&base).with_context(|| base.display().to_string())? {
        let dir = entry?.path();
        let Some(lock) = open_lock(&dir, false)? else {
            continue;
        };
        if is_free(&lock)? {
            if is_still(&dir, &lock) {
                let urls: Vec<String> = sockets(&dir).map(|socket| url(&socket)).collect();
                left(&urls);
                remove(&dir);
            }
            continue;
        }
        labs.extend(look(&dir, lock));
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

/// A lab by its directory; `None` when it ends as we look, or has just begun.
fn look(dir: &Path, mut lock: File) -> Option<Running> {
    let mut pid = String::new();
    lock.read_to_string(&mut pid).ok()?;
    let pid: i32 = pid.parse().ok()?;
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Only now it is sure that the number was that process's.
    if is_free(&lock).ok()? {
        return None;
    }
    let mut kernels: Vec<(String, String)> = sockets(dir)
        .filter_map(|socket| {
            let name = socket
                .file_name()?
                .to_str()?
                .strip_suffix(SOCKET)?
                .to_owned();
            Some((name, url(&socket)))
        })
        .collect();
    kernels.sort();
    Some(Running {
        name: dir.file_name()?.to_str()?.to_owned(),
        pid,
        process,
        kernels,
    })
}

fn open_lock(dir: &Path, create: bool) -> Result<Option<File>> {
    let path = dir.join(LOCK);
    let file = File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    match file {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Whether nobody else has the lock; then we have it.
fn is_free(lock: &File) -> Result<bool> {
    match flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error).context("a lab's lock"),
    }
}

/// Whether the directory's lock is the file that we have.
fn is_still(dir: &Path, lock: &File) -> bool {
    let (Ok(there), Ok(ours)) = (fs::metadata(dir.join(LOCK)), lock.metadata()) else {
        return false;
    };
    (there.dev(), there.ino()) == (ours.dev(), ours.ino())
}

fn sockets(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.as_os_str().to_string_lossy().ends_with(SOCKET))
}

fn url(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

/// Removes a lab's directory, the lock last; whoever calls has it.
fn remove(dir: &Path) {
    for socket in sockets(dir) {
        let _ = fs::remove_file(socket);
    }
    let _ = fs::remove_file(dir.join(LOCK));
    let _ = fs::remove_dir(dir);
}

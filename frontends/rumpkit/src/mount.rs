//! Mounting disk images: the three steps (a block node for the image, the directory, mount(2)) as one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use abi::{Errno, Invoke, Syscalls, VFSSTAT_SIZE, VfsStat};

use crate::Process;
use crate::process::{c_path, error};

/// What to mount where: `TYPE:SOURCE:DIR[:OPTION,OPTION]`, such as `ext4:disk.img:/data:ro`, or `tmpfs::/scratch:size=64m`.
///
/// A source with a colon in its name cannot be said in one string; make the value by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// The type of file system, as mount(2) takes it: `ext4`, `ext2`, `tmpfs`.
    pub fstype: String,
    /// The host file that holds the image; none for a file system in memory.
    pub image: Option<PathBuf>,
    /// Where in the kernel's tree, absolute; made when it is missing.
    pub dir: PathBuf,
    /// `ro`: neither the file system nor the image is written.
    pub read_only: bool,
    /// The other options, with commas between, for the file system.
    pub options: String,
}

/// What is wrong with the text of a [`MountSpec`] or a [`NetSpec`](crate::NetSpec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(pub(crate) String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

impl FromStr for MountSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<MountSpec, SpecError> {
        let mut parts = text.splitn(4, ':');
        let mut part = || parts.next().unwrap_or_default();
        let (fstype, image, dir, options) = (part(), part(), part(), part());
        if fstype.is_empty() || dir.is_empty() {
            return Err(SpecError(format!(
                "\"{text}\" should be TYPE:IMAGE:DIR[:OPTIONS], as ext4:disk.img:/data or ext4:disk.img:/data:ro"
            )));
        }
        MountSpec {
            fstype: fstype.to_owned(),
            image: (!image.is_empty()).then(|| PathBuf::from(image)),
            dir: PathBuf::from(dir),
            read_only: false,
            options: String::new(),
        }
        .with_options(options)
    }
}

impl MountSpec {
    /// A tmpfs: `DIR[:OPTIONS]`, such as `/scratch:size=64m`.
    pub fn tmpfs(text: &str) -> Result<MountSpec, SpecError> {
        let (dir, options) = text.split_once(':').unwrap_or((text, ""));
        MountSpec {
            fstype: "tmpfs".to_owned(),
            image: None,
            dir: PathBuf::from(dir),
            read_only: false,
            options: String::new(),
        }
        .with_options(options)
    }

    fn with_options(mut self, options: &str) -> Result<MountSpec, SpecError> {
        if !self.dir.is_absolute() {
            return Err(SpecError(format!(
                "\"{}\" should be an absolute path in the kernel's tree, as /data",
                self.dir.display()
            )));
        }
        let (flags, rest): (Vec<&str>, Vec<&str>) = options
            .split([',', ':'])
            .filter(|o| !o.is_empty())
            .partition(|o| matches!(*o, "ro" | "rw"));
        self.read_only = flags.last() == Some(&"ro");
        self.options = rest.join(",");
        Ok(self)
    }
}

/// As what a host file appears in the kernel, `etfs_register`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum EtfsKind {
    /// A regular file.
    Regular = abi::ETFS_REG,
    /// A block device, which can be mounted.
    Block = abi::ETFS_BLK,
    /// A block device of which nothing is written.
    ReadOnlyBlock = abi::ETFS_BLK | abi::ETFS_RDONLY,
    /// A character device.
    Character = abi::ETFS_CHR,
    /// The files of a directory.
    Directory = abi::ETFS_DIR,
    /// A directory with everything below it.
    Tree = abi::ETFS_DIR_SUBDIRS,
}

/// One mount of a kernel, as `getvfsstat` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The type of file system.
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Where.
    pub dir: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Bytes in all.
    pub size: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes free for who is not root.
    pub available: u64,
}

impl MountEntry {
    fn new(record: &[u8; VFSSTAT_SIZE]) -> MountEntry {
        let stat = VfsStat::from_bytes(record);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let bytes = |blocks: u64| blocks.saturating_mul(stat.statfs.f_frsize);
        MountEntry {
            fstype: text(stat.fstype),
            source: text(stat.source),
            dir: text(stat.target),
            read_only: stat.statfs.f_flags & abi::MS_RDONLY != 0,
            size: bytes(stat.statfs.f_blocks),
            free: bytes(stat.statfs.f_bfree),
            available: bytes(stat.statfs.f_bavail),
        }
    }
}

impl<S: Invoke> Process<S> {
    /// Mounts: makes a block node for the image (`/dev/diskN`, the first N that is free), the directory when it is missing, and calls
    /// mount(2).
    ///
    /// Errors of note: `ENOENT` when the host has no such image, `EBUSY` when another kernel writes it, `ENODEV` for an unknown type,
    /// `EINVAL` for an image that holds no file system of that type; the kernel's message buffer says more.
    pub fn mount(&self, spec: &MountSpec) -> io::Result<()> {
        self.create_dir_all(&spec.dir)?;
        let Some(image) = &spec.image else {
            return self.mount_source(spec, Path::new(&spec.fstype));
        };
        let node = self.register_disk(image, spec.read_only)?;
        self.mount_source(spec, &node).inspect_err(|_| {
            // The first error is the one that says why.
            let _ = c_path(&node).map(|key| self.sys().etfs_remove(&key));
        })
    }

    /// Unmounts; the image is clean after it. `EBUSY` while a file of it is open or somebody's directory.
    pub fn unmount(&self, dir: impl AsRef<Path>) -> io::Result<()> {
        let dir = c_path(dir)?;
        self.sys().umount2(&dir, 0).map(drop).map_err(error)
    }

    /// What is mounted, in the order in which it was.
    pub fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        let ask = |buf: &mut [u8]| {
            let len = buf.len();
            self.sys().getvfsstat(buf, len, 0).map_err(error)
        };
        let count = ask(&mut [])? as usize;
        // Room for some that come between the two calls; the others are shown the next time.
        let mut buf = vec![0; (count + 8) * VFSSTAT_SIZE];
        let count = ask(&mut buf)? as usize;
        let (records, _) = buf.as_chunks::<VFSSTAT_SIZE>();
        Ok(records.iter().take(count).map(MountEntry::new).collect())
    }

    fn mount_source(&self, spec: &MountSpec, source: &Path) -> io::Result<()> {
        let flags = if spec.read_only { abi::MS_RDONLY } else { 0 };
        self.sys()
            .mount(
                &c_path(source)?,
                &c_path(&spec.dir)?,
                &c_path(&spec.fstype)?,
                flags as i32,
                &c_path(&spec.options)?,
            )
            .map(drop)
            .map_err(error)
    }

    /// Makes a host file appear under a key of the kernel's root (etfs): from `offset` on, `size` bytes or to its end.
    pub fn register(
        &self,
        key: impl AsRef<Path>,
        host: impl AsRef<Path>,
        kind: EtfsKind,
        offset: u64,
        size: Option<u64>,
    ) -> io::Result<()> {
        let whole = |n: u64| i64::try_from(n).map_err(|_| error(Errno::EFBIG));
        let size = size.map_or(Ok(abi::ETFS_SIZE_ENDOFF), whole)?;
        let host = c_path(std::path::absolute(host)?)?;
        let answer =
            self.sys()
                .etfs_register(&c_path(key)?, &host, kind as i32, whole(offset)?, size);
        answer.map(drop).map_err(error)
    }

    /// Registers a host file under the first free `/dev/diskN`.
    fn register_disk(&self, image: &Path, read_only: bool) -> io::Result<PathBuf> {
        const MOST: usize = 4096;
        let kind = if read_only {
            EtfsKind::ReadOnlyBlock
        } else {
            EtfsKind::Block
        };
        for n in 0..MOST {
            let node = PathBuf::from(format!("/dev/disk{n}"));
            match self.register(&node, image, kind, 0, None) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|()| node),
            }
        }
        Err(error(Errno::ENFILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_names_type_image_directory_and_options() {
        let spec: MountSpec = "ext4:disk.img:/data:ro,noatime".parse().unwrap();
        assert_eq!(spec.fstype, "ext4");
        assert_eq!(spec.image.as_deref(), Some(Path::new("disk.img")));
        assert_eq!(spec.dir, Path::new("/data"));
        assert!(spec.read_only);
        assert_eq!(spec.options, "noatime");
        let spec: MountSpec = "tmpfs::/t".parse().unwrap();
        assert_eq!((spec.image, spec.read_only), (None, false));
    }

    #[test]
    fn a_spec_that_says_too_little_is_refused_with_what_it_should_be() {
        for bad in ["", "ext4", "ext4:disk.img", ":disk.img:/data"] {
            let why = bad.parse::<MountSpec>().unwrap_err().to_string();
            assert!(why.contains("TYPE:IMAGE:DIR"), "{why}");
        }
        let why = "ext4:d:data".parse::<MountSpec>().unwrap_err().to_string();
        assert!(why.contains("absolute"), "{why}");
    }

    #[test]
    fn a_tmpfs_takes_options_in_both_forms() {
        let a = MountSpec::tmpfs("/scratch:size=64m").unwrap();
        assert_eq!(a.options, "size=64m");
        assert_eq!(Ok(a), "tmpfs::/scratch:size=64m".parse());
    }
}

//! Mounting disk images: the three steps (a block node for the image, the directory, mount(2)) as one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use abi::{Errno, Invoke, Syscalls};

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

/// What is wrong with the text of a [`MountSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError(String);

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

    /// Registers a host file under the first free `/dev/diskN`.
    fn register_disk(&self, image: &Path, read_only: bool) -> io::Result<PathBuf> {
        const MOST: usize = 4096;
        let image = c_path(std::path::absolute(image)?)?;
        let kind = abi::ETFS_BLK | if read_only { abi::ETFS_RDONLY } else { 0 };
        for n in 0..MOST {
            let node = PathBuf::from(format!("/dev/disk{n}"));
            let key = c_path(&node)?;
            match self
                .sys()
                .etfs_register(&key, &image, kind, 0, abi::ETFS_SIZE_ENDOFF)
            {
                Ok(_) => return Ok(node),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(error(errno)),
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

//! Disk images for tests, made and checked by the host's e2fsprogs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{finish, scratch};

/// An image in a temporary directory.
pub struct Image {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    /// An ext4 file system of so many MiB.
    pub fn ext4(mib: u64) -> Image {
        Image::made(mib, &["mkfs.ext4"])
    }

    /// A file system that a mkfs command makes.
    pub fn made(mib: u64, mkfs: &[&str]) -> Image {
        let image = Image::blank(mib);
        let (program, options) = mkfs.split_first().expect("a command");
        let mut command = Command::new(Path::new("/usr/sbin").join(program));
        finish(command.args(options).args(["-q", "-F"]).arg(&image.path)).ok();
        image
    }

    /// Nothing but zeroes.
    pub fn blank(mib: u64) -> Image {
        let dir = scratch();
        let path = dir.path().join("disk.img");
        let file = File::create(&path).expect("an image file");
        file.set_len(mib << 20).expect("room for an image");
        Image { dir, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory beside it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What `--mount` takes to mount it.
    pub fn at(&self, dir: &str) -> String {
        format!("ext4:{}:{dir}", self.path.display())
    }

    /// Overwrites bytes.
    pub fn damage(&self, offset: u64, bytes: &[u8]) {
        let file = File::options()
            .write(true)
            .open(&self.path)
            .expect("the image");
        file.write_all_at(bytes, offset).expect("a write");
    }

    /// Cuts it.
    pub fn truncate(&self, bytes: u64) {
        let file = File::options()
            .write(true)
            .open(&self.path)
            .expect("the image");
        file.set_len(bytes).expect("a cut");
    }

    /// Runs debugfs commands that write to it.
    pub fn debugfs(&self, commands: &str) {
        let mut command = Command::new("/usr/sbin/debugfs");
        finish(command.args(["-w", "-R", commands]).arg(&self.path)).ok();
    }

    /// Checks that the host's e2fsck finds nothing to repair and no journal to replay.
    #[track_caller]
    pub fn is_clean(&self) {
        let ended = finish(Command::new("/usr/sbin/e2fsck").arg("-fn").arg(&self.path));
        assert_eq!(ended.status, 0, "e2fsck: {}{}", ended.stdout, ended.stderr);
        assert!(
            !ended.stdout.contains("recovering journal")
                && !ended.stderr.contains("skipping journal recovery"),
            "the image was not unmounted: {}{}",
            ended.stdout,
            ended.stderr
        );
    }
}

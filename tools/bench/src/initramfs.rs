//! An archive of files for a kernel to unpack into its first file system: cpio's "newc" format, uncompressed
//! (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// Files by their absolute paths; a directory is before what is in it.
#[derive(Default)]
pub(crate) struct Initramfs(BTreeMap<String, (u32, Vec<u8>)>);

impl Initramfs {
    /// A file of the host's under this path.
    pub(crate) fn add(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| from.display().to_string())?;
        self.put(path, content);
        Ok(())
    }

    /// A file with this content, and the directories that it is in.
    pub(crate) fn put(&mut self, path: &str, content: Vec<u8>) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.0.insert(path.to_owned(), (PROGRAM, content));
    }

    pub(crate) fn directory(&mut self, path: &str) {
        for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            if end > 0 {
                self.0
                    .insert(path[..end].to_owned(), (DIRECTORY, Vec::new()));
            }
        }
    }

    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let mut archive = Vec::new();
        let entries = self
            .0
            .iter()
            .map(|(path, (mode, content))| (path.as_str(), *mode, &content[..]));
        for (i, (path, mode, content)) in entries.chain([("/TRAILER!!!", 0, &[][..])]).enumerate() {
            entry(&mut archive, i, &path[1..], mode, content);
        }
        fs::write(to, archive).with_context(|| to.display().to_string())
    }
}

/// A header of numbers in hexadecimal, the name with a zero behind it, and the content, both filled up to four bytes.
fn entry(archive: &mut Vec<u8>, inode: usize, name: &str, mode: u32, content: &[u8]) {
    archive.extend_from_slice(b"070701");
    let (size, name_size) = (content.len(), name.len() + 1);
    // inode, mode, user, group, links, time, size, two devices of two numbers, name's size, checksum
    let fields = [
        inode,
        mode as usize,
        0,
        0,
        1,
        0,
        size,
        0,
        0,
        0,
        0,
        name_size,
        0,
    ];
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    fill(archive);
    archive.extend_from_slice(content);
    fill(archive);
}

fn fill(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut files = Initramfs::default();
        files.put("/a/b/file", b"hello".to_vec());
        files.directory("/a/c");
        let names: Vec<&str> = files.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["/a", "/a/b", "/a/b/file", "/a/c"]);
    }

    #[test]
    fn an_entry_is_a_header_a_name_and_the_content_at_multiples_of_four() {
        let mut archive = Vec::new();
        entry(&mut archive, 1, "name", PROGRAM, b"hello");
        assert!(archive.starts_with(b"07070100000001000081ed"));
        assert_eq!(archive.len(), 116 + 8);
        assert_eq!(archive[110..], *b"name\0\0hello\0\0\0");
    }
}

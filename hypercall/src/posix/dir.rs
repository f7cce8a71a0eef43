//! What host paths name.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use abi::Errno;

use super::{errno_of, file, host_path};
use crate::{DirEntry, FileInfo, FileKind};

pub(super) fn file_info(path: &[u8]) -> Result<FileInfo, Errno> {
    let meta = std::fs::metadata(host_path(path)).map_err(|e| errno_of(&e))?;
    let kind = kind_of(meta.file_type());
    let size = match kind {
        FileKind::Block => file::device_size(path)?,
        _ => meta.len(),
    };
    Ok(FileInfo {
        kind,
        size,
        mode: meta.mode() & 0o7777,
        mtime: (meta.mtime() * 1_000_000_000 + meta.mtime_nsec())
            .try_into()
            .unwrap_or(0),
    })
}

pub(super) fn read_dir(path: &[u8]) -> Result<Vec<DirEntry>, Errno> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(host_path(path)).map_err(|e| errno_of(&e))? {
        let entry = entry.map_err(|e| errno_of(&e))?;
        // Links are followed, as everywhere; a dangling one is of no use to anybody.
        let Ok(meta) = std::fs::metadata(entry.path()) else {
            continue;
        };
        out.push(DirEntry {
            name: entry.file_name().as_bytes().to_vec(),
            kind: kind_of(meta.file_type()),
        });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn kind_of(kind: std::fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::Regular
    } else if kind.is_dir() {
        FileKind::Directory
    } else if kind.is_block_device() {
        FileKind::Block
    } else if kind.is_char_device() {
        FileKind::Character
    } else {
        FileKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_sizes_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("b"), "12345").expect("a file");
        std::fs::create_dir(dir.path().join("a")).expect("a directory");
        std::os::unix::fs::symlink("nowhere", dir.path().join("c")).expect("a link");
        let names = read_dir(dir.path().as_os_str().as_bytes()).expect("names");
        let names: Vec<_> = names.iter().map(|e| (&e.name[..], e.kind)).collect();
        assert_eq!(
            names,
            [(&b"a"[..], FileKind::Directory), (b"b", FileKind::Regular)]
        );
        let info = file_info(dir.path().join("b").as_os_str().as_bytes()).expect("info");
        assert_eq!((info.kind, info.size), (FileKind::Regular, 5));
        assert_eq!(
            file_info(b"/dev/null").map(|i| i.kind),
            Ok(FileKind::Character)
        );
        assert_eq!(
            file_info(dir.path().join("x").as_os_str().as_bytes()),
            Err(Errno::ENOENT)
        );
    }
}

//! Reading directories: rsext4's cursors as the numbers of `d_off`.
//!
//! In a plain directory the number is the byte at which reading goes on. In an indexed one names come in the order of
//! their hashes, two times 32 bits of which the lowest of the first is always 0; the number is the hash without its last
//! five bits, and in their place how many names with the same hash (so shortened) come before. Hashes stay when the
//! directory changes.

use abi::Errno;
use kern::Curlwp;
use rsext4::{DirectoryCursor, DirectoryEntry, InodeNumber};
use vfs::{DirEntry, DirSink};

use crate::fs::Fs;
use crate::node::kind_of;

/// The end of an indexed directory.
const END: u64 = i64::MAX as u64;
/// Names that are read in one operation.
const BATCH: usize = 128;
const ORDINAL: u64 = 31;

/// A hash as a number, without its last bits.
fn key(major: u32, minor: u32) -> u64 {
    (u64::from(major >> 1) << 32 | u64::from(minor)) & !ORDINAL
}

/// See [`vfs::VnodeOps::readdir`].
pub(crate) fn read(
    cx: &Curlwp<'_>,
    fs: &Fs,
    ino: InodeNumber,
    cookie: u64,
    sink: &mut DirSink<'_>,
) -> Result<(), Errno> {
    if cookie >= END {
        return Ok(());
    }
    let indexed = fs.look(cx, |inner| {
        Ok(inner.ext4()?.directory_end_cursor(ino)? == DirectoryCursor::End)
    })?;
    if indexed {
        read_indexed(cx, fs, ino, cookie, sink)
    } else {
        read_linear(cx, fs, ino, cookie, sink)
    }
}

fn batch(
    cx: &Curlwp<'_>,
    fs: &Fs,
    ino: InodeNumber,
    from: DirectoryCursor,
) -> Result<Vec<DirectoryEntry>, Errno> {
    fs.look(cx, |inner| inner.ext4()?.read_directory(ino, from, BATCH))
}

fn hand(sink: &mut DirSink<'_>, entry: &DirectoryEntry, next: u64) -> bool {
    sink(DirEntry {
        ino: u64::from(entry.inode.raw()),
        kind: kind_of(entry.file_type),
        next,
        name: &entry.name,
    })
}

fn read_linear(
    cx: &Curlwp<'_>,
    fs: &Fs,
    ino: InodeNumber,
    cookie: u64,
    sink: &mut DirSink<'_>,
) -> Result<(), Errno> {
    let mut offset = cookie;
    loop {
        let from = if offset == 0 {
            DirectoryCursor::Start
        } else {
            DirectoryCursor::Linear { offset }
        };
        let entries = batch(cx, fs, ino, from)?;
        for entry in &entries {
            let DirectoryCursor::Linear { offset: next } = entry.next_cursor else {
                // It has become an indexed one meanwhile; the next call sees that.
                return Ok(());
            };
            if next <= offset || !hand(sink, entry, next) {
                return Ok(());
            }
            offset = next;
        }
        if entries.len() < BATCH {
            return Ok(());
        }
    }
}

fn read_indexed(
    cx: &Curlwp<'_>,
    fs: &Fs,
    ino: InodeNumber,
    cookie: u64,
    sink: &mut DirSink<'_>,
) -> Result<(), Errno> {
    // Where the entry that is looked at stands, and how many of its kind come before it.
    let (mut at, mut skip) = (cookie & !ORDINAL, cookie & ORDINAL);
    let mut ordinal = 0;
    let mut from = DirectoryCursor::HTree {
        major: ((at >> 32) as u32) << 1,
        minor: at as u32,
        collision: 0,
    };
    loop {
        let entries = batch(cx, fs, ino, from)?;
        for entry in &entries {
            let (next_at, next_ordinal) = match entry.next_cursor {
                DirectoryCursor::HTree { major, minor, .. } if key(major, minor) == at => {
                    (at, ordinal + 1)
                }
                DirectoryCursor::HTree { major, minor, .. } => (key(major, minor), 0),
                _ => (END, 0),
            };
            if skip > 0 && next_at == at {
                skip -= 1;
            } else if skip > 0 {
                skip = 0;
                if ordinal < cookie & ORDINAL {
                    (at, ordinal) = (next_at, next_ordinal);
                    continue;
                }
            } else if !hand(sink, entry, next_at | next_ordinal.min(ORDINAL)) {
                return Ok(());
            }
            (at, ordinal) = (next_at, next_ordinal);
            from = entry.next_cursor;
        }
        if entries.len() < BATCH || at == END {
            return Ok(());
        }
    }
}

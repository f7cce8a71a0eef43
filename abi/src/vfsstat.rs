//! What the kernel-private call `getvfsstat` tells of a mount.

use crate::Statfs;

/// Bytes of a [`VfsStat`] in user memory.
pub const VFSSTAT_SIZE: usize = TARGET + TARGET_LEN;

const FSTYPE: usize = Statfs::SIZE;
const FSTYPE_LEN: usize = 32;
const SOURCE: usize = FSTYPE + FSTYPE_LEN;
const SOURCE_LEN: usize = 256;
const TARGET: usize = SOURCE + SOURCE_LEN;
const TARGET_LEN: usize = 1024;

/// One mount. In user memory: a [`Statfs`] (120 bytes), then three strings, each ended by a NUL and cut to fit: the type
/// (32 bytes), what was mounted (256) and where (1024).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfsStat<'a> {
    /// Space, inodes and flags, as statfs(2) gives them.
    pub statfs: Statfs,
    /// Type of file system.
    pub fstype: &'a [u8],
    /// What was mounted.
    pub source: &'a [u8],
    /// The mount point, as a path from the root.
    pub target: &'a [u8],
}

impl<'a> VfsStat<'a> {
    /// The record as it lies in user memory.
    pub fn to_bytes(&self) -> [u8; VFSSTAT_SIZE] {
        let mut out = [0; VFSSTAT_SIZE];
        out[..FSTYPE].copy_from_slice(&self.statfs.to_bytes());
        for (from, at, max) in [
            (self.fstype, FSTYPE, FSTYPE_LEN),
            (self.source, SOURCE, SOURCE_LEN),
            (self.target, TARGET, TARGET_LEN),
        ] {
            let len = from.len().min(max - 1);
            out[at..at + len].copy_from_slice(&from[..len]);
        }
        out
    }

    /// Reads the record as it lies in user memory.
    pub fn from_bytes(bytes: &'a [u8; VFSSTAT_SIZE]) -> VfsStat<'a> {
        let mut statfs = [0; Statfs::SIZE];
        statfs.copy_from_slice(&bytes[..FSTYPE]);
        let string = |at: usize, len: usize| {
            let field = &bytes[at..at + len];
            &field[..field.iter().position(|&b| b == 0).unwrap_or(len)]
        };
        VfsStat {
            statfs: Statfs::from_bytes(&statfs),
            fstype: string(FSTYPE, FSTYPE_LEN),
            source: string(SOURCE, SOURCE_LEN),
            target: string(TARGET, TARGET_LEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_long_names_are_cut() {
        let long = [b'x'; 2000];
        let mount = VfsStat {
            statfs: Statfs {
                f_type: 7,
                ..Statfs::default()
            },
            fstype: b"tmpfs",
            source: b"",
            target: &long,
        };
        let bytes = mount.to_bytes();
        let back = VfsStat::from_bytes(&bytes);
        assert_eq!(
            (back.statfs.f_type, back.fstype, back.source),
            (7, b"tmpfs".as_slice(), b"".as_slice())
        );
        assert_eq!(back.target, &long[..1023]);
    }
}

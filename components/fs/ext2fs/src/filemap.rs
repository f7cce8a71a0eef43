//! Which blocks of the device a regular file has: what page I/O goes by, without the mount's lock.

use crate::layout::Extent;

/// The mapped runs of a file, in file order, in blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileMap {
    extents: Vec<Extent>,
}

/// A piece of a file: where it is on the device, or that it reads as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// First block in the file.
    pub logical: u64,
    /// First block on the device; `None` in a hole.
    pub physical: Option<u64>,
    /// Blocks.
    pub len: u64,
    /// Has been written.
    pub written: bool,
}

impl FileMap {
    /// A map of these runs. `None` when they are out of order or overlap.
    pub(crate) fn new(extents: Vec<Extent>) -> Option<FileMap> {
        let ordered = extents
            .windows(2)
            .all(|pair| pair[0].end() <= pair[1].logical);
        ordered.then_some(FileMap { extents })
    }

    /// The map with one more run. `None` when that overlaps with what is there.
    pub(crate) fn with(&self, run: Extent) -> Option<FileMap> {
        let mut extents = self.extents.clone();
        let at = extents.partition_point(|e| e.logical < run.logical);
        let joins = |last: &&mut Extent| {
            last.end() == run.logical && last.physical + last.len == run.physical && last.written
        };
        match extents[..at].last_mut().filter(joins) {
            Some(last) => last.len += run.len,
            None => extents.insert(at, run),
        }
        FileMap::new(extents)
    }

    /// All runs.
    pub(crate) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The pieces that make up a range of the file, without gaps.
    pub(crate) fn pieces(&self, first: u64, end: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = first;
        let start = self.extents.partition_point(|e| e.end() <= first);
        for e in &self.extents[start..] {
            if at >= end || e.logical >= end {
                break;
            }
            if e.logical > at {
                pieces.push(Piece {
                    logical: at,
                    physical: None,
                    len: e.logical - at,
                    written: false,
                });
                at = e.logical;
            }
            let len = e.end().min(end) - at;
            pieces.push(Piece {
                logical: at,
                physical: Some(e.physical + (at - e.logical)),
                len,
                written: e.written,
            });
            at += len;
        }
        if at < end {
            pieces.push(Piece {
                logical: at,
                physical: None,
                len: end - at,
                written: false,
            });
        }
        pieces
    }

    /// Whether every block of a range is mapped.
    pub(crate) fn covers(&self, first: u64, end: u64) -> bool {
        self.pieces(first, end).iter().all(|p| p.physical.is_some())
    }

    /// Whether every block of a range is mapped and written.
    pub(crate) fn is_written(&self, first: u64, end: u64) -> bool {
        self.pieces(first, end).iter().all(|p| p.written)
    }

    /// Notes that the mapped blocks of a range are written.
    pub(crate) fn set_written(&mut self, first: u64, end: u64) {
        let mut extents: Vec<Extent> = Vec::with_capacity(self.extents.len() + 2);
        for e in &self.extents {
            for (from, to, inside) in [
                (e.logical, e.end().min(first), false),
                (e.logical.max(first), e.end().min(end), true),
                (e.logical.max(end), e.end(), false),
            ] {
                if from >= to {
                    continue;
                }
                let part = Extent {
                    logical: from,
                    physical: e.physical + (from - e.logical),
                    len: to - from,
                    written: e.written || inside,
                };
                match extents.last_mut() {
                    Some(last)
                        if last.end() == part.logical
                            && last.physical + last.len == part.physical
                            && last.written == part.written =>
                    {
                        last.len += part.len;
                    }
                    _ => extents.push(part),
                }
            }
        }
        self.extents = extents;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(logical: u64, physical: u64, len: u64, written: bool) -> Extent {
        Extent {
            logical,
            physical,
            len,
            written,
        }
    }

    #[test]
    fn pieces_have_no_gaps() {
        let map =
            FileMap::new(vec![extent(2, 100, 3, true), extent(8, 200, 2, false)]).expect("ordered");
        let seen: Vec<_> = map
            .pieces(0, 12)
            .iter()
            .map(|p| (p.logical, p.physical, p.len))
            .collect();
        assert_eq!(
            seen,
            [
                (0, None, 2),
                (2, Some(100), 3),
                (5, None, 3),
                (8, Some(200), 2),
                (10, None, 2)
            ]
        );
        assert_eq!(
            map.pieces(3, 4),
            [Piece {
                logical: 3,
                physical: Some(101),
                len: 1,
                written: true
            }]
        );
        assert!(map.covers(8, 10) && !map.is_written(8, 10) && !map.covers(4, 6));
    }

    #[test]
    fn writing_joins_neighbours() {
        let mut map =
            FileMap::new(vec![extent(0, 50, 4, true), extent(4, 54, 8, false)]).expect("ordered");
        map.set_written(4, 6);
        assert_eq!(
            map.extents(),
            [extent(0, 50, 6, true), extent(6, 56, 6, false)]
        );
        map.set_written(0, 100);
        assert_eq!(map.extents(), [extent(0, 50, 12, true)]);
    }

    #[test]
    fn overlapping_runs_are_refused() {
        assert!(FileMap::new(vec![extent(0, 50, 4, true), extent(3, 60, 1, true)]).is_none());
    }
}

//! What the rewriter needs to know of an ELF object, read from the bytes of its file: where its segments lie and where
//! its functions start. Every offset in the file is checked; a broken file has fewer answers, never a wrong access.
//!
//! Function starts come from the binary-search table of `.eh_frame_hdr` (LSB Core, "Exception Frames"), which
//! stripped objects have too.

/// An ELF file for x86-64, by its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    phoff: usize,
    phnum: usize,
}

/// A loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Program header type (`PT_LOAD`, ...).
    pub kind: u32,
    /// Permission bits: 1 executable, 2 writable, 4 readable.
    pub flags: u32,
    /// Where it starts in the file.
    pub offset: u64,
    /// Where it starts in the object's address space.
    pub vaddr: u64,
    /// How many bytes of the file it has.
    pub filesz: u64,
}

/// `PT_LOAD`.
pub(crate) const PT_LOAD: u32 = 1;
/// `PT_INTERP`: the object asks for a loader.
pub(crate) const PT_INTERP: u32 = 3;
/// `PT_GNU_EH_FRAME`.
pub(crate) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

/// The segment can be executed.
pub(crate) const PF_X: u32 = 1;

/// The most code that is taken to belong to the function before it.
const STRAY_MAX: u64 = 4096;

const ELFCLASS64: u8 = 2;
const EM_X86_64: u16 = 62;

impl<'a> Elf<'a> {
    /// Reads the header. `None` when the bytes are no ELF file for x86-64.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Elf<'a>> {
        if bytes.get(..4)? != b"\x7fELF" || *bytes.get(4)? != ELFCLASS64 {
            return None;
        }
        if u16_at(bytes, 18)? != EM_X86_64 || u16_at(bytes, 54)? != 56 {
            return None;
        }
        let phoff = usize::try_from(u64_at(bytes, 32)?).ok()?;
        let phnum = usize::from(u16_at(bytes, 56)?);
        Some(Elf {
            bytes,
            phoff,
            phnum,
        })
    }

    /// The program headers, in order, as far as the file has them.
    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> + use<'a> {
        let Elf {
            bytes,
            phoff,
            phnum,
        } = *self;
        (0..phnum).map_while(move |i| {
            let at = phoff.checked_add(i * 56)?;
            Some(Segment {
                kind: u32_at(bytes, at)?,
                flags: u32_at(bytes, at + 4)?,
                offset: u64_at(bytes, at + 8)?,
                vaddr: u64_at(bytes, at + 16)?,
                filesz: u64_at(bytes, at + 32)?,
            })
        })
    }

    fn offset_of(&self, vaddr: u64) -> Option<usize> {
        self.segments()
            .find(|s| s.kind == PT_LOAD && vaddr.wrapping_sub(s.vaddr) < s.filesz)
            .and_then(|s| usize::try_from(s.offset.checked_add(vaddr - s.vaddr)?).ok())
    }

    /// The table of functions, when the object has one in the usual encoding.
    pub(crate) fn functions(&self) -> Option<Functions<'a>> {
        let header = self.segments().find(|s| s.kind == PT_GNU_EH_FRAME)?;
        let at = usize::try_from(header.offset).ok()?;
        let head = self.bytes.get(at..at.checked_add(12)?)?;
        // Version 1; the table relative to the header with signed 32-bit entries (DW_EH_PE_datarel | sdata4) and its
        // count an unsigned 32-bit number: what every linker writes.
        if head[0] != 1 || head[2] != 0x03 || head[3] != 0x3b {
            return None;
        }
        let count = u32_at(self.bytes, at + 8)? as usize;
        let table = self
            .bytes
            .get(at + 12..at.checked_add(12 + count.checked_mul(8)?)?)?;
        Some(Functions {
            elf: *self,
            base: header.vaddr,
            table,
        })
    }
}

/// The functions of an object that have unwind information, by address.
#[derive(Clone, Copy)]
pub(crate) struct Functions<'a> {
    elf: Elf<'a>,
    base: u64,
    table: &'a [u8],
}

impl Functions<'_> {
    /// Start and end (in the object's address space) of the function that holds `vaddr`. Code behind the end that a
    /// function's own frame description gives still belongs to it, up to the next one: hand-written code ends its
    /// description early where a stack cannot be unwound (clone).
    pub(crate) fn containing(&self, vaddr: u64) -> Option<(u64, u64)> {
        let count = self.table.len() / 8;
        let (mut low, mut high) = (0, count);
        while low < high {
            let mid = low + (high - low) / 2;
            if self.start(mid)? <= vaddr {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        let index = low.checked_sub(1)?;
        let start = self.start(index)?;
        let end = start.checked_add(self.length(index)?)?;
        if vaddr < end {
            return Some((start, end));
        }
        let next = self.start(low)?;
        (vaddr < next && next - end < STRAY_MAX).then_some((start, next))
    }

    fn entry(&self, index: usize, field: usize) -> Option<u64> {
        let offset = i32_at(self.table, index * 8 + field * 4)?;
        Some(self.base.wrapping_add_signed(i64::from(offset)))
    }

    fn start(&self, index: usize) -> Option<u64> {
        self.entry(index, 0)
    }

    /// Length of the function from its frame description: length, CIE pointer, start, range, with 32-bit pointers as
    /// compilers write them; checked against the start that the table gives.
    fn length(&self, index: usize) -> Option<u64> {
        let fde_vaddr = self.entry(index, 1)?;
        let fde = self.elf.offset_of(fde_vaddr)?;
        let pc_begin = i32_at(self.elf.bytes, fde.checked_add(8)?)?;
        let start = (fde_vaddr + 8).wrapping_add_signed(i64::from(pc_begin));
        (start == self.start(index)?).then_some(())?;
        u32_at(self.elf.bytes, fde + 12).map(u64::from)
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    array_at(bytes, at).map(i32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_program_has_functions_where_they_are() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        assert!(elf.segments().any(|s| s.kind == PT_INTERP));
        let functions = elf.functions().unwrap();
        let text = elf
            .segments()
            .find(|s| s.kind == PT_LOAD && s.flags & 1 != 0)
            .unwrap();
        let found = (0..text.filesz)
            .step_by(997)
            .filter_map(|i| functions.containing(text.vaddr + i))
            .inspect(|&(start, end)| assert!(start < end))
            .count();
        assert!(found as u64 > text.filesz / 997 / 2, "{found}");
    }

    #[test]
    fn no_elf_is_refused() {
        assert!(Elf::parse(b"#!/bin/sh\n").is_none());
        assert!(Elf::parse(b"").is_none());
    }

    proptest! {
        #[test]
        fn broken_files_are_read_without_harm(mut noise in proptest::collection::vec(any::<u8>(), 64..600), at in any::<u64>()) {
            noise[..5].copy_from_slice(b"\x7fELF\x02");
            noise[18..20].copy_from_slice(&62u16.to_le_bytes());
            noise[54..56].copy_from_slice(&56u16.to_le_bytes());
            let phoff = u64::from(noise[33]) % 80;
            noise[32..40].copy_from_slice(&phoff.to_le_bytes());
            if let Some(elf) = Elf::parse(&noise) {
                let _ = elf.segments().count();
                if let Some(f) = elf.functions() { let _ = f.containing(at); }
            }
        }
    }
}

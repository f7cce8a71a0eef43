//! Rewriting one object: every window that [`crate::scan`] found becomes a jump to a trampoline of its own.
//!
//! A trampoline holds the instructions of its window, moved, with the `syscall` among them. In front of the `syscall`
//! it loads the address of that very instruction into rcx (which the call clobbers anyway) and jumps to the hook.
//! The hook comes back either to the `syscall`, and the host serves the call with every register as it was, or to
//! the instruction behind it, with the answer in rax.
//!
//! Of a window only the first five bytes change. What sticks out stays, so even a jump that nobody foresaw into the
//! tail finds the instruction that it expects.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

use crate::elf::{Elf, PF_X, PT_LOAD};
use crate::mapvec::MapVec;
use crate::scan::{self, JUMP, Plan, Reason, Site, WINDOW_MAX};
use crate::sys::{self, MAP_FIXED_NOREPLACE, PROT_EXEC, PROT_READ, PROT_WRITE, host};

/// The most bytes a trampoline takes: its window, entry to the hook (`lea` and `jmp`), the jump back.
const TRAMPOLINE_MAX: usize = WINDOW_MAX + 7 + 6 + 5;
/// How far code may lie from its trampoline, less than rel32 reaches.
const NEAR: usize = 0x7000_0000;

/// A mapped piece of an object's text, and the file behind it.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    /// Where it is mapped.
    pub start: usize,
    /// Bytes mapped.
    pub len: usize,
    /// Where in the file it starts.
    pub offset: u64,
    /// The whole file.
    pub file: &'a [u8],
}

/// Rewrites what it can of a text and notes each site with what became of it. Answers where in the object's address
/// space the text starts, or `None` when the file is no object or has no such text.
///
/// # Safety
/// `text` describes a mapping of that file that nobody executes between the check of the bytes and their change, or
/// that only this thread executes; `hook` is the hook's entry.
pub(crate) unsafe fn rewrite(text: Text<'_>, hook: usize, sites: &mut MapVec<Site>) -> Option<u64> {
    let elf = Elf::parse(text.file)?;
    // A mapping begins at a page, which may hold the end of the segment before.
    let segment = elf.segments().find(|s| {
        let begin = s.offset & !4095;
        let is_code = s.kind == PT_LOAD && s.flags & PF_X != 0;
        is_code && text.offset.wrapping_sub(begin) < s.filesz.saturating_add(s.offset - begin)
    })?;
    let vaddr = segment
        .vaddr
        .wrapping_add(text.offset.wrapping_sub(segment.offset));
    let from = usize::try_from(text.offset).ok()?;
    let to = usize::try_from(segment.offset.checked_add(segment.filesz)?).ok()?;
    let to = to.min(from.checked_add(text.len)?).min(text.file.len());
    let bytes = text.file.get(from..to)?;
    let first = sites.len();
    scan::scan(bytes, vaddr, elf.functions(), sites).ok()?;
    // SAFETY: as this function's.
    if unsafe { install(text.start, bytes, hook, &mut sites[first..]) }.is_none() {
        for site in &mut sites[first..] {
            if matches!(site.plan, Plan::Rewrite { .. }) {
                site.plan = Plan::Leave(Reason::NoMemory);
            }
        }
    }
    Some(vaddr)
}

/// Writes trampolines and jumps for the planned sites of the text at `start`.
///
/// # Safety
/// As [`rewrite`].
unsafe fn install(start: usize, bytes: &[u8], hook: usize, sites: &mut [Site]) -> Option<()> {
    let planned = sites
        .iter()
        .filter(|s| matches!(s.plan, Plan::Rewrite { .. }))
        .count();
    if planned == 0 {
        return Some(());
    }
    let room = (16 + planned * TRAMPOLINE_MAX).next_multiple_of(4096);
    let area = near_memory(start, bytes.len(), room)?;
    let mut out = Emitter {
        area: area as usize,
        at: area as usize + 16,
    };
    let pages = (start & !4095, (start + bytes.len()).next_multiple_of(4096));
    let len = pages.1 - pages.0;
    // SAFETY: the area is fresh and 16 bytes long at least; the text is mapped, and stays executable while it changes.
    unsafe {
        (area as *mut usize).write(hook);
        if sys::failed(host!(
            mprotect,
            pages.0,
            len,
            PROT_READ | PROT_WRITE | PROT_EXEC
        )) {
            sys::unmap(area, room);
            return None;
        }
    }
    for site in sites.iter_mut() {
        let Plan::Rewrite { start: from, len } = site.plan else {
            continue;
        };
        let (from, to) = (from as usize, from as usize + usize::from(len));
        let trampoline = out.at;
        let at = start + from;
        // Memory must say what the file says: a text with relocations, or changed by somebody else, is let alone.
        // SAFETY: the mapping covers bytes.len() bytes from start.
        let live = unsafe { core::slice::from_raw_parts(at as *const u8, to - from) };
        // SAFETY: room was counted for every site.
        let done =
            live == &bytes[from..to] && unsafe { out.trampoline(&bytes[from..to], at) }.is_some();
        if !done {
            out.at = trampoline;
            site.plan = Plan::Leave(Reason::Cramped);
            continue;
        }
        let mut jump = [0xe9u8; JUMP];
        jump[1..].copy_from_slice(&(trampoline.wrapping_sub(at + JUMP) as i32).to_le_bytes());
        // SAFETY: the page is writable now and the window is at least five bytes.
        unsafe { core::ptr::copy_nonoverlapping(jump.as_ptr(), at as *mut u8, JUMP) };
    }
    // SAFETY: both ranges were made writable above and are executed from now on.
    unsafe {
        host!(mprotect, pages.0, len, PROT_READ | PROT_EXEC);
        if out.at == area as usize + 16 {
            sys::unmap(area, room);
        } else {
            host!(mprotect, area, room, PROT_READ | PROT_EXEC);
        }
    }
    Some(())
}

/// Writes machine code.
struct Emitter {
    area: usize,
    at: usize,
}

impl Emitter {
    fn put(&mut self, bytes: &[u8]) {
        // SAFETY: the area has TRAMPOLINE_MAX bytes for each trampoline.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at as *mut u8, bytes.len()) };
        self.at += bytes.len();
    }

    /// One trampoline for the window at `from`; `None` when an operand does not reach.
    ///
    /// # Safety
    /// The area has room for one more.
    unsafe fn trampoline(&mut self, window: &[u8], from: usize) -> Option<()> {
        let mut decoder = Decoder::with_ip(64, window, from as u64, DecoderOptions::NONE);
        let mut instr = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instr);
            let begin = (instr.ip() - from as u64) as usize;
            let bytes = window.get(begin..begin + instr.len())?;
            if instr.code() == Code::Syscall {
                // lea rcx, [rip + 6]: the syscall behind the jump; jmp [rip + hook].
                self.put(&[0x48, 0x8d, 0x0d, 6, 0, 0, 0]);
                let hook = self.area.wrapping_sub(self.at + 6) as i32;
                self.put(&[0xff, 0x25]);
                self.put(&hook.to_le_bytes());
                self.put(bytes);
            } else if instr.is_ip_rel_memory_operand() {
                let offsets = decoder.get_constant_offsets(&instr);
                let disp = offsets.displacement_offset();
                (offsets.has_displacement() && offsets.displacement_size() == 4).then_some(())?;
                let target = instr.ip_rel_memory_address() as i64;
                let new = i32::try_from(target - (self.at + instr.len()) as i64).ok()?;
                let at = self.at;
                self.put(bytes);
                self.at = at + disp;
                self.put(&new.to_le_bytes());
                self.at = at + instr.len();
            } else {
                self.put(bytes);
            }
        }
        let back = (from + window.len()) as i64 - (self.at + 5) as i64;
        self.put(&[0xe9]);
        self.put(&i32::try_from(back).ok()?.to_le_bytes());
        Some(())
    }
}

/// Memory within reach of a text: where the host likes to put it, else below the text, where no heap grows.
fn near_memory(start: usize, len: usize, room: usize) -> Option<*mut u8> {
    let reaches = |at: usize| at.abs_diff(start) < NEAR && (at + room).abs_diff(start + len) < NEAR;
    if let Some(at) = sys::map_anon(0, room, 0) {
        if reaches(at as usize) {
            return Some(at);
        }
        // SAFETY: mapped a line ago.
        unsafe { sys::unmap(at, room) };
    }
    let below = (1..64usize)
        .map(|k| k << 16)
        .chain((1..64).map(|k| k << 24));
    below
        .filter_map(|gap| (start & !0xffff).checked_sub(gap + room.next_multiple_of(1 << 16)))
        .chain((1..64).map(|k| (start + len).next_multiple_of(1 << 16) + (k << 24)))
        .filter(|&at| at >= 1 << 16 && reaches(at))
        .find_map(|at| sys::map_anon(at, room, MAP_FIXED_NOREPLACE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hook that lets every call pass: it jumps back to the `syscall`.
    #[unsafe(naked)]
    extern "C" fn pass() {
        core::arch::naked_asm!("jmp rcx")
    }

    /// A hook that answers 42 itself.
    #[unsafe(naked)]
    extern "C" fn answer() {
        core::arch::naked_asm!("mov eax, 42", "add rcx, 2", "jmp rcx")
    }

    /// Maps a function that makes getppid(2) with a rip-relative load in the window, rewrites it and calls it.
    fn call_through(hook: usize) -> i64 {
        // mov ecx,[rip+1]; syscall... as: 8b 05 rel32 (number); 0f 05; c3; number: 110
        let mut code = vec![0x8b, 0x05, 3, 0, 0, 0, 0x0f, 0x05, 0xc3];
        code.extend_from_slice(&110u32.to_le_bytes());
        let at = sys::map_anon(0, 4096, 0).unwrap();
        // SAFETY: a fresh page, filled with a function of no arguments and then made executable.
        unsafe {
            core::ptr::copy_nonoverlapping(code.as_ptr(), at, code.len());
            let mut sites = [Site {
                at: 6,
                plan: Plan::Rewrite { start: 0, len: 8 },
            }];
            install(at as usize, &code, hook, &mut sites).unwrap();
            assert!(matches!(sites[0].plan, Plan::Rewrite { .. }));
            assert_eq!(*at, 0xe9);
            let f: extern "C" fn() -> i64 = core::mem::transmute(at);
            f()
        }
    }

    #[test]
    fn a_rewritten_call_passes_to_the_host_with_its_moved_operand() {
        // SAFETY: getppid has no effect.
        let host = unsafe { host!(getppid) };
        assert_eq!(call_through(pass as *const () as usize), host);
    }

    #[test]
    fn a_rewritten_call_can_be_answered_by_the_hook() {
        assert_eq!(call_through(answer as *const () as usize), 42);
    }
}

//! Finding the `syscall` instructions of an object's text, and for each the bytes that a jump may replace.
//!
//! `syscall` is two bytes and a jump takes five, so neighbouring instructions move out of the way with it. A *window*
//! is the run of whole instructions that is replaced. It may only be replaced when nothing enters it but at its
//! start: no branch of the function lands inside, no far branch of the whole text does (looked for at every byte
//! offset, so that data and cold parts count too), and what moves does not depend on where it stands.

use core::arch::x86_64::{
    __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128,
    _mm_set1_epi8,
};

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction};

use crate::elf::Functions;
use crate::mapvec::{MapVec, OutOfMemory};

/// The two bytes of `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Bytes of `jmp rel32`.
pub(crate) const JUMP: usize = 5;
/// The most bytes a window has: the jump, and what of two long instructions sticks out.
pub(crate) const WINDOW_MAX: usize = 32;
/// Bytes of the longest instruction.
const LONGEST: usize = 15;
/// How far around a site branches are watched for.
const REACH: usize = 32;

/// A `syscall` instruction, by offset in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Where it is.
    pub at: u32,
    /// What can be done with it.
    pub plan: Plan,
}

/// What can be done with a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Replace `len` bytes from `start`.
    Rewrite {
        /// Offset of the first byte replaced.
        start: u32,
        /// Bytes of whole instructions.
        len: u8,
    },
    /// Leave it as it is.
    Leave(Reason),
}

/// Why a site stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing says where the instructions around it start.
    NoFunction,
    /// The instructions around it cannot move, or a branch lands among them.
    Cramped,
    /// A branch from elsewhere in the text lands inside the window.
    FarBranch,
    /// rt_sigreturn(2), which unwinders know by its bytes and which always is the host's.
    Sigreturn,
    /// The text could not be made writable, or no memory near it was free.
    NoMemory,
}

impl Reason {
    /// For people to read.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::NoFunction => "outside every known function",
            Reason::Cramped => "its neighbours cannot move",
            Reason::FarBranch => "a branch lands inside",
            Reason::Sigreturn => "rt_sigreturn, always the host's",
            Reason::NoMemory => "no memory near it",
        }
    }
}

/// Finds the sites of `text`, which lies at `vaddr` of the object's address space, in ascending order.
pub(crate) fn scan(
    text: &[u8],
    vaddr: u64,
    functions: Option<Functions<'_>>,
    sites: &mut MapVec<Site>,
) -> Result<(), OutOfMemory> {
    let first = sites.len();
    let mut busy_until = 0;
    for at in candidates(text) {
        let function = functions
            .and_then(|f| f.containing(vaddr + at as u64))
            .and_then(|(start, end)| {
                let start = usize::try_from(start.checked_sub(vaddr)?).ok()?;
                let end = usize::try_from(end - vaddr).ok()?;
                (end <= text.len()).then_some((start, end))
            });
        let plan = match function {
            _ if is_sigreturn(text, at) => Some(Plan::Leave(Reason::Sigreturn)),
            None => Some(Plan::Leave(Reason::NoFunction)),
            Some((start, end)) => plan(text, vaddr, start, end, at, busy_until),
        };
        if let Some(plan) = plan {
            if let Plan::Rewrite { start, len } = plan {
                busy_until = start as usize + usize::from(len);
            }
            sites.push(Site {
                at: at as u32,
                plan,
            })?;
        }
    }
    refuse_far_branches(text, &mut sites[first..])
}

/// Every offset at which the bytes of `syscall` stand, as an instruction or not.
fn candidates(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    marked(text, |byte, next| {
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            _mm_and_si128(
                _mm_cmpeq_epi8(byte, _mm_set1_epi8(SYSCALL[0] as i8)),
                _mm_cmpeq_epi8(next, _mm_set1_epi8(SYSCALL[1] as i8)),
            )
        }
    })
}

/// Every offset at which a call, jump or conditional jump with a 32-bit displacement may stand: e8, e9, 0f 80 to 0f 8f.
fn far_branches(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    marked(text, |byte, next| {
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let masked = |v, mask, want| {
                _mm_cmpeq_epi8(_mm_and_si128(v, _mm_set1_epi8(mask)), _mm_set1_epi8(want))
            };
            let conditional = _mm_and_si128(
                masked(byte, -1, 0x0f),
                masked(next, 0xf0u8 as i8, 0x80u8 as i8),
            );
            _mm_or_si128(masked(byte, 0xfeu8 as i8, 0xe8u8 as i8), conditional)
        }
    })
}

/// The offsets that `pick` marks, sixteen at a time by their bytes and the bytes behind those. Behind the last byte there
/// is a zero.
fn marked<'a>(
    text: &'a [u8],
    pick: impl Fn(__m128i, __m128i) -> __m128i + 'a,
) -> impl Iterator<Item = usize> + 'a {
    let mut block = 0;
    let mut marks = 0u32;
    core::iter::from_fn(move || {
        while marks == 0 {
            let mut last = [0u8; 17];
            let bytes: &[u8; 17] = match text.get(block..block + 17) {
                Some(bytes) => bytes.try_into().ok()?,
                None => {
                    let rest = text.get(block..).filter(|rest| !rest.is_empty())?;
                    last[..rest.len()].copy_from_slice(rest);
                    &last
                }
            };
            // SAFETY: both loads of sixteen bytes lie in the seventeen.
            marks = unsafe {
                let at = bytes.as_ptr();
                let byte = _mm_loadu_si128(at.cast());
                let next = _mm_loadu_si128(at.add(1).cast());
                _mm_movemask_epi8(pick(byte, next)) as u32
            };
            block += 16;
        }
        let at = block - 16 + marks.trailing_zeros() as usize;
        marks &= marks - 1;
        Some(at)
    })
}

/// Instruction boundaries around a site and what they are.
struct Around {
    /// Starts and lengths of the last instructions before the site, nearest first.
    before: [(usize, usize, bool); 4],
    /// The same of those after it.
    after: [(usize, usize, bool); 4],
    n_before: usize,
    n_after: usize,
}

/// Whether the number of rt_sigreturn(2) is loaded right before. By its bytes, because the frame description of a signal
/// trampoline begins a byte early, for unwinders that look at the return address minus one.
fn is_sigreturn(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    before.ends_with(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0]) || before.ends_with(&[0xb8, 15, 0, 0, 0])
}

/// Decides on the candidate at `at` of the function `start..end`; `None` when it is no instruction.
fn plan(
    text: &[u8],
    vaddr: u64,
    start: usize,
    end: usize,
    at: usize,
    busy_until: usize,
) -> Option<Plan> {
    let mut around = Around {
        before: [(0, 0, false); 4],
        after: [(0, 0, false); 4],
        n_before: 0,
        n_after: 0,
    };
    // A bit for each offset from `at - REACH` on at which a branch of this function lands.
    let mut landings = 0u64;
    let mut is_instruction = false;
    let mut flags_needed = false;
    let mut straight = true;
    let mut decoder = Decoder::with_ip(
        64,
        &text[start..end],
        vaddr + start as u64,
        DecoderOptions::NONE,
    );
    let mut instr = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instr);
        let here = (instr.ip() - vaddr) as usize;
        if let Some(target) = near_target(&instr) {
            let bit = target
                .wrapping_sub(vaddr + at as u64)
                .wrapping_add(REACH as u64);
            if bit < 64 {
                landings |= 1 << bit;
            }
        }
        if here + 4 * LONGEST < at {
            continue;
        }
        let movable = is_movable(&instr);
        if here < at {
            around.before.rotate_right(1);
            around.before[0] = (here, instr.len(), movable);
            around.n_before = (around.n_before + 1).min(4);
        } else if here == at {
            is_instruction = instr.code() == Code::Syscall;
        } else if is_instruction {
            if around.n_after < 4 {
                around.after[around.n_after] = (here, instr.len(), movable);
                around.n_after += 1;
            }
            if straight && !flags_needed {
                flags_needed = instr.code() != Code::Syscall
                    && instr.rflags_read() & !iced_x86::RflagsBits::DF != 0;
                straight =
                    instr.flow_control() == FlowControl::Next && instr.rflags_modified() == 0;
            }
        }
        if here > at && !is_instruction {
            return None;
        }
    }
    if !is_instruction {
        return None;
    }
    if flags_needed {
        return Some(Plan::Leave(Reason::Cramped));
    }
    let window = around.window(at, landings, busy_until);
    Some(
        window.map_or(Plan::Leave(Reason::Cramped), |(start, len)| Plan::Rewrite {
            start: start as u32,
            len: len as u8,
        }),
    )
}

impl Around {
    /// The smallest window that holds a jump: first by what stands before the site (a load of the call's number, as
    /// a rule, which no branch separates from it), then by what follows, then by both.
    fn window(&self, at: usize, landings: u64, busy_until: usize) -> Option<(usize, usize)> {
        let backwards = (1..=self.n_before).map(|k| (k, 0));
        let forwards = (1..=self.n_after).map(|m| (0, m));
        let both = (1..=self.n_before).flat_map(|k| (1..=self.n_after).map(move |m| (k, m)));
        backwards
            .chain(forwards)
            .chain(both)
            .filter_map(|(k, m)| {
                let before = &self.before[..k];
                let after = &self.after[..m];
                before.iter().chain(after).all(|i| i.2).then_some(())?;
                let start = before.last().map_or(at, |i| i.0);
                let end = after.last().map_or(at + 2, |i| i.0 + i.1);
                let fits = (JUMP..=WINDOW_MAX).contains(&(end - start));
                (fits && start >= busy_until).then_some(())?;
                let entered = (start + 1..end).any(|inside| {
                    let bit = (inside + REACH).wrapping_sub(at);
                    bit >= 64 || landings >> bit & 1 != 0
                });
                (!entered).then_some((start, end - start))
            })
            .next()
    }
}

/// Where a direct branch goes.
fn near_target(instr: &Instruction) -> Option<u64> {
    match instr.flow_control() {
        FlowControl::ConditionalBranch
        | FlowControl::UnconditionalBranch
        | FlowControl::Call
        | FlowControl::XbeginXabortXend => Some(instr.near_branch_target()),
        _ => None,
    }
}

/// Whether an instruction does the same from another place, once its rip-relative operand is adjusted.
fn is_movable(instr: &Instruction) -> bool {
    instr.flow_control() == FlowControl::Next
        && !instr.is_invalid()
        && !matches!(instr.code(), Code::Syscall | Code::Endbr64)
}

/// Withdraws windows into which a 32-bit branch from anywhere in the text leads: every byte is taken for the start of
/// a call, jump or conditional jump, so nothing that is one can be missed.
fn refuse_far_branches(text: &[u8], sites: &mut [Site]) -> Result<(), OutOfMemory> {
    // SAFETY: zero is a valid u64.
    let mut inside = unsafe { MapVec::<u64>::zeroed(text.len() / 64 + 1) }.ok_or(OutOfMemory)?;
    let mut any = false;
    for site in sites.iter() {
        if let Plan::Rewrite { start, len } = site.plan {
            for at in start as usize + 1..start as usize + usize::from(len) {
                inside[at / 64] |= 1 << (at % 64);
                any = true;
            }
        }
    }
    if !any {
        return Ok(());
    }
    for i in far_branches(text) {
        let end = i + if text[i] == 0x0f { 6 } else { 5 };
        let Some(Ok(disp)) = text.get(end - 4..end).map(<[u8; 4]>::try_from) else {
            continue;
        };
        let target = (end as u64).wrapping_add_signed(i64::from(i32::from_le_bytes(disp)));
        let hit = usize::try_from(target).ok().filter(|&t| {
            inside
                .get(t / 64)
                .is_some_and(|word| word >> (t % 64) & 1 != 0)
        });
        if let Some(hit) = hit {
            withdraw(sites, hit as u32, i as u32);
        }
    }
    Ok(())
}

/// Withdraws the window around `target`, unless the branch at `from` is itself bytes of that window (a number that
/// looks like a branch).
fn withdraw(sites: &mut [Site], target: u32, from: u32) {
    let index = sites.partition_point(|s| s.at <= target + WINDOW_MAX as u32);
    for site in sites[..index].iter_mut().rev() {
        if let Plan::Rewrite { start, len } = site.plan {
            let inside = start < target && target < start + u32::from(len);
            if inside && !(start..start + u32::from(len)).contains(&from) {
                site.plan = Plan::Leave(Reason::FarBranch);
            }
            if start + (WINDOW_MAX as u32) < target {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::{Elf, PT_LOAD};

    fn sites_of(path: &str) -> Vec<Site> {
        let bytes = std::fs::read(path).unwrap();
        let elf = Elf::parse(&bytes).unwrap();
        let mut sites = MapVec::default();
        for s in elf
            .segments()
            .filter(|s| s.kind == PT_LOAD && s.flags & 1 != 0)
        {
            let text = &bytes[s.offset as usize..(s.offset + s.filesz) as usize];
            let began = std::time::Instant::now();
            scan(text, s.vaddr, elf.functions(), &mut sites).unwrap();
            println!("{path}: {} bytes in {:?}", text.len(), began.elapsed());
        }
        sites.to_vec()
    }

    fn libc_path() -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|l| l.contains("libc.so")).unwrap();
        line.split_whitespace().nth(5).unwrap().to_owned()
    }

    #[test]
    fn nearly_every_site_of_libc_and_the_loader_can_be_rewritten() {
        for path in [libc_path(), "/lib64/ld-linux-x86-64.so.2".to_owned()] {
            let sites = sites_of(&path);
            let left: Vec<_> = sites
                .iter()
                .filter(|s| matches!(s.plan, Plan::Leave(why) if why != Reason::Sigreturn))
                .collect();
            println!("{path}: {} sites, left {left:x?}", sites.len());
            assert!(sites.len() > 40, "{path}: {}", sites.len());
            assert!(left.len() * 100 <= sites.len(), "{path}: {left:x?}");
        }
    }

    #[test]
    fn candidates_are_found_at_every_offset() {
        for at in 0..40 {
            let mut text = vec![0x90u8; 48];
            text[at..at + 2].copy_from_slice(&SYSCALL);
            assert_eq!(candidates(&text).collect::<Vec<_>>(), [at], "{at}");
        }
        assert_eq!(
            candidates(&[5, 5, 0x0f, 0x0f, 5, 5]).collect::<Vec<_>>(),
            [3]
        );
        assert_eq!(candidates(&[0x0f]).count(), 0);
        let text: Vec<u8> = (0..100u8)
            .flat_map(|i| [0x0f, 0x7e + i % 20, 0xe6 + i % 5])
            .collect();
        let slow = text.iter().enumerate().filter(|&(i, &b)| {
            matches!(b, 0xe8 | 0xe9)
                || b == 0x0f && text.get(i + 1).is_some_and(|n| n & 0xf0 == 0x80)
        });
        assert!(far_branches(&text).eq(slow.map(|(i, _)| i)));
    }

    fn plan_of(code: &[u8], at: usize) -> Option<Plan> {
        plan(code, 0x1000, 0, code.len(), at, 0)
    }

    #[test]
    fn the_load_of_the_number_moves_with_the_call() {
        // mov eax, 39; syscall; ret
        let code = [0xb8, 39, 0, 0, 0, 0x0f, 5, 0xc3];
        assert_eq!(plan_of(&code, 5), Some(Plan::Rewrite { start: 0, len: 7 }));
    }

    #[test]
    fn a_branch_onto_the_call_itself_moves_the_window_behind_it() {
        // mov eax, 39; syscall; cmp rax, -4095; jmp syscall
        let code = [
            0xb8, 39, 0, 0, 0, 0x0f, 5, 0x48, 0x3d, 1, 0xf0, 0xff, 0xff, 0xeb, 0xf6,
        ];
        assert_eq!(plan_of(&code, 5), Some(Plan::Rewrite { start: 5, len: 8 }));
    }

    #[test]
    fn bytes_inside_another_instruction_are_no_site() {
        // mov eax, 0x050f; ret
        let code = [0xb8, 0x0f, 5, 0, 0, 0xc3];
        assert_eq!(plan_of(&code, 1), None);
    }

    #[test]
    fn flags_that_live_across_the_call_keep_it_as_it_is() {
        // mov eax, 39; syscall; jz .
        let code = [0xb8, 39, 0, 0, 0, 0x0f, 5, 0x74, 0xfe];
        assert_eq!(plan_of(&code, 5), Some(Plan::Leave(Reason::Cramped)));
    }

    #[test]
    fn sigreturn_keeps_its_bytes() {
        // mov rax, 15; syscall
        let code = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 5];
        let mut sites = MapVec::default();
        scan(&code, 0, None, &mut sites).unwrap();
        let want = Site {
            at: 7,
            plan: Plan::Leave(Reason::Sigreturn),
        };
        assert_eq!(*sites, [want]);
    }
}

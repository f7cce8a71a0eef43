//! The process's mappings, as /proc/self/maps lists them, read without libc.

use crate::mapvec::MapVec;
use crate::sys::{self, host};

/// One line of /proc/self/maps, proc_pid_maps(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping<'a> {
    /// First address.
    pub start: usize,
    /// First address behind it.
    pub end: usize,
    /// Whether its bytes can be executed.
    pub exec: bool,
    /// Where in the file it starts.
    pub offset: u64,
    /// Number of the file.
    pub inode: u64,
    /// Name of the file, or `[name]`, or empty.
    pub path: &'a [u8],
}

/// The text of /proc/self/maps.
pub(crate) fn read() -> Option<MapVec<u8>> {
    // SAFETY: the path is a constant string with its NUL.
    let fd = unsafe { host!(open, c"/proc/self/maps".as_ptr(), 0o2000000, 0) };
    if sys::failed(fd) {
        return None;
    }
    let mut text = MapVec::default();
    let mut chunk = [0u8; 1024];
    loop {
        // SAFETY: chunk is writable for its length.
        let got = unsafe { host!(read, fd, chunk.as_mut_ptr(), chunk.len()) };
        let whole = got <= 0
            || chunk[..got as usize]
                .iter()
                .try_for_each(|&b| text.push(b))
                .is_err();
        if whole {
            break;
        }
    }
    // SAFETY: the descriptor was opened above.
    unsafe { host!(close, fd) };
    Some(text)
}

/// The mappings of a maps text, in order of address; lines of another form are passed over.
pub(crate) fn parse(text: &[u8]) -> impl Iterator<Item = Mapping<'_>> {
    text.split(|&b| b == b'\n').filter_map(line)
}

fn line(line: &[u8]) -> Option<Mapping<'_>> {
    let mut rest = line;
    let range = word(&mut rest)?;
    let dash = range.iter().position(|&b| b == b'-')?;
    let perms = word(&mut rest)?;
    let offset = word(&mut rest)?;
    let _device = word(&mut rest)?;
    let inode = word(&mut rest)?;
    Some(Mapping {
        start: number(&range[..dash], 16)? as usize,
        end: number(&range[dash + 1..], 16)? as usize,
        exec: perms.get(2) == Some(&b'x'),
        offset: number(offset, 16)?,
        inode: number(inode, 10)?,
        path: rest.trim_ascii_start(),
    })
}

fn word<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let text = rest.trim_ascii_start();
    let end = text.iter().position(|&b| b == b' ').unwrap_or(text.len());
    let (word, tail) = text.split_at(end);
    *rest = tail;
    (!word.is_empty()).then_some(word)
}

fn number(digits: &[u8], base: u32) -> Option<u64> {
    digits.iter().try_fold(0u64, |n, &d| {
        let digit = (d as char).to_digit(base)?;
        n.checked_mul(u64::from(base))?
            .checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_field_by_field() {
        let text = b"7f00-8000 r-xp 00028000 fe:01 4711    /lib/a b.so\n\nnonsense\n8000-9000 rw-p 0 00:00 0 \n";
        let got: Vec<_> = parse(text).collect();
        assert_eq!(
            got[0],
            Mapping {
                start: 0x7f00,
                end: 0x8000,
                exec: true,
                offset: 0x28000,
                inode: 4711,
                path: b"/lib/a b.so"
            }
        );
        assert_eq!((got.len(), got[1].exec, got[1].path), (2, false, &b""[..]));
    }

    #[test]
    fn this_function_is_mapped_executable() {
        let text = read().unwrap();
        let here = this_function_is_mapped_executable as *const () as usize;
        assert!(parse(&text).any(|m| m.exec && (m.start..m.end).contains(&here)));
    }
}

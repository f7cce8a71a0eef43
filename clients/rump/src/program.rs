//! The program to run: where it is, and whether the shim can be preloaded into it. One that would silently run on the host alone is
//! refused.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

use crate::failure::{CANNOT_RUN, Failure, NOT_FOUND};

/// Scripts may name a script as their interpreter; the host follows five.
const INTERPRETERS: usize = 5;

/// The program's file. The failure says why there is none, or why it cannot run on a kernel.
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let file = locate(name, &std::env::var_os("PATH").unwrap_or_default())?;
    check(&file, INTERPRETERS)?;
    Ok(file)
}

fn locate(name: &OsStr, path: &OsStr) -> Result<PathBuf, Failure> {
    let not_found = |what: &str| {
        let text = format!("{}: {what}", name.display());
        Failure::with_status(NOT_FOUND, anyhow!(text))
    };
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        if !file.exists() {
            return Err(not_found(
                "no such program on the host; the kernel's own files cannot be run",
            ));
        }
        return Ok(file);
    }
    std::env::split_paths(path)
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
        .ok_or_else(|| not_found("no such program in any directory of PATH"))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

fn check(file: &Path, interpreters: usize) -> Result<(), Failure> {
    let refuse = |why: String| {
        let text = format!("{}: {why}", file.display());
        Failure::with_status(CANNOT_RUN, anyhow!(text))
    };
    if !is_executable(file) {
        return Err(refuse("is not executable; see chmod(1)".into()));
    }
    if is_privileged(file) {
        return Err(refuse(
            "is setuid or setgid: the loader preloads nothing into it, so it would run on the host alone; run a copy without that bit".into(),
        ));
    }
    if has_capabilities(file) {
        return Err(refuse(
            "has file capabilities: the loader preloads nothing into it, so it would run on the host alone; run a copy (cp drops them)".into(),
        ));
    }
    let mut head = Vec::new();
    let read = File::open(file).and_then(|f| f.take(4096).read_to_end(&mut head));
    read.map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if let Some(interpreter) = interpreter(&head) {
        if interpreters == 0 {
            return Err(refuse(
                "its interpreter is a script, whose interpreter is one, and so on".into(),
            ));
        }
        return check(&interpreter, interpreters - 1);
    }
    match kind(&head) {
        Kind::Dynamic | Kind::NoElf => Ok(()),
        Kind::Static => Err(refuse(
            "is statically linked: nothing can be preloaded into it, so it would run on the host alone; use a dynamically linked build of it".into(),
        )),
        Kind::Foreign => Err(refuse("is not a program for x86-64 Linux".into())),
    }
}

/// Whether the loader would run it in secure-execution mode, ld.so(8).
fn is_privileged(file: &Path) -> bool {
    let Ok(m) = fs::metadata(file) else {
        return false;
    };
    let setuid = m.mode() & 0o4000 != 0 && m.uid() != rustix::process::getuid().as_raw();
    let setgid = m.mode() & 0o2000 != 0 && m.gid() != rustix::process::getgid().as_raw();
    setuid || setgid
}

/// Whether the file gives capabilities(7) to who runs it; the superuser gains nothing by them.
fn has_capabilities(file: &Path) -> bool {
    let mut value = [0u8; 64];
    !rustix::process::geteuid().is_root()
        && rustix::fs::getxattr(file, "security.capability", &mut value[..]).is_ok()
}

/// The interpreter that a script's first line names.
fn interpreter(head: &[u8]) -> Option<PathBuf> {
    let line = head.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let word = line
        .split(|&b| b == b' ' || b == b'\t')
        .find(|w| !w.is_empty())?;
    Some(PathBuf::from(OsString::from(OsStr::from_bytes(word))))
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Dynamic,
    Static,
    /// For another machine.
    Foreign,
    /// The host decides what it is.
    NoElf,
}

/// What an ELF header and the program headers behind it say, elf(5).
fn kind(head: &[u8]) -> Kind {
    const CLASS64_LITTLE: [u8; 2] = [2, 1];
    const EM_X86_64: u16 = 62;
    const PT_INTERP: u32 = 3;
    if !head.starts_with(b"\x7fELF") {
        return Kind::NoElf;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    if head.get(4..6) != Some(&CLASS64_LITTLE) || u16_at(18) != Some(EM_X86_64) {
        return Kind::Foreign;
    }
    let start = u32_at(32).unwrap_or(0) as usize;
    let size = usize::from(u16_at(54).unwrap_or(0)).max(1);
    let count = usize::from(u16_at(56).unwrap_or(0));
    let dynamic = (0..count).any(|i| {
        start
            .checked_add(i * size)
            .and_then(u32_at)
            .is_some_and(|kind| kind == PT_INTERP)
    });
    if dynamic { Kind::Dynamic } else { Kind::Static }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_has_an_interpreter_and_a_static_one_none() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert_eq!(kind(&own[..4096]), Kind::Dynamic);
        let mut none = own[..4096].to_vec();
        none[56..58].copy_from_slice(&[0, 0]);
        assert_eq!(kind(&none), Kind::Static);
        none[18] = 183;
        assert_eq!(kind(&none), Kind::Foreign);
        assert_eq!(kind(b"#!/bin/sh"), Kind::NoElf);
        assert_eq!(kind(b"\x7fELF"), Kind::Foreign);
    }

    #[test]
    fn a_script_names_its_interpreter() {
        assert_eq!(interpreter(b"#! /bin/sh -e\nx"), Some("/bin/sh".into()));
        assert_eq!(interpreter(b"#!\n"), None);
        assert_eq!(interpreter(b"echo"), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_status_127() {
        for name in ["no-such-program-anywhere", "/no/such/program"] {
            assert_eq!(find(OsStr::new(name)).unwrap_err().status, NOT_FOUND);
        }
        assert_eq!(
            find(OsStr::new("/etc/passwd")).unwrap_err().status,
            CANNOT_RUN
        );
    }
}

//! The tracer: prints each finished system call as strace(1) does, from the one table's descriptions.
//!
//! Off, it costs nothing beyond the look that the dispatcher takes anyway. On, each call is slower by the text, and
//! arguments in the memory of a remote client are fetched once more.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use abi::table::{self, SyscallDesc};
use abi::{ArgKind, Errno, Iovec, Len, RetKind, Stat, SysResult, Timespec, UserAddr};
use arc_swap::ArcSwapOption;

use crate::sysent::TRACED;
use crate::{Curlwp, Kernel, Pid};

/// Bytes of a buffer that are shown.
const SHOWN: usize = 32;
/// Buffers of a vectored call that are shown.
const SHOWN_IOV: usize = 8;

/// Takes the line of a finished call, without a newline, and the process that made it. Runs on a virtual CPU and may
/// not wait.
pub type Sink = dyn Fn(Pid, &str) + Send + Sync;

/// Where a kernel's trace goes.
#[derive(Default)]
pub(crate) struct Tracer {
    sink: ArcSwapOption<Box<Sink>>,
}

impl Kernel {
    /// Has every finished system call described to `sink` from here on; `None` turns that off.
    pub fn trace(&self, sink: Option<Box<Sink>>) {
        let on = sink.is_some();
        self.tracer().sink.store(sink.map(Arc::new));
        if on {
            self.attention.fetch_or(TRACED, Ordering::SeqCst);
        } else {
            self.attention.fetch_and(!TRACED, Ordering::SeqCst);
        }
    }
}

/// Carries out a call and describes it.
pub(crate) fn traced(
    cx: &Curlwp<'_>,
    nr: u32,
    raw: &[u64; 6],
    call: impl FnOnce() -> SysResult,
) -> SysResult {
    let Some(sink) = cx.kernel().tracer().sink.load_full() else {
        return call();
    };
    let line = match table::desc(nr) {
        None => {
            let result = call();
            (
                format!("syscall_{nr:#x}({:#x}, ...)", raw[0]),
                result,
                RetKind::Int,
            )
        }
        Some(desc) => {
            // What the kernel reads is looked at before the call, what it writes after.
            let before: Vec<Option<String>> = (0..shown_args(desc, raw))
                .map(|i| incoming(cx, desc, raw, i))
                .collect();
            let result = call();
            let shown = before
                .into_iter()
                .enumerate()
                .map(|(i, text)| text.unwrap_or_else(|| outgoing(cx, desc, raw, i, result)));
            let args = shown.collect::<Vec<_>>().join(", ");
            (format!("{}({args})", desc.name), result, desc.ret)
        }
    };
    let (call, result, ret) = line;
    if result == Err(Errno::ERESTART) {
        // Not finished: it is made again.
        return result;
    }
    sink(cx.proc().pid, &format!("{call} = {}", outcome(result, ret)));
    result
}

/// How many arguments are shown: the mode of an open that creates nothing is not.
fn shown_args(desc: &SyscallDesc, raw: &[u64; 6]) -> usize {
    let count = desc.args.len();
    match desc.args {
        [.., flags, mode]
            if matches!(flags.kind, ArgKind::OpenFlags)
                && matches!(mode.kind, ArgKind::Mode)
                && raw[count - 2] as i32 & (abi::O_CREAT | abi::O_TMPFILE & !abi::O_DIRECTORY)
                    == 0 =>
        {
            count - 1
        }
        _ => count,
    }
}

fn outcome(result: SysResult, ret: RetKind) -> String {
    match result {
        Ok(value) if ret == RetKind::Addr => format!("{value:#x}"),
        Ok(value) => value.to_string(),
        Err(Errno(n)) => match Errno(n).name() {
            Some(name) => format!("-1 {name} ({})", Errno(n).text()),
            None => format!("-1 (errno {n})"),
        },
    }
}

/// An argument as it is before the call; `None` for one that the call writes.
fn incoming(cx: &Curlwp<'_>, desc: &SyscallDesc, raw: &[u64; 6], i: usize) -> Option<String> {
    let value = raw[i];
    Some(match desc.args[i].kind {
        ArgKind::Fd | ArgKind::Int => (value as i32).to_string(),
        ArgKind::DirFd if value as i32 == abi::AT_FDCWD => "AT_FDCWD".into(),
        ArgKind::DirFd => (value as i32).to_string(),
        ArgKind::Uint => (value as u32).to_string(),
        ArgKind::Size => value.to_string(),
        ArgKind::Off => (value as i64).to_string(),
        // dup3 and pipe2 open nothing, so that the access mode in their flags means nothing.
        ArgKind::OpenFlags if matches!(desc.name, "dup3" | "pipe2") => {
            let text = open_flags(value as i32);
            match text.strip_prefix("O_RDONLY") {
                Some(rest) => rest.strip_prefix('|').unwrap_or("0").into(),
                None => text,
            }
        }
        ArgKind::OpenFlags => open_flags(value as i32),
        ArgKind::Flags => format!("{:#x}", value as u32).replace("0x0", "0"),
        ArgKind::Mode => format!("0{:02o}", value as u32),
        ArgKind::Addr => address(value),
        ArgKind::Path | ArgKind::Str => string(cx, UserAddr(value)),
        ArgKind::In(len) => buffer(cx, desc, raw, i, len, None),
        ArgKind::IovIn(count) => iov(cx, UserAddr(value), raw[usize::from(count)], usize::MAX),
        ArgKind::Out(_) | ArgKind::InOut(_) | ArgKind::IovOut(_) => return None,
    })
}

/// An argument that the call has written.
fn outgoing(
    cx: &Curlwp<'_>,
    desc: &SyscallDesc,
    raw: &[u64; 6],
    i: usize,
    result: SysResult,
) -> String {
    let Ok(result) = result else {
        return address(raw[i]);
    };
    let moved = (desc.ret == RetKind::Size).then_some(result as usize);
    match desc.args[i].kind {
        ArgKind::Out(len) | ArgKind::InOut(len) => buffer(cx, desc, raw, i, len, moved),
        ArgKind::IovOut(count) => iov(
            cx,
            UserAddr(raw[i]),
            raw[usize::from(count)],
            moved.unwrap_or(usize::MAX),
        ),
        _ => address(raw[i]),
    }
}

/// A buffer: a structure where its look is known, else its first bytes; `moved` of them are worth showing.
fn buffer(
    cx: &Curlwp<'_>,
    desc: &SyscallDesc,
    raw: &[u64; 6],
    i: usize,
    len: Len,
    moved: Option<usize>,
) -> String {
    let at = UserAddr(raw[i]);
    if at.is_null() {
        return "NULL".into();
    }
    match (desc.args[i].name, len) {
        ("statbuf", Len::Fixed(144)) => stat(cx, at),
        ("pipefd", _) => numbers(cx, at),
        (
            "duration" | "t" | "tmo_p" | "rem" | "remain" | "tp" | "res" | "timeout",
            Len::Fixed(16),
        ) => timespec(cx, at),
        (_, Len::Arg(n)) => {
            let len = raw[usize::from(n)] as usize;
            bytes(cx, at, moved.unwrap_or(len).min(len))
        }
        _ => address(at.0),
    }
}

fn address(value: u64) -> String {
    match value {
        0 => "NULL".into(),
        value => format!("{value:#x}"),
    }
}

fn string(cx: &Curlwp<'_>, at: UserAddr) -> String {
    if at.is_null() {
        return "NULL".into();
    }
    match cx.copyin_str(at, crate::curlwp::PATH_MAX) {
        Ok(text) => quoted(&text),
        Err(_) => address(at.0),
    }
}

fn bytes(cx: &Curlwp<'_>, at: UserAddr, len: usize) -> String {
    let mut buf = [0; SHOWN];
    let shown = &mut buf[..len.min(SHOWN)];
    if cx.copyin(at, shown).is_err() {
        return address(at.0);
    }
    let mut text = quoted(shown);
    if len > SHOWN {
        text.push_str("...");
    }
    text
}

fn iov(cx: &Curlwp<'_>, at: UserAddr, count: u64, mut moved: usize) -> String {
    let mut parts = Vec::new();
    for i in 0..(count as u32 as usize).min(SHOWN_IOV) {
        let mut raw = [0; Iovec::SIZE];
        if cx.copyin(at.add(i * Iovec::SIZE), &mut raw).is_err() {
            return address(at.0);
        }
        let one = Iovec::from_bytes(&raw);
        let len = (one.iov_len as usize).min(moved);
        moved -= len;
        let base = bytes(cx, UserAddr(one.iov_base), len);
        parts.push(format!("{{iov_base={base}, iov_len={}}}", one.iov_len));
    }
    if count as u32 as usize > SHOWN_IOV {
        parts.push("...".into());
    }
    format!("[{}]", parts.join(", "))
}

fn stat(cx: &Curlwp<'_>, at: UserAddr) -> String {
    let mut raw = [0; Stat::SIZE];
    if cx.copyin(at, &mut raw).is_err() {
        return address(at.0);
    }
    let stat = Stat::from_bytes(&raw);
    let kind = match stat.st_mode & 0o170000 {
        0o010000 => "S_IFIFO|",
        0o020000 => "S_IFCHR|",
        0o040000 => "S_IFDIR|",
        0o060000 => "S_IFBLK|",
        0o100000 => "S_IFREG|",
        0o120000 => "S_IFLNK|",
        0o140000 => "S_IFSOCK|",
        _ => "",
    };
    let mode = stat.st_mode & 0o7777;
    format!("{{st_mode={kind}0{mode:o}, st_size={}, ...}}", stat.st_size)
}

fn numbers(cx: &Curlwp<'_>, at: UserAddr) -> String {
    let mut raw = [0; 8];
    if cx.copyin(at, &mut raw).is_err() {
        return address(at.0);
    }
    let n = raw.as_chunks().0.iter().map(|n| i32::from_le_bytes(*n));
    format!("{:?}", n.collect::<Vec<_>>())
}

fn timespec(cx: &Curlwp<'_>, at: UserAddr) -> String {
    let mut raw = [0; Timespec::SIZE];
    if cx.copyin(at, &mut raw).is_err() {
        return address(at.0);
    }
    let ts = Timespec::from_bytes(&raw);
    format!("{{tv_sec={}, tv_nsec={}}}", ts.tv_sec, ts.tv_nsec)
}

fn quoted(text: &[u8]) -> String {
    let mut out = String::from("\"");
    for (i, &byte) in text.iter().enumerate() {
        let _ = match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(byte)),
            b'\n' => write!(out, "\\n"),
            b'\r' => write!(out, "\\r"),
            b'\t' => write!(out, "\\t"),
            b' '..=b'~' => write!(out, "{}", char::from(byte)),
            // Three digits where a digit follows, so that it is not read as part of the number.
            _ if text.get(i + 1).is_some_and(u8::is_ascii_digit) => write!(out, "\\{byte:03o}"),
            _ => write!(out, "\\{byte:o}"),
        };
    }
    out.push('"');
    out
}

fn open_flags(flags: i32) -> String {
    let names = [
        (abi::O_TMPFILE, "O_TMPFILE"),
        (abi::O_SYNC, "O_SYNC"),
        (abi::O_CREAT, "O_CREAT"),
        (abi::O_EXCL, "O_EXCL"),
        (abi::O_NOCTTY, "O_NOCTTY"),
        (abi::O_TRUNC, "O_TRUNC"),
        (abi::O_APPEND, "O_APPEND"),
        (abi::O_NONBLOCK, "O_NONBLOCK"),
        (abi::O_DSYNC, "O_DSYNC"),
        (abi::O_DIRECT, "O_DIRECT"),
        (abi::O_LARGEFILE, "O_LARGEFILE"),
        (abi::O_DIRECTORY, "O_DIRECTORY"),
        (abi::O_NOFOLLOW, "O_NOFOLLOW"),
        (abi::O_NOATIME, "O_NOATIME"),
        (abi::O_CLOEXEC, "O_CLOEXEC"),
        (abi::O_PATH, "O_PATH"),
    ];
    let mut text = String::from(match flags & abi::O_ACCMODE {
        abi::O_RDONLY => "O_RDONLY",
        abi::O_WRONLY => "O_WRONLY",
        abi::O_RDWR => "O_RDWR",
        _ => "O_ACCMODE",
    });
    let mut rest = flags & !abi::O_ACCMODE;
    for (flag, name) in names {
        if rest & flag == flag {
            rest &= !flag;
            text.push('|');
            text.push_str(name);
        }
    }
    if rest != 0 {
        let _ = write!(text, "|{rest:#x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_quoted_as_in_c() {
        assert_eq!(quoted(b"a\"\\\n\0"), r#""a\"\\\n\0""#);
        assert_eq!(quoted(b"\x011"), r#""\0011""#);
    }

    #[test]
    fn open_flags_have_their_names() {
        let flags = abi::O_WRONLY | abi::O_CREAT | abi::O_TRUNC | 1 << 30;
        assert_eq!(open_flags(flags), "O_WRONLY|O_CREAT|O_TRUNC|0x40000000");
        assert_eq!(open_flags(abi::O_TMPFILE | 2), "O_RDWR|O_TMPFILE");
    }
}

//! Whose a path name is.
//!
//! With `path=/rump`, `/rump` is the kernel's root and `/rump/x` its `/x`. Extra slashes and `.` before the prefix do
//! not matter; `..` is not interpreted there, because it means what the host's symbolic links make of it. Behind the
//! prefix everything is the kernel's: its root has no way out. A relative name belongs to its directory's owner.

use abi::AT_FDCWD;

use crate::config::Config;
use crate::cwd;
use crate::state::Process;

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The host's.
    Host,
    /// The kernel's, under the name at this address.
    Kernel(*const u8),
}

/// Addresses below are never mapped; with them the host answers.
const LOWEST: usize = 4096;
/// The most of a name that is looked at.
const PATH_MAX: usize = 4096;
static ROOT: &[u8; 2] = b"/\0";

/// Whose the name at `path` is, for a call with directory `dir`.
///
/// # Safety
/// `path` is a NUL-terminated string, or an address that no process can have mapped.
pub(crate) unsafe fn place(
    config: &Config<'_>,
    process: &Process,
    dir: i32,
    path: *const u8,
) -> Place {
    let bad = path as usize;
    let first = if (LOWEST..1 << 47).contains(&bad) {
        // SAFETY: a string of at least its NUL.
        unsafe { *path }
    } else {
        0
    };
    if first == b'/' {
        // SAFETY: as this function's.
        return unsafe { absolute(config, path) };
    }
    if dir != AT_FDCWD {
        if process.is_kernel(dir) {
            return Place::Kernel(path);
        }
        // SAFETY: as this function's.
        return if first != 0 && unsafe { may_lead_inside(config, path) } {
            // SAFETY: as this function's.
            unsafe { below_above(config, Some(dir), path) }
        } else {
            Place::Host
        };
    }
    match process.cwd.load(core::sync::atomic::Ordering::Acquire) {
        cwd::HOST => Place::Host,
        cwd::INSIDE => Place::Kernel(path),
        // SAFETY: as this function's.
        _ if first != 0 => unsafe { below_above(config, None, path) },
        _ => Place::Host,
    }
}

/// Whether a name begins with a component of the prefix: only then it is asked which directory a host descriptor is.
///
/// # Safety
/// `path` is a NUL-terminated string.
unsafe fn may_lead_inside(config: &Config<'_>, path: *const u8) -> bool {
    let prefix = config.path.unwrap_or(b"");
    prefix
        .split(|&b| b == b'/')
        .any(|component| !component.is_empty() && Text(path).components(0, component).is_some())
}

/// Whose a name relative to a directory is that may be above the prefix: a host descriptor, or the working directory. Not inlined: its
/// buffer is more than the stack of a signal handler may have left, and other names do not need it.
///
/// # Safety
/// `path` is a NUL-terminated string.
#[inline(never)]
unsafe fn below_above(config: &Config<'_>, dir: Option<i32>, path: *const u8) -> Place {
    let mut buffer = [0u8; PATH_MAX];
    let dir = match dir {
        Some(fd) => cwd::of_descriptor(fd, &mut buffer),
        None => cwd::of_host(&mut buffer),
    };
    let rest = config
        .path
        .zip(dir)
        .and_then(|(prefix, dir)| cwd::remainder(prefix, dir));
    match rest.and_then(|rest| Text(path).components(0, rest)) {
        // SAFETY: as for an absolute name.
        Some(at) => unsafe { tail(path, at) },
        None => Place::Host,
    }
}

/// Whose an absolute name is.
///
/// # Safety
/// `path` is a NUL-terminated string.
unsafe fn absolute(config: &Config<'_>, path: *const u8) -> Place {
    let text = Text(path);
    if let Some(rest) = config.path.and_then(|prefix| text.below(prefix)) {
        // SAFETY: as this function's; `rest` is at most the offset of the NUL.
        return unsafe { tail(path, rest) };
    }
    let blanket = config.blankets().any(|prefix| text.starts(prefix));
    if blanket {
        Place::Kernel(path)
    } else {
        Place::Host
    }
}

/// The kernel's name behind the prefix, which ends at offset `at`.
///
/// # Safety
/// `path` is a NUL-terminated string of at least `at` bytes.
unsafe fn tail(path: *const u8, at: usize) -> Place {
    // SAFETY: as promised.
    let rest = unsafe { path.add(at) };
    // SAFETY: the NUL at the latest.
    let is_root = unsafe { *rest } == 0;
    Place::Kernel(if is_root { ROOT.as_ptr() } else { rest })
}

/// The descriptor that a host name stands for: `/dev/fd/N`, `/proc/self/fd/N`, `/dev/stdin` and its like.
///
/// # Safety
/// `path` is a NUL-terminated string, or an address that no process can have mapped.
pub(crate) unsafe fn descriptor(path: *const u8) -> Option<i32> {
    if !(LOWEST..1 << 47).contains(&(path as usize)) {
        return None;
    }
    let text = Text(path);
    for (name, fd) in [
        (&b"/dev/stdin"[..], 0),
        (b"/dev/stdout", 1),
        (b"/dev/stderr", 2),
    ] {
        if text.starts(name) && text.at(name.len()) == 0 {
            return Some(fd);
        }
    }
    let prefixes = [
        &b"/dev/fd/"[..],
        b"/proc/self/fd/",
        b"/proc/thread-self/fd/",
    ];
    let mut at = prefixes.iter().find(|p| text.starts(p))?.len();
    let mut fd = 0i32;
    while text.at(at) != 0 {
        let digit = i32::from(text.at(at)) - i32::from(b'0');
        fd = (0..10)
            .contains(&digit)
            .then(|| fd.checked_mul(10)?.checked_add(digit))??;
        at += 1;
    }
    Some(fd)
}

/// A C string, read byte by byte and never past its NUL: every offset is reached over bytes that are not NUL.
struct Text(*const u8);

impl Text {
    fn at(&self, offset: usize) -> u8 {
        if offset >= PATH_MAX {
            return 0;
        }
        // SAFETY: callers come to an offset only over bytes before it that are not the string's NUL.
        unsafe { *self.0.add(offset) }
    }

    fn starts(&self, prefix: &[u8]) -> bool {
        prefix.iter().enumerate().all(|(i, &b)| self.at(i) == b)
    }

    /// Where what is below `prefix` begins: a slash or the NUL.
    fn below(&self, prefix: &[u8]) -> Option<usize> {
        if prefix.iter().all(|&b| b == b'/') {
            let same = prefix.iter().enumerate().all(|(i, &b)| self.at(i) == b);
            return same.then_some(prefix.len() - 1);
        }
        self.components(self.slash(0)?, prefix)
    }

    /// The same for a name whose first component begins at `at`.
    fn components(&self, mut at: usize, prefix: &[u8]) -> Option<usize> {
        let mut wanted = prefix.split(|&b| b == b'/').filter(|c| !c.is_empty());
        let mut component = wanted.next()?;
        loop {
            at = self.skip(at);
            for &b in component {
                (self.at(at) == b).then_some(())?;
                at += 1;
            }
            match wanted.next() {
                Some(next) => component = next,
                None => return matches!(self.at(at), 0 | b'/').then_some(at),
            }
            at = self.slash(at)?;
        }
    }

    fn slash(&self, at: usize) -> Option<usize> {
        (self.at(at) == b'/').then_some(at)
    }

    /// Over slashes and `.` components to the start of the next component.
    fn skip(&self, mut at: usize) -> usize {
        loop {
            while self.at(at) == b'/' {
                at += 1;
            }
            if self.at(at) != b'.' || self.at(at + 1) != b'/' {
                return at;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::{CStr, CString};

    fn of(spec: &str, path: &str) -> Option<String> {
        let config = Config::parse(spec.as_bytes()).unwrap();
        let text = CString::new(path).unwrap();
        // SAFETY: a string of ours; the answer is inside it or static.
        match unsafe { absolute(&config, text.as_ptr().cast()) } {
            Place::Host => None,
            // SAFETY: inside the string above, or static.
            Place::Kernel(at) => unsafe {
                Some(CStr::from_ptr(at.cast()).to_str().unwrap().to_owned())
            },
        }
    }

    #[test]
    fn names_below_the_prefix_are_the_kernels() {
        for (path, want) in [
            ("/rump", Some("/")),
            ("/rump/", Some("/")),
            ("/rump/a/b", Some("/a/b")),
            ("//rump//a", Some("//a")),
            ("/./rump/./a", Some("/./a")),
            ("/rump/../etc", Some("/../etc")),
            ("/rumpx", None),
            ("/rum", None),
            ("/", None),
            ("/tmp/rump", None),
            ("/.rump", None),
            ("/..", None),
        ] {
            assert_eq!(of("path=/rump", path).as_deref(), want, "{path}");
        }
        assert_eq!(of("path=/a/b", "/a//b/c").as_deref(), Some("/c"));
        assert_eq!(of("path=/a/b", "/a/bc"), None);
    }

    #[test]
    fn slashes_alone_are_a_prefix() {
        assert_eq!(of("path=//", "//etc/x").as_deref(), Some("/etc/x"));
        assert_eq!(of("path=//", "/etc/x"), None);
        assert_eq!(of("path=///", "///").as_deref(), Some("/"));
    }

    #[test]
    fn blankets_keep_their_names_and_end_anywhere() {
        assert_eq!(
            of("blanket=/dev/ker:/x", "/dev/kernel").as_deref(),
            Some("/dev/kernel")
        );
        assert_eq!(of("blanket=/dev/ker:/x", "/dev/kex"), None);
    }

    #[test]
    fn names_below_a_directory_above_the_prefix() {
        for (name, want) in [
            ("rump", Some(4)),
            ("./rump/x", Some(6)),
            ("rumpx", None),
            ("x", None),
            ("", None),
        ] {
            let text = CString::new(name).unwrap();
            assert_eq!(
                Text(text.as_ptr().cast()).components(0, b"/rump"),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn some_host_names_are_descriptors() {
        for (name, want) in [
            ("/dev/stdin", Some(0)),
            ("/dev/fd/12", Some(12)),
            ("/proc/self/fd/3", Some(3)),
            ("/dev/fd/99999999999", None),
            ("/dev/fd/3x", None),
            ("/dev/stdinx", None),
            ("/dev/null", None),
        ] {
            let text = CString::new(name).unwrap();
            // SAFETY: a string of ours.
            assert_eq!(unsafe { descriptor(text.as_ptr().cast()) }, want, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_name_the_answer_lies_inside_it(path in "/[a-c./]{0,12}") {
            let _ = of("path=/a/b,blanket=/c", &path);
        }
    }
}

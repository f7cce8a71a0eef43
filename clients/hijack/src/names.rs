//! Whose a path name is.
//!
//! With `path=/rump`, `/rump` is the kernel's root and `/rump/x` its `/x`. Extra slashes and `.` before the prefix do
//! not matter; `..` is not interpreted there, because it means what the host's symbolic links make of it. Behind the
//! prefix everything is the kernel's: its root has no way out. A relative name belongs to its directory's owner.

use abi::AT_FDCWD;

use crate::config::Config;
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
    let inside = if dir == AT_FDCWD {
        process
            .cwd_inside
            .load(core::sync::atomic::Ordering::Acquire)
            != 0
    } else {
        process.is_kernel(dir)
    };
    if inside {
        Place::Kernel(path)
    } else {
        Place::Host
    }
}

/// Whose an absolute name is.
///
/// # Safety
/// `path` is a NUL-terminated string.
unsafe fn absolute(config: &Config<'_>, path: *const u8) -> Place {
    let text = Text(path);
    if let Some(rest) = config.path.and_then(|prefix| text.below(prefix)) {
        // SAFETY: `rest` is at most the offset of the NUL.
        let tail = unsafe { path.add(rest) };
        let is_root = text.at(rest) == 0;
        return Place::Kernel(if is_root { ROOT.as_ptr() } else { tail });
    }
    let blanket = config
        .blankets()
        .any(|prefix| prefix.iter().enumerate().all(|(i, &b)| text.at(i) == b));
    if blanket {
        Place::Kernel(path)
    } else {
        Place::Host
    }
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

    /// Where what is below `prefix` begins: a slash or the NUL.
    fn below(&self, prefix: &[u8]) -> Option<usize> {
        if prefix.iter().all(|&b| b == b'/') {
            let same = prefix.iter().enumerate().all(|(i, &b)| self.at(i) == b);
            return same.then_some(prefix.len() - 1);
        }
        let mut at = 0;
        for component in prefix.split(|&b| b == b'/').filter(|c| !c.is_empty()) {
            at = self.component(at)?;
            for &b in component {
                (self.at(at) == b).then_some(())?;
                at += 1;
            }
            matches!(self.at(at), 0 | b'/').then_some(())?;
        }
        Some(at)
    }

    /// Over slashes and `.` components to the start of the next component.
    fn component(&self, mut at: usize) -> Option<usize> {
        (self.at(at) == b'/').then_some(())?;
        loop {
            while self.at(at) == b'/' {
                at += 1;
            }
            if self.at(at) == b'.' && self.at(at + 1) == b'/' {
                at += 1;
                continue;
            }
            return Some(at);
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

    proptest! {
        #[test]
        fn whatever_the_name_the_answer_lies_inside_it(path in "/[a-c./]{0,12}") {
            let _ = of("path=/a/b,blanket=/c", &path);
        }
    }
}

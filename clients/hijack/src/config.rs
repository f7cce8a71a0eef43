//! The `RUMPHIJACK` variable: what of a program's calls goes to the kernel.
//!
//! ```text
//! spec = [ item *("," item) ]              empty: nothing; unset: DEFAULT
//! item = "path=" prefix                    the kernel's tree appears there
//!      | "blanket=" path *(":" path)       names that begin so are the kernel's, as they stand
//!      | "socket=" ["all"] *(":" ["no"] family)
//!      | "vfs=" ["all"] *(":" ["no"] call)
//!      | "sysctl" ["=" (y | yes | yep | tottakai | n | no)]
//!      | "fdoff=" number                   checked and not needed: descriptors hold host slots
//! ```
//!
//! As in rump, a name may be cut short ("s=all" is socket), the first that fits counts.

use core::fmt;

/// What an unset variable means.
pub const DEFAULT: &[u8] = b"path=/rump,socket=all:nolocal";

/// What goes to the kernel. Borrows from the variable's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Config<'a> {
    /// Where the kernel's tree appears: `/rump`, or two or more slashes for names that begin with as many.
    pub path: Option<&'a [u8]>,
    /// Prefixes separated by colons, checked.
    blankets: Option<&'a [u8]>,
    /// A bit for each of [`FAMILIES`].
    sockets: u8,
    /// A bit for each of [`VFS_CALLS`].
    vfs: u8,
    /// Whether `__sysctl` goes to the kernel.
    pub sysctl: bool,
}

/// Socket families by name, with Linux's numbers; 0 for those that Linux has not.
pub const FAMILIES: [(&str, i32); 7] = [
    ("local", 1),
    ("inet", 2),
    ("link", 17),
    ("oroute", 0),
    ("route", 16),
    ("inet6", 10),
    ("mpls", 28),
];

/// Calls of `vfs=` by name.
pub const VFS_CALLS: [&str; 3] = ["nfssvc", "getvfsstat", "fhcalls"];

/// An item that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError<'a> {
    /// The item as written.
    pub item: &'a [u8],
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No such name.
    Unknown,
    /// Needs a value, or has one too many.
    Value,
    /// Two of them.
    Twice,
    /// A prefix is not absolute.
    Relative,
    /// A prefix is only one character, or names nothing.
    TooShort,
    /// A prefix ends in a slash.
    TrailingSlash,
    /// Contains a NUL byte.
    Nul,
    /// No such socket family or call.
    Name,
    /// Not a number from 3 to 1073741822.
    Number,
}

impl fmt::Display for ConfigError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RUMPHIJACK: ")?;
        for chunk in self.item.utf8_chunks() {
            f.write_str(chunk.valid())?;
        }
        f.write_str(match self.why {
            Why::Unknown => ": no such item; there are path=, blanket=, socket=, vfs=, sysctl and fdoff=",
            Why::Value => ": write NAME=VALUE (sysctl may stand alone, or have y or n)",
            Why::Twice => ": appears twice; keep one",
            Why::Relative => ": begins with no slash; give an absolute path",
            Why::TooShort => ": is too short; give at least a slash and a character, such as /rump",
            Why::TrailingSlash => ": ends in a slash; leave it out",
            Why::Nul => ": contains a NUL byte",
            Why::Name => ": names something that is not there; socket= takes all, local, inet, link, oroute, route, inet6, mpls, \
                 vfs= takes all, nfssvc, getvfsstat, fhcalls, each also with no in front",
            Why::Number => ": give a number from 3 to 1073741822",
        })
    }
}

impl core::error::Error for ConfigError<'_> {}

const NAMES: [&[u8]; 6] = [b"path", b"blanket", b"socket", b"vfs", b"sysctl", b"fdoff"];

impl<'a> Config<'a> {
    /// Reads the variable; an empty one hijacks nothing.
    pub fn parse(spec: &'a [u8]) -> Result<Config<'a>, ConfigError<'a>> {
        let mut config = Config::default();
        if spec.is_empty() {
            return Ok(config);
        }
        let mut seen = 0u8;
        for item in spec.split(|&b| b == b',') {
            let fail = |why| Err(ConfigError { item, why });
            let (name, value) = match item.iter().position(|&b| b == b'=') {
                Some(at) => (&item[..at], Some(&item[at + 1..])),
                None => (item, None),
            };
            let known = NAMES
                .iter()
                .position(|known| !name.is_empty() && known.starts_with(name));
            let Some(index) = known else {
                return fail(Why::Unknown);
            };
            if seen >> index & 1 != 0 {
                return fail(Why::Twice);
            }
            seen |= 1 << index;
            config
                .set(index, value)
                .map_err(|why| ConfigError { item, why })?;
        }
        Ok(config)
    }

    fn set(&mut self, index: usize, value: Option<&'a [u8]>) -> Result<(), Why> {
        if index == 4 {
            self.sysctl = match value {
                None => true,
                Some(b"y" | b"yes" | b"yep" | b"tottakai") => true,
                Some(b"n" | b"no") => false,
                Some(_) => return Err(Why::Value),
            };
            return Ok(());
        }
        let value = value.ok_or(Why::Value)?;
        match index {
            0 => self.path = Some(prefix(value)?),
            1 => {
                for path in value.split(|&b| b == b':') {
                    blanket(path)?;
                }
                self.blankets = Some(value);
            }
            2 => self.sockets = switches(value, FAMILIES.map(|f| f.0))?,
            3 => self.vfs = switches(value, VFS_CALLS)?,
            _ => fdoff(value)?,
        }
        Ok(())
    }

    /// Whether nothing at all goes to the kernel.
    pub fn is_nothing(&self) -> bool {
        *self == Config::default()
    }

    /// Prefixes of names that go to the kernel as they stand.
    pub fn blankets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.blankets
            .into_iter()
            .flat_map(|list| list.split(|&b| b == b':'))
    }

    /// Whether sockets of a family are the kernel's.
    pub fn socket(&self, family: i32) -> bool {
        FAMILIES
            .iter()
            .enumerate()
            .any(|(i, f)| f.1 != 0 && f.1 == family && self.sockets >> i & 1 != 0)
    }

    /// Whether sockets of any family are.
    pub fn any_socket(&self) -> bool {
        self.sockets != 0
    }

    /// Whether a call of `vfs=`, by its place in [`VFS_CALLS`], is the kernel's.
    pub fn vfs(&self, call: usize) -> bool {
        call < VFS_CALLS.len() && self.vfs >> call & 1 != 0
    }
}

/// The prefix of `path=`: at least two characters, and no slash at the end unless there is nothing else.
fn prefix(path: &[u8]) -> Result<&[u8], Why> {
    absolute(path)?;
    if path.len() < 2 {
        return Err(Why::TooShort);
    }
    if path.iter().all(|&b| b == b'/') || path.last() != Some(&b'/') {
        return Ok(path);
    }
    Err(Why::TrailingSlash)
}

fn blanket(path: &[u8]) -> Result<(), Why> {
    absolute(path)?;
    if path.len() < 2 {
        return Err(Why::TooShort);
    }
    if path.last() == Some(&b'/') {
        return Err(Why::TrailingSlash);
    }
    Ok(())
}

fn absolute(path: &[u8]) -> Result<(), Why> {
    match path.first() {
        None => Err(Why::TooShort),
        Some(b'/') if path.contains(&0) => Err(Why::Nul),
        Some(b'/') => Ok(()),
        Some(_) => Err(Why::Relative),
    }
}

/// A list of names, each switched on or (with "no") off, in order; "all" is every one.
fn switches<const N: usize>(list: &[u8], names: [&str; N]) -> Result<u8, Why> {
    let all = (1u8 << N) - 1;
    let mut on = 0;
    for word in list.split(|&b| b == b':') {
        let bit = |word: &[u8]| {
            let at = names.iter().position(|n| n.as_bytes() == word)?;
            Some(1u8 << at)
        };
        match (word, bit(word)) {
            (b"all", _) => on = all,
            (_, Some(bit)) => on |= bit,
            _ => {
                let name = word.strip_prefix(b"no").ok_or(Why::Name)?;
                on &= !bit(name).ok_or(Why::Name)?;
            }
        }
    }
    Ok(on)
}

/// rump's offset between host and kernel descriptors. Ours are the same numbers, so the value has no effect.
fn fdoff(value: &[u8]) -> Result<(), Why> {
    let number = core::str::from_utf8(value)
        .ok()
        .and_then(|v| v.parse::<u32>().ok());
    match number {
        Some(3..=1_073_741_822) => Ok(()),
        _ => Err(Why::Number),
    }
}

/// What holds for any text: it is a configuration that makes sense, or the error names an item of it. Panics when not;
/// the body of a fuzz target.
pub fn fuzz_grammar(spec: &[u8]) {
    match Config::parse(spec) {
        Ok(config) => {
            let path = config.path;
            assert!(path.is_none_or(|p| p.len() >= 2 && p[0] == b'/'));
            let whole = |p: &[u8]| p.len() >= 2 && p[0] == b'/' && p[p.len() - 1] != b'/';
            assert!(config.blankets().all(whole));
        }
        Err(e) => {
            assert!(spec.split(|&b| b == b',').any(|item| item == e.item));
            assert!(!e.to_string().is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(spec: &str) -> Config<'_> {
        Config::parse(spec.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
    }

    fn why(spec: &str) -> (String, Why) {
        let e = Config::parse(spec.as_bytes()).unwrap_err();
        (String::from_utf8_lossy(e.item).into_owned(), e.why)
    }

    #[test]
    fn the_default_is_rumps() {
        let config = Config::parse(DEFAULT).unwrap();
        assert_eq!(config.path, Some(&b"/rump"[..]));
        assert!(config.socket(2) && config.socket(10) && !config.socket(1) && !config.socket(0));
        assert!(!config.sysctl && !config.is_nothing());
    }

    #[test]
    fn an_empty_variable_hijacks_nothing() {
        assert!(ok("").is_nothing());
    }

    #[test]
    fn every_item_is_read() {
        let config = ok(
            "path=/k,blanket=/dev/kernel:/etc/x,socket=all:noinet:nolocal,vfs=getvfsstat,sysctl=yep,fdoff=256",
        );
        assert_eq!(
            config.blankets().collect::<Vec<_>>(),
            [&b"/dev/kernel"[..], b"/etc/x"]
        );
        assert!(!config.socket(2) && config.socket(10));
        assert!(config.vfs(1) && !config.vfs(0) && !config.vfs(9));
        assert!(config.sysctl);
        assert!(ok("sysctl").sysctl && !ok("sysctl=n").sysctl);
        assert_eq!(ok("path=//").path, Some(&b"//"[..]));
        assert!(ok("s=inet").socket(2));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (spec, item, reason) in [
            ("path=/rump,nosuch=1", "nosuch=1", Why::Unknown),
            (",", "", Why::Unknown),
            ("=x", "=x", Why::Unknown),
            ("path", "path", Why::Value),
            ("path=", "path=", Why::TooShort),
            ("path=/", "path=/", Why::TooShort),
            ("path=rump", "path=rump", Why::Relative),
            ("path=/rump/", "path=/rump/", Why::TrailingSlash),
            ("path=/a,path=/b", "path=/b", Why::Twice),
            ("blanket=/a:b", "blanket=/a:b", Why::Relative),
            ("blanket=/a:", "blanket=/a:", Why::TooShort),
            ("socket=all:nope", "socket=all:nope", Why::Name),
            ("vfs=x", "vfs=x", Why::Name),
            ("sysctl=maybe", "sysctl=maybe", Why::Value),
            ("fdoff=2", "fdoff=2", Why::Number),
            ("fdoff=1073741823", "fdoff=1073741823", Why::Number),
            ("path=/a\0b", "path=/a\0b", Why::Nul),
        ] {
            assert_eq!(why(spec), (item.to_owned(), reason), "{spec:?}");
        }
        let e = Config::parse(b"fdoff=x").unwrap_err();
        assert_eq!(
            e.to_string(),
            "RUMPHIJACK: fdoff=x: give a number from 3 to 1073741822"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_configuration_or_an_item_of_it_is_named(spec in proptest::collection::vec(any::<u8>(), 0..80)) {
            fuzz_grammar(&spec);
        }

        #[test]
        fn near_misses_are_too(spec in "(path=/[a-z/]{0,4}|socket=(all)?(:(no)?(inet6?|x))*|blanket=(/[a-z]*:?)*|sysctl(=[a-z]*)?|fdoff=[0-9]*|,){0,5}") {
            fuzz_grammar(spec.as_bytes());
        }
    }
}

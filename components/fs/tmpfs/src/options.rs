//! Mount options, tmpfs(5).

use abi::Errno;

/// What was asked for; `None` for what was not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Pages of data; 0 for no limit. If not given it is half of what the kernel's caches may take, and so is the next.
    pub(crate) pages: Option<u64>,
    /// Files; 0 for no limit.
    pub(crate) inodes: Option<u64>,
    /// Permission bits of the root.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

const PAGE: u64 = vfs::pages::PAGE_SIZE as u64;

impl Options {
    /// Reads an option string. `EINVAL` for what is unknown or makes no sense.
    pub(crate) fn parse(data: &[u8]) -> Result<Options, Errno> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let text = text.trim_end_matches('\0');
        let mut options = Options::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            options.set(option).ok_or(Errno::EINVAL)?;
        }
        Ok(options)
    }

    fn set(&mut self, option: &str) -> Option<()> {
        let (name, value) = option.split_once('=')?;
        match name {
            "size" => self.pages = Some(kern::config::parse_size(value)?.div_ceil(PAGE)),
            "nr_blocks" => self.pages = Some(kern::config::parse_size(value)?),
            "nr_inodes" => self.inodes = Some(kern::config::parse_size(value)?),
            "mode" => {
                self.mode = Some(
                    u32::from_str_radix(value, 8)
                        .ok()
                        .filter(|&m| m <= 0o7777)?,
                );
            }
            "uid" => self.uid = Some(value.parse().ok()?),
            "gid" => self.gid = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_nonsense_is_refused() {
        let options = Options::parse(b"size=16m,mode=755,uid=7,nr_inodes=2k\0").expect("good");
        assert_eq!(options.pages, Some(4096));
        assert_eq!(options.mode, Some(0o755));
        assert_eq!(options.uid, Some(7));
        assert_eq!(options.gid, None);
        assert_eq!(options.inodes, Some(2048));
        assert_eq!(Options::parse(b"size=1").expect("good").pages, Some(1));
        assert_eq!(Options::parse(b""), Ok(Options::default()));
        for bad in [
            "size",
            "size=",
            "size=x",
            "mode=8",
            "mode=77777",
            "uid=-1",
            "huge=always",
        ] {
            assert_eq!(Options::parse(bad.as_bytes()), Err(Errno::EINVAL), "{bad}");
        }
    }
}

//! `rump server -d`: host files that appear in the kernel, in the words of rump_server(1).

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use rumpkit::{EtfsKind, Process};

/// What `-d` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    key: PathBuf,
    host: PathBuf,
    kind: EtfsKind,
    offset: u64,
    /// None: to the end of the host's file.
    size: Option<u64>,
}

const SHAPE: &str = "key=PATH,hostpath=FILE,size=BYTES|host[,offset=BYTES][,type=blk|chr|reg]";

impl Drive {
    pub(crate) fn parse(text: &str) -> Result<Drive> {
        let (mut key, mut host, mut size, mut offset, mut kind) =
            (None, None, None, 0, EtfsKind::Block);
        for item in text.split(',') {
            let (name, value) = item
                .split_once('=')
                .ok_or_else(|| anyhow!("-d {text}: \"{item}\" is not NAME=VALUE; want {SHAPE}"))?;
            let number = || {
                let parsed = rumpkit::kern::config::parse_size(value);
                parsed.ok_or_else(|| {
                    anyhow!("-d {text}: {item}: want a number of bytes, as 64m (k, m, g)")
                })
            };
            match name {
                "key" => key = Some(PathBuf::from(value)),
                "hostpath" => host = Some(PathBuf::from(value)),
                "size" if value == "host" => size = Some(None),
                "size" => size = Some(Some(number()?)),
                "offset" => offset = number()?,
                "type" => {
                    kind = kind_of(value)
                        .ok_or_else(|| anyhow!("-d {text}: {item}: want blk, chr or reg"))?
                }
                "disklabel" => bail!(
                    "-d {text}: disk labels are not read; give offset and size of the partition"
                ),
                _ => bail!("-d {text}: there is no \"{name}\"; want {SHAPE}"),
            }
        }
        let missing = |what: &str| anyhow!("-d {text}: {what} is missing; want {SHAPE}");
        let size = match size {
            None if kind == EtfsKind::Regular => None,
            None => return Err(missing("size")),
            Some(size) => size,
        };
        Ok(Drive {
            key: key.ok_or_else(|| missing("key"))?,
            host: host.ok_or_else(|| missing("hostpath"))?,
            kind,
            offset,
            size,
        })
    }

    /// Makes it appear in the kernel. A host file that is missing or too short for the size is made or extended.
    pub(crate) fn register(&self, process: &Process) -> Result<()> {
        let name = self.host.display();
        if let Some(size) = self.size {
            self.extend_to(self.offset.saturating_add(size))
                .with_context(|| format!("{name}: cannot be made {size} bytes large"))?;
        }
        let size = self.size;
        process
            .register(&self.key, &self.host, self.kind, self.offset, size)
            .with_context(|| {
                format!(
                    "{name}: cannot appear as {} in the kernel",
                    self.key.display()
                )
            })
    }

    fn extend_to(&self, end: u64) -> std::io::Result<()> {
        if self.host.exists() && !self.host.is_file() {
            return Ok(());
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&self.host)?;
        if file.metadata()?.len() < end {
            file.set_len(end)?;
        }
        Ok(())
    }
}

fn kind_of(text: &str) -> Option<EtfsKind> {
    match text {
        "blk" => Some(EtfsKind::Block),
        "chr" => Some(EtfsKind::Character),
        "reg" => Some(EtfsKind::Regular),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_is_read_in_the_references_words() {
        let drive = Drive::parse("key=/dev/x,hostpath=a.img,size=64k,offset=512,type=chr").unwrap();
        let want = Drive {
            key: "/dev/x".into(),
            host: "a.img".into(),
            kind: EtfsKind::Character,
            offset: 512,
            size: Some(65536),
        };
        assert_eq!(drive, want);
        assert_eq!(
            Drive::parse("key=/f,hostpath=f,type=reg").unwrap().size,
            None
        );
        assert_eq!(
            Drive::parse("key=/f,hostpath=f,size=host").unwrap().kind,
            EtfsKind::Block
        );
    }

    #[test]
    fn a_wrong_drive_is_told_what_is_wrong() {
        for (text, word) in [
            ("key=/x", "size"),
            ("key=/x,size=host", "hostpath"),
            ("hostpath=x,size=host", "key"),
            ("key=/x,hostpath=x,size=big", "number"),
            ("key=/x,hostpath=x,size=1,type=dir", "blk"),
            ("key=/x,hostpath=x,disklabel=a", "labels"),
            ("nonsense", "NAME=VALUE"),
        ] {
            let why = Drive::parse(text).unwrap_err().to_string();
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}

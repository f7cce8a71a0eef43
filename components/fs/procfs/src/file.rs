//! An open file.

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, SEEK_END, Stat};
use kern::poll::{Events, Watcher};
use kern::sysctl::Value;
use kern::{Curlwp, File, OpenFile, Uio};

use crate::tree::Entry;

/// The most bytes that are written to a variable at a time.
const WRITE_MAX: usize = 4096;

/// A text as it was when the file was opened, and what can be set by writing.
pub(crate) struct Text {
    text: String,
    variable: Option<String>,
}

impl Text {
    pub(crate) fn open(cx: &Curlwp<'_>, entry: &Entry) -> Result<Text, Errno> {
        let (text, variable) = match entry {
            Entry::Directory => return Err(Errno::EISDIR),
            Entry::Report(name) => {
                let text = cx.kernel().reports().read(cx, name);
                (text.ok_or(Errno::ENOENT)?, None)
            }
            Entry::Variable(name, _) => {
                let text = match cx.kernel().sysctl().read(cx, name)? {
                    Value::Int(number) => format!("{number}\n"),
                    Value::Text(text) => text + "\n",
                };
                (text, Some(name.clone()))
            }
        };
        Ok(Text { text, variable })
    }
}

/// Sets a variable to what its text says.
fn set(cx: &Curlwp<'_>, name: &str, raw: &[u8]) -> Result<(), Errno> {
    let text = std::str::from_utf8(raw).map_err(|_| Errno::EINVAL)?;
    let text = text.trim_end_matches(['\n', '\0']);
    let sysctl = cx.kernel().sysctl();
    let value = match sysctl.read(cx, name)? {
        Value::Int(_) => Value::Int(text.trim().parse().map_err(|_| Errno::EINVAL)?),
        Value::Text(_) => Value::Text(text.to_owned()),
    };
    sysctl.write(cx, name, &value.to_bytes())
}

impl File for Text {
    fn read(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let at = usize::try_from(uio.offset()).unwrap_or(usize::MAX);
        let rest = self.text.as_bytes().get(at..).unwrap_or(&[]);
        uio.put(cx, rest).map(drop)
    }

    /// Sets the variable. `EINVAL` for what is no value of it, `EPERM` for what cannot be set.
    fn write(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let name = self.variable.as_ref().ok_or(Errno::EPERM)?;
        let mut raw = vec![0; uio.resid()];
        if raw.len() > WRITE_MAX {
            return Err(Errno::EINVAL);
        }
        let len = uio.get(cx, &mut raw)?;
        // It is set as a whole or not at all.
        set(cx, name, &raw).inspect_err(|_| uio.give_back(len))
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, _: &Curlwp<'_>, offset: i64, whence: i32) -> Result<u64, Errno> {
        match whence {
            SEEK_END => u64::try_from(offset).map_err(|_| Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }

    fn poll(&self, _: &Curlwp<'_>, events: Events, _: Option<&Arc<dyn Watcher>>) -> Events {
        events & (Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        // The vnode answers for it.
        Err(Errno::EINVAL)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

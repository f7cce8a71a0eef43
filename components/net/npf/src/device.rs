//! The devices that a filter is set and looked at by, for the superuser.
//!
//! `/dev/npf` has the rules: reading gives them with what they have counted; one write(2) is one whole text, which replaces all of them or,
//! with `EINVAL`, none, and then what is wrong with it is read from the same descriptor. `/dev/npfstates` has the connections: reading gives a line for
//! each ([`Npf::connections`]), writing `flush` forgets them, `flush CLAUSES` some of them ([`Npf::flush`]).

use std::any::Any;
use std::sync::Arc;

use abi::{Errno, Stat};
use kern::poll::{Events, Watcher};
use kern::{Curlwp, File, OpenFile, Uio};
use sync::Mutex;
use vfs::{Device, Vfs, VnodeKind, make_device_node, makedev, minor};

use crate::Npf;
use crate::lang::MOST_TEXT;

/// The major number, of Linux's range for local use.
const MAJOR: u32 = 241;
const MODE: u32 = 0o600;

/// Makes the devices. `EOPNOTSUPP` without a vfs.
pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    let vfs = Vfs::of(cx)?;
    vfs.add_device(
        cx,
        Device {
            kind: VnodeKind::Character,
            major: MAJOR,
            minor: None,
            open,
        },
    );
    make_device_node(cx, b"/dev/npf", MODE, makedev(MAJOR, 0))?;
    make_device_node(cx, b"/dev/npfstates", MODE, makedev(MAJOR, 1))
}

fn open(cx: &Curlwp<'_>, rdev: u64, _: i32) -> Result<Arc<dyn File>, Errno> {
    if !cx.cred().is_superuser() {
        return Err(Errno::EPERM);
    }
    let part = match minor(rdev) {
        0 => Part::Rules,
        1 => Part::States,
        _ => return Err(Errno::ENXIO),
    };
    Ok(Arc::new(Opened {
        npf: Npf::of(cx)?,
        part,
        text: Mutex::default(),
    }))
}

#[derive(Clone, Copy)]
enum Part {
    Rules,
    States,
}

/// A device that is open.
struct Opened {
    npf: Arc<Npf>,
    part: Part,
    /// What is being read. A leaf.
    text: Mutex<Text>,
}

#[derive(Clone, Default)]
enum Text {
    /// Made anew by each read from the beginning.
    #[default]
    Fresh,
    Shown(Arc<str>),
    /// What was wrong with what was written.
    Wrong(Arc<str>),
}

impl Opened {
    /// What is read from here on.
    fn text(&self, cx: &Curlwp<'_>, offset: u64) -> Arc<str> {
        let now = self.text.lock(cx.cpu()).clone();
        match now {
            Text::Wrong(text) => return text,
            Text::Shown(text) if offset > 0 => return text,
            _ => {}
        }
        let text: Arc<str> = match self.part {
            Part::Rules => self.npf.rules().into(),
            Part::States => self.npf.connections().into(),
        };
        *self.text.lock(cx.cpu()) = Text::Shown(text.clone());
        text
    }

    fn take(&self, cx: &Curlwp<'_>, bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "the text is no UTF-8".to_owned())?;
        match self.part {
            Part::Rules => self.npf.load(cx, text).map_err(|error| error.to_string()),
            Part::States => self
                .npf
                .flush(cx, text)
                .map(drop)
                .map_err(|e| e.to_string()),
        }
    }
}

impl File for Opened {
    fn read(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let offset = uio.offset();
        let text = self.text(cx, offset);
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(text.len());
        uio.put(cx, &text.as_bytes()[from..]).map(drop)
    }

    fn write(&self, cx: &Curlwp<'_>, _: &OpenFile, uio: &mut Uio<'_>) -> Result<(), Errno> {
        let len = uio.resid();
        if len > MOST_TEXT {
            return Err(Errno::EFBIG);
        }
        let mut bytes = vec![0; len];
        let mut have = 0;
        while have < len {
            match uio.get(cx, &mut bytes[have..])? {
                0 => break,
                n => have += n,
            }
        }
        bytes.truncate(have);
        let (text, result) = match self.take(cx, &bytes) {
            Ok(()) => (Text::Fresh, Ok(())),
            Err(why) => {
                uio.give_back(have);
                (Text::Wrong(why.into()), Err(Errno::EINVAL))
            }
        };
        *self.text.lock(cx.cpu()) = text;
        result
    }

    fn seekable(&self) -> bool {
        true
    }

    fn seek(&self, _: &Curlwp<'_>, _: i64, _: i32) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    fn poll(&self, _: &Curlwp<'_>, events: Events, _: Option<&Arc<dyn Watcher>>) -> Events {
        events & (Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM)
    }

    fn stat(&self, _: &Curlwp<'_>) -> Result<Stat, Errno> {
        // The vnode answers for the device.
        Err(Errno::EINVAL)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

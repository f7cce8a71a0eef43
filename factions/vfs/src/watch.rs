//! Telling those who watch a file what happens to it, and those who watch the directory it is in.
//!
//! A directory knows its own names, so what happens to them is told there ([`Vnode::names_changed`]). What happens to a file
//! itself ([`Vnode::changed`]) is told to the directory that it was last found in since that is watched: a file has many
//! names and knows none of them, so a look-up in a watched directory notes where the file is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kern::Curlwp;
use kern::watch::{Change, ChangeHead, FileChange};

use crate::Vnode;

impl Vnode {
    /// Those who watch it.
    pub(crate) fn changes(&self) -> &ChangeHead {
        self.changes.get_or_init(Box::default)
    }

    /// Whether anybody watches it.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.changes.get().is_some_and(|head| head.is_watched())
    }

    /// Whether anybody may be told of what happens to it.
    #[inline]
    pub(crate) fn is_noticed(&self) -> bool {
        self.in_watched_dir.load(Ordering::Relaxed) || self.is_watched()
    }

    /// Notes that it was found in a directory, if that is watched.
    #[inline]
    pub(crate) fn found_in(&self, cx: &Curlwp<'_>, dir: &Arc<Vnode>, name: &[u8]) {
        if dir.is_watched() {
            if !self.is_dir() {
                self.set_parent(cx, dir, name);
            }
            self.in_watched_dir.store(true, Ordering::Relaxed);
        }
    }

    /// Tells what has happened to the file.
    #[inline]
    pub(crate) fn changed(&self, cx: &Curlwp<'_>, what: Change) {
        if self.is_noticed() {
            self.tell(cx, what);
        }
    }

    #[cold]
    fn tell(&self, cx: &Curlwp<'_>, what: Change) {
        let what = match self.is_dir() {
            true => what | Change::ISDIR,
            false => what,
        };
        if let Some(head) = self.changes.get() {
            let itself = FileChange {
                what,
                name: None,
                cookie: 0,
            };
            head.tell(cx.cpu(), &itself);
        }
        // That it is gone or moved is told to the directory by its names.
        let own = Change::LINK | Change::UNLINKED | Change::DELETE_SELF | Change::MOVE_SELF;
        if self.in_watched_dir.load(Ordering::Relaxed)
            && !what.intersects(own)
            && let Some((dir, name)) = self.place(cx)
            && let Some(head) = dir.changes.get()
        {
            let child = FileChange {
                what: Change(what.0 & !Change::EXTEND.0),
                name: Some(&name),
                cookie: 0,
            };
            head.tell(cx.cpu(), &child);
        }
    }

    /// Tells what has happened to a name in this directory, which stands or stood for `vp`.
    #[inline]
    pub(crate) fn names_changed(
        &self,
        cx: &Curlwp<'_>,
        what: Change,
        name: &[u8],
        vp: &Vnode,
        cookie: u32,
    ) {
        let Some(head) = self.changes.get().filter(|head| head.is_watched()) else {
            return;
        };
        let what = match vp.is_dir() {
            // A directory's number of names counts the directories in it.
            true => what | Change::ISDIR | Change::LINK,
            false => what,
        };
        let change = FileChange {
            what,
            name: Some(name),
            cookie,
        };
        head.tell(cx.cpu(), &change);
    }

    /// Tells that a name of it is gone.
    pub(crate) fn name_gone(&self, cx: &Curlwp<'_>) {
        if self.is_noticed() {
            let what = match (self.is_dir(), self.attr(cx).nlink) {
                (true, _) => Change::UNLINKED,
                (false, 0) => Change::UNLINKED | Change::ATTRIB,
                (false, _) => Change::LINK | Change::ATTRIB,
            };
            self.changed(cx, what);
        }
    }
}

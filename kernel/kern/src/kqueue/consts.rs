//! The numbers of NetBSD's <sys/event.h>.
#![allow(missing_docs)] // the names are kqueue(2)'s

pub const EVFILT_READ: u32 = 0;
pub const EVFILT_WRITE: u32 = 1;
pub const EVFILT_AIO: u32 = 2;
pub const EVFILT_VNODE: u32 = 3;
pub const EVFILT_PROC: u32 = 4;
pub const EVFILT_SIGNAL: u32 = 5;
pub const EVFILT_TIMER: u32 = 6;
pub const EVFILT_FS: u32 = 7;
pub const EVFILT_USER: u32 = 8;
/// One more than the highest filter.
pub const EVFILT_SYSCOUNT: u32 = 9;

pub const EV_ADD: u32 = 0x0001;
pub const EV_DELETE: u32 = 0x0002;
pub const EV_ENABLE: u32 = 0x0004;
pub const EV_DISABLE: u32 = 0x0008;
pub const EV_ONESHOT: u32 = 0x0010;
pub const EV_CLEAR: u32 = 0x0020;
pub const EV_RECEIPT: u32 = 0x0040;
pub const EV_DISPATCH: u32 = 0x0080;
pub const EV_SYSFLAGS: u32 = 0xf000;
pub const EV_ERROR: u32 = 0x4000;
pub const EV_EOF: u32 = 0x8000;

pub const NOTE_LOWAT: u32 = 0x0001;

pub const NOTE_DELETE: u32 = 0x0001;
pub const NOTE_WRITE: u32 = 0x0002;
pub const NOTE_EXTEND: u32 = 0x0004;
pub const NOTE_ATTRIB: u32 = 0x0008;
pub const NOTE_LINK: u32 = 0x0010;
pub const NOTE_RENAME: u32 = 0x0020;
pub const NOTE_REVOKE: u32 = 0x0040;
pub const NOTE_OPEN: u32 = 0x0080;
pub const NOTE_CLOSE: u32 = 0x0100;
pub const NOTE_CLOSE_WRITE: u32 = 0x0200;
pub const NOTE_READ: u32 = 0x0400;

pub const NOTE_EXIT: u32 = 0x8000_0000;
pub const NOTE_FORK: u32 = 0x4000_0000;
pub const NOTE_EXEC: u32 = 0x2000_0000;
pub const NOTE_TRACK: u32 = 0x0000_0001;

pub const NOTE_MSECONDS: u32 = 0;
pub const NOTE_SECONDS: u32 = 1;
pub const NOTE_USECONDS: u32 = 2;
pub const NOTE_NSECONDS: u32 = 3;
pub const NOTE_ABSTIME: u32 = 0x10;

pub const NOTE_FFNOP: u32 = 0x0000_0000;
pub const NOTE_FFAND: u32 = 0x4000_0000;
pub const NOTE_FFOR: u32 = 0x8000_0000;
pub const NOTE_FFCOPY: u32 = 0xc000_0000;
pub const NOTE_FFCTRLMASK: u32 = 0xc000_0000;
pub const NOTE_FFLAGSMASK: u32 = 0x00ff_ffff;
pub const NOTE_TRIGGER: u32 = 0x0100_0000;

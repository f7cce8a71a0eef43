//! What the kernel says it is. Its system calls are Linux's, so that is what programs are told.

/// `kern.ostype`.
pub const OSTYPE: &str = "Linux";
/// `kern.osrelease`: the release of Linux whose interface this is, and our own.
pub const OSRELEASE: &str = concat!("6.1.0-rumpkit-", env!("CARGO_PKG_VERSION"));
/// `kern.version`.
pub const VERSION: &str = concat!("#1 rumpkit ", env!("CARGO_PKG_VERSION"));
/// `hw.machine`.
pub const MACHINE: &str = "x86_64";

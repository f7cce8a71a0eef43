//! Who am I.

use abi::{SysResult, args};

use crate::Curlwp;

/// getpid(2).
pub(super) fn getpid(cx: &Curlwp<'_>, _: args::getpid) -> SysResult {
    Ok(i64::from(cx.proc().pid))
}

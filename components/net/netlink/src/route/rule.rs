//! Rules: which tables a packet's route is looked up in. There are only the three that Linux begins with, and they cannot
//! be changed.

use abi::Errno;
use net::consts::{AF_INET, AF_INET6};

use super::RTM_NEWRULE;
use crate::message::{NLM_F_MULTI, Request};
use crate::socket::Answer;

/// Bytes of a `struct fib_rule_hdr`.
const FIXED: usize = 12;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
/// Priority and table: local, main, default.
const RULES: [(u32, u8); 3] = [(0, 255), (32_766, 254), (32_767, 253)];

pub(super) fn get(request: &Request<'_>, out: &mut Answer) -> Result<(), Errno> {
    if !request.is_dump() {
        return Err(Errno::EOPNOTSUPP);
    }
    let asked = request.fixed::<FIXED>().unwrap_or_default()[0];
    for family in [AF_INET as u8, AF_INET6 as u8] {
        if asked != 0 && asked != family {
            continue;
        }
        for (priority, table) in RULES {
            // IPv6 has no default table.
            if family == AF_INET6 as u8 && table == 253 {
                continue;
            }
            let fixed = [family, 0, 0, 0, table, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
            out.writer
                .message(RTM_NEWRULE, NLM_F_MULTI, &fixed)
                .u32(FRA_TABLE, table.into())
                .u32(FRA_PRIORITY, priority)
                .end();
        }
    }
    Ok(())
}

//! (next)
use crate::state::Process;
/// epoll.
pub(crate) fn call(_: &Process, _: u32, _: &[u64; 6]) -> Option<i64> {
    None
}
/// closed.
pub(crate) fn closed(_: i32) {}

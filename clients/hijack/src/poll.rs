//! (next)
use crate::state::Process;
/// poll.
pub(crate) fn poll(_: &Process, _: u32, _: &[u64; 6]) -> Option<i64> {
    None
}
/// select.
pub(crate) fn select(_: &Process, _: u32, _: &[u64; 6]) -> Option<i64> {
    None
}

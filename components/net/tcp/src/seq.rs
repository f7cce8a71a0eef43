//! Positions: sequence numbers that do not wrap.
//!
//! Inside, a place in the sequence space is a `u64` whose low 32 bits are the sequence number on the wire. They are compared as
//! numbers, so no comparison in the engine knows about wrapping; only what comes from the wire is unwrapped, here.

/// The position that an initial sequence number stands for. High enough that nothing near it is below zero.
pub(crate) fn origin(isn: u32) -> u64 {
    (1 << 32) | u64::from(isn)
}

/// The position nearest to `near` that has the sequence number `wire`.
pub(crate) fn unwrap(near: u64, wire: u32) -> u64 {
    let distance = wire.wrapping_sub(near as u32) as i32;
    near.wrapping_add_signed(i64::from(distance))
}

/// Whether timestamp or sequence number `a` is before `b`, modulo 2^32.
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_on_where_the_wire_wraps() {
        let start = origin(u32::MAX - 1);
        assert_eq!(unwrap(start, u32::MAX), start + 1);
        assert_eq!(unwrap(start, 3), start + 5);
        assert_eq!(unwrap(start + 5, u32::MAX - 1), start);
        assert_eq!(unwrap(origin(0), u32::MAX), origin(0) - 1);
        assert!(before(u32::MAX, 0) && !before(0, u32::MAX));
    }
}

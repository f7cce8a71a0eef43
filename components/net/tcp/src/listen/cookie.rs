//! SYN cookies: a handshake that is remembered in its own sequence number (RFC 4987 section 3.6), and the cookies of fast open
//! (RFC 7413 section 4.1.2).
//!
//! The number has a hash, and on top of it a counter of 64-second steps and the largest segment. What else the SYN offered is
//! remembered in the low bits of our timestamp, if the peer has timestamps; otherwise it is forgone.

use super::Key;
use super::isn::hash_tuple;
use crate::listen::Tuple;
use crate::rtt::SEC;
use crate::wire::{Cookie, Options};

/// How long a step is, and how many a cookie lives.
const STEP: u64 = 64 * SEC;
const STEPS: u64 = 2;
const HASH_BITS: u32 = 0x00ff_ffff;

/// The sizes that a cookie can remember.
const SIZES: [u16; 8] = [216, 536, 1220, 1300, 1360, 1440, 1460, 8960];

/// Where the options are in the low bits of a timestamp.
const TS_BITS: u32 = 6;
const TS_SACK: u32 = 1 << 4;
const TS_ECN: u32 = 1 << 5;
const NO_SCALE: u32 = 15;

fn hash(key: Key, tuple: &Tuple, irs: u32, step: u64, size: usize) -> u32 {
    let word = u64::from(irs) << 32 | (step & 0xff_ffff) << 8 | size as u64;
    hash_tuple(key, tuple, word ^ 0x5c5c << 48) as u32 & HASH_BITS
}

/// The sequence number for our SYN-ACK.
pub(super) fn make(key: Key, now: u64, tuple: &Tuple, irs: u32, peer_mss: u16) -> u32 {
    let step = now / STEP;
    let size = SIZES.iter().rposition(|&s| s <= peer_mss).unwrap_or(0);
    let top = (step as u32 & 31) << 3 | size as u32;
    top << 24 | hash(key, tuple, irs, step, size)
}

/// The peer's largest segment, if `iss` is a cookie that we gave it lately.
pub(super) fn check(key: Key, now: u64, tuple: &Tuple, irs: u32, iss: u32) -> Option<u16> {
    let current = now / STEP;
    let size = (iss >> 24 & 7) as usize;
    let age = u64::from((current as u32).wrapping_sub(iss >> 27) & 31);
    let step = current.checked_sub(age).filter(|_| age < STEPS)?;
    (iss & HASH_BITS == hash(key, tuple, irs, step, size)).then_some(SIZES[size])
}

/// Our timestamp, changed to remember what the peer's SYN offered. It is never ahead of `clock`.
pub(super) fn stamp(clock: u32, options: &Options, ecn: bool) -> u32 {
    let mut bits = options
        .window_scale
        .map_or(NO_SCALE, |s| u32::from(s.min(14)));
    bits |= if options.sack_permitted { TS_SACK } else { 0 };
    bits |= if ecn { TS_ECN } else { 0 };
    let low = (1 << TS_BITS) - 1;
    let stamp = clock & !low | bits;
    if stamp > clock {
        stamp.wrapping_sub(1 << TS_BITS)
    } else {
        stamp
    }
}

/// What the echo of such a timestamp remembers; and whether ECN was agreed.
pub(super) fn unstamp(echo: u32) -> (Options, bool) {
    let scale = echo & 15;
    let options = Options {
        window_scale: (scale != NO_SCALE).then_some(scale as u8),
        sack_permitted: echo & TS_SACK != 0,
        ..Options::default()
    };
    (options, echo & TS_ECN != 0)
}

/// The fast-open cookie of a peer's address.
pub(super) fn fast_open(key: Key, tuple: &Tuple) -> Cookie {
    let hash = hash_tuple(key, &tuple.without_ports(), 0x7413);
    Cookie::new(&hash.to_be_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4987_cookie_is_good_for_its_connection_and_two_minutes() {
        let key = Key([3, 4]);
        let tuple = |port| Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        };
        let now = 1000 * SEC;
        let iss = make(key, now, &tuple(1), 77, 1448);
        assert_eq!(check(key, now, &tuple(1), 77, iss), Some(1440));
        assert_eq!(check(key, now + STEP, &tuple(1), 77, iss), Some(1440));
        assert_eq!(check(key, now + 2 * STEP, &tuple(1), 77, iss), None);
        assert_eq!(check(key, now, &tuple(2), 77, iss), None);
        assert_eq!(check(key, now, &tuple(1), 78, iss), None);
        assert_eq!(check(key, now, &tuple(1), 77, iss ^ 1), None);
    }

    #[test]
    fn timestamp_remembers_the_options_and_is_not_ahead() {
        for clock in [0x1000, 0x103f, 0xffff_ffff] {
            let options = Options {
                window_scale: Some(9),
                sack_permitted: true,
                ..Options::default()
            };
            let stamp = stamp(clock, &options, false);
            assert!(clock.wrapping_sub(stamp) < 128);
            assert_eq!(unstamp(stamp), (options, false));
        }
    }
}

//! Block devices that fail on purpose: `RUMP_BLKFAIL`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::Errno;
use hypercall::Host;

/// What `RUMP_BLKFAIL` counts in.
const OF: u64 = 10_000;

/// Has so many of 10,000 transfers fail, chosen by a seed: the same seed and the same transfers, the same failures.
pub(crate) struct BlkFail {
    fail: u64,
    state: AtomicU64,
}

impl BlkFail {
    /// What the host's parameters ask for: `RUMP_BLKFAIL`, how many of 10,000, and `RUMP_BLKFAIL_SEED`, by default a random one, which the
    /// console is told. `EINVAL` for what makes no sense; it is named on the console.
    pub(crate) fn from_host(host: &dyn Host) -> Result<Option<Arc<BlkFail>>, Errno> {
        let number = |name: &str, most: u64| match host.param(name) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(n) if n <= most => Ok(Some(n)),
                _ => {
                    let line = format!("rump: {name}={text}: want a number from 0 to {most}\n");
                    host.console_write(line.as_bytes());
                    Err(Errno::EINVAL)
                }
            },
        };
        let fail = number("RUMP_BLKFAIL", OF)?.unwrap_or(0);
        let seed = number("RUMP_BLKFAIL_SEED", u64::MAX)?;
        if fail == 0 {
            return Ok(None);
        }
        let seed = seed.unwrap_or_else(|| {
            let mut random = [0; 8];
            host.random(&mut random);
            u64::from_le_bytes(random)
        });
        let line = format!("rump: {fail} of {OF} block transfers fail, RUMP_BLKFAIL_SEED={seed}\n");
        host.console_write(line.as_bytes());
        Ok(Some(Arc::new(BlkFail {
            fail,
            state: AtomicU64::new(seed),
        })))
    }

    /// Before a transfer: `EIO` if it is to fail.
    pub(crate) fn transfer(&self) -> Result<(), Errno> {
        // SplitMix64.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut n = self
            .state
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        match (n ^ n >> 31) % OF < self.fail {
            true => Err(Errno::EIO),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(fail: u64, seed: u64) -> Vec<usize> {
        let device = BlkFail {
            fail,
            state: AtomicU64::new(seed),
        };
        let fails = |_: &usize| device.transfer().is_err();
        (0..10_000).filter(fails).collect()
    }

    #[test]
    fn about_as_many_transfers_fail_as_are_asked_for_and_a_seed_repeats_them() {
        assert_eq!(failures(OF, 1).len(), 10_000);
        assert!((300..700).contains(&failures(500, 1).len()));
        assert_eq!(failures(500, 7), failures(500, 7));
        assert_ne!(failures(500, 7), failures(500, 8));
    }
}

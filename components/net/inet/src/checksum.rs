//! Internet checksums as they stand in headers, over [`net::InternetSum`].

use core::net::IpAddr;

use net::InternetSum;

/// A sum that grows piece by piece.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum(InternetSum);

impl Sum {
    /// The pseudo header of a transport protocol.
    pub(crate) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum {
        let len = len as u32;
        Sum(match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let both = u64::from(u32::from(src)) << 32 | u64::from(u32::from(dst));
                InternetSum::pseudo(&both.to_be_bytes(), protocol, len)
            }
            (src, dst) => {
                let mut both = [0; 32];
                both[..16].copy_from_slice(&crate::addr::map(src).octets());
                both[16..].copy_from_slice(&crate::addr::map(dst).octets());
                InternetSum::pseudo(&both, protocol, len)
            }
        })
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.add(bytes);
    }

    /// The sum as it stands in a field that somebody else completes.
    pub(crate) fn partial(self) -> [u8; 2] {
        self.0.folded().to_be_bytes()
    }

    /// The checksum.
    pub(crate) fn checksum(self) -> [u8; 2] {
        self.0.checksum().to_be_bytes()
    }

    /// Whether the bytes, their checksum among them, sum up to nothing.
    pub(crate) fn is_valid(self) -> bool {
        self.0.checksum() == 0
    }
}

/// The checksum of some bytes.
pub(crate) fn of(bytes: &[u8]) -> [u8; 2] {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.checksum()
}

//! Addresses of sockets, as they cross the line between kernel and user.

use abi::{Errno, UserAddr};
use kern::Curlwp;
use smallvec::SmallVec;

use crate::consts::AF_UNSPEC;

/// The most bytes of an address, `struct sockaddr_storage`.
pub const ADDR_MAX: usize = 128;

/// A `struct sockaddr` with its length: the family in the first two bytes, the rest as the domain has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addr(SmallVec<[u8; 28]>);

impl Addr {
    /// An address from its bytes. Longer than [`ADDR_MAX`] it is cut.
    pub fn new(bytes: &[u8]) -> Addr {
        Addr(bytes[..bytes.len().min(ADDR_MAX)].into())
    }

    /// The address that says nothing but its family.
    pub fn unnamed(family: u16) -> Addr {
        Addr::new(&family.to_le_bytes())
    }

    /// The address family; `AF_UNSPEC` when there are too few bytes for one.
    pub fn family(&self) -> u16 {
        match self.0[..] {
            [a, b, ..] => u16::from_le_bytes([a, b]),
            _ => AF_UNSPEC,
        }
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes behind the family.
    pub fn data(&self) -> &[u8] {
        self.0.get(2..).unwrap_or(&[])
    }

    /// Reads an address that the caller gave. `EINVAL` for a length that no address has.
    pub(crate) fn copyin(cx: &Curlwp<'_>, from: UserAddr, len: usize) -> Result<Addr, Errno> {
        if len > ADDR_MAX {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; ADDR_MAX];
        cx.copyin(from, &mut bytes[..len])?;
        Ok(Addr::new(&bytes[..len]))
    }

    /// Writes as much of the address as fits to where the caller wants it, and its whole length to `len_at`. Does
    /// nothing for a null pointer.
    pub(crate) fn copyout(
        &self,
        cx: &Curlwp<'_>,
        to: UserAddr,
        len_at: UserAddr,
    ) -> Result<(), Errno> {
        if to.is_null() {
            return Ok(());
        }
        let mut room = [0; 4];
        cx.copyin(len_at, &mut room)?;
        let room = usize::try_from(i32::from_le_bytes(room)).map_err(|_| Errno::EINVAL)?;
        cx.copyout(&self.0[..room.min(self.0.len())], to)?;
        cx.copyout(&(self.0.len() as u32).to_le_bytes(), len_at)
    }
}

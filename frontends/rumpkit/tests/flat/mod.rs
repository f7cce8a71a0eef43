//! A caller's memory for tests whose calls pass structures with pointers.
#![allow(unreachable_pub, reason = "each test file has its own copy")]

use std::cell::RefCell;

use abi::{Errno, UserAddr};
use rumpkit::kern::{PathBytes, UserMemory};

/// Memory with addresses of its own, so that structures with pointers can be passed.
pub struct Flat(pub RefCell<Vec<u8>>);

/// The first address.
pub const BASE: u64 = 0x1000;

impl UserMemory for Flat {
    fn copyin(&self, _: &sync::Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let at = from.0.checked_sub(BASE).ok_or(Errno::EFAULT)? as usize;
        to.copy_from_slice(
            self.0
                .borrow()
                .get(at..at + to.len())
                .ok_or(Errno::EFAULT)?,
        );
        Ok(())
    }
    fn copyout(&self, _: &sync::Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        if from.is_empty() {
            return Ok(());
        }
        let at = to.0.checked_sub(BASE).ok_or(Errno::EFAULT)? as usize;
        let mut memory = self.0.borrow_mut();
        memory
            .get_mut(at..at + from.len())
            .ok_or(Errno::EFAULT)?
            .copy_from_slice(from);
        Ok(())
    }
    fn copyinstr(
        &self,
        _: &sync::Cpu<'_>,
        _: UserAddr,
        _: usize,
        _: &mut PathBytes,
    ) -> Result<(), Errno> {
        Err(Errno::EFAULT)
    }
}

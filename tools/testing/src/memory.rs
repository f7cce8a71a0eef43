//! A caller's memory, for calls with structures that point to others.

use std::cell::RefCell;
use std::ops::Range;

use abi::{Errno, UserAddr};
use kern::UserMemory;
use sync::Cpu;

/// A caller's memory of one piece. Addresses begin at [`Memory::BASE`]; everything else is not there.
pub struct Memory(RefCell<Vec<u8>>);

impl Memory {
    /// Where it begins.
    pub const BASE: u64 = 0x1000;

    /// So many bytes, all zero.
    pub fn new(len: usize) -> Memory {
        Memory::of(vec![0; len])
    }

    /// These bytes.
    pub fn of(bytes: Vec<u8>) -> Memory {
        Memory(RefCell::new(bytes))
    }

    /// The address of a byte.
    pub const fn at(offset: usize) -> u64 {
        Memory::BASE + offset as u64
    }

    /// Writes bytes, and answers their address. There has to be room for them.
    pub fn put(&self, offset: usize, bytes: &[u8]) -> u64 {
        self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Memory::at(offset)
    }

    /// Writes numbers of eight bytes, as structures of pointers have.
    pub fn put_words(&self, offset: usize, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.put(offset, &bytes)
    }

    /// What is there.
    pub fn get(&self, offset: usize, len: usize) -> Vec<u8> {
        self.0.borrow()[offset..offset + len].to_vec()
    }

    fn range(&self, addr: UserAddr, len: usize) -> Result<Range<usize>, Errno> {
        if len == 0 {
            return Ok(0..0);
        }
        let start = addr.0.checked_sub(Memory::BASE).ok_or(Errno::EFAULT)?;
        let start = usize::try_from(start).map_err(|_| Errno::EFAULT)?;
        let end = start.checked_add(len).ok_or(Errno::EFAULT)?;
        (end <= self.0.borrow().len())
            .then_some(start..end)
            .ok_or(Errno::EFAULT)
    }
}

impl UserMemory for Memory {
    fn copyin(&self, _: &Cpu<'_>, from: UserAddr, to: &mut [u8]) -> Result<(), Errno> {
        let range = self.range(from, to.len())?;
        to.copy_from_slice(&self.0.borrow()[range]);
        Ok(())
    }

    fn copyout(&self, _: &Cpu<'_>, from: &[u8], to: UserAddr) -> Result<(), Errno> {
        let range = self.range(to, from.len())?;
        self.0.borrow_mut()[range].copy_from_slice(from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypercall::PosixHost;
    use kern::{Kernel, PathBytes};

    #[test]
    fn a_string_ends_at_its_nul_or_is_refused() {
        let kernel = Kernel::builder(PosixHost::new()).boot().expect("boots");
        let memory = Memory::of(b"four\0five".to_vec());
        kernel.implicit(&memory, |cx| {
            let read = |offset: usize, max: usize| {
                let mut string = PathBytes::new();
                let at = UserAddr(Memory::at(offset));
                memory
                    .copyinstr(cx.cpu(), at, max, &mut string)
                    .map(|()| string.to_vec())
            };
            assert_eq!(read(0, 4), Ok(b"four".to_vec()));
            assert_eq!(read(4, 0), Ok(Vec::new()));
            assert_eq!(read(0, 3), Err(Errno::ENAMETOOLONG));
            assert_eq!(read(5, 100), Err(Errno::EFAULT), "no NUL");
        });
    }
}

//! Memory of clients: what the kernel reaches of it.

mod support;

use abi::{Errno, O_CREAT, O_RDWR, Syscalls, nr};
use rumpclient::raw::ThreadState;
use rumpclient::{Client, raw};
use support::{both, served};
use sysproxy::{Options, Server};

#[test]
fn transfers_of_any_length_arrive_whole() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let fd = client.open(c"/long", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
        for len in [0, 1, 511, 4096, 100_000, 300_000, 1 << 20, 5_000_003] {
            let data: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
            assert_eq!(client.pwrite64(fd, &data, len, 0), Ok(len as i64));
            let mut back = vec![0; len];
            assert_eq!(client.pread64(fd, &mut back, len, 0), Ok(len as i64));
            assert!(back == data, "{len}");
        }
    }
}

/// Calls with raw addresses, as a program makes them.
fn raw_calls(server: &Server, rings: bool, f: impl FnOnce(&dyn Fn(u32, [u64; 6]) -> i64)) {
    let client = Box::new(raw::Client::new());
    let thread = ThreadState::new();
    client
        .connect(&thread, server.url().as_bytes(), b"raw", 0)
        .unwrap();
    client.use_rings(rings);
    for _ in 0..10 {
        client.call(&thread, nr::getpid, &[0; 6]);
    }
    f(&|nr, args| client.call(&thread, nr, &args));
    client.thread_exit(&thread);
    client.disconnect();
}

/// Two pages; the second is protected.
fn page_before_nothing(protection: i32) -> (u64, impl Drop) {
    struct Unmap(u64);
    impl Drop for Unmap {
        fn drop(&mut self) {
            // SAFETY: the mapping made below.
            unsafe { libc::munmap(self.0 as *mut libc::c_void, 8192) };
        }
    }
    // SAFETY: fresh memory.
    let at = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let at = libc::mmap(std::ptr::null_mut(), 8192, rw, flags, -1, 0);
        assert_eq!(libc::mprotect(at.add(4096), 4096, protection), 0);
        at as u64
    };
    (at, Unmap(at))
}

#[test]
fn bad_addresses_are_faults_and_nothing_worse() {
    let (_kernel, server) = served(Options::default());
    for rings in [false, true] {
        raw_calls(&server, rings, |call| {
            let fault = -i64::from(Errno::EFAULT.0);
            let path = c"/faults".as_ptr() as u64;
            let flags = (O_CREAT | O_RDWR) as u64;
            let fd = call(nr::open, [path, flags, 0o644, 0, 0, 0]) as u64;
            let (page, _keep) = page_before_nothing(libc::PROT_NONE);
            let (ro, _keep_ro) = page_before_nothing(libc::PROT_READ);
            for bad in [
                1,
                page + 4096,
                page + 4095,
                u64::MAX - 10,
                1 << 47,
                0xffff_8000_0000_0000,
            ] {
                assert_eq!(call(nr::write, [fd, bad, 100, 0, 0, 0]), fault, "{bad:#x}");
                assert_eq!(call(nr::fstat, [fd, bad, 0, 0, 0, 0]), fault, "{bad:#x}");
            }
            assert_eq!(call(nr::fstat, [fd, ro + 4096, 0, 0, 0, 0]), fault);
            assert_eq!(call(nr::write, [fd, ro + 4096, 100, 0, 0, 0]), 100);
            assert_eq!(call(nr::open, [page + 4096, 0, 0, 0, 0, 0]), fault);
            // A string that runs into nothing, and one that ends right before it.
            // SAFETY: the page is ours.
            unsafe { (page as *mut u8).add(4090).write_bytes(b'a', 6) };
            assert_eq!(call(nr::open, [page + 4090, 0, 0, 0, 0, 0]), fault);
            // SAFETY: the page is ours.
            unsafe { (page as *mut u8).add(4095).write(0) };
            let missing = -i64::from(Errno::ENOENT.0);
            assert_eq!(call(nr::open, [page + 4090, 0, 0, 0, 0, 0]), missing);
            let long = vec![b'/'; 10_000];
            let too_long = -i64::from(Errno::ENAMETOOLONG.0);
            assert_eq!(
                call(nr::open, [long.as_ptr() as u64, 0, 0, 0, 0, 0]),
                too_long
            );
            assert_eq!(call(nr::readv, [fd, page + 4096, 1, 0, 0, 0]), fault);
            let iov = [page + 4096, 10];
            let at = iov.as_ptr() as u64;
            assert_eq!(call(nr::pwritev, [fd, at, 1, 0, 0, 0]), fault);
            assert_eq!(call(nr::preadv, [fd, at, 1, 0, 0, 0]), fault);
            assert!(call(nr::getpid, [0; 6]) > 1, "the connection lives");
        });
    }
}

#[test]
fn vectored_calls_carry_their_buffers() {
    let (_kernel, server) = served(Options::default());
    for rings in [false, true] {
        raw_calls(&server, rings, |call| {
            let path = c"/vectored".as_ptr() as u64;
            let flags = (O_CREAT | O_RDWR) as u64;
            let fd = call(nr::open, [path, flags, 0o644, 0, 0, 0]) as u64;
            let parts: Vec<Vec<u8>> = (0..100).map(|i| vec![i as u8; i * 3]).collect();
            let iov: Vec<[u64; 2]> = parts
                .iter()
                .map(|p| [p.as_ptr() as u64, p.len() as u64])
                .collect();
            let total: i64 = parts.iter().map(|p| p.len() as i64).sum();
            let at = iov.as_ptr() as u64;
            assert_eq!(call(nr::pwritev, [fd, at, 100, 0, 0, 0]), total);
            let mut back: Vec<Vec<u8>> = parts.iter().map(|p| vec![0; p.len()]).collect();
            let iov: Vec<[u64; 2]> = back
                .iter_mut()
                .map(|p| [p.as_mut_ptr() as u64, p.len() as u64])
                .collect();
            let at = iov.as_ptr() as u64;
            assert_eq!(call(nr::preadv, [fd, at, 100, 0, 0, 0]), total);
            assert!(std::hint::black_box(&mut back) == &parts);
        });
    }
}

#[test]
fn the_kernel_reaches_only_what_is_lent() {
    let (_kernel, server) = served(Options::default());
    for client in both(&server) {
        let fd = client.open(c"/lent", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
        client.pwrite64(fd, &[1; 100], 100, 0).unwrap();
        let mut small = [0; 10];
        assert_eq!(client.pread64(fd, &mut small, 100, 0), Err(Errno::EFAULT));
        assert_eq!(client.pwrite64(fd, &small, 100, 0), Err(Errno::EFAULT));
        assert_eq!(client.pread64(fd, &mut small, 10, 0), Ok(10));
    }
}

#[test]
fn results_that_lie_side_by_side_are_two() {
    let (_kernel, server) = served(Options::default());
    let client = Client::connect(server.url(), "side").unwrap();
    // The value of hw.ncpu, and its length right behind it, as compilers put two variables.
    let mut memory = [0; 16];
    memory[8] = 8;
    let (value, len) = memory.split_at_mut(8);
    let result = client.__sysctl(c"hw.ncpu", value, len, &[], 0);
    assert_eq!(result, Ok(0));
    assert!(value[0] > 0);
}

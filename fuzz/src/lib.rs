//! What fuzz targets share that make system calls: a kernel on a simulated host, a program in it, and an input that is read bit by bit.
//!
//! A target is a list of [`Op`]s. The input says which comes next and with what; everything that an op wants of it, it takes from
//! the front, and an input that has ended gives zeros. Time is the simulated host's, so a wait that nothing ends is found as a deadlock.

mod program;

pub use program::Program;
pub use rumpkit;

use hypercall::sim::{SimConfig, SimHost};

/// One thing that a program does.
pub type Op = fn(&mut Program, &mut Input);

/// Bytes that decide everything, from the front.
pub struct Input {
    bytes: std::vec::IntoIter<u8>,
}

impl Input {
    /// All of them.
    pub fn new(bytes: &[u8]) -> Input {
        Input {
            bytes: bytes.to_vec().into_iter(),
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == 0
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes.next().unwrap_or(0)
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// A number of four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// A number that is mostly small, and now and then one at an edge.
    pub fn number(&mut self) -> u32 {
        match self.byte() {
            small @ 0..=239 => small.into(),
            edge @ 240..=251 => [0u32, 1 << 15, 1 << 16, i32::MAX as u32, u32::MAX, 1 << 12]
                [usize::from(edge) % 6]
                .wrapping_sub(u32::from(edge) % 2),
            _ => self.word(),
        }
    }

    /// So many bytes, or as many as there are.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.bytes.by_ref().take(len).collect()
    }

    /// Bytes with their length in front.
    pub fn piece(&mut self) -> Vec<u8> {
        let len = self.byte().into();
        self.bytes(len)
    }
}

/// The most ops of one input.
const MOST: usize = 500;

/// Runs a program of these ops in a new kernel. Nothing may panic, wait for ever, or break a kernel thread down.
pub fn run(input: &[u8], ops: &'static [Op]) {
    let mut input = Input::new(input);
    let run = SimHost::run(SimConfig::new(1), move |host| {
        let kernel = rumpkit::builder_on(host.clone()).boot().expect("boots");
        let lwp = kernel.rfork(rumpkit::RforkFds::Clear).expect("a process");
        let mut program = Program::new(lwp);
        for _ in 0..MOST {
            if input.is_empty() {
                break;
            }
            let op = ops[input.below(ops.len())];
            op(&mut program, &mut input);
        }
        drop(program);
        kernel.shutdown(true).expect("halts");
        String::from_utf8_lossy(&kernel.messages()).into_owned()
    });
    match run.result {
        Ok(log) => assert!(!log.contains("broke down"), "{log}"),
        Err(failure) => panic!("{failure:?}\n{}", String::from_utf8_lossy(&run.console)),
    }
}

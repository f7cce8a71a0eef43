//! A program: sockets of every kind, and memory that system calls look into.

use rumpkit::abi::nr;
use rumpkit::kern::Curlwp;
use rumpkit::{Errno, LwpHandle, Syscalls};
use testing::Memory;

use crate::Input;

const NONBLOCK: i32 = 0o4000;
const DONTWAIT: u64 = 0x40;

/// Every kind of socket that there is: family, type, protocol.
const KINDS: [(i32, i32, i32); 17] = [
    (1, 1, 0),
    (1, 2, 0),
    (1, 5, 0),
    (2, 1, 0),
    (2, 2, 0),
    (2, 2, 1),
    (2, 3, 1),
    (2, 3, 255),
    (10, 1, 0),
    (10, 2, 0),
    (10, 2, 58),
    (10, 3, 58),
    (10, 3, 17),
    (16, 3, 0),
    (16, 3, 4),
    (17, 3, 0x0300),
    (17, 2, 0x0300),
];

/// A program with a socket that it is at.
pub struct Program {
    lwp: LwpHandle,
    /// What its calls point into.
    pub memory: Memory,
    sockets: Vec<i32>,
    current: i32,
}

impl Program {
    /// A program without sockets, on a kernel whose loopback interface is up.
    pub fn new(lwp: LwpHandle) -> Program {
        let mut program = Program {
            lwp,
            memory: Memory::new(32 << 10),
            sockets: Vec::new(),
            current: -1,
        };
        program.make(KINDS[4]);
        let mut up = b"lo".to_vec();
        up.resize(16, 0);
        up.extend([1, 0]);
        up.resize(40, 0);
        let request = program.memory.put(0, &up);
        let _ = program.call(
            nr::ioctl,
            [program.current as u64, 0x8914, request, 0, 0, 0],
        );
        program
    }

    /// A system call.
    pub fn call(&self, number: u32, args: [u64; 6]) -> Result<i64, Errno> {
        self.lwp.syscall(&self.memory, number, &args)
    }

    /// Does something in the kernel.
    pub fn enter<R>(&self, f: impl FnOnce(&Curlwp<'_>) -> R) -> R {
        self.lwp.enter(&self.memory, f)
    }

    /// The descriptor of the socket that it is at.
    pub fn fd(&self) -> i32 {
        self.current
    }

    fn make(&mut self, (family, kind, protocol): (i32, i32, i32)) {
        if let Ok(fd) = self.lwp.socket(family, kind | NONBLOCK, protocol) {
            self.sockets.push(fd as i32);
            self.current = fd as i32;
        }
    }

    /// An op: makes a socket of any kind.
    pub fn any_socket(&mut self, input: &mut Input) {
        self.make(KINDS[input.below(KINDS.len())]);
    }

    /// An op: makes a socket of the local domain, or two that are connected.
    pub fn local_sockets(&mut self, input: &mut Input) {
        let kind = [1, 2, 5][input.below(3)];
        let mut pair = [0; 8];
        if self
            .lwp
            .socketpair(1, kind | NONBLOCK, 0, &mut pair)
            .is_ok()
        {
            let ends = pair
                .as_chunks::<4>()
                .0
                .iter()
                .map(|n| i32::from_le_bytes(*n));
            self.sockets.extend(ends);
            self.current = self.sockets[self.sockets.len() - 1 - input.below(2)];
        }
    }

    /// A socket of a kind.
    pub fn socket(&mut self, family: i32, kind: i32, protocol: i32) {
        self.make((family, kind, protocol));
    }

    /// An op: goes to another of its sockets.
    pub fn other_socket(&mut self, input: &mut Input) {
        if !self.sockets.is_empty() {
            self.current = self.sockets[input.below(256) % self.sockets.len()];
        }
    }

    /// An op: closes one.
    pub fn close(&mut self, _: &mut Input) {
        let _ = self.lwp.close(self.current);
        self.sockets.retain(|fd| *fd != self.current);
        self.current = self.sockets.last().copied().unwrap_or(-1);
    }

    fn address(input: &mut Input) -> Vec<u8> {
        match input.below(6) {
            0 => input.piece(),
            1 => vec![2, 0, 0, 7, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            2 => {
                let mut loopback = vec![10, 0, 0, 7];
                loopback.resize(23, 0);
                loopback.push(1);
                loopback.resize(28, 0);
                loopback
            }
            3 => vec![1, 0, 0, b'a', input.byte() % 4],
            4 => {
                // ETH_P_ALL is in network byte order.
                let mut link = vec![17, 0, 0, 3, 1, 0, 0, 0];
                link.resize(20, 0);
                link
            }
            _ => vec![16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// An op: binds, connects, listens, accepts, or shuts down.
    pub fn names(&mut self, input: &mut Input) {
        let which = input.below(6);
        let addr = Program::address(input);
        let fd = self.current;
        let _ = match which {
            0 => self.lwp.bind(fd, &addr, addr.len()),
            1 => self.lwp.connect(fd, &addr, addr.len()),
            2 => self.lwp.listen(fd, input.number() as i32),
            3 => self.lwp.shutdown(fd, input.number() as i32),
            4 => {
                let (mut addr, mut len) = ([0; 128], input.word().to_ne_bytes());
                self.lwp.getsockname(fd, &mut addr, &mut len)
            }
            _ => {
                let at = self.memory.put(0, &[0; 128]);
                let len = self.memory.put(256, &128u32.to_le_bytes());
                let accepted = self.call(nr::accept4, [fd as u64, at, len, NONBLOCK as u64, 0, 0]);
                if let Ok(fd) = accepted {
                    self.sockets.push(fd as i32);
                }
                accepted
            }
        };
    }

    fn option(input: &mut Input) -> (i32, i32) {
        let level = match input.below(16) {
            15 => input.number() as i32,
            at => [1, 0, 41, 6, 17, 58, 255, 263, 270, 1, 0, 41, 6, 263, 270][at],
        };
        (level, input.number() as i32)
    }

    /// An op: setsockopt(2) of any option with any bytes.
    pub fn set_option(&mut self, input: &mut Input) {
        let (level, name) = Program::option(input);
        let value = input.piece();
        let at = self.memory.put(0, &value);
        let len = match input.byte() {
            250.. => u64::from(input.word()),
            _ => value.len() as u64,
        };
        let args = [self.current as u64, level as u64, name as u64, at, len, 0];
        let _ = self.call(nr::setsockopt, args);
    }

    /// An op: getsockopt(2) of any option into a buffer of any size.
    pub fn get_option(&mut self, input: &mut Input) {
        let (level, name) = Program::option(input);
        let len = self.memory.put(0, &input.number().to_le_bytes());
        let value = input.piece();
        let value = self.memory.put(64, &value);
        let args = [
            self.current as u64,
            level as u64,
            name as u64,
            value,
            len,
            0,
        ];
        let _ = self.call(nr::getsockopt, args);
    }

    /// An op: attaches any BPF program.
    pub fn attach_filter(&mut self, input: &mut Input) {
        let program = input.piece();
        let at = self.memory.put(64, &program);
        self.memory.put_words(0, &[program.len() as u64 / 8, at]);
        let args = [self.current as u64, 1, 26, Memory::BASE, 16, 0];
        let _ = self.call(nr::setsockopt, args);
    }

    /// An op: ioctl(2), of interfaces and others, with a structure of any bytes.
    pub fn ioctl(&mut self, input: &mut Input) {
        let command = match input.byte() {
            254.. => input.word(),
            low => {
                [0x8900u32, 0x8b00, 0x5400, 0x8900][usize::from(low) % 4] + u32::from(input.byte())
            }
        };
        let mut request = [b"lo\0\0", b"eth0", b"veth", &[0; 4]][input.below(4)].to_vec();
        request.resize(16, 0);
        request.extend(input.piece());
        request.resize(256, 0);
        // struct ifconf: a length and where.
        if command == 0x8912 {
            self.memory
                .put_words(512, &[u64::from(input.number()), Memory::BASE + 1024]);
            let _ = self.call(
                nr::ioctl,
                [self.current as u64, 0x8912, Memory::BASE + 512, 0, 0, 0],
            );
        }
        let at = self.memory.put(0, &request);
        let _ = self.call(
            nr::ioctl,
            [self.current as u64, command.into(), at, 0, 0, 0],
        );
    }

    /// Control data: mostly headers whose lengths are right.
    fn control(&self, input: &mut Input) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..input.below(4) {
            let (level, kind) = match input.below(8) {
                0..=3 => (1, 1),
                4 => (1, 2),
                5 => (41, 50),
                6 => (0, 8),
                _ => (input.number(), input.number()),
            };
            let data = match (level, kind, input.below(4)) {
                // Descriptors: our own, and others.
                (1, 1, 0..=2) => {
                    let fds = (0..input.below(6)).map(|_| match self.sockets.is_empty() {
                        true => 0,
                        false => self.sockets[input.below(256) % self.sockets.len()],
                    });
                    fds.flat_map(|fd| fd.to_le_bytes()).collect()
                }
                _ => input.piece(),
            };
            let len = match input.byte() {
                250.. => u64::from(input.word()),
                _ => 16 + data.len() as u64,
            };
            out.extend(len.to_le_bytes());
            out.extend(level.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend(data);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out
    }

    /// An op: sendmsg(2) with control data of any kind.
    pub fn send_message(&mut self, input: &mut Input) {
        let addr = match input.below(2) {
            0 => Vec::new(),
            _ => Program::address(input),
        };
        let control = self.control(input);
        let data = vec![input.byte(); input.number() as usize % 20_000];
        let name = self.memory.put(128, &addr);
        let control_at = self.memory.put(512, &control);
        let data_at = self.memory.put(4096, &data);
        self.memory.put_words(64, &[data_at, data.len() as u64]);
        let control_len = control.len() as u64;
        let head = [
            name,
            addr.len() as u64,
            Memory::BASE + 64,
            1,
            control_at,
            control_len,
            0,
        ];
        let header = self.memory.put_words(0, &head);
        let flags = DONTWAIT | u64::from(input.number());
        let _ = self.call(nr::sendmsg, [self.current as u64, header, flags, 0, 0, 0]);
    }

    /// An op: recvmsg(2) into buffers of any size.
    pub fn receive_message(&mut self, input: &mut Input) {
        let (room, control) = (u64::from(input.number()), u64::from(input.number()));
        self.memory
            .put_words(64, &[Memory::BASE + 4096, room.min(20_000)]);
        let name_len = u64::from(input.byte());
        let head = [
            Memory::BASE + 128,
            name_len,
            Memory::BASE + 64,
            1,
            Memory::BASE + 512,
            control,
            0,
        ];
        let header = self.memory.put_words(0, &head);
        let flags = DONTWAIT | u64::from(input.number());
        let got = self.call(nr::recvmsg, [self.current as u64, header, flags, 0, 0, 0]);
        if got.is_ok() {
            self.adopt_rights();
        }
    }

    /// Closes the descriptors that came, but for one, or there would soon be too many.
    fn adopt_rights(&mut self) {
        let control = self.memory.get(512, 3000);
        let number = |at: usize| {
            i32::from_le_bytes([
                control[at],
                control[at + 1],
                control[at + 2],
                control[at + 3],
            ])
        };
        let len = number(0).clamp(16, 512) as usize;
        if (number(8), number(12)) != (1, 1) {
            return;
        }
        for at in (16..len).step_by(4) {
            let fd = number(at);
            match at {
                16 if fd > 2 && !self.sockets.contains(&fd) => self.sockets.push(fd),
                _ if !self.sockets.contains(&fd) => drop(self.lwp.close(fd)),
                _ => {}
            }
        }
        self.memory.put(512, &[0; 16]);
    }

    /// An op: lets half a second pass.
    pub fn wait(&mut self, _: &mut Input) {
        let time = self.memory.put_words(0, &[0, 500_000_000]);
        let _ = self.call(nr::nanosleep, [time, 0, 0, 0, 0, 0]);
    }
}

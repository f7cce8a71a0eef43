//! Classic BPF: a small checked program that says how much of a packet a socket wants (McCanne and Jacobson, 1993;
//! Linux's Documentation/networking/filter.rst for the negative offsets).

use abi::Errno;

use crate::Packet;

/// The most instructions of a program, `BPF_MAXINSNS`.
pub const MAX_INSNS: usize = 4096;
/// Words of scratch memory.
const MEMORY: usize = 16;

/// Offsets from here on name facts about the packet that are not in its bytes.
const AD_OFF: i32 = -0x1000;
/// The last of these facts, `SKF_AD_VLAN_TPID`; each is 4 further.
const LAST_FACT: i32 = 60;
/// Offsets from here on count from the network header.
const NET_OFF: i32 = -0x10_0000;
/// Offsets from here on count from the link-layer header.
const LL_OFF: i32 = -0x20_0000;

/// One instruction, `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// What it does.
    pub code: u16,
    /// Instructions to skip when a jump's condition holds.
    pub jt: u8,
    /// And when it does not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

impl Insn {
    /// Bytes of one in memory.
    pub const SIZE: usize = 8;

    /// From its bytes in memory.
    pub fn from_bytes(b: [u8; Self::SIZE]) -> Insn {
        Insn {
            code: u16::from_le_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        }
    }
}

/// What a program looks at.
pub struct View<'p> {
    /// The packet; offset 0 is its first byte.
    pub packet: &'p Packet,
    /// Bytes of link-layer header in front of the network header; 0 when it has been taken off.
    pub link_header: usize,
    /// The protocol, as an Ethernet type.
    pub protocol: u16,
    /// `PACKET_HOST`, `PACKET_OUTGOING` and so on.
    pub packet_type: u8,
    /// The interface.
    pub interface: u32,
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Word,
    Half,
    Byte,
}

#[derive(Clone, Copy, Debug)]
enum From {
    Immediate,
    Absolute,
    Indirect,
    Memory,
    Length,
    HeaderLength,
}

#[derive(Clone, Copy, Debug)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    Lsh,
    Rsh,
    Neg,
}

#[derive(Clone, Copy, Debug)]
enum Condition {
    Equal,
    Greater,
    GreaterEqual,
    Set,
}

/// An instruction that was looked at.
#[derive(Clone, Copy, Debug)]
enum Op {
    LoadA(From, Size),
    LoadX(From),
    StoreA,
    StoreX,
    Alu(Alu, bool),
    Jump,
    Branch(Condition, bool),
    ReturnK,
    ReturnA,
    AToX,
    XToA,
}

/// A program that was checked: every jump lands in it, every path ends, no constant division by zero, no word of memory is read that
/// a path there has not written.
#[derive(Debug)]
pub struct Filter {
    ops: Box<[(Op, Insn)]>,
}

impl Filter {
    /// Checks a program. `EINVAL` when it is none.
    pub fn new(program: &[Insn]) -> Result<Filter, Errno> {
        if program.is_empty() || program.len() > MAX_INSNS {
            return Err(Errno::EINVAL);
        }
        let decoded = program.iter().map(|&i| Some((decode(i)?, i)));
        let ops: Box<[_]> = decoded.collect::<Option<_>>().ok_or(Errno::EINVAL)?;
        for (at, (op, insn)) in ops.iter().enumerate() {
            // Jumps go forward only, so landing inside and a return at the end make every path end.
            let farthest = match op {
                Op::Jump => insn.k as usize,
                Op::Branch(..) => usize::from(insn.jt.max(insn.jf)),
                _ => 0,
            };
            if farthest >= ops.len() - at - 1 && !matches!(op, Op::ReturnA | Op::ReturnK) {
                return Err(Errno::EINVAL);
            }
        }
        if !reads_what_was_written(&ops) {
            return Err(Errno::EINVAL);
        }
        Ok(Filter { ops })
    }

    /// How many bytes of the packet are wanted; 0 for none of it. A load from outside the packet ends with 0.
    pub fn run(&self, view: &View<'_>) -> u32 {
        self.execute(view).unwrap_or(0)
    }

    fn execute(&self, view: &View<'_>) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY];
        let mut at = 0;
        loop {
            let (op, insn) = *self.ops.get(at)?;
            at += 1;
            let k = insn.k;
            let operand = |from_x: bool, x: u32| if from_x { x } else { k };
            match op {
                Op::LoadA(from, size) => a = load(view, from, size, k, a, x, &memory)?,
                Op::LoadX(from) => x = load(view, from, Size::Word, k, a, x, &memory)?,
                Op::StoreA => *memory.get_mut(k as usize)? = a,
                Op::StoreX => *memory.get_mut(k as usize)? = x,
                Op::Alu(alu, from_x) => a = compute(alu, a, operand(from_x, x))?,
                Op::Jump => at += k as usize,
                Op::Branch(condition, from_x) => {
                    let with = operand(from_x, x);
                    let holds = match condition {
                        Condition::Equal => a == with,
                        Condition::Greater => a > with,
                        Condition::GreaterEqual => a >= with,
                        Condition::Set => a & with != 0,
                    };
                    at += usize::from(if holds { insn.jt } else { insn.jf });
                }
                Op::ReturnK => return Some(k),
                Op::ReturnA => return Some(a),
                Op::AToX => x = a,
                Op::XToA => a = x,
            }
        }
    }
}

/// Whether every path to a load from memory has stored there before.
fn reads_what_was_written(ops: &[(Op, Insn)]) -> bool {
    // The words that every way to an instruction has written, of the ways that jump there.
    let mut by_jump = vec![u16::MAX; ops.len()];
    let mut written = 0;
    for (at, (op, insn)) in ops.iter().enumerate() {
        written &= by_jump[at];
        let word = || 1u16.checked_shl(insn.k).unwrap_or(0);
        let mut jumps = |by: usize| {
            if let Some(there) = by_jump.get_mut(at + 1 + by) {
                *there &= written;
            }
        };
        match op {
            Op::StoreA | Op::StoreX => written |= word(),
            Op::LoadA(From::Memory, _) | Op::LoadX(From::Memory) if written & word() == 0 => {
                return false;
            }
            Op::Jump => {
                jumps(insn.k as usize);
                written = u16::MAX;
            }
            Op::Branch(..) => {
                jumps(insn.jt.into());
                jumps(insn.jf.into());
                written = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

fn decode(insn: Insn) -> Option<Op> {
    let code = insn.code;
    if code > 0xff {
        return None;
    }
    let from_x = code & 0x08 != 0;
    let in_memory = (insn.k as usize) < MEMORY;
    Some(match code & 0x07 {
        // LD
        0 => {
            let size = match code & 0x18 {
                0x00 => Size::Word,
                0x08 => Size::Half,
                0x10 => Size::Byte,
                _ => return None,
            };
            if code & 0xe0 == 0x20
                && let fact @ 0.. = (insn.k as i32).saturating_sub(AD_OFF)
                && (insn.k as i32) < 0
                && (fact > LAST_FACT || fact % 4 != 0)
            {
                return None;
            }
            let from = match (code & 0xe0, size) {
                (0x00, Size::Word) => From::Immediate,
                (0x20, _) => From::Absolute,
                (0x40, _) => From::Indirect,
                (0x60, Size::Word) if in_memory => From::Memory,
                (0x80, Size::Word) => From::Length,
                _ => return None,
            };
            Op::LoadA(from, size)
        }
        // LDX
        1 => Op::LoadX(match code & 0xf8 {
            0x00 => From::Immediate,
            0x60 if in_memory => From::Memory,
            0x80 => From::Length,
            0xb0 => From::HeaderLength,
            _ => return None,
        }),
        2 if code == 2 && in_memory => Op::StoreA,
        3 if code == 3 && in_memory => Op::StoreX,
        // ALU
        4 => {
            let alu = match code & 0xf0 {
                0x00 => Alu::Add,
                0x10 => Alu::Sub,
                0x20 => Alu::Mul,
                0x30 => Alu::Div,
                0x40 => Alu::Or,
                0x50 => Alu::And,
                0x60 => Alu::Lsh,
                0x70 => Alu::Rsh,
                0x80 => Alu::Neg,
                0x90 => Alu::Mod,
                0xa0 => Alu::Xor,
                _ => return None,
            };
            let by_nothing = matches!(alu, Alu::Div | Alu::Mod) && insn.k == 0;
            let too_far = matches!(alu, Alu::Lsh | Alu::Rsh) && insn.k >= 32;
            let no_such = matches!(alu, Alu::Neg) && from_x;
            if no_such || !from_x && (by_nothing || too_far) {
                return None;
            }
            Op::Alu(alu, from_x)
        }
        // JMP
        5 => match code & 0xf0 {
            0x00 if !from_x => Op::Jump,
            0x10 => Op::Branch(Condition::Equal, from_x),
            0x20 => Op::Branch(Condition::Greater, from_x),
            0x30 => Op::Branch(Condition::GreaterEqual, from_x),
            0x40 => Op::Branch(Condition::Set, from_x),
            _ => return None,
        },
        // RET
        6 => match code & 0xf8 {
            0x00 => Op::ReturnK,
            0x10 => Op::ReturnA,
            _ => return None,
        },
        // MISC
        7 => match code & 0xf8 {
            0x00 => Op::AToX,
            0x80 => Op::XToA,
            _ => return None,
        },
        _ => return None,
    })
}

fn compute(alu: Alu, a: u32, with: u32) -> Option<u32> {
    Some(match alu {
        Alu::Add => a.wrapping_add(with),
        Alu::Sub => a.wrapping_sub(with),
        Alu::Mul => a.wrapping_mul(with),
        Alu::Div => a.checked_div(with)?,
        Alu::Mod => a.checked_rem(with)?,
        Alu::Or => a | with,
        Alu::And => a & with,
        Alu::Xor => a ^ with,
        Alu::Lsh => a.wrapping_shl(with),
        Alu::Rsh => a.wrapping_shr(with),
        Alu::Neg => a.wrapping_neg(),
    })
}

fn load(
    view: &View<'_>,
    from: From,
    size: Size,
    k: u32,
    a: u32,
    x: u32,
    memory: &[u32],
) -> Option<u32> {
    match from {
        From::Immediate => Some(k),
        From::Memory => memory.get(k as usize).copied(),
        From::Length => u32::try_from(view.packet.len()).ok(),
        From::HeaderLength => fetch(view, k as i32, Size::Byte).map(|byte| (byte & 0xf) << 2),
        From::Absolute if (k as i32) >= AD_OFF && (k as i32) < 0 => {
            fact(view, k as i32 - AD_OFF, a, x)
        }
        From::Absolute => fetch(view, k as i32, size),
        From::Indirect => fetch(view, (k as i32).checked_add(x as i32)?, size),
    }
}

fn fetch(view: &View<'_>, offset: i32, size: Size) -> Option<u32> {
    let at = match offset {
        0.. => offset as usize,
        NET_OFF..0 => view.link_header + (offset - NET_OFF) as usize,
        LL_OFF..NET_OFF => (offset - LL_OFF) as usize,
        _ => return None,
    };
    let mut bytes = [0; 4];
    let width = match size {
        Size::Word => 4,
        Size::Half => 2,
        Size::Byte => 1,
    };
    view.packet.read(at, &mut bytes[4 - width..])?;
    Some(u32::from_be_bytes(bytes))
}

/// `SKF_AD_*`: what is known besides the bytes. What this kernel does not know is an error, as a load from outside.
fn fact(view: &View<'_>, which: i32, a: u32, x: u32) -> Option<u32> {
    Some(match which {
        0 => view.protocol.into(),
        4 => view.packet_type.into(),
        8 => view.interface,
        20 | 24 | 32 | 36 => 0,
        40 => a ^ x,
        44 | 48 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    fn run(program: &[Insn], packet: &[u8]) -> u32 {
        let filter = Filter::new(program).expect("a good program");
        let packet = Packet::new(Bytes::copy_from_slice(packet));
        filter.run(&View {
            packet: &packet,
            link_header: 14,
            protocol: 0x800,
            packet_type: 4,
            interface: 3,
        })
    }

    /// What `tcpdump -dd udp port 53` prints for Ethernet, the part of IPv4.
    const UDP_53: &[(u16, u8, u8, u32)] = &[
        (0x28, 0, 0, 12),
        (0x15, 0, 8, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 6, 17),
        (0x28, 0, 0, 20),
        (0x45, 4, 0, 0x1fff),
        (0xb1, 0, 0, 14),
        (0x48, 0, 0, 16),
        (0x15, 0, 1, 53),
        (0x06, 0, 0, 0x40000),
        (0x06, 0, 0, 0),
    ];

    fn udp_53() -> Vec<Insn> {
        UDP_53
            .iter()
            .map(|&(code, jt, jf, k)| insn(code, jt, jf, k))
            .collect()
    }

    fn frame(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn a_program_of_tcpdump_tells_packets_apart() {
        assert_eq!(run(&udp_53(), &frame(53)), 0x40000);
        assert_eq!(run(&udp_53(), &frame(80)), 0);
        assert_eq!(run(&udp_53(), &frame(53)[..30]), 0, "too short");
    }

    #[test]
    fn facts_that_are_not_in_the_packet_are_loaded() {
        let ad = |which: i32| {
            [
                insn(0x20, 0, 0, (AD_OFF + which) as u32),
                insn(0x16, 0, 0, 0),
            ]
        };
        assert_eq!(run(&ad(0), &[]), 0x800);
        assert_eq!(run(&ad(4), &[]), 4);
        assert_eq!(run(&ad(8), &[]), 3);
        let net = [insn(0x30, 0, 0, NET_OFF as u32), insn(0x16, 0, 0, 0)];
        assert_eq!(run(&net, &frame(1)), 0x45);
    }

    #[test]
    fn programs_that_could_go_astray_are_refused() {
        let end = insn(0x06, 0, 0, 1);
        for bad in [
            vec![],
            vec![insn(0x00, 0, 0, 1)],
            vec![insn(0x15, 1, 0, 0), end],
            vec![insn(0x05, 0, 0, u32::MAX), end],
            vec![insn(0x34, 0, 0, 0), end],
            vec![insn(0x02, 0, 0, 16), end],
            vec![insn(0xffff, 0, 0, 0), end],
            vec![insn(0x120, 0, 0, 0), end],
            vec![insn(0x8c, 0, 0, 0), end],
            // Memory that nobody has written, on one of two ways at least.
            vec![insn(0x60, 0, 0, 3), end],
            vec![
                insn(0x15, 1, 0, 0),
                insn(0x02, 0, 0, 3),
                insn(0x61, 0, 0, 3),
                end,
            ],
            // What is known of no packet.
            vec![insn(0x20, 0, 0, (AD_OFF + 64) as u32), end],
            vec![insn(0x30, 0, 0, (AD_OFF + 2) as u32), end],
            vec![end; MAX_INSNS + 1],
        ] {
            assert_eq!(Filter::new(&bad).err(), Some(Errno::EINVAL), "{bad:?}");
        }
        let on_both_ways = [
            insn(0x15, 0, 2, 0),
            insn(0x02, 0, 0, 3),
            insn(0x05, 0, 0, 1),
            insn(0x03, 0, 0, 3),
            insn(0x60, 0, 0, 3),
            end,
        ];
        assert!(Filter::new(&on_both_ways).is_ok());
        assert_eq!(
            run(&[insn(0x3c, 0, 0, 0), end], &[]),
            0,
            "division by x = 0 ends it"
        );
    }

    proptest! {
        #[test]
        fn any_program_ends(words in proptest::collection::vec((0u16..0x100, 0u8..4, 0u8..4, prop_oneof![0u32..70, any::<u32>()]), 1..30), packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut program: Vec<Insn> = words.iter().map(|&(code, jt, jf, k)| insn(code, jt, jf, k)).collect();
            program.push(insn(0x06, 0, 0, 7));
            if let Ok(filter) = Filter::new(&program) {
                let packet = Packet::new(packet.into());
                filter.run(&View { packet: &packet, link_header: 14, protocol: 0, packet_type: 0, interface: 0 });
            }
        }
    }
}

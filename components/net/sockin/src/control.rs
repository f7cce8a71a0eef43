//! Control data that goes through: numbers and addresses, none of it with a pointer or a descriptor.

use abi::Errno;
use hypercall::SocketControl;
use net::Control;
use net::consts::{SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET};
use smallvec::SmallVec;

use crate::options::{IPPROTO_IP, IPPROTO_IPV6};
use crate::{IPPROTO_TCP, IPPROTO_UDP};

/// What may go with a datagram, ip(7), ipv6(7), udp(7): level, type, bytes.
const SENT: &[(i32, i32, usize)] = &[
    (IPPROTO_IP, 1, 4),     // IP_TOS
    (IPPROTO_IP, 2, 4),     // IP_TTL
    (IPPROTO_IP, 8, 12),    // IP_PKTINFO
    (IPPROTO_IPV6, 50, 20), // IPV6_PKTINFO
    (IPPROTO_IPV6, 52, 4),  // IPV6_HOPLIMIT
    (IPPROTO_IPV6, 67, 4),  // IPV6_TCLASS
    (IPPROTO_UDP, 103, 2),  // UDP_SEGMENT
];

/// What goes along with a message that is sent. `EINVAL` for what is not known, or has not the length that it should.
pub(crate) fn sent(list: &[Control]) -> Result<Vec<SocketControl>, Errno> {
    let one = |control: &Control| match control {
        Control::Other(level, kind, data)
            if SENT.contains(&(*level, *kind, data.len()))
                // A byte is enough here.
                || (*level, *kind, data.len()) == (IPPROTO_IP, 1, 1) =>
        {
            Ok((*level, *kind, SmallVec::from_slice(data)))
        }
        _ => Err(Errno::EINVAL),
    };
    list.iter().map(one).collect()
}

/// What came along with a message.
pub(crate) fn received(list: Vec<SocketControl>) -> Vec<Control> {
    let known = |(level, kind, _): &SocketControl| match *level {
        SOL_SOCKET => !matches!(*kind, SCM_RIGHTS | SCM_CREDENTIALS),
        level => matches!(level, IPPROTO_IP | IPPROTO_IPV6 | IPPROTO_TCP | IPPROTO_UDP),
    };
    list.into_iter()
        .filter(known)
        .map(|(level, kind, data)| Control::Other(level, kind, data.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_goes_out_and_with_its_length() {
        let one = |level, kind, len| sent(&[Control::Other(level, kind, vec![0; len])]);
        assert!(one(IPPROTO_IP, 1, 4).is_ok() && one(IPPROTO_IP, 1, 1).is_ok());
        assert_eq!(one(IPPROTO_IP, 8, 4), Err(Errno::EINVAL));
        assert_eq!(one(IPPROTO_IP, 99, 4), Err(Errno::EINVAL));
        assert_eq!(one(SOL_SOCKET, 37, 4), Err(Errno::EINVAL));
        assert_eq!(sent(&[Control::Rights(Vec::new())]), Err(Errno::EINVAL));
    }

    #[test]
    fn descriptors_do_not_come_in() {
        let list = vec![
            (SOL_SOCKET, SCM_RIGHTS, SmallVec::from_slice(&[1, 0, 0, 0])),
            (IPPROTO_IP, 1, SmallVec::from_slice(&[4])),
        ];
        let got = received(list);
        assert!(matches!(&got[..], [Control::Other(IPPROTO_IP, 1, data)] if data == &[4]));
    }
}

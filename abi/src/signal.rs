//! The signal that comes with an error.

use crate::nr;

/// Whether a call that has failed with `EPIPE` sends `SIGPIPE` to its thread, pipe(7) and send(2): those that write, unless told not to.
/// It is raised on the caller's side of the line, which alone knows the thread.
pub fn sends_sigpipe(number: u32, args: &[u64; 6]) -> bool {
    const MSG_NOSIGNAL: u64 = 0x4000;
    match number {
        nr::write | nr::writev | nr::pwrite64 | nr::pwritev | nr::pwritev2 => true,
        nr::sendfile | nr::splice | nr::tee => true,
        nr::sendto | nr::sendmmsg => args[3] & MSG_NOSIGNAL == 0,
        nr::sendmsg => args[2] & MSG_NOSIGNAL == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_raises_and_a_send_can_be_told_not_to() {
        let with = |at: usize| {
            let mut args = [0; 6];
            args[at] = 0x4000;
            args
        };
        assert!(sends_sigpipe(nr::write, &with(2)));
        assert!(sends_sigpipe(nr::sendto, &with(2)) && !sends_sigpipe(nr::sendto, &with(3)));
        assert!(sends_sigpipe(nr::sendmsg, &with(3)) && !sends_sigpipe(nr::sendmsg, &with(2)));
        assert!(!sends_sigpipe(nr::read, &[0; 6]));
    }
}

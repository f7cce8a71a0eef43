//! Signals that the kernel sends to a client.

mod support;

use abi::sysproxy::{Class, Kind};
use abi::{Itimerspec, nr};
use sysproxy::Options;

use support::{RawClient, served};

#[test]
fn a_timer_of_a_client_raises_its_signal_there_and_nowhere_else() {
    let (_kernel, server) = served(Options::default());
    let (mut client, _) = RawClient::guest(&server);
    let (mut other, shake) = RawClient::guest(&server);
    // Microseconds, as setitimer(2) has them.
    let often = Itimerspec {
        value_nsec: 1000,
        interval_nsec: 1000,
        ..Itimerspec::default()
    };
    let segments: [(u64, &[u8]); 1] = [(0x1000, &often.to_bytes())];
    let reqno = client.call(nr::setitimer, &[0, 0x1000, 0, 0, 0, 0], &segments);
    let mut raised = 0;
    let mut answered = false;
    while raised < 3 || !answered {
        let (header, _) = client.receive().expect("a frame");
        match (header.class, header.kind) {
            (Class::Request, Kind::Raise) => {
                assert_eq!(header.word, 14);
                raised += 1;
            }
            (Class::Response, Kind::Syscall) => {
                assert_eq!(header.reqno, reqno);
                answered = true;
            }
            _ => panic!("{header:?}"),
        }
    }
    // The other one is told nothing but its answer.
    let answer = other.syscall(nr::getpid, &[0; 6], &[]);
    assert_eq!(answer.1, i64::from(shake.pid));
}

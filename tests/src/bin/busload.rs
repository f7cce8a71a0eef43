//! A program for the tests: a kernel on a bus that sends numbered frames of 60,000 bytes to all, for ever, and says so after the first ones.

use hypercall::PosixHost;
use netif_testing::{BROADCAST, Station, ether};
use shmif::SHMIF;

fn main() {
    let bus = std::env::args().nth(1).expect("usage: busload BUS");
    let station = Station::boot(PosixHost::new(), &[&SHMIF]);
    let interface = station
        .create("shmif0", &format!("bus={bus}"))
        .expect("on the bus");
    for number in 0u64.. {
        let payload = [&number.to_be_bytes()[..], &[number as u8; 60_000]].concat();
        let frame = ether(BROADCAST, [2, 0, 0, 0, 0, 9], 0x88b5, &payload);
        station.send(&interface, frame).expect("sent");
        if number == 100 {
            println!("sending");
        }
    }
}

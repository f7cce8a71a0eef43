//! Two connections and a link: what goes in comes out, whatever the link does.

mod sim;

use sim::{Flow, Link, MS, SEC, Sim};
use tcp::{Settings, State};

fn flows(to_server: u64, to_client: u64) -> [Flow; 2] {
    [to_server, to_client].map(|to_send| Flow {
        to_send,
        chunk: 10_000,
        ..Flow::default()
    })
}

#[test]
fn handshake_data_and_close_end_in_time_wait_and_closed() {
    let mut sim = Sim::new(1, Link::default(), Settings::default(), Settings::default());
    let mut flows = flows(100_000, 50_000);
    sim.transfer(&mut flows, 10 * SEC);
    assert_eq!([flows[0].received, flows[1].received], [100_000, 50_000]);
    let states = [sim.end(0).state(), sim.end(1).state()];
    assert!(
        matches!(
            states,
            [State::TimeWait, State::Closed]
                | [State::Closed, State::TimeWait]
                | [State::TimeWait, State::TimeWait]
        ),
        "{states:?}"
    );
    sim.run_for(61 * SEC);
    assert_eq!([sim.end(0).state(), sim.end(1).state()], [State::Closed; 2]);
}

#[test]
fn bytes_arrive_in_order_and_once_over_a_bad_link() {
    for seed in 0..3000 {
        let mut rng = sim::Rng::new(seed ^ 0xabc);
        let link = Link {
            delay: rng.below(40) * MS,
            loss: [rng.below(100), rng.below(100)],
            duplicate: rng.below(50),
            reorder: rng.below(150),
            corrupt: rng.below(40),
            rate: [0, 1 << 18, 1 << 22][rng.below(3) as usize],
            queue: 40_000,
            offload: rng.chance(300),
            ecn: rng.chance(300),
        };
        let mut sim = Sim::new(seed, link.clone(), Settings::default(), Settings::default());
        let mut flows = flows(rng.below(200_000), rng.below(200_000));
        sim.transfer(&mut flows, 2000 * SEC);
        for flow in &flows {
            assert!(
                flow.received == flow.to_send && flow.eof,
                "seed {seed} {link:?} {flows:?} {:?}",
                sim.end(0).info()
            );
        }
        assert_eq!(
            [sim.end(0).state(), sim.end(1).state()],
            [State::Closed; 2],
            "seed {seed}"
        );
        assert_eq!(
            [sim.end(0).take_error(), sim.end(1).take_error()],
            [None; 2],
            "seed {seed}"
        );
    }
}

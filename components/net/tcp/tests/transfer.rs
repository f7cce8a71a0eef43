//! Two connections and a link: what goes in comes out, whatever the link does.

mod sim;

use sim::{Flow, Link, MS, Rng, SEC, Sim};
use tcp::{Buffer, Offer, Settings, State};

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

/// A link that does everything that links do.
fn bad_link(rng: &mut Rng) -> Link {
    Link {
        delay: rng.below(40) * MS,
        loss: [rng.below(100), rng.below(100)],
        duplicate: rng.below(50),
        reorder: rng.below(150),
        corrupt: rng.below(40),
        rate: [0, 1 << 18, 1 << 22][rng.below(3) as usize],
        queue: 40_000,
        offload: rng.chance(300),
        ecn: rng.chance(300),
    }
}

/// Any settings.
fn any_settings(rng: &mut Rng) -> Settings {
    let buffer = |rng: &mut Rng| {
        let size = 2000 + rng.below(100_000) as u32;
        Buffer {
            size,
            max: size * (1 + rng.below(4) as u32),
        }
    };
    Settings {
        mss: [1460, 536, 8960, 65483, 100][rng.below(5) as usize],
        nodelay: rng.chance(500),
        cork: rng.chance(100),
        quickack: rng.chance(200),
        recv_buffer: buffer(rng),
        send_buffer: buffer(rng),
        offer: Offer {
            window_scaling: rng.chance(700),
            timestamps: rng.chance(600),
            sack: rng.chance(700),
            ecn: rng.chance(300),
            ecn_accept: rng.chance(700),
        },
        congestion: ["cubic", "reno"][rng.below(2) as usize],
        ..Settings::default()
    }
}

#[test]
fn bytes_arrive_in_order_and_once_over_a_bad_link() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed ^ 0xabc);
        let link = bad_link(&mut rng);
        let mut sim = Sim::new(seed, link, Settings::default(), Settings::default());
        let mut flows = flows(rng.below(200_000), rng.below(200_000));
        sim.transfer(&mut flows, 2000 * SEC);
        check(&mut sim, &flows, seed);
    }
}

#[test]
fn bytes_arrive_in_order_and_once_whatever_is_set() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed ^ 0xdef);
        let link = bad_link(&mut rng);
        let settings = [any_settings(&mut rng), any_settings(&mut rng)];
        let [client, server] = settings.clone();
        let mut sim = Sim::new(seed, link, client, server);
        let mut flows = flows(rng.below(100_000), rng.below(100_000));
        for flow in &mut flows {
            flow.chunk = 1 + rng.below(20_000);
            // Some users read slowly, so that the window shuts.
            flow.pause = if rng.chance(300) {
                rng.below(500) * MS
            } else {
                0
            };
        }
        sim.transfer(&mut flows, 4000 * SEC);
        check(&mut sim, &flows, seed);
    }
}

/// All has arrived and both ends are closed, without an error.
fn check(sim: &mut Sim, flows: &[Flow; 2], seed: u64) {
    for flow in flows {
        let done = flow.received == flow.to_send && flow.eof;
        let link = sim.link.clone();
        assert!(
            done,
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

#[test]
fn whatever_users_do_both_ends_close_and_nothing_false_is_read() {
    for seed in 0..1000 {
        let mut rng = Rng::new(seed ^ 0x123);
        let link = bad_link(&mut rng);
        let (client, server) = (any_settings(&mut rng), any_settings(&mut rng));
        let mut sim = Sim::new(seed, link, client, server);
        let mut flows = flows(rng.below(100_000), rng.below(100_000));
        sim.transfer(&mut flows, rng.below(1000) * MS);
        for side in [0, 1] {
            if sim.has(side) {
                let now = sim.now;
                match rng.below(3) {
                    0 => sim.end(side).abort(),
                    1 => sim.end(side).close(now),
                    _ => sim.end(side).shutdown(),
                }
                for flow in &mut flows {
                    flow.closed = true;
                }
                sim.transfer(&mut flows, rng.below(200) * MS);
            }
        }
        // Who is left and has nobody to talk to finds that out; who comes late too.
        for _ in 0..2 {
            for side in [0, 1] {
                if sim.has(side) {
                    let now = sim.now;
                    sim.end(side).close(now);
                }
            }
            sim.run_for(4000 * SEC);
        }
        for side in [0, 1] {
            if sim.has(side) {
                let state = sim.end(side).state();
                assert_eq!(
                    state,
                    State::Closed,
                    "seed {seed} {:?}",
                    sim.end(side).info()
                );
            }
        }
    }
}

#[test]
fn both_may_open_at_once() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed ^ 0x77);
        let link = bad_link(&mut rng);
        let mut sim = Sim::new(seed, link, any_settings(&mut rng), Settings::default());
        sim.connect_back(any_settings(&mut rng));
        let mut flows = flows(rng.below(50_000), rng.below(50_000));
        sim.transfer(&mut flows, 4000 * SEC);
        check(&mut sim, &flows, seed);
    }
}

#[test]
fn same_seed_gives_the_same_segments() {
    let run = || {
        let link = bad_link(&mut Rng::new(9));
        let mut sim = Sim::new(9, link, Settings::default(), Settings::default());
        sim.keep_trace = true;
        sim.transfer(&mut flows(100_000, 100_000), 1000 * SEC);
        sim.trace
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 100 && first == second);
}

//! Goodput over a simulated link that loses packets: the time is the simulation's, so a figure is the same on every machine.
//!
//! `cargo run --release -p rumpkit-tcp --example goodput`

#[path = "../tests/sim/mod.rs"]
mod sim;

use sim::{Flow, Link, MS, SEC, Sim};
use tcp::Settings;

fn main() {
    println!(
        "60 s, MTU 1500, round trip 50 ms, loss of data packets; Mbit/s, the mean of 10 seeds"
    );
    println!(
        "algorithm   loss     goodput  1.22 MSS / (RTT sqrt p)  resent  timeouts  recoveries  undone"
    );
    for algorithm in tcp::congestion::ALGORITHMS {
        for loss in [0, 1, 10, 50, 100] {
            row(algorithm, loss);
        }
    }
}

fn row(congestion: &'static str, per_mille: u64) {
    const SEEDS: u64 = 10;
    const TIME: u64 = 60 * SEC;
    let (mut bytes, mut resent, mut sent) = (0, 0, 0);
    let (mut timeouts, mut recoveries, mut undone) = (0, 0, 0);
    for seed in 0..SEEDS {
        let link = Link {
            delay: 25 * MS,
            rate: 125_000_000,
            queue: 4 << 20,
            loss: [per_mille, 0],
            ..Link::default()
        };
        let settings = Settings {
            congestion,
            ..Settings::default()
        };
        let mut sim = Sim::new(seed, link, settings.clone(), settings);
        let flow = |to_send| Flow {
            to_send,
            chunk: 65536,
            unchecked: true,
            ..Flow::default()
        };
        let mut flows = [flow(u64::MAX), flow(0)];
        sim.transfer(&mut flows, TIME);
        let info = sim.end(0).info();
        bytes += flows[0].received;
        resent += info.bytes_retrans;
        sent += info.bytes_sent;
        timeouts += info.timeouts;
        recoveries += info.recoveries;
        undone += info.undone;
    }
    let seconds = (TIME / SEC) as f64 * SEEDS as f64;
    let p = per_mille as f64 / 1000.0;
    println!(
        "{congestion:9} {:4.1} % {:8.1}  {:23.1}  {:5.2} %  {timeouts:8}  {recoveries:10}  {undone:6}",
        p * 100.0,
        bytes as f64 * 8.0 / seconds / 1e6,
        1.22 * 1448.0 * 8.0 / (0.05 * p.sqrt()) / 1e6,
        resent as f64 * 100.0 / sent as f64,
    );
}

//! What a rewritten call costs that the host serves: getppid(2) as it stands and through the hook. Prints nanoseconds a
//! call, medians of seven runs.
//!
//! `cargo bench -p rumpkit-hijack`

use std::hint::black_box;
use std::time::Instant;

const CALLS: u32 = 1_000_000;

fn median(mut call: impl FnMut() -> i64) -> f64 {
    let mut runs: Vec<f64> = (0..7)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                black_box(call());
            }
            began.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    runs[3]
}

fn main() {
    let config = rump_hijack::config::Config::parse(rump_hijack::config::DEFAULT);
    rump_hijack::entry::set_classes(&config.unwrap_or_default());
    let direct = median(|| rump_hijack::entry::direct(abi::nr::getppid, [0; 6]));
    let hooked = median(|| rump_hijack::entry::call(abi::nr::getppid, [0; 6]));
    let fd = median(|| rump_hijack::entry::direct(abi::nr::fsync, [700, 0, 0, 0, 0, 0]));
    let fd_hooked = median(|| rump_hijack::entry::call(abi::nr::fsync, [700, 0, 0, 0, 0, 0]));
    println!(
        "getppid: host {direct:.1}, hooked {hooked:.1}, difference {:.1}",
        hooked - direct
    );
    println!(
        "fsync of no descriptor: host {fd:.1}, hooked {fd_hooked:.1}, difference {:.1}",
        fd_hooked - fd
    );
}

//! Finds a planted bug by searching seeds, shows the run again, and shows that the mended program has it no more.
//!
//! A small key-value store keeps each key in a file of its kernel and answers requests over links. Two clients count in
//! it: they read a number and write it back one higher. What is read may be old when it is written.
//!
//! `cargo run -p rumpkit --example lost_update`

use std::io;

use rumpkit::Process;
use rumpkit::sim::{self, LinkConfig, LinkEnd, World};

/// How often each of the two clients counts.
const ROUNDS: u32 = 2;

/// How a client counts.
#[derive(Clone, Copy)]
enum Client {
    /// Writes whatever is one more than what it read: the bug.
    PutBack,
    /// Writes only if nobody else has meanwhile, else reads again.
    CompareAndSwap,
}

/// The store: `get` answers the number, `put NUMBER` writes it, `cas OLD NEW` writes and answers 1 if it was the old one, `bye`
/// ends.
fn store(process: &Process, clients: Vec<LinkEnd>) {
    let read = || String::from_utf8(process.read("/tmp/counter").expect("read")).expect("text");
    process.write("/tmp/counter", "0").expect("written");
    let mut left = clients.len();
    while left > 0 {
        for client in &clients {
            let Some(request) = client.receive_within(50_000) else {
                continue;
            };
            let request = String::from_utf8(request).expect("text");
            let answer = match request.split(' ').collect::<Vec<_>>()[..] {
                ["put", number] => {
                    process.write("/tmp/counter", number).expect("written");
                    number.to_owned()
                }
                ["cas", old, new] => {
                    let same = read() == old;
                    if same {
                        process.write("/tmp/counter", new).expect("written");
                    }
                    u32::from(same).to_string()
                }
                ["bye"] => {
                    left -= 1;
                    continue;
                }
                _ => read(),
            };
            client.send(answer.as_bytes());
        }
    }
}

fn ask(store: &LinkEnd, request: &str) -> u32 {
    store.send(request.as_bytes());
    let answer = store.receive(None).expect("the store answers");
    String::from_utf8(answer)
        .expect("text")
        .parse()
        .expect("a number")
}

fn count(how: Client, store: &LinkEnd) {
    for _ in 0..ROUNDS {
        loop {
            let seen = ask(store, "get");
            let done = match how {
                Client::PutBack => {
                    ask(store, &format!("put {}", seen + 1));
                    true
                }
                Client::CompareAndSwap => ask(store, &format!("cas {seen} {}", seen + 1)) == 1,
            };
            if done {
                break;
            }
        }
    }
    store.send(b"bye");
}

fn scenario(how: Client) -> impl Fn(&World) -> io::Result<()> + Send + Sync + Copy + 'static {
    move |world| {
        let kernel = world.kernel()?;
        let (a, to_a) = world.link(LinkConfig::default());
        let (b, to_b) = world.link(LinkConfig::default());
        world.program(&kernel, "store", move |process| {
            store(process, vec![to_a, to_b])
        })?;
        for (name, link) in [("client a", a), ("client b", b)] {
            world.program(&kernel, name, move |_| count(how, &link))?;
        }
        world.join_all();
        let counted = Process::new(&kernel)?.read("/tmp/counter")?;
        assert_eq!(
            String::from_utf8_lossy(&counted),
            (2 * ROUNDS).to_string(),
            "an update was lost"
        );
        Ok(())
    }
}

fn main() {
    // The failures that are looked for are panics of a simulated program; they need no report of their own.
    std::panic::set_hook(Box::new(|_| {}));

    let found = sim::search(0..1000, scenario(Client::PutBack)).expect("some seed shows the bug");
    println!("seed {}: {:?}", found.seed, found.failure);

    let again = sim::run(found.seed, scenario(Client::PutBack));
    let twice = sim::run(found.seed, scenario(Client::PutBack));
    println!(
        "the same seed again: {} switches, {} ns of its time",
        again.switches, again.elapsed
    );
    assert!(
        again.result.is_err() && again.hash == twice.hash,
        "a seed always shows the same run"
    );

    let mended = sim::search(0..1000, scenario(Client::CompareAndSwap));
    println!(
        "with compare-and-swap, 1000 seeds: {}",
        if mended.is_none() {
            "all counted right"
        } else {
            "lost"
        }
    );
    assert!(mended.is_none(), "{mended:?}");
}

//! Many clients of one kernel, some of which die at any moment.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use support::{Image, Server, binary, signal};
use testing::Dice;

const CLIENTS: usize = 32;
const THREADS: &str = "8";

fn start(server: &Server, dir: &str, name: &str, rounds: &str) -> Child {
    let hammer = binary("hammer");
    let hammer = hammer.to_str().unwrap();
    let mut command = server.command(&[
        "exec",
        &server.url,
        "--",
        hammer,
        dir,
        name,
        THREADS,
        rounds,
    ]);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn clients_killed_at_random_leave_nothing_and_the_others_go_on() {
    let image = Image::ext4(128);
    let server = Server::start(&["--mount", &image.at("/data"), "--tmpfs", "/t"]);
    let mut random = Dice::new(2026);
    let survivors: Vec<Child> = (0..4)
        .map(|i| start(&server, "/rump/t", &format!("s{i}"), "150"))
        .collect();
    let mut victims: Vec<Child> = (0..CLIENTS - survivors.len())
        .map(|i| {
            start(
                &server,
                if i % 4 == 0 { "/rump/data" } else { "/rump/t" },
                &format!("v{i}"),
                "1000000",
            )
        })
        .collect();
    while !victims.is_empty() {
        let at = random.below(victims.len() as u64) as usize;
        let mut victim = victims.swap_remove(at);
        // It dies in the middle of its work: after some lines of it, at any point of the next.
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        for _ in 0..=random.below(4) {
            let _ = lines.next();
        }
        signal(victim.id(), "KILL");
        victim.wait().unwrap();
    }
    for survivor in survivors {
        let out = survivor.wait_with_output().unwrap();
        assert!(
            out.status.success(),
            "a survivor: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let after = server.exec(&[
        "sh",
        "-c",
        "echo on > /rump/data/on; cat /rump/data/on; ls /rump/t | grep -c '^s' || true",
    ]);
    assert_eq!(after.ok(), "on\n0\n");
    server.halt();
    image.is_clean();
}

#[test]
fn a_client_that_stops_reading_stalls_nobody() {
    let server = Server::start(&["--tmpfs", "/t"]);
    let mut stopped = start(&server, "/rump/t", "stopped", "1000000");
    signal(stopped.id(), "STOP");
    let out = server.exec(&[
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i > /rump/t/f; cat /rump/t/f; done",
    ]);
    assert_eq!(out.ok(), "1\n2\n3\n");
    signal(stopped.id(), "KILL");
    stopped.wait().unwrap();
    server.halt();
}

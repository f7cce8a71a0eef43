//! A served kernel, and the words that look into it.

use serde_json::Value;
use support::{Image, Server, run};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn programs_share_a_served_kernel() {
    let server = Server::start(&["--tmpfs", "/t"]);
    server.exec(&["sh", "-c", "echo shared > /rump/t/f"]).ok();
    assert_eq!(server.exec(&["cat", "/rump/t/f"]).ok(), "shared\n");
    assert_eq!(server.exec(&["sh", "-c", "exit 3"]).status, 3);
    server.halt();
}

#[test]
fn a_kernel_over_tcp_serves_too() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("tcp://127.0.0.1:{port}");
    run(["server", &url]).ok();
    let out = run([
        "exec",
        &url,
        "--",
        "sh",
        "-c",
        "echo far > /rump/tmp/f; cat /rump/tmp/f",
    ]);
    assert_eq!(out.ok(), "far\n");
    run(["halt", &url]).ok();
}

#[test]
fn without_s_it_goes_to_the_background_when_it_serves() {
    let dir = support::scratch();
    let url = format!("unix://{}/k", dir.path().display());
    run(["server", &url]).ok();
    assert_eq!(run(["exec", &url, "--", "echo", "up"]).ok(), "up\n");
    run(["halt", &url]).ok();
    run(["exec", &url, "--", "true"]).fails(125, &[&url]);
}

#[test]
fn variables_are_shown_and_set() {
    let server = Server::start(&[]);
    let name = server.rump(&["sysctl", "kern.hostname"]).ok();
    assert!(name.starts_with("kern.hostname = "), "{name}");
    server.rump(&["sysctl", "kern.hostname=changed"]).ok();
    let shown = json(&server.rump(&["sysctl", "--json", "kern.hostname"]).ok());
    assert_eq!(shown["kern.hostname"], "changed");
    let all = server.rump(&["sysctl"]).ok();
    assert!(
        all.lines().count() > 3 && all.contains("kern.hostname = changed"),
        "{all}"
    );
    server.rump(&["sysctl", "no.such"]).fails(125, &["no.such"]);
    server.halt();
}

#[test]
fn messages_mounts_and_space_are_shown() {
    let image = Image::ext4(32);
    let server = Server::start(&["--mount", &image.at("/data")]);
    assert!(
        server.rump(&["dmesg"]).ok().contains("rump kernel"),
        "a banner"
    );
    server.rump(&["mount", "tmpfs::/scratch:size=2m"]).ok();
    let mounts = server.rump(&["mount"]).ok();
    assert!(
        mounts.contains("/data") && mounts.contains("/scratch"),
        "{mounts}"
    );
    let space = json(&server.rump(&["df", "--json"]).ok());
    let rows = space.as_array().unwrap();
    let scratch = rows.iter().find(|r| r["mounted_on"] == "/scratch").unwrap();
    assert_eq!(scratch["size"], 2 << 20);
    assert!(server.rump(&["df"]).ok().contains("Mounted on"));
    server.rump(&["umount", "/scratch"]).ok();
    server
        .rump(&["umount", "/scratch"])
        .fails(125, &["/scratch"]);
    server.rump(&["umount", "/data"]).ok();
    image.is_clean();
    server.halt();
}

#[test]
fn an_image_is_mounted_by_a_client() {
    let image = Image::ext4(32);
    let server = Server::start(&[]);
    server.rump(&["mount", &image.at("/late")]).ok();
    server.exec(&["sh", "-c", "echo x > /rump/late/f"]).ok();
    server
        .rump(&["mount", "ext4:/no/such.img:/x"])
        .fails(125, &["/no/such.img", "no such image"]);
    server.halt();
    image.is_clean();
}

#[test]
fn sigterm_halts_in_order() {
    let image = Image::ext4(32);
    let server = Server::start(&["--mount", &image.at("/data")]);
    server.exec(&["sh", "-c", "echo x > /rump/data/f"]).ok();
    server.signal("TERM");
    assert_eq!(server.wait(), 0);
    image.is_clean();
}

#[test]
fn drives_of_the_reference_appear_as_files_and_devices() {
    let dir = support::scratch();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "0123456789").unwrap();
    let made = dir.path().join("made");
    let window = format!(
        "key=/window,hostpath={},type=reg,size=4,offset=3",
        plain.display()
    );
    let whole = format!("key=/whole,hostpath={},type=reg", plain.display());
    let disk = format!("key=/dev/disk,hostpath={},size=1048576", made.display());
    let server = Server::start(&["-d", &window, "-d", &whole, "-d", &disk]);
    assert_eq!(server.exec(&["cat", "/rump/window"]).ok(), "3456");
    assert_eq!(server.exec(&["cat", "/rump/whole"]).ok(), "0123456789");
    assert_eq!(std::fs::metadata(&made).unwrap().len(), 1 << 20);
    assert!(
        server
            .exec(&["stat", "-c", "%F", "/rump/dev/disk"])
            .ok()
            .contains("block special")
    );
    server.halt();
    let url = format!("unix://{}/k", dir.path().display());
    run(["server", "-s", "-d", "key=/x", &url]).fails(125, &["hostpath"]);
    run([
        "server",
        "-s",
        "-d",
        "key=/x,hostpath=/no/such,size=host",
        &url,
    ])
    .fails(125, &["/no/such"]);
}

//! What is wrong with an image, a disk, a URL, a frame is told with the thing and the way out; the kernel goes on, and what was synced
//! stays.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rumpkit::{MountSpec, Process, Syscalls};
use support::{Image, Server, rump, run, script};
use testing::{Dice, FaultyHost};

/// Bytes from the start of an ext4 image to its superblock.
const SUPERBLOCK: u64 = 1024;

fn mount_fails(mount: &str, words: &[&str]) {
    run(["run", "--mount", mount, "--", "true"]).fails(125, words);
}

#[test]
fn a_missing_image_is_named_with_the_way_to_make_one() {
    mount_fails(
        "ext4:/no/such.img:/data",
        &["/no/such.img", "no such image", "mkfs.ext4"],
    );
}

#[test]
fn what_is_no_image_is_refused() {
    let image = Image::blank(8);
    mount_fails(&image.at("/data"), &["disk.img", "no ext2, ext3 or ext4"]);
    mount_fails(
        &format!("ext4:{}:/data", image.dir().display()),
        &["is a directory"],
    );
    let empty = Image::blank(0);
    mount_fails(&empty.at("/data"), &["disk.img"]);
}

#[test]
fn a_truncated_image_is_refused_as_truncated() {
    let image = Image::ext4(64);
    image.truncate(20 << 20);
    mount_fails(&image.at("/data"), &["disk.img", "truncated"]);
}

#[test]
fn an_unknown_feature_is_named() {
    let image = Image::ext4(32);
    // s_feature_incompat at 0x60: FILETYPE, EXTENTS and a bit of the future.
    image.damage(SUPERBLOCK + 0x60, &0x8000_0042u32.to_le_bytes());
    mount_fails(&image.at("/data"), &["feature", "not supported"]);
}

#[test]
fn an_unknown_type_is_refused_with_those_there_are() {
    let image = Image::ext4(8);
    let mount = format!("reiserfs:{}:/data", image.path().display());
    mount_fails(&mount, &["reiserfs", "ext4"]);
}

#[test]
fn damaged_images_give_errors_and_no_crash() {
    let mut random = Dice::new(7);
    for _ in 0..12 {
        let image = Image::ext4(16);
        let mount = image.at("/data");
        script(
            &["--mount", &mount],
            image.dir(),
            "cp -r /usr/share/doc/git* /rump/data/ 2>/dev/null || cp /bin/ls /rump/data",
        )
        .ok();
        // Group descriptors, bitmaps and inode tables lie in the first MiB. A file may turn into a named pipe by that, whose opener waits.
        for _ in 0..40 {
            let at = 2048 + random.below(1 << 20);
            image.damage(at, &[random.below(256) as u8; 16]);
        }
        let ended = run([
            "run",
            "--mount",
            &mount,
            "--",
            "sh",
            "-c",
            "ls -lR /rump/data; find /rump/data -type f -exec timeout 2 head -c 100000 {} + ; echo x > /rump/data/new; rm -rf /rump/data/*; true",
        ]);
        assert!(
            [0, 125].contains(&ended.status),
            "{} {}",
            ended.status,
            ended.stderr
        );
    }
}

#[test]
fn a_directory_loop_ends() {
    let image = Image::ext4(16);
    script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "mkdir -p /rump/data/a/b",
    )
    .ok();
    image.debugfs("ln a a/b/loop");
    let ended = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "ls /rump/data/a/b/loop/b/loop/b >/dev/null; find /rump/data -maxdepth 12 2>/dev/null | head -50 >/dev/null; echo on",
    );
    assert!(
        ended.stdout.ends_with("on\n") || ended.status != 0,
        "{}",
        ended.stderr
    );
}

#[test]
fn an_image_is_written_by_one_kernel_at_a_time() {
    let image = Image::ext4(16);
    let server = Server::start(&["--mount", &image.at("/data")]);
    mount_fails(&image.at("/data"), &["in use by another kernel", ":ro"]);
    mount_fails(
        &format!("{}:ro", image.at("/data")),
        &["in use by another kernel"],
    );
    server.halt();
    image.is_clean();

    let read_only = format!("{}:ro", image.at("/data"));
    let server = Server::start(&["--mount", &read_only]);
    let both = script(
        &["--mount", &read_only],
        image.dir(),
        "ls /rump/data; echo x > /rump/data/f || echo refused",
    );
    assert_eq!(both.ok(), "lost+found\nrefused\n");
    server.halt();
}

#[test]
fn a_full_disk_is_told_and_stays_sound() {
    let image = Image::ext4(8);
    let ended = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "echo kept > /rump/data/kept; sync\n\
         dd if=/dev/zero of=/rump/data/big bs=64k 2>$DIR/err || grep -o 'No space left on device' $DIR/err\n\
         cat /rump/data/kept; rm /rump/data/big; echo room > /rump/data/again; cat /rump/data/again",
    );
    assert_eq!(ended.ok(), "No space left on device\nkept\nroom\n");
    image.is_clean();
}

#[test]
fn a_mount_over_a_missing_directory_is_enoent_and_of_nothing_enodev() {
    let kernel = rumpkit::builder().boot().unwrap();
    let process = Process::new(&kernel).unwrap();
    let sys = process.sys();
    let enoent = sys.mount(c"tmpfs", c"/missing", c"tmpfs", 0, c"");
    assert_eq!(enoent, Err(abi::Errno::ENOENT));
    let enodev = sys.mount(c"x", c"/tmp", c"nosuchfs", 0, c"");
    assert_eq!(enodev, Err(abi::Errno::ENODEV));
    process.mount(&MountSpec::tmpfs("/t").unwrap()).unwrap();
    process.write("/t/f", "goes on").unwrap();
}

#[test]
fn an_unknown_component_ends_the_boot_with_its_name() {
    static WANTS: rumpkit::Component = rumpkit::Component {
        name: "wants",
        stage: rumpkit::kern::Stage::Vfs,
        requires: &["no-such-component"],
        init: |_| Ok(()),
    };
    assert_eq!(
        rumpkit::builder().component(&WANTS).boot().err(),
        Some(abi::Errno::EINVAL)
    );
}

#[test]
fn a_disk_that_fails_is_told_and_what_was_synced_stays() {
    let image = Image::ext4(32);
    let (host, faults) = FaultyHost::new();
    let kernel = rumpkit::builder_on(host).boot().unwrap();
    let process = Process::new(&kernel).unwrap();
    process.mount(&image.at("/m").parse().unwrap()).unwrap();
    let file = process.create("/m/synced").unwrap();
    file.write_at(b"synced", 0).unwrap();
    file.sync_all().unwrap();

    faults.writes(true);
    let lost = process.create("/m/lost");
    let told = lost.and_then(|f| f.write_at(&[1; 1 << 20], 0).and_then(|_| f.sync_all()));
    assert_eq!(told.unwrap_err().raw_os_error(), Some(abi::Errno::EIO.0));
    process.mount(&MountSpec::tmpfs("/t").unwrap()).unwrap();
    process.write("/t/f", "goes on").unwrap();
    assert_eq!(process.read("/m/synced").unwrap(), b"synced");

    faults.writes(false);
    drop(file);
    drop(process);
    let _ = kernel.shutdown(true);
    drop(kernel);
    let after = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "cat /rump/data/synced",
    );
    assert_eq!(after.ok(), "synced");
}

#[test]
fn a_disk_that_cannot_be_read_is_eio_until_it_can() {
    let image = Image::ext4(32);
    script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "echo content > /rump/data/f",
    )
    .ok();
    let (host, faults) = FaultyHost::new();
    let kernel = rumpkit::builder_on(host).boot().unwrap();
    let process = Process::new(&kernel).unwrap();
    process.mount(&image.at("/m").parse().unwrap()).unwrap();
    let file = process.open("/m/f").unwrap();
    faults.reads(true);
    let mut buf = [0; 16];
    assert_eq!(
        file.read_at(&mut buf, 0).unwrap_err().raw_os_error(),
        Some(abi::Errno::EIO.0)
    );
    faults.reads(false);
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 8);
    drop(file);
    drop(process);
    kernel.shutdown(true).unwrap();
}

#[test]
fn an_image_that_vanishes_while_it_is_mounted_is_used_to_the_end() {
    let image = Image::ext4(16);
    let ended = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "mv $DIR/disk.img $DIR/moved.img; echo x > /rump/data/f; cat /rump/data/f; mv $DIR/moved.img $DIR/disk.img",
    );
    assert_eq!(ended.ok(), "x\n");
    image.is_clean();
}

#[test]
fn a_network_that_cannot_be_is_told_with_the_thing_and_the_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let bus = format!("bus:{}", dir.path().join("bus").display());
    std::fs::write(dir.path().join("junk"), [7; 8192]).expect("written");
    let junk = format!("bus:{}", dir.path().join("junk").display());
    let nowhere = format!("{}/none/x", dir.path().display());
    for (net, words) in [
        (junk.clone(), ["junk", "no bus", "does not exist"]),
        (
            format!("bus:{nowhere}"),
            [nowhere.as_str(), "no such directory", "make it first"],
        ),
        (
            format!("socket:{nowhere}"),
            [nowhere.as_str(), "nobody is there", "start it first"],
        ),
        (
            format!("listen:{nowhere}"),
            [nowhere.as_str(), "no such directory", "make it first"],
        ),
        (
            "if:no-such-if".into(),
            ["no-such-if", "no such network interface", "ip link"],
        ),
        (
            "tap:of-more-than-15-letters".into(),
            ["of-more-than-15-letters", "15 bytes", "ip link"],
        ),
        (format!("{bus},mtu=70000"), ["bus", "mtu=70000", "65535"]),
        (
            format!("{bus},mac=here"),
            ["bus", "mac=here", "02:00:5e:10:00:01"],
        ),
        (
            format!("{bus},name=lo"),
            ["bus", "lo: another has it", "take another"],
        ),
        (
            format!("{bus},10.0.0.2/24,pcap={nowhere}"),
            ["bus", nowhere.as_str(), "file that can be written"],
        ),
        (
            format!("{bus},dhcp"),
            ["bus", "no DHCP server", "say the address"],
        ),
        ("link:left".into(), ["left", "of a lab", "rump up"]),
    ] {
        run(["run", "--net", &net, "--", "true"]).fails(125, &words);
    }
}

#[test]
fn a_wrong_url_is_refused_with_what_one_looks_like() {
    for url in ["", "nonsense", "http://x", "unix://"] {
        run(["server", "-s", url]).fails(125, &["tcp://ADDRESS:PORT"]);
    }
    run(["server", "-s", "tcp://localhost"]).fails(125, &["tcp://localhost", "port"]);
    run(["server", "-s", "tcp://nowhere.example:1"]).fails(125, &["nowhere.example", "IPv4"]);
    run(["df", "-s", "unix:///no/such/socket"]).fails(125, &["/no/such/socket", "rump server"]);
}

#[test]
fn malformed_frames_harm_nobody_else() {
    let server = Server::start(&["--tmpfs", "/t"]);
    let path = server.url.strip_prefix("unix://").unwrap().to_owned();
    let mut random = Dice::new(99);
    for round in 0..60 {
        let mut socket = UnixStream::connect(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut banner = [0; 96];
        let n = socket.read(&mut banner).unwrap();
        assert!(banner[..n].starts_with(b"RUMPSP-0.4-"), "a banner");
        let length = 24 + random.below(200);
        let mut frame: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        // Half of them have a header that looks right, some of those a length that is not.
        if round % 2 == 0 {
            let claimed = [length, u64::MAX, 24, 0, 1 << 40][round as usize / 2 % 5];
            frame[..8].copy_from_slice(&claimed.to_le_bytes());
            frame[16..24].copy_from_slice(&[0, 0, (round % 9) as u8, 0, 0, 0, 0, 0]);
        }
        let _ = socket.write_all(&frame);
        let mut rest = [0; 256];
        let _ = socket.shutdown(std::net::Shutdown::Write);
        while socket.read(&mut rest).is_ok_and(|n| n > 0) {}
    }
    let out = server.exec(&["sh", "-c", "echo served > /rump/t/f; cat /rump/t/f"]);
    assert_eq!(out.ok(), "served\n");
    server.halt();
}

#[test]
fn the_wrong_hijack_variable_is_told() {
    let mut command = rump(["run", "--", "ls", "/rump"]);
    let ended = support::finish(command.env("RUMPHIJACK", "nonsense=x"));
    assert_ne!(ended.status, 0);
    assert!(ended.stderr.contains("RUMPHIJACK"), "{}", ended.stderr);
}

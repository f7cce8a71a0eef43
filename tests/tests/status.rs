//! `rump run` is to the program what a shell is: its status, its signals, its terminal.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use support::{finish, rump, run, script, signal};

#[test]
fn the_status_is_the_programs() {
    assert_eq!(run(["run", "--", "true"]).status, 0);
    assert_eq!(run(["run", "--", "sh", "-c", "exit 7"]).status, 7);
    assert_eq!(
        run(["run", "--", "sh", "-c", "kill -KILL $$"]).status,
        128 + 9
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    run(["run", "--", "no-such-program-anywhere"])
        .fails(127, &["no-such-program-anywhere", "PATH"]);
    run(["run", "--", "/etc/passwd"]).fails(126, &["/etc/passwd", "not executable"]);
}

#[test]
fn a_static_program_is_refused_and_not_run_on_the_host() {
    let dir = support::scratch();
    let program = dir.path().join("static");
    // An ELF header with one PT_LOAD and no interpreter: enough to be recognised, not to be run.
    let mut elf = vec![0u8; 128];
    elf[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    elf[16..20].copy_from_slice(&[2, 0, 62, 0]);
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 1;
    std::fs::write(&program, elf).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let path = program.to_str().unwrap();
    run(["run", "--", path]).fails(126, &["static", "statically linked"]);
    // One that a program of ours starts is refused too.
    let nested = run(["run", "--", "sh", "-c", &format!("{path}; echo status $?")]);
    assert!(
        nested.stdout.contains("status 126") && nested.stderr.contains("static"),
        "{}{}",
        nested.stdout,
        nested.stderr
    );
}

#[test]
fn input_and_output_are_the_programs() {
    let mut command = rump([
        "run",
        "--tmpfs",
        "/t",
        "--",
        "sh",
        "-c",
        "cat > /rump/t/f; cat /rump/t/f; echo err >&2",
    ]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"from outside\n")
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "from outside\n");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "err\n");
}

#[test]
fn a_signal_to_rump_reaches_the_program() {
    let script =
        "trap 'echo got it; exit 5' TERM; echo ready; while :; do read line || sleep 1; done";
    let mut child = rump(["run", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    signal(child.id(), "TERM");
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn programs_left_behind_end_with_the_kernel() {
    let dir = support::scratch();
    let text = "(trap '' TERM; while :; do echo x >> /rump/t/f; sleep 0.05; done) & echo $!";
    let out = script(&["--tmpfs", "/t"], dir.path(), text).ok();
    let pid = out.trim();
    assert!(
        !std::path::Path::new("/proc").join(pid).exists(),
        "{pid} is still there"
    );
}

#[test]
fn an_empty_tmpfs_needs_no_option_and_size_limits_one() {
    let dir = support::scratch();
    let out = script(
        &["--tmpfs", "/t:size=1m"],
        dir.path(),
        "dd if=/dev/zero of=/rump/t/f bs=64k count=64 2>$DIR/err || grep -c 'No space left' $DIR/err",
    );
    assert_eq!(out.ok(), "1\n");
}

#[test]
fn help_and_wrong_usage_tell_what_to_do() {
    let help = run(["run", "--help"]).ok();
    assert!(
        help.contains("--mount") && help.contains("Exit status"),
        "{help}"
    );
    run(["run"]).fails(2, &["PROG"]);
    run(["run", "--mount", "disk.img", "--", "true"]).fails(2, &["TYPE:IMAGE:DIR"]);
    run(["run", "--tmpfs", "relative", "--", "true"]).fails(2, &["absolute"]);
}

#[test]
fn a_missing_shim_is_named_with_where_it_was_looked_for() {
    let ended = finish(rump(["run", "--", "true"]).env("RUMP_LIBDIR", "/nowhere"));
    ended.fails(125, &["/nowhere", "librump_hijack.so"]);
}

#[test]
fn programs_do_not_outlive_a_rump_that_is_killed() {
    // One in a session of its own, as an orphan, and asleep on the host: nothing but the pipe says that it is gone.
    let script = "(setsid sh -c 'echo ready; sleep 60 && echo late' &); exec sleep 60";
    let mut run = rump(["run", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(run.stdout.take().unwrap());
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ready\n");
}

//! `rump trace` shows the calls that the kernel serves, as strace(1) would.

use support::run;

#[test]
fn a_trace_has_straces_look() {
    let dir = support::scratch();
    let file = dir.path().join("trace");
    let ended = run([
        "trace",
        "-o",
        file.to_str().unwrap(),
        "--tmpfs",
        "/t",
        "--",
        "sh",
        "-c",
        "echo hi > /rump/t/f; cat /rump/t/f; cat /rump/t/none",
    ]);
    assert_eq!(ended.stdout, "hi\n");
    assert_eq!(ended.status, 1);
    let trace = std::fs::read_to_string(file).unwrap();
    assert!(
        trace
            .lines()
            .any(|l| l.contains("openat(AT_FDCWD, \"/t/f\", O_WRONLY|O_CREAT|O_TRUNC")),
        "{trace}"
    );
    assert!(
        trace
            .lines()
            .any(|l| l.contains("write(") && l.contains("\"hi\\n\"") && l.ends_with("= 3")),
        "{trace}"
    );
    assert!(trace.lines().any(|l| l.contains("/t/none") && l.contains("= -1 ENOENT (No such file or directory)")), "{trace}");
}

#[test]
fn without_a_file_the_trace_is_on_the_error_output() {
    let ended = run(["trace", "--", "ls", "/rump"]);
    assert!(ended.stderr.contains("getdents64("), "{}", ended.stderr);
    assert_eq!(ended.status, 0);
}

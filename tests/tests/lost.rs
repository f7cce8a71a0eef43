//! Programs whose kernel goes while they run, by RUMPHIJACK_RETRYCONNECT.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use support::{PYTHON, have, rump, run, scratch};

/// A program that says what it sees at each line it is given, and the server's URL.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(url: &str, retry: Option<&str>) -> Program {
        // After some calls it has a ring.
        let script = "
            for i in 1 2 3 4 5 6; do read who < /rump/tmp/who; done
            echo start $who
            while read line; do
                who=nobody
                read who < /rump/tmp/who
                echo $line $who
            done";
        let mut command = rump(["exec", url, "--", "bash", "-c", script]);
        command.env_remove("RUMPHIJACK_RETRYCONNECT");
        if let Some(retry) = retry {
            command.env("RUMPHIJACK_RETRYCONNECT", retry);
        }
        Program::of(command)
    }

    /// One in Python whose sockets are the kernel's, and that waits for the next kernel.
    fn python(url: &str, script: &str) -> Program {
        let mut command = rump(["exec", url, "--", "/usr/bin/python3", "-c", script]);
        command
            .env("RUMPHIJACK", "path=/rump,socket=all")
            .env("RUMPHIJACK_RETRYCONNECT", "inftime");
        Program::of(command)
    }

    fn of(mut command: Command) -> Program {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Program {
            child,
            input,
            output,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn ask(&mut self, word: &str) -> String {
        // A program that has died does not read it.
        let _ = writeln!(self.input, "{word}");
        self.line()
    }

    /// Its status and what it complained of.
    fn end(self) -> (i32, String) {
        drop(self.input);
        let out = self.child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.code().unwrap_or(-1), said)
    }
}

/// Serves a kernel in which `who` is written.
fn serve(url: &str, who: &str) -> Child {
    let mut server = rump(["server", "-s", url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("serving"), "{line}");
    let write = format!("echo {who} > /rump/tmp/who");
    run(["exec", url, "--", "sh", "-c", &write]).ok();
    server
}

fn kill(mut server: Child) {
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_lost_kernel_is_looked_for_once_or_for_a_time_or_for_ever() {
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    for retry in [None, Some("5"), Some("inftime")] {
        let server = serve(&url, "first");
        let mut program = Program::start(&url, retry);
        assert_eq!(program.line(), "start first\n");
        kill(server);
        if retry.is_none() {
            // Nobody is there, and it does not wait.
            assert_eq!(program.ask("gone"), "gone nobody\n");
        }
        let server = serve(&url, "second");
        // A call that was under way when the server went fails; a later one does not.
        let mut seen = program.ask("again");
        for _ in 0..10 {
            if seen == "again second\n" {
                break;
            }
            assert_eq!(seen, "again nobody\n");
            seen = program.ask("again");
        }
        assert_eq!(seen, "again second\n", "{retry:?}");
        let (status, said) = program.end();
        assert_eq!(status, 0, "{said}");
        kill(server);
    }
}

#[test]
fn a_program_waits_for_a_kernel_that_comes_later() {
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    let server = serve(&url, "first");
    let mut program = Program::start(&url, Some("inftime"));
    assert_eq!(program.line(), "start first\n");
    kill(server);
    // The first call may be told that it was under way; what follows waits, or is done in a kernel that has no such file yet.
    writeln!(program.input, "one\ntwo\nthree").unwrap();
    let server = serve(&url, "second");
    for _ in 0..3 {
        program.line();
    }
    assert_eq!(program.ask("four"), "four second\n");
    kill(server);
    program.end();
}

#[test]
fn what_epoll_watches_on_the_host_is_watched_further() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    let server = serve(&url, "first");
    let script = "
import os, select, sys
epoll, (r, w) = select.epoll(), os.pipe()
epoll.register(r, select.EPOLLIN)
print('start', flush=True)
for line in sys.stdin:
    os.write(w, b'x')
    print(line.strip(), len(epoll.poll()), len(epoll.poll(0)), flush=True)
    os.read(r, 1)
    print('quiet', epoll.poll(0), epoll.poll(0.001), flush=True)
";
    let mut program = Program::python(&url, script);
    assert_eq!(program.line(), "start\n");
    for round in ["one", "two"] {
        assert_eq!(program.ask(round), format!("{round} 1 1\n"));
        assert_eq!(program.line(), "quiet [] []\n");
    }
    kill(server);
    let server = serve(&url, "second");
    for round in ["three", "four"] {
        assert_eq!(program.ask(round), format!("{round} 1 1\n"));
        assert_eq!(program.line(), "quiet [] []\n");
    }
    kill(server);
    program.end();
}

#[test]
fn a_duplicate_of_what_is_gone_is_refused_by_the_next_kernel() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    let server = serve(&url, "first");
    let script = "
import os, sys
fd = os.open('/rump/tmp/who', os.O_RDONLY)
print('start', flush=True)
for line in sys.stdin:
    try:
        os.close(os.dup(fd))
        print('done', flush=True)
    except OSError as e:
        print(e.strerror, flush=True)
";
    let mut program = Program::python(&url, script);
    assert_eq!(program.line(), "start\n");
    assert_eq!(program.ask("dup"), "done\n");
    kill(server);
    let server = serve(&url, "second");
    assert_eq!(program.ask("dup"), "Bad file descriptor\n");
    kill(server);
    program.end();
}

#[test]
fn a_program_that_is_to_die_with_its_kernel_does() {
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    let server = serve(&url, "first");
    let mut program = Program::start(&url, Some("die"));
    assert_eq!(program.line(), "start first\n");
    kill(server);
    for _ in 0..10 {
        if program.ask("more").is_empty() {
            break;
        }
    }
    let (status, said) = program.end();
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("is gone"), "{said}");
}

#[test]
fn a_value_that_makes_no_sense_is_refused() {
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    let server = serve(&url, "first");
    for bad in ["soon", "0", "-1", ""] {
        let program = Program::start(&url, Some(bad));
        let (status, said) = program.end();
        assert_eq!(status, 1, "{bad}: {said}");
        assert!(said.contains("RUMPHIJACK_RETRYCONNECT"), "{bad}: {said}");
    }
    kill(server);
}

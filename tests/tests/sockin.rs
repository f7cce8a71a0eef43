//! Unmodified Debian programs whose sockets are a kernel's, on the host's network: against programs of the host, both ways round.
//!
//! Ports are the host's, so each is one that was free; a server says on a pipe that it listens; nobody sleeps.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use support::{
    CURL, Ended, PYTHON, Server, big, finish, have, python_on_the_host, rump, run, script,
};

/// A server that runs until the end of a test, and the port that it has said.
struct Up {
    child: Child,
    port: String,
}

impl Up {
    /// Starts a server of Python's.
    fn http(mut command: Command) -> Up {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let mut words = line.split(' ').skip_while(|word| *word != "port");
        let port = words.nth(1).expect("the port").to_owned();
        Up { child, port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        support::signal(self.child.id(), "TERM");
        let _ = self.child.wait();
    }
}

const SERVE: [&str; 7] = [
    "/usr/bin/python3",
    "-u",
    "-m",
    "http.server",
    "0",
    "--bind",
    "127.0.0.1",
];

#[test]
fn curl_on_the_kernel_fetches_from_a_server_of_the_host() {
    if !have(&[PYTHON, CURL]) {
        return;
    }
    let dir = support::scratch();
    let bytes = big(dir.path());
    let mut command = Command::new(SERVE[0]);
    command.args(&SERVE[1..]).arg("-d").arg(dir.path());
    let server = Up::http(command);
    let url = server.url("/big");
    // A file of the kernel is filled from a socket of the kernel.
    let out = script(
        &["--net", "sockin", "--tmpfs", "/t"],
        dir.path(),
        &format!(
            "curl -sS {url} -o /rump/t/big; cat /rump/t/big > got\n\
             curl -s -o /dev/null -w '%{{http_code}}\\n' {url}-not"
        ),
    );
    assert_eq!(out.ok(), "404\n");
    assert!(fs::read(dir.path().join("got")).expect("there") == bytes);
}

#[test]
fn curl_of_the_host_fetches_a_file_of_the_kernel_from_a_server_on_it() {
    if !have(&[PYTHON, CURL]) {
        return;
    }
    let dir = support::scratch();
    let bytes = big(dir.path());
    let text = format!("cp $DIR/big /rump/t; exec {} -d /rump/t", SERVE.join(" "));
    let args = ["run", "--net", "sockin", "--tmpfs", "/t", "--", "sh", "-c"];
    let mut command = rump(args);
    command.arg(text).env("DIR", dir.path());
    let server = Up::http(command);
    for _ in 0..3 {
        let got = Command::new("curl")
            .args(["-sS", &server.url("/big")])
            .output();
        assert!(got.expect("curl runs").stdout == bytes);
    }
}

#[test]
fn redis_on_the_kernel_answers_the_hosts_benchmark() {
    if !have(&[
        ("/usr/bin/redis-server", "redis-server"),
        ("/usr/bin/redis-benchmark", "redis-tools"),
    ]) {
        return;
    }
    let dir = support::scratch();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("a name").port().to_string();
    drop(free);
    let args = [
        "run",
        "--net",
        "sockin",
        "--",
        "redis-server",
        "--port",
        &port,
    ];
    let mut command = rump(args);
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(dir.path());
    let mut server = command.stdout(Stdio::piped()).spawn().expect("starts");
    let out = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut lines = out.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("Ready to accept")));
    let ask = |program: &str, words: &[&str]| -> Ended {
        finish(Command::new(program).args(["-p", &port]).args(words))
    };
    assert_eq!(ask("redis-cli", &["set", "key", "value"]).ok(), "OK\n");
    let bench = ["-q", "-n", "2000", "-c", "20", "-t", "set,lpush"];
    let said = ask("redis-benchmark", &bench).ok();
    assert_eq!(said.matches("requests per second").count(), 2, "{said}");
    let bench = ["-q", "-n", "4000", "-c", "10", "-P", "16", "-t", "get"];
    assert!(
        ask("redis-benchmark", &bench)
            .ok()
            .contains("requests per second")
    );
    // Another client is on a kernel of its own.
    let words = [
        "run",
        "--net",
        "sockin",
        "--",
        "redis-cli",
        "-p",
        &port,
        "llen",
        "mylist",
    ];
    assert_eq!(run(words).ok(), "2000\n");
    ask("redis-cli", &["shutdown", "nosave"]);
    let status = server.wait().expect("it ends");
    assert!(status.success(), "{status}");
}

#[test]
fn sockets_behave_under_python_as_they_do_on_the_host() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    let text = include_str!("network/sockets.py");
    let host = python_on_the_host(dir.path(), "sockets.py", text);
    assert!(host.ends_with("done\n"), "{host}");
    let options = ["--net", "sockin"];
    let out = script(&options, dir.path(), "/usr/bin/python3 $DIR/sockets.py");
    assert_eq!(out.ok(), host);
}

#[test]
fn asyncio_mixes_streams_datagrams_and_children() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    let program = include_str!("network/asyncio_echo.py");
    fs::write(dir.path().join("echo.py"), program).expect("written");
    let options = ["--net", "sockin"];
    let out = script(&options, dir.path(), "/usr/bin/python3 $DIR/echo.py");
    assert_eq!(out.ok(), "20 echoes\nb'ping'\nb'through cat'\n");
}

/// A program of a server's is on the network that the server has, and names are the host's: `localhost` is asked for.
#[test]
fn a_served_kernels_programs_are_on_the_hosts_network_too() {
    if !have(&[PYTHON, CURL]) {
        return;
    }
    let dir = support::scratch();
    let bytes = big(dir.path());
    let mut command = Command::new(SERVE[0]);
    command.args(&SERVE[1..]).arg("-d").arg(dir.path());
    let server = Up::http(command);
    let kernel = Server::start(&["--net", "sockin"]);
    let url = format!("http://localhost:{}/big", server.port);
    let file = dir.path().join("got");
    let out = kernel.exec(&["curl", "-4sS", &url, "-o", file.to_str().expect("text")]);
    out.ok();
    assert!(fs::read(file).expect("there") == bytes);
    let refused = kernel.rump(&["ifconfig"]);
    assert_ne!(refused.status, 0, "there are no interfaces");
    kernel.halt();
}

#[test]
fn sockin_is_a_kernels_only_network() {
    let words = ["run", "--net", "sockin", "--net", "loop", "--", "true"];
    run(words).fails(125, &["--net sockin", "only network"]);
    let words = ["run", "--net", "sockin,10.0.0.2/24", "--", "true"];
    run(words).fails(2, &["sockin", "no interface"]);
}

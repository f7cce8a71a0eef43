//! What the whole-system tests share: the built binaries, images, running programs on a kernel.
//!
//! The tests drive the `rump` command as a person would. `cargo xtask test` builds it first and says so by `RUMPKIT_BUILT`; a test that is
//! run alone builds it itself.

mod image;
pub mod judge;
pub mod lab;
mod namespace;
mod programs;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

pub use image::Image;
pub use namespace::Namespace;
pub use programs::{CURL, PYTHON, Packaged, big, have, python_on_the_host};

/// Seconds after which a command is killed, so that a hang is a failure.
const PATIENCE: &str = "240";

/// Where programs are looked for, whoever tests.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory of the built binaries, the profile of this test's own.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let own = std::env::current_exe().expect("a test has a path");
        let dir = own
            .parent()
            .and_then(Path::parent)
            .expect("target/PROFILE/deps/TEST");
        if std::env::var_os("RUMPKIT_BUILT").is_none() {
            build(dir);
        }
        dir.to_path_buf()
    })
}

fn build(dir: &Path) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "-p",
        "rumpkit-rump",
        "-p",
        "rumpkit-hijack",
        "-p",
        "rumpkit-tests",
        "-p",
        "rumpkit-example-module",
    ]);
    if dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(
        status.is_ok_and(|s| s.success()),
        "the rump command cannot be built"
    );
}

/// A built binary.
pub fn binary(name: &str) -> PathBuf {
    let path = built().join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

/// The `rump` command with these arguments, in an environment that does not depend on who tests.
pub fn rump<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    clean(Command::new(binary("rump")), args)
}

/// The same below timeout(1).
fn patient_rump<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "10", PATIENCE]).arg(binary("rump"));
    clean(command, args)
}

fn clean<S: AsRef<OsStr>>(mut command: Command, args: impl IntoIterator<Item = S>) -> Command {
    command.args(args).stdin(Stdio::null());
    command.env("PATH", PATH).env("LC_ALL", "C");
    for name in [
        "RUMP_SERVER",
        "RUMPHIJACK",
        "RUMP_VERBOSE",
        "RUMP_NCPU",
        "RUMP_MEMLIMIT",
        "RUMP_MODULEBASE",
        "LD_PRELOAD",
    ] {
        command.env_remove(name);
    }
    command
}

/// How a command ended and what it printed.
pub struct Ended {
    /// Its exit status; 124 when it took too long.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error output.
    pub stderr: String,
}

impl Ended {
    fn from(output: Output, what: &str) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let status = output
            .status
            .code()
            .or_else(|| output.status.signal().map(|s| 128 + s));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended = Ended {
            status: status.unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert_ne!(
            ended.status, 124,
            "{what} hangs; it said: {}{}",
            ended.stdout, ended.stderr
        );
        ended
    }

    /// Its standard output, when it ended with success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.status, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Checks that it ended with `status` and that its error output contains each of `words`.
    #[track_caller]
    pub fn fails(self, status: i32, words: &[&str]) {
        assert_eq!(
            self.status, status,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{word:?} is not in: {}",
                self.stderr
            );
        }
    }
}

/// Runs `rump` with these arguments to its end.
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    finish(&mut patient_rump(args))
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Ended {
    let output = command.output().expect("the command starts");
    Ended::from(output, &format!("{command:?}"))
}

/// Runs a shell script on a kernel with these mounts (`--mount ...`, `--tmpfs ...`); `$DIR` is `dir`.
pub fn script(mounts: &[&str], dir: &Path, text: &str) -> Ended {
    let mut args = vec!["run"];
    args.extend(mounts);
    args.extend(["--", "/bin/sh", "-euc", text]);
    let mut command = patient_rump(args);
    command.env("DIR", dir).env("HOME", dir).current_dir(dir);
    finish(&mut command)
}

/// A directory for a test, removed in the end.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("rump-test-")
        .tempdir()
        .expect("a temporary directory")
}

/// A served kernel, halted in the end.
pub struct Server {
    /// Where it is.
    pub url: String,
    _dir: tempfile::TempDir,
    child: std::process::Child,
}

impl Server {
    /// Serves a kernel with these options of `rump server`, on a private socket.
    pub fn start(options: &[&str]) -> Server {
        Server::start_with(options, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(options: &[&str], environment: &[(&str, &str)]) -> Server {
        Server::start_by(options, |mut command| {
            command.envs(environment.iter().copied());
            command
        })
    }

    /// The same, in a network namespace.
    pub fn start_in(namespace: &Namespace, options: &[&str]) -> Server {
        Server::start_by(options, |command| namespace.enter(command))
    }

    fn start_by(options: &[&str], with: impl FnOnce(Command) -> Command) -> Server {
        let dir = scratch();
        let url = format!("unix://{}/sock", dir.path().display());
        let mut args = vec!["server", "-s"];
        args.extend(options);
        args.push(&url);
        // In the foreground it says on its output that it serves.
        let mut child = with(rump(args))
            .stdout(Stdio::piped())
            .spawn()
            .expect("rump server starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        assert!(line.contains("serving"), "rump server says {line:?}");
        Server {
            url,
            _dir: dir,
            child,
        }
    }

    /// Runs `rump WORD` against it.
    pub fn rump(&self, args: &[&str]) -> Ended {
        finish(patient_rump(args).env("RUMP_SERVER", &self.url))
    }

    /// `rump` with these arguments against it, to start.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = rump(args);
        command.env("RUMP_SERVER", &self.url);
        command
    }

    /// Runs a program on it.
    pub fn exec(&self, program: &[&str]) -> Ended {
        let mut args = vec!["exec", &self.url, "--"];
        args.extend(program);
        self.rump(&args)
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end; its exit status.
    pub fn wait(mut self) -> i32 {
        self.child
            .wait()
            .expect("it is our child")
            .code()
            .unwrap_or(-1)
    }

    /// Halts it and waits for its end.
    #[track_caller]
    pub fn halt(self) {
        self.rump(&["halt"]).ok();
        assert_eq!(self.wait(), 0);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(status.is_ok_and(|s| s.success()), "kill -s {name} {pid}");
}

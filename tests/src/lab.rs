//! Labs for tests.

use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Ended, binary, finish, rump, scratch};

/// Serves a mebibyte to everybody who asks, on port 80 of both families.
pub const HTTP: &str = "
import http.server, os, socket
os.chdir('/tmp')
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = bytes(range(256)) * 4096
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = Server(('::', 80), Handler)
print('ready')
server.serve_forever()
";

/// A lab in a directory of its own, ended with the test.
pub struct Lab {
    /// Its directory, with the captures that it makes.
    pub dir: TempDir,
}

impl Lab {
    /// Starts one that a text describes.
    pub fn up(text: &str) -> Lab {
        let lab = Lab { dir: scratch() };
        lab.write(text);
        lab.run(&["up", "lab.toml"]).ok();
        lab
    }

    /// Writes the text that describes it.
    pub fn write(&self, text: &str) {
        fs::write(self.dir.path().join("lab.toml"), text).expect("written");
    }

    /// A `rump` command that knows this test's labs only.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", "120"])
            .arg(binary("rump"))
            .args(args);
        let clean = rump([""; 0]);
        command.envs(clean.get_envs().filter_map(|(k, v)| Some((k, v?))));
        command
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env_remove("RUMP_SERVER")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `rump`.
    pub fn run(&self, args: &[&str]) -> Ended {
        finish(&mut self.command(args))
    }

    /// Runs a program on a kernel.
    pub fn on(&self, kernel: &str, program: &[&str]) -> Ended {
        self.run(&[&["exec", kernel, "--"], program].concat())
    }

    /// Its kernels.
    pub fn ps(&self) -> Vec<Value> {
        let text = self.run(&["ps", "--json"]).ok();
        serde_json::from_str(&text).expect("an array")
    }

    /// Starts a server on a kernel and waits until it says that it is ready.
    pub fn serve(&self, kernel: &str, python: &str) -> Child {
        let args = ["exec", kernel, "--", "/usr/bin/python3", "-u", "-c", python];
        let mut child = self
            .command(&args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        assert_eq!(line, "ready\n", "{python}");
        child
    }

    /// Ends it, and sees that nothing is left.
    pub fn down(&self) {
        self.run(&["down"]).ok();
        assert!(self.ps().is_empty());
        let left: Vec<_> = fs::read_dir(self.dir.path().join("rump"))
            .expect("the directory of all labs")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.command(&["down"]).output();
        }
    }
}

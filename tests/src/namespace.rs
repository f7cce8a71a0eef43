//! Network namespaces of the host: a stack of the host's own kernel that nobody else uses and that ends with its test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::{Ended, finish};

/// Says that the tests which need a namespace shall be left out.
const LEFT_OUT: &str = "RUMPKIT_NO_NAMESPACES";

/// A network namespace. It ends with this, and so does every process in it.
pub struct Namespace {
    /// Waits in it until its input ends.
    holder: Child,
    /// It is in a user namespace of its own, for we are not root.
    ours: bool,
}

impl Namespace {
    /// A new one, with its loopback interface up. Without root it is made in a user namespace; where the host allows neither, the test
    /// fails with what to do, so that it never passes unseen. `None` when the person who tests said so.
    pub fn new() -> Option<Namespace> {
        if std::env::var_os(LEFT_OUT).is_some() {
            println!("not tested: {LEFT_OUT} is set");
            return None;
        }
        let root = finish(Command::new("id").arg("-u")).ok() == "0\n";
        let mut command = Command::new("unshare");
        command.arg(if root { "-n" } else { "-rUn" });
        let hold = "ip link set lo up && test -w /dev/net/tun && echo ready && read end";
        command.args(["--", "/bin/sh", "-c", hold]);
        let mut holder = command
            .env("PATH", crate::PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        let out = holder.stdout.as_mut().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("reads");
        assert_eq!(
            line, "ready\n",
            "this test needs network namespaces and /dev/net/tun: run it as root, or allow them to users (sysctl \
             kernel.unprivileged_userns_clone=1, chmod 666 /dev/net/tun); or leave such tests out with {LEFT_OUT}=1"
        );
        Some(Namespace {
            holder,
            ours: !root,
        })
    }

    /// Whether programs can become other users here.
    pub fn is_root(&self) -> bool {
        !self.ours
    }

    /// The same command, in this namespace.
    pub fn enter(&self, command: Command) -> Command {
        let mut inside = Command::new("nsenter");
        if self.ours {
            inside.args(["-U", "--preserve-credentials"]);
        }
        inside.args(["-n", "-t", &self.holder.id().to_string(), "--"]);
        inside.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(key, value),
                None => inside.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            inside.current_dir(dir);
        }
        inside.stdin(Stdio::null());
        inside
    }

    /// A shell script, which ends at the first command that fails.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", crate::PATIENCE, "/bin/sh", "-euc", script]);
        command.env("PATH", crate::PATH).env("LC_ALL", "C");
        self.enter(command)
    }

    /// Runs a shell script to its end.
    pub fn run(&self, script: &str) -> Ended {
        finish(&mut self.shell(script))
    }
}

/// The processes of the network namespace that one is in.
fn neighbours(pid: u32) -> Vec<u32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let Some(mine) = namespace(&pid.to_string()) else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| namespace(name).as_ref() == Some(&mine))
        .filter_map(|name| name.parse().ok())
        .filter(|other| *other != pid)
        .collect()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What a script has left in the background.
        for pid in neighbours(self.holder.id()) {
            // It may have ended by itself.
            let _ = Command::new("kill")
                .args(["-s", "KILL", &pid.to_string()])
                .output();
        }
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

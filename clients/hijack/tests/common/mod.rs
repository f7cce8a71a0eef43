//! A kernel with a server in the test's process, and programs that run on it under the shim.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use rumpkit::{Kernel, Process};
use sysproxy::{Options, Server};
use tempfile::TempDir;

/// A kernel that programs can be run on.
pub(crate) struct Rump {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) dir: TempDir,
    server: Option<Server>,
    url: String,
}

impl Rump {
    pub(crate) fn boot() -> Rump {
        let kernel = rumpkit::builder().boot().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let url = format!("unix://{}/socket", dir.path().display());
        let server = sysproxy::serve(&kernel, &url, Options::default()).unwrap();
        Rump {
            kernel,
            dir,
            server: Some(server),
            url,
        }
    }

    /// A process in the kernel, to look at things from inside.
    pub(crate) fn inside(&self) -> Process {
        Process::new(&self.kernel).unwrap()
    }

    /// A program under the shim, with an environment that is otherwise plain.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("LC_ALL", "C.UTF-8")
            .env("LD_PRELOAD", shim())
            .env("RUMPHIJACK", "path=/rump")
            .env("RUMP_SERVER", &self.url)
            .current_dir(self.dir.path());
        command
    }

    /// Runs a shell script under the shim; answers its standard output. It must succeed and say nothing on standard
    /// error.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{script}\n{}\n{errors}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn try_sh(&self, script: &str) -> Output {
        self.command("bash")
            .args(["-euc", script])
            .output()
            .unwrap()
    }

    /// Runs a python program under the shim; answers its standard output.
    pub(crate) fn python(&self, program: &str) -> String {
        let output = self
            .command("/usr/bin/env")
            .args(["python3", "-c", program])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{program}\n{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Rump {
    fn drop(&mut self) {
        drop(self.server.take());
        if !std::thread::panicking() {
            self.kernel.shutdown(true).unwrap();
        }
    }
}

/// The shim that cargo has built beside this test.
pub(crate) fn shim() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let deps = exe.parent().unwrap();
    [deps, deps.parent().unwrap()]
        .iter()
        .map(|dir| dir.join("librump_hijack.so"))
        .find(|path| path.exists())
        .expect("librump_hijack.so beside the test")
}

/// Whether a program is installed; a test that needs it ends early if not.
pub(crate) fn have(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("{program} is not installed: not tested");
    }
    found
}

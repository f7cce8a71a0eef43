//! The C examples: compiled by plain gcc with what pkg-config says, run, and their output compared.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where cargo put the libraries that this test was built with.
fn built() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.parent().unwrap().to_owned()
}

/// A directory in which librump is installed, as `cargo xtask install` does.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<TempDir> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| {
        let prefix = tempfile::tempdir().unwrap();
        let to = prefix.path();
        std::fs::create_dir_all(to.join("lib/pkgconfig")).unwrap();
        std::fs::create_dir_all(to.join("include")).unwrap();
        let link = |from: PathBuf, to: PathBuf| std::os::unix::fs::symlink(from, to).unwrap();
        for lib in ["librump.so", "librump.a"] {
            link(built().join(lib), to.join("lib").join(lib));
        }
        let headers = root().join("include/rump").canonicalize().unwrap();
        link(headers, to.join("include/rump"));
        let pc = include_str!("../rump.pc.in")
            .replace("@PREFIX@", to.to_str().unwrap())
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        std::fs::write(to.join("lib/pkgconfig/rump.pc"), pc).unwrap();
        prefix
    });
    prefix.path()
}

fn text(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(
        out.status.success(),
        "{command:?}: {}\n{stdout}{stderr}",
        out.status
    );
    stdout.into_owned()
}

/// Compiles an example against the shared or the static library.
fn compile(name: &str, dir: &Path, linking: &[&str]) -> PathBuf {
    let flags = text(
        Command::new("pkg-config")
            .args(["--cflags", "--libs", "rump"])
            .args(linking.iter().filter(|f| **f == "--static"))
            .env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig")),
    );
    let program = dir.join(name);
    let source = root().join("examples/c").join(format!("{name}.c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .arg(&program)
        .arg(source);
    for flag in flags.split_whitespace() {
        match flag {
            "-lrump" if linking.contains(&"--static") => gcc.arg("-l:librump.a"),
            flag => gcc.arg(flag),
        };
    }
    text(&mut gcc);
    program
}

/// Compiles an example, runs it in a directory of its own, and compares its output.
fn example_with(name: &str, linking: &[&str], args: &[&Path]) {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(name, dir.path(), linking);
    let out = text(
        Command::new(program)
            .args(args)
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .env("RUMP_NCPU", "2")
            .current_dir(dir.path()),
    );
    let want = root().join("examples/c").join(format!("{name}.out"));
    assert_eq!(out, std::fs::read_to_string(want).unwrap(), "{name}");
}

fn example(name: &str) {
    example_with(name, &[], &[]);
}

#[test]
fn files() {
    example("files");
}

#[test]
fn files_linked_statically() {
    example_with("files", &["--static"], &[]);
}

#[test]
fn lwproc() {
    example("lwproc");
}

#[test]
fn misuse() {
    example("misuse");
}

#[test]
fn etfs() {
    example("etfs");
}

#[test]
fn signals() {
    example("signals");
}

//! `cargo xtask test`: everything that must hold.

use std::process::Command;

use anyhow::{Result, bail};

use crate::report::Report;
use crate::{docs, packages, sh};

/// Tests counted over all runners.
#[derive(Default)]
struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

pub(crate) fn run() -> Result<()> {
    let mut report = Report::new();
    let mut count = Count::default();
    report.section("Debian packages", packages::ensure);
    report.section("format", || {
        sh::run(&mut sh::cargo(["fmt", "--all", "--check"]))
    });
    report.section("clippy", clippy);
    report.section("build", || {
        sh::run(&mut sh::cargo(["build", "--workspace", "--all-targets"]))
    });
    report.section("tests", || tests(&mut count));
    report.section("models of locks and of the end of processes", || {
        models(&mut count)
    });
    report.section("lock debugging", || lockdebug(&mut count));
    report.section("documentation tests", || doc_tests(&mut count));
    report.section("documentation", documentation);
    report.section("docs/syscalls.md", || docs::run(true));
    report.section("third-party crates", deny);
    conclude(&report, &count)
}

fn clippy() -> Result<()> {
    sh::run(&mut sh::cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Unit, integration and system tests. nextest runs each in a process of its own, where it is installed.
fn tests(count: &mut Count) -> Result<()> {
    let nextest = sh::output(&mut sh::cargo(["nextest", "--version"])).is_ok_and(|(ok, _)| ok);
    let mut command = if nextest {
        sh::cargo([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--color",
            "never",
        ])
    } else {
        sh::cargo(["test", "--workspace", "--all-targets", "--no-fail-fast"])
    };
    watch_tests(&mut command, count)
}

/// The protocols below the locks, in every order up to a bound, by loom. They are built apart, as the whole crate is another one then.
fn models(count: &mut Count) -> Result<()> {
    let mut command = sh::cargo(["test", "--release", "-p", "rumpkit-sync", "--lib"]);
    command
        .args(["--target-dir", "target/loom"])
        .env("RUSTFLAGS", "--cfg loom");
    watch_tests(&mut command, count)
}

/// What the feature `lockdebug` watches, and the tests of the kernel proper with it.
fn lockdebug(count: &mut Count) -> Result<()> {
    let mut command = sh::cargo(["test", "-p", "rumpkit-sync", "-p", "rumpkit-kern"]);
    command.args([
        "--features",
        "rumpkit-kern/lockdebug",
        "--lib",
        "--test",
        "*",
    ]);
    watch_tests(&mut command, count)
}

fn doc_tests(count: &mut Count) -> Result<()> {
    watch_tests(&mut sh::cargo(["test", "--workspace", "--doc"]), count)
}

fn watch_tests(command: &mut Command, count: &mut Count) -> Result<()> {
    // The binaries are built: the system tests need not ask cargo for them.
    command.env("RUMPKIT_BUILT", "1");
    let ok = sh::watch(command, |line| count.add(line))?;
    if !ok {
        bail!("{} failed", sh::words(command));
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let mut command = sh::cargo(["doc", "--workspace", "--no-deps", "--quiet"]);
    sh::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// cargo-deny is not on every machine, and its advisories need a database from the network.
fn deny() -> Result<()> {
    if !sh::output(&mut sh::cargo(["deny", "--version"])).is_ok_and(|(ok, _)| ok) {
        println!("cargo-deny is not installed: licences, bans and sources are not checked");
        return Ok(());
    }
    sh::run(&mut sh::cargo([
        "deny",
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}

/// The closing line, in cargo test's form; a failed step counts as a failed test.
fn conclude(report: &Report, count: &Count) -> Result<()> {
    let failed = count.failed.max(report.failed().len() as u64);
    let verdict = if report.failed().is_empty() {
        "ok"
    } else {
        "FAILED"
    };
    if !report.failed().is_empty() {
        println!("failed: {}", report.failed().join(", "));
    }
    println!(
        "test result: {verdict}. {} passed; {failed} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        count.passed,
        count.skipped,
        report.elapsed().as_secs_f64(),
    );
    if verdict != "ok" {
        bail!("not everything holds");
    }
    Ok(())
}

impl Count {
    /// Counts what a closing line of cargo test or nextest says.
    fn add(&mut self, line: &str) {
        let line = line.trim();
        let (counts, separator) = match line.strip_prefix("test result: ") {
            Some(rest) => (rest, ';'),
            None if line.starts_with("Summary [") && line.contains(" run: ") => (line, ','),
            None => return,
        };
        for part in counts.split([separator, '.', ':']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" | "timed" => self.failed += number,
                "ignored" | "skipped" => self.skipped += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(line: &str) -> (u64, u64, u64) {
        let mut count = Count::default();
        count.add(line);
        (count.passed, count.failed, count.skipped)
    }

    #[test]
    fn closing_lines_of_both_runners_are_counted() {
        let cargo = "test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(counted(cargo), (12, 1, 2));
        let nextest = "     Summary [   0.312s] 45 tests run: 43 passed, 2 failed, 1 skipped";
        assert_eq!(counted(nextest), (43, 2, 1));
        let slow = "     Summary [   9.000s] 5 tests run: 5 passed (1 slow), 0 skipped";
        assert_eq!(counted(slow), (5, 0, 0));
        assert_eq!(counted("test result_is_told ... ok"), (0, 0, 0));
    }
}

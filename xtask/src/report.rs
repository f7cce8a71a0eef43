//! Steps with their times, as the chores print them.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Steps that were taken and how each went.
pub(crate) struct Report {
    began: Instant,
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Report {
        Report {
            began: Instant::now(),
            failed: Vec::new(),
        }
    }

    /// Takes a step between two lines that name it; a failure is told and noted.
    pub(crate) fn section(&mut self, name: &str, step: impl FnOnce() -> Result<()>) {
        println!("==> {name}");
        let began = Instant::now();
        match step() {
            Ok(()) => println!("<== {name}: ok, {}", seconds(began.elapsed())),
            Err(error) => {
                println!(
                    "<== {name}: FAILED, {}: {error:#}",
                    seconds(began.elapsed())
                );
                self.failed.push(name.to_owned());
            }
        }
    }

    pub(crate) fn failed(&self) -> &[String] {
        &self.failed
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

pub(crate) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}

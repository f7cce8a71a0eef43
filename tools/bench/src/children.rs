//! Processes that the benches start: this program again, with other words.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{boot, guest, hijack, links, net, remote};

/// What such a process does.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["boot-all"] => boot::child(),
        ["idle", count] => net::idle_child(count),
        ["bus-sink", bus] => links::bus_sink(bus),
        ["host-sink"] => links::host_sink_child(),
        ["echo", socket, cpu] => remote::echo(socket, cpu),
        ["serve", url, cpu] => remote::serve(url, cpu),
        ["guest", ref names @ ..] => guest::child(names),
        ["hijack", dir, effort] => hijack::child(dir, effort == "smoke"),
        _ => bail!("no child does {words:?}"),
    }
}

/// A command that runs this program as a child with these words.
pub(crate) fn command(words: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").args(words);
    Ok(command)
}

/// What a child prints.
pub(crate) fn output(words: &[&str]) -> Result<String> {
    finished(&mut command(words)?)
}

/// What a command prints, when it succeeds.
pub(crate) fn finished(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    if !out.status.success() {
        bail!("{command:?}: {}", out.status);
    }
    Ok(String::from_utf8(out.stdout)?)
}

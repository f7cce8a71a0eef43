//! `rump firewall`: the packet filter of a kernel.

use std::io::{self, Read};
use std::path::Path;

use abi::{Errno, Invoke};
use anyhow::{Context, Result, anyhow};
use rumpclient::Client;
use rumpkit::Process;

use crate::cli::Firewall;
use crate::failure::Outcome;
use crate::remote::connect;
use crate::table::{Cell, Table};

/// `rump firewall`.
pub(crate) fn firewall(options: &Firewall) -> Outcome {
    let process = connect(&options.server.url)?;
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match &words[..] {
        [] | ["show"] => show(&process, options.json)?,
        ["states"] => states(&process, options.json)?,
        ["load", file] => load(&process, Path::new(file))?,
        ["flush", clauses @ ..] => process
            .flush_firewall(&clauses.join(" "))
            .map_err(|error| match error.raw_os_error() {
                None => anyhow!("flush: {error}"),
                Some(_) => explain(error),
            })?,
        ["load", ..] => {
            return Err(
                anyhow!("load: want one file of rules, or - for the standard input").into(),
            );
        }
        [word, ..] => {
            return Err(anyhow!("{word}: want show, states, load FILE or flush [CLAUSES]").into());
        }
    }
    Ok(0)
}

fn show(process: &Process<Client>, json: bool) -> Result<()> {
    if !json {
        print!("{}", process.firewall_text().map_err(explain)?);
        return Ok(());
    }
    let mut table = Table::new(&["RULE", "PACKETS", "BYTES"]);
    for rule in process.firewall().map_err(explain)? {
        table.row(vec![
            Cell::Text(rule.text),
            Cell::Number(rule.packets),
            Cell::Number(rule.bytes),
        ]);
    }
    print!("{}", table.render(json));
    Ok(())
}

fn states(process: &Process<Client>, json: bool) -> Result<()> {
    let mut table = Table::new(&[
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "NEW SOURCE",
        "NEW DESTINATION",
        "STATE",
        "EXPIRES",
        "PACKETS",
        "BYTES",
        "PACKETS BACK",
        "BYTES BACK",
    ]);
    for state in process.firewall_states().map_err(explain)? {
        // What is not translated stands there once for people.
        let translated = |n: usize| match state.translated[n] == state.ends[n] && !json {
            true => "-".into(),
            false => state.translated[n].clone(),
        };
        let new = [translated(0), translated(1)];
        let ([src, dst], [new_src, new_dst]) = (state.ends, new);
        table.row(vec![
            Cell::Text(state.protocol),
            Cell::Text(src),
            Cell::Text(dst),
            Cell::Text(new_src),
            Cell::Text(new_dst),
            Cell::Text(state.state),
            Cell::Number(state.expires),
            Cell::Number(state.sent[0]),
            Cell::Number(state.sent[1]),
            Cell::Number(state.received[0]),
            Cell::Number(state.received[1]),
        ]);
    }
    print!("{}", table.render(json));
    Ok(())
}

/// Loads a file of rules into a kernel; what is wrong with it is told with its name, line and column.
pub(crate) fn load<S: Invoke>(process: &Process<S>, file: &Path) -> Result<()> {
    let name = file.display();
    let text = match file == Path::new("-") {
        true => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(file),
    };
    let text = text.with_context(|| format!("{name}: the rules cannot be read"))?;
    load_text(process, &text, &name.to_string())
}

fn load_text<S: Invoke>(process: &Process<S>, text: &str, name: &str) -> Result<()> {
    process
        .load_firewall(text)
        .map_err(|error| match error.raw_os_error() {
            None => anyhow!("{name}:{error}"),
            Some(_) => explain(error),
        })
}

/// Why the kernel's packet filter does not answer.
pub(crate) fn explain(error: io::Error) -> anyhow::Error {
    match error.raw_os_error().map(Errno) {
        Some(Errno::ENOENT) => {
            anyhow!("the kernel has no packet filter: its network is its host's")
        }
        Some(Errno::EFBIG) => anyhow!("the rules are longer than 1 MiB; put addresses into tables"),
        _ => anyhow!("the packet filter: {error}"),
    }
}

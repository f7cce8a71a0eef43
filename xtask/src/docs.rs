//! `cargo xtask docs`: the support page, made from the system-call table.

use std::fmt::Write as _;

use abi::table::{ArgKind, TABLE};
use abi::{Faction, Support, SyscallDesc};
use anyhow::{Context, Result, bail};

use crate::sh;

const PAGE: &str = "docs/syscalls.md";

pub(crate) fn run(check: bool) -> Result<()> {
    let path = sh::root().join(PAGE);
    let page = page();
    if check {
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        if present != page {
            bail!(
                "{PAGE} is stale: the table in abi/src/syscalls.rs has changed; run: cargo xtask docs"
            );
        }
        return Ok(());
    }
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("{PAGE} written");
    Ok(())
}

/// The page: what the kernel serves, by faction, then what stays with the host process.
fn page() -> String {
    let mut out = String::from(
        "# System calls\n\n\
         Made from `abi/src/syscalls.rs` by `cargo xtask docs`; do not edit. Numbers, structures and errno are Linux's on x86-64.\n\n\
         *full*: as its manual page says. *partial*: with the limits named. *absent*: answers `ENOSYS`.\n",
    );
    let kernel = |d: &&SyscallDesc| d.faction != Faction::Host;
    let count = |support: fn(&Support) -> bool| {
        TABLE
            .iter()
            .filter(kernel)
            .filter(|d| support(&d.support))
            .count()
    };
    let _ = writeln!(
        out,
        "\nOf {} calls that are a kernel's, {} are full, {} partial, {} absent; {} more belong to the host process.",
        TABLE.iter().filter(kernel).count(),
        count(|s| matches!(s, Support::Full)),
        count(|s| matches!(s, Support::Partial(_))),
        count(|s| matches!(s, Support::Absent)),
        TABLE.iter().filter(|d| !kernel(d)).count(),
    );
    for (faction, title) in [
        (
            Faction::Kern,
            "kern: processes, descriptors, time, the kernel itself",
        ),
        (Faction::Vfs, "vfs: files"),
        (Faction::Net, "net: sockets"),
    ] {
        let _ = writeln!(
            out,
            "\n## {title}\n\n| nr | call | support | |\n|---|---|---|---|"
        );
        for call in TABLE.iter().filter(|d| d.faction == faction) {
            row(&mut out, call);
        }
    }
    out.push_str(
        "\n## The host process's own\n\n\
         Memory, threads, signals and children belong to the process that makes the call; a hijacked program's go to the host kernel.\n\n",
    );
    let names: Vec<String> = TABLE
        .iter()
        .filter(|d| !kernel(d))
        .map(|d| format!("`{}`", d.name))
        .collect();
    let _ = writeln!(out, "{}", names.join(", "));
    for call in TABLE.iter().filter(|d| !kernel(d)) {
        if let Support::Partial(why) = call.support {
            let _ = writeln!(out, "\n`{}`: {why}.", call.name);
        }
    }
    out
}

fn row(out: &mut String, call: &SyscallDesc) {
    let (support, why) = match call.support {
        Support::Full => ("full", ""),
        Support::Partial(why) => ("partial", why),
        Support::Absent => ("absent", ""),
    };
    let args: Vec<String> = call
        .args
        .iter()
        .map(|a| match a.kind {
            ArgKind::Out(_) | ArgKind::IovOut(_) => format!("*{}*", a.name),
            _ => a.name.trim_end_matches('_').to_owned(),
        })
        .collect();
    let _ = writeln!(
        out,
        "| {} | **{}**({}) | {support} | {} |",
        call.nr,
        call.name,
        args.join(", "),
        why.replace('|', "\\|"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_tables() {
        run(true).unwrap();
    }
}

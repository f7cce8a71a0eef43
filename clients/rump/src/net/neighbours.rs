//! `rump arp` and `rump ndp`: the link-layer addresses of who is on a link.

use anyhow::{Context, Result, anyhow, bail};
use rumpclient::Client;
use rumpkit::Process;

use super::resolve::resolve;
use super::{interface, mac, mac_text, name_of};
use crate::cli::Neighbours;
use crate::failure::Outcome;
use crate::remote::connect;
use crate::table::{Cell, Table};

/// `rump arp`: of IPv4.
pub(crate) fn arp(options: &Neighbours) -> Outcome {
    neighbours(options, false)
}

/// `rump ndp`: of IPv6.
pub(crate) fn ndp(options: &Neighbours) -> Outcome {
    neighbours(options, true)
}

fn neighbours(options: &Neighbours, v6: bool) -> Outcome {
    let process = connect(&options.server.url)?;
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match &words[..] {
        [] | ["show"] => show(&process, options.json, v6)?,
        words => change(&process, words, v6)?,
    }
    Ok(0)
}

fn show(process: &Process<Client>, json: bool, v6: bool) -> Result<()> {
    let all = process
        .interfaces()
        .context("the interfaces cannot be listed")?;
    let known = process
        .neighbours(v6)
        .context("the neighbours cannot be listed")?;
    let mut table = Table::new(&["ADDRESS", "MAC", "INTERFACE", "STATE"]);
    for neighbour in known {
        table.row(vec![
            Cell::Text(neighbour.address.to_string()),
            Cell::Text(
                neighbour
                    .mac
                    .as_deref()
                    .map_or_else(|| "-".into(), mac_text),
            ),
            Cell::Text(name_of(&all, neighbour.interface)),
            Cell::Text(neighbour.state),
        ]);
    }
    print!("{}", table.render(json));
    Ok(())
}

fn change(process: &Process<Client>, words: &[&str], v6: bool) -> Result<()> {
    let of_family = |text: &str| {
        let ip = resolve(process, text)?;
        match ip.is_ipv6() == v6 {
            true => Ok(ip),
            false if v6 => bail!("{text}: is of IPv4; see rump arp"),
            false => bail!("{text}: is of IPv6; see rump ndp"),
        }
    };
    match words {
        ["add", ip, link, "dev", name] => process
            .set_neighbour(interface(process, name)?.index, of_family(ip)?, &mac(link)?)
            .with_context(|| format!("{ip}: cannot be set")),
        ["delete", ip, "dev", name] => process
            .remove_neighbour(interface(process, name)?.index, of_family(ip)?)
            .with_context(|| format!("{ip}: cannot be forgotten")),
        _ => Err(anyhow!(
            "want: show, add ADDRESS MAC dev INTERFACE, or delete ADDRESS dev INTERFACE"
        )),
    }
}

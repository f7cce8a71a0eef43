//! `rump route`: showing and setting routes.

use anyhow::{Context, Result, anyhow, bail};
use rumpclient::Client;
use rumpkit::{Process, RouteEntry};

use super::resolve::resolve;
use super::{interface, name_of, prefix};
use crate::cli::Route;
use crate::failure::Outcome;
use crate::remote::connect;
use crate::table::{Cell, Table};

/// `RT_TABLE_LOCAL`: what is about this kernel's own addresses, which few want to see.
const LOCAL: u32 = 255;

/// `rump route`.
pub(crate) fn route(options: &Route) -> Outcome {
    let process = connect(&options.server.url)?;
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match &words[..] {
        [] | ["show"] => show(&process, options)?,
        ["add", rest @ ..] => change(&process, rest, true)?,
        ["delete" | "del", rest @ ..] => change(&process, rest, false)?,
        [word, ..] => return Err(anyhow!("{word}: want show, add or delete").into()),
    }
    Ok(0)
}

fn show(process: &Process<Client>, options: &Route) -> Result<()> {
    let all = process
        .interfaces()
        .context("the interfaces cannot be listed")?;
    let routes = process.routes().context("the routes cannot be listed")?;
    let mut table = Table::new(&[
        "DESTINATION",
        "GATEWAY",
        "INTERFACE",
        "SOURCE",
        "METRIC",
        "TYPE",
    ]);
    for route in routes.iter().filter(|r| options.all || r.table != LOCAL) {
        let text = |value: Option<std::net::IpAddr>| {
            Cell::Text(value.map_or_else(|| "-".into(), |v| v.to_string()))
        };
        table.row(vec![
            Cell::Text(destination(route)),
            text(route.gateway),
            Cell::Text(match route.interface {
                0 => "-".into(),
                index => name_of(&all, index),
            }),
            text(route.source),
            Cell::Text(route.metric.to_string()),
            Cell::Text(route.kind.clone()),
        ]);
    }
    print!("{}", table.render(options.json));
    Ok(())
}

fn destination(route: &RouteEntry) -> String {
    match (route.destination, route.v6) {
        (Some((to, len)), _) => format!("{to}/{len}"),
        (None, false) => "default".into(),
        (None, true) => "default (inet6)".into(),
    }
}

/// `DESTINATION [GATEWAY] [dev INTERFACE]`.
fn change(process: &Process<Client>, words: &[&str], add: bool) -> Result<()> {
    let (to, rest) = words
        .split_first()
        .ok_or_else(|| anyhow!("say where to: ADDRESS/PREFIX or default"))?;
    let destination = match *to {
        "default" => None,
        text if text.contains('/') => Some(prefix(text)?),
        text => {
            let ip = resolve(process, text)?;
            Some((ip, if ip.is_ipv4() { 32 } else { 128 }))
        }
    };
    let (gateway, rest) = match rest {
        [text, rest @ ..] if *text != "dev" => (Some(resolve(process, text)?), rest),
        rest => (None, rest),
    };
    let index = match rest {
        [] => 0,
        ["dev", name] => interface(process, name)?.index,
        _ => bail!("want: rump route add|delete DESTINATION [GATEWAY] [dev INTERFACE]"),
    };
    let done = match add {
        true if gateway.is_none() && index == 0 => {
            bail!("{to}: say by which router, or on which link: GATEWAY or dev INTERFACE")
        }
        true => process.add_route(destination, gateway, index),
        false if destination.is_none() && gateway.is_none() => {
            // A default route says its family by its router only.
            process.remove_route(
                Some((std::net::Ipv4Addr::UNSPECIFIED.into(), 0)),
                None,
                index,
            )
        }
        false => process.remove_route(destination, gateway, index),
    };
    done.map_err(|error| match error.raw_os_error() {
        Some(17) => anyhow!("{to}: there is such a route already; rump route shows all"),
        Some(3) => anyhow!("{to}: there is no such route; rump route shows all"),
        Some(101) => anyhow!("{to}: the router is on none of the kernel's links; give an interface an address there first"),
        _ => anyhow!("{to}: {error}"),
    })
}

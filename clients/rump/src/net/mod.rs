//! The network of a served kernel: its interfaces, routes, neighbours and sockets, and the programs that try it out.

mod firewall;
mod ifconfig;
mod neighbours;
mod netstat;
mod ping;
mod resolve;
mod route;

use std::net::IpAddr;

use anyhow::{Result, anyhow};
use rumpclient::Client;
use rumpkit::{Interface, Process};

pub(crate) use firewall::{explain as explain_firewall, firewall, load as load_firewall};
pub(crate) use ifconfig::ifconfig;
pub(crate) use neighbours::{arp, ndp};
pub(crate) use netstat::netstat;
pub(crate) use ping::ping;
pub(crate) use route::route;

/// The interface of a name, with what to do when there is none.
fn interface(process: &Process<Client>, name: &str) -> Result<Interface> {
    process
        .interface(name)
        .map_err(|error| match error.raw_os_error() {
            Some(19) => anyhow!("{name}: no such interface; rump ifconfig shows all"),
            _ => anyhow!("{name}: {error}"),
        })
}

/// The name of an interface by its index.
fn name_of(all: &[Interface], index: u32) -> String {
    let found = all.iter().find(|i| i.index == index);
    found.map_or_else(|| index.to_string(), |i| i.name.clone())
}

/// `02:00:00:00:00:01`.
fn mac_text(mac: &[u8]) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}

fn mac(text: &str) -> Result<Vec<u8>> {
    rumpkit::net::parse_address(text)
        .map(|mac| mac.to_vec())
        .ok_or_else(|| anyhow!("{text}: want a link-layer address, as 02:00:00:00:00:01"))
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| anyhow!("{text}: want an address, as 10.0.0.1 or fd00::1"))
}

/// `10.0.0.0/24`; an address alone is one host.
fn prefix(text: &str) -> Result<(IpAddr, u8)> {
    let (ip, len) = text.split_once('/').unwrap_or((text, ""));
    let ip = address(ip)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match len {
        "" => Ok((ip, most)),
        _ => match len.parse() {
            Ok(len) if len <= most => Ok((ip, len)),
            _ => Err(anyhow!("{text}: the prefix is 0 to {most} bits long")),
        },
    }
}

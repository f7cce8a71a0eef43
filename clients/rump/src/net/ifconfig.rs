//! `rump ifconfig`: showing and setting interfaces.

use anyhow::{Context, Result, anyhow, bail};
use rumpclient::Client;
use rumpkit::{Interface, InterfaceAddress, InterfaceChange, Process};
use serde_json::{Value, json};

use super::{interface, mac, mac_text, name_of, prefix};
use crate::cli::Ifconfig;
use crate::failure::Outcome;
use crate::remote::connect;

/// Flags that are worth a word.
const FLAGS: [(u32, &str); 9] = [
    (1, "UP"),
    (2, "BROADCAST"),
    (8, "LOOPBACK"),
    (0x10, "POINTOPOINT"),
    (0x40, "RUNNING"),
    (0x80, "NOARP"),
    (0x100, "PROMISC"),
    (0x200, "ALLMULTI"),
    (0x1000, "MULTICAST"),
];

/// `rump ifconfig`.
pub(crate) fn ifconfig(options: &Ifconfig) -> Outcome {
    let process = connect(&options.server.url)?;
    match &options.words[..] {
        [] => show(&process, None, options.json)?,
        [name] => show(&process, Some(name), options.json)?,
        [name, words @ ..] => set(&process, name, words)?,
    }
    Ok(0)
}

fn show(process: &Process<Client>, name: Option<&str>, as_json: bool) -> Result<()> {
    let all = process
        .interfaces()
        .context("the interfaces cannot be listed")?;
    let addresses = process.addresses().unwrap_or_default();
    let chosen: Vec<&Interface> = match name {
        None => all.iter().collect(),
        Some(name) => {
            let one = interface(process, name)?;
            all.iter().filter(|i| i.index == one.index).collect()
        }
    };
    if as_json {
        let list: Vec<Value> = chosen
            .iter()
            .map(|i| describe(i, &all, &addresses))
            .collect();
        println!("{}", Value::Array(list));
        return Ok(());
    }
    for interface in chosen {
        print!("{}", text(interface, &all, &addresses));
    }
    Ok(())
}

fn flags(interface: &Interface) -> Vec<&'static str> {
    let set = FLAGS.iter().filter(|(bit, _)| interface.flags & bit != 0);
    set.map(|(_, name)| *name).collect()
}

fn of<'a>(
    interface: &'a Interface,
    addresses: &'a [InterfaceAddress],
) -> impl Iterator<Item = &'a InterfaceAddress> {
    addresses.iter().filter(|a| a.interface == interface.index)
}

/// As ifconfig(8) prints it.
fn text(i: &Interface, all: &[Interface], addresses: &[InterfaceAddress]) -> String {
    let mut out = format!(
        "{}: flags={:#x}<{}> mtu {}\n",
        i.name,
        i.flags,
        flags(i).join(","),
        i.mtu
    );
    if let Some(mac) = &i.mac {
        out += &format!("\taddress: {}\n", mac_text(mac));
    }
    if i.master != 0 {
        out += &format!("\tport of: {}\n", name_of(all, i.master));
    }
    for a in of(i, addresses) {
        let family = if a.address.is_ipv4() { "inet" } else { "inet6" };
        let state = if a.tentative { " tentative" } else { "" };
        out += &format!("\t{family} {}/{}{state}\n", a.address, a.prefix);
    }
    let [packets, bytes, dropped] = i.received;
    out += &format!("\tin:  {packets} packets, {bytes} bytes, {dropped} dropped\n");
    let [packets, bytes, dropped] = i.sent;
    out + &format!("\tout: {packets} packets, {bytes} bytes, {dropped} dropped\n")
}

fn describe(i: &Interface, all: &[Interface], addresses: &[InterfaceAddress]) -> Value {
    let counts = |c: [u64; 3]| json!({ "packets": c[0], "bytes": c[1], "dropped": c[2] });
    let addresses: Vec<Value> = of(i, addresses)
        .map(|a| json!({ "address": a.address, "prefix": a.prefix, "tentative": a.tentative }))
        .collect();
    json!({
        "name": i.name,
        "index": i.index,
        "flags": flags(i),
        "mtu": i.mtu,
        "mac": i.mac.as_deref().map(mac_text),
        "master": (i.master != 0).then(|| name_of(all, i.master)),
        "addresses": addresses,
        "in": counts(i.received),
        "out": counts(i.sent),
    })
}

/// What the words after an interface's name ask for, one after the other.
fn set(process: &Process<Client>, name: &str, words: &[String]) -> Result<()> {
    let mut words = words.iter().map(String::as_str).peekable();
    let mut name = name.to_owned();
    while let Some(word) = words.next() {
        let value = |words: &mut dyn Iterator<Item = &str>, what: &str| {
            words
                .next()
                .map(str::to_owned)
                .ok_or_else(|| anyhow!("{word}: say {what}"))
        };
        let mut change = InterfaceChange::default();
        match word {
            "create" => {
                let params = words
                    .next_if(|w| w.contains('=') || *w == "server")
                    .unwrap_or("");
                let index = process.create_interface(&name, params).map_err(|error| {
                    anyhow!("{name}: cannot be made: {error}; rump dmesg says why")
                })?;
                let all = process.interfaces()?;
                name = name_of(&all, index);
                println!("{name}");
                continue;
            }
            "destroy" => {
                process
                    .destroy_interface(&name)
                    .with_context(|| format!("{name}: cannot be taken away"))?;
                continue;
            }
            "up" => change.up = Some(true),
            "down" => change.up = Some(false),
            "mtu" => {
                let text = value(&mut words, "how many bytes")?;
                change.mtu = Some(
                    text.parse()
                        .map_err(|_| anyhow!("mtu {text}: want a number of bytes"))?,
                );
            }
            "mac" | "link" => change.mac = Some(mac(&value(&mut words, "which address")?)?),
            "name" => change.name = Some(value(&mut words, "which")?),
            "master" => {
                change.master = Some(interface(process, &value(&mut words, "which bridge")?)?.index)
            }
            "nomaster" => change.master = Some(0),
            // As in ifconfig(8), the family may be said, and is seen from the address.
            "inet" | "inet6" => continue,
            _ if word.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':') => {
                let (address, len) = prefix(word)?;
                let index = interface(process, &name)?.index;
                let result =
                    match words.next_if(|w| matches!(*w, "delete" | "-alias" | "alias" | "add")) {
                        Some("delete" | "-alias") => process.remove_address(index, address, len),
                        _ => process.add_address(index, address, len),
                    };
                result.map_err(|error| anyhow!("{name}: {word}: {error}"))?;
                continue;
            }
            _ => bail!(
                "{word}: want create, destroy, up, down, mtu N, mac ADDRESS, name NAME, master BRIDGE, nomaster or ADDRESS/PREFIX [delete]"
            ),
        }
        let index = interface(process, &name)?.index;
        process
            .change_interface(index, &change)
            .map_err(|error| anyhow!("{name}: {word}: {error}"))?;
        if let Some(new) = change.name {
            name = new;
        }
    }
    Ok(())
}

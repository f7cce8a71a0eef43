//! Starting a lab: every kernel in this process.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rumpkit::veth::{End, cable};
use rumpkit::{InterfaceChange, Kernel as Booted, NetKind, NetSpec, Process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use sysproxy::Server;

use super::file::{self, Lab, Link};
use super::state::Claim;
use crate::cli::{KernelOptions, Up};
use crate::failure::Outcome;
use crate::kernel::Parts;
use crate::net::explain_firewall;
use crate::network::{self, Networked};
use crate::{background, kernel, marked, serve};

/// The link's bridge, in the kernel that is its switch.
const BRIDGE: &str = "bridge0";

/// As much of a kernel's name goes into that of its port at a switch.
const OWNER_MAX: usize = 10;

/// `rump up`.
pub(crate) fn up(options: &Up) -> Outcome {
    let file = std::path::absolute(&options.file).context("the current directory")?;
    let lab = Lab::read(&file)?;
    if !options.foreground && !background::is_it() {
        let status = background::start()?;
        if status == 0 {
            let names: Vec<&str> = lab.kernels.iter().map(|k| k.name.as_str()).collect();
            println!("{}: {}", lab.name, names.join(", "));
        }
        return Ok(status);
    }
    let claim = Claim::take(&lab.name)?;
    let signals = Signals::new([SIGTERM, SIGINT]).context("signal handlers cannot be set")?;
    let mut running = Running::default();
    let started = running
        .start(&lab)
        .and_then(|()| running.serve(&lab, &claim));
    let servers = match started {
        Ok(servers) => servers,
        Err(error) => {
            running.halt();
            return Err(error.into());
        }
    };
    let servers = Arc::new(servers);
    halt_on(signals, servers.clone(), running.kernels.clone())?;
    background::ready(&format!("serving {}", lab.name))?;
    for (_, kernel) in &running.kernels {
        kernel.wait_halted();
    }
    drop(servers);
    running.halt();
    Ok(0)
}

/// When a signal says so: programs end, then the kernels.
fn halt_on(
    mut signals: Signals,
    servers: Arc<Vec<Server>>,
    kernels: Vec<(String, Arc<Booted>)>,
) -> Result<()> {
    let wait = move || {
        if signals.forever().next().is_some() {
            marked::end_clients(&servers);
            halt_all(&kernels);
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .context("no thread for signals")?;
    Ok(())
}

fn halt_all(kernels: &[(String, Arc<Booted>)]) {
    for (name, kernel) in kernels {
        if let Err(error) = kernel::halt(kernel) {
            eprintln!("rump: {name}: {error:#}");
        }
    }
}

/// What is there so far.
#[derive(Default)]
struct Running {
    /// By their names in the file.
    kernels: Vec<(String, Arc<Booted>)>,
    /// Those that are the switches of links.
    switches: Vec<(String, Arc<Booted>)>,
    helpers: Networked,
}

impl Running {
    fn halt(&self) {
        halt_all(&self.kernels);
        halt_all(&self.switches);
    }

    fn start(&mut self, lab: &Lab) -> Result<()> {
        for wanted in &lab.kernels {
            let kernel = boot()?;
            self.kernels.push((wanted.name.clone(), kernel.clone()));
            prepare(lab, wanted, &kernel)?;
        }
        let mut ends = self.lay_cables(lab)?;
        let names = names(lab);
        for (wanted, (_, kernel)) in lab.kernels.iter().zip(&self.kernels) {
            let mut servers: Vec<IpAddr> = Vec::new();
            for interface in &wanted.interfaces {
                let brings = match &interface.what.kind {
                    NetKind::Link(link) => {
                        let end = ends.get_mut(link).and_then(Vec::pop);
                        let end = end.context("a link has an end for each of its ports")?;
                        let spec = on_link(&interface.what, &lab.links[link]);
                        rumpkit::plug_in(kernel, &spec, end)
                            .map_err(|error| network::explain(&spec, &error, ""))
                    }
                    _ => self.helpers.attach(kernel, &interface.what),
                };
                servers.extend(brings.map_err(|error| {
                    lab.wrong(interface, format_args!("kernel {}: {error:#}", wanted.name))
                })?);
            }
            let process = Process::new(kernel)?;
            for route in &wanted.routes {
                let (to, via) = (route.what.to, route.what.via);
                process.add_route(Some(to), Some(via), 0).map_err(|error| {
                    lab.wrong(
                        route,
                        match error.raw_os_error() {
                            Some(101) => format!(
                                "{via} is on no link of {}; a route goes by a neighbour",
                                wanted.name
                            ),
                            _ => error.to_string(),
                        },
                    )
                })?;
            }
            process
                .configure_resolver(&servers, &names)
                .with_context(|| {
                    format!("{}: the resolver's files cannot be written", wanted.name)
                })?;
            process
                .mount_proc()
                .with_context(|| format!("{}: /proc cannot be mounted", wanted.name))?;
        }
        Ok(())
    }

    /// The ends of each link's cables, one for each of its ports. Two ports are joined by a cable; more, or one, by a switch.
    fn lay_cables(&mut self, lab: &Lab) -> Result<BTreeMap<String, Vec<End>>> {
        let mut ends = BTreeMap::new();
        for (name, link) in &lab.links {
            let outer = match (link.ports, &link.pcap) {
                (2, None) => {
                    let (a, b) = cable();
                    vec![a, b]
                }
                _ => {
                    let kernel = boot()?;
                    self.switches.push((format!("link {name}"), kernel.clone()));
                    switch(&kernel, lab, name, link).with_context(|| format!("link {name}"))?
                }
            };
            ends.insert(name.clone(), outer);
        }
        Ok(ends)
    }

    fn serve(&self, lab: &Lab, claim: &Claim) -> Result<Vec<Server>> {
        let serve = |(name, kernel): &(String, Arc<Booted>)| {
            serve::serve(kernel, &claim.url(name)).with_context(|| format!("{}: {name}", lab.name))
        };
        self.kernels.iter().map(serve).collect()
    }
}

fn boot() -> Result<Arc<Booted>> {
    let options = KernelOptions {
        ncpu: None,
        memlimit: None,
        verbose: false,
    };
    kernel::boot(&options, Parts::All)
}

/// What does not depend on others: names, variables, mounts.
fn prepare(lab: &Lab, wanted: &file::Kernel, kernel: &Arc<Booted>) -> Result<()> {
    let process = Process::new(kernel)?;
    // A kernel of a lab has a network, also one that is alone.
    process.make_interface(&NetSpec::of(NetKind::Loop), None)?;
    let set = |name: &str, value: &str| -> Result<()> {
        let all = process.variables("")?;
        let variable = all.iter().find(|v| v.name == name);
        let variable = variable
            .ok_or_else(|| anyhow!("{name}: no such variable; rump sysctl -s KERNEL shows all"))?;
        process
            .set_sysctl(variable, value)
            .map_err(|error| anyhow!("{name}: {value}: {error}"))
    };
    set("kern.hostname", &wanted.name)?;
    // That no address is there twice has been seen in the file; nobody needs to wait for that.
    set("net.ipv6.conf.all.dad_transmits", "0")?;
    let forwarding = if wanted.forwarding { "1" } else { "0" };
    set("net.ipv4.ip_forward", forwarding)?;
    set("net.ipv6.conf.all.forwarding", forwarding)?;
    for variable in &wanted.sysctls {
        let (name, value) = &variable.what;
        set(name, value).map_err(|error| lab.wrong(variable, error))?;
    }
    if let Some(rules) = &wanted.firewall {
        let name = &wanted.name;
        let loaded = process.load_firewall(rules).map_err(explain_firewall);
        loaded.with_context(|| format!("kernel {name}"))?;
    }
    for mount in &wanted.mounts {
        kernel::mount_one(kernel, &process, &mount.what)
            .map_err(|error| lab.wrong(mount, error))?;
    }
    Ok(())
}

/// Makes a kernel the switch of a link: a bridge of cables. What comes in by them is what is on the link, and captured if that is wanted.
fn switch(kernel: &Arc<Booted>, lab: &Lab, name: &str, link: &Link) -> Result<Vec<End>> {
    let process = Process::new(kernel)?;
    let up = InterfaceChange {
        up: Some(true),
        ..InterfaceChange::default()
    };
    let bridge = process.create_interface(BRIDGE, "")?;
    let mut outer = Vec::new();
    let mut ports = Vec::new();
    for (number, owner) in lab.owners(name).enumerate() {
        let (inner, end) = cable();
        // The capture shows these names.
        let owner: String = owner.chars().take(OWNER_MAX).collect();
        let spec = NetSpec {
            name: Some(format!("{owner}.{number}")),
            ..on_link(&NetSpec::of(NetKind::Link(name.into())), link)
        };
        ports.push(rumpkit::plug(kernel, &spec, inner)?);
        outer.push(end);
    }
    if let Some(file) = &link.pcap {
        rumpkit::capture_incoming(kernel, file, &ports)?;
    }
    for port in ports {
        let join = InterfaceChange {
            master: Some(bridge),
            ..up.clone()
        };
        process.change_interface(port, &join)?;
    }
    process.change_interface(bridge, &up)?;
    // They are taken from the end.
    outer.reverse();
    Ok(outer)
}

/// What a link says about its interfaces.
fn on_link(spec: &NetSpec, link: &Link) -> NetSpec {
    NetSpec {
        mtu: spec.mtu.or(link.mtu),
        ..spec.clone()
    }
}

/// Every address on a link of the lab with its kernel's name.
fn names(lab: &Lab) -> Vec<(IpAddr, String)> {
    let of = |kernel: &file::Kernel| {
        let interfaces = kernel.interfaces.iter().map(|i| &i.what);
        let on_links = interfaces.filter(|spec| matches!(spec.kind, NetKind::Link(_)));
        let addresses = on_links.flat_map(|spec| &spec.addresses);
        let named = addresses.map(|(ip, _)| (*ip, kernel.name.clone()));
        named.collect::<Vec<_>>()
    };
    lab.kernels.iter().flat_map(of).collect()
}

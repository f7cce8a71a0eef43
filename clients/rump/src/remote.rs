//! The words that look into a served kernel: clients like any other.

use std::io;
use std::path::Path;

use abi::sysproxy::Url as ServerUrl;
use abi::{Errno, Syscalls};
use anyhow::{Context, Result, anyhow};
use rumpclient::Client;
use rumpkit::{Process, Variable, kern};
use serde_json::{Map, Value};

use crate::cli::{Df, Dmesg, Halt, Mount, Sysctl, Umount};
use crate::failure::Outcome;
use crate::kernel::explain;
use crate::lab;
use crate::table::{Cell, Table};

/// A URL that means the same from every directory; the error says what one looks like.
pub(crate) fn absolute(url: &str) -> Result<String> {
    ServerUrl::parse(url.as_bytes()).map_err(|e| anyhow!("the URL \"{url}\" {e}"))?;
    match url.strip_prefix("unix://") {
        Some(path) if !path.starts_with(['/', '@']) => {
            let path = std::path::absolute(path).context("the current directory")?;
            Ok(format!("unix://{}", path.display()))
        }
        _ => Ok(url.to_owned()),
    }
}

/// The URL of a kernel that is named by it, or by its name in a lab that runs.
pub(crate) fn resolve(name: &str) -> Result<String> {
    match name.contains("://") {
        true => absolute(name),
        false => lab::url_of(name),
    }
}

/// A process of the kernel at a URL, or of a name.
pub(crate) fn connect(name: &str) -> Result<Process<Client>> {
    let url = resolve(name)?;
    let client = Client::connect(&url, "rump").map_err(|errno| {
        let why = match errno {
            Errno::ENOENT | Errno::ECONNREFUSED => {
                "nobody serves a kernel there; start one with: rump server".to_owned()
            }
            _ => format!(
                "{}: cannot be reached",
                io::Error::from_raw_os_error(errno.0)
            ),
        };
        anyhow!("{url}: {why} {url}")
    })?;
    Ok(Process::over(client))
}

/// `rump halt`.
pub(crate) fn halt(options: &Halt) -> Outcome {
    const MAGIC: i32 = 0xfee1_dead_u32.cast_signed();
    const MAGIC2: i32 = 672_274_793;
    const POWER_OFF: i32 = 0x4321_fedc;
    let process = connect(&options.url.url)?;
    match process.sys().reboot(MAGIC, MAGIC2, POWER_OFF, 0) {
        // It may be gone before it has answered.
        Ok(_) | Err(Errno::ENOTCONN | Errno::ECONNRESET | Errno::EPIPE) => Ok(0),
        Err(errno) => Err(anyhow!("{}: does not halt: {errno}", options.url.url).into()),
    }
}

/// `rump sysctl`.
pub(crate) fn sysctl(options: &Sysctl) -> Outcome {
    let process = connect(&options.server.url)?;
    let asked = match options.variables.is_empty() {
        true => vec![String::new()],
        false => options.variables.clone(),
    };
    let mut shown = Map::new();
    for text in &asked {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), None),
        };
        let variables = find(&process, name)?;
        if let Some(value) = value {
            set(&process, name, &variables, value)?;
        }
        for variable in variables {
            let value = process
                .sysctl(&variable)
                .with_context(|| format!("{}: cannot be read", variable.name))?;
            shown.insert(variable.name, to_json(value));
        }
    }
    if options.json {
        println!("{}", Value::Object(shown));
        return Ok(0);
    }
    for (name, value) in shown {
        match value {
            Value::String(text) if text.contains('\n') => println!("{name} =\n{}", text.trim_end()),
            Value::String(text) => println!("{name} = {text}"),
            other => println!("{name} = {other}"),
        }
    }
    Ok(0)
}

/// The variable of a name, or those below it.
fn find(process: &Process<Client>, name: &str) -> Result<Vec<Variable>> {
    let all = process
        .variables("")
        .context("the variables cannot be listed")?;
    let below = format!("{name}.");
    let found: Vec<Variable> = all
        .into_iter()
        .filter(|v| name.is_empty() || v.name == name || v.name.starts_with(&below))
        .collect();
    if found.is_empty() {
        return Err(anyhow!("{name}: no such variable; rump sysctl shows all"));
    }
    Ok(found)
}

fn set(process: &Process<Client>, name: &str, found: &[Variable], value: &str) -> Result<()> {
    let variable = match found {
        [one] if one.name == name => one,
        _ => {
            return Err(anyhow!(
                "{name}: is no single variable; name one of those below it"
            ));
        }
    };
    process
        .set_sysctl(variable, value)
        .map_err(|e| match e.raw_os_error().map(Errno) {
            Some(Errno::EPERM) => anyhow!("{name}: can only be read"),
            Some(Errno::EINVAL) => anyhow!("{name}: \"{value}\" is no value of it"),
            _ => anyhow!("{name}: {e}"),
        })
}

fn to_json(value: kern::sysctl::Value) -> Value {
    match value {
        kern::sysctl::Value::Int(n) => n.into(),
        kern::sysctl::Value::Text(text) => text.into(),
    }
}

/// `rump dmesg`.
pub(crate) fn dmesg(options: &Dmesg) -> Outcome {
    const READ_ALL: i32 = 3;
    let process = connect(&options.server.url)?;
    let mut buf = vec![0; 64 * 1024];
    let len = buf.len();
    let n = process
        .sys()
        .syslog(READ_ALL, &mut buf, len)
        .map_err(|errno| anyhow!("the message buffer cannot be read: {errno}"))?;
    print!("{}", String::from_utf8_lossy(&buf[..n as usize]));
    Ok(0)
}

/// `rump mount`.
pub(crate) fn mount(options: &Mount) -> Outcome {
    let process = connect(&options.server.url)?;
    let Some(spec) = &options.spec else {
        let mut table = Table::new(&["Type", "Source", "Mounted on", "Options"]);
        for mount in process.mounts()? {
            let options = if mount.read_only { "ro" } else { "rw" };
            table.row(vec![
                Cell::text(mount.fstype),
                Cell::text(mount.source),
                Cell::text(mount.dir),
                Cell::text(options),
            ]);
        }
        print!("{}", table.render(options.json));
        return Ok(0);
    };
    process
        .mount(spec)
        .map_err(|error| explain(spec, &error, ""))?;
    Ok(0)
}

/// `rump umount`.
pub(crate) fn umount(options: &Umount) -> Outcome {
    let process = connect(&options.server.url)?;
    unmount(&process, &options.dir)?;
    Ok(0)
}

fn unmount(process: &Process<Client>, dir: &Path) -> Result<()> {
    let name = dir.display();
    process
        .unmount(dir)
        .map_err(|error| match error.raw_os_error().map(Errno) {
            Some(Errno::EBUSY) => {
                anyhow!("{name}: in use; close its files and leave its directories first")
            }
            Some(Errno::EINVAL | Errno::ENOENT) => {
                anyhow!("{name}: nothing is mounted there; rump mount shows what is")
            }
            _ => anyhow!("{name}: cannot be unmounted: {error}"),
        })
}

/// `rump df`.
pub(crate) fn df(options: &Df) -> Outcome {
    let process = connect(&options.server.url)?;
    let mut table = Table::new(&["Type", "Size", "Used", "Available", "Use", "Mounted on"]);
    for mount in process.mounts()? {
        let used = mount.size.saturating_sub(mount.free);
        // As df(1): of what users can have, rounded up.
        let usable = used + mount.available;
        let percent = (used * 100).div_ceil(usable.max(1));
        table.row(vec![
            Cell::text(mount.fstype),
            Cell::Bytes(mount.size),
            Cell::Bytes(used),
            Cell::Bytes(mount.available),
            Cell::Percent(percent),
            Cell::text(mount.dir),
        ]);
    }
    print!("{}", table.render(options.json));
    Ok(0)
}

//! Rules as text, in one form for each.

use core::fmt::{Display, Formatter, Result};

use super::*;

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if self.states != DEFAULT_STATES {
            writeln!(f, "set states {}", self.states)?;
        }
        self.tables
            .iter()
            .try_for_each(|table| writeln!(f, "{table}"))?;
        self.rdr.iter().try_for_each(|rdr| writeln!(f, "{rdr}"))?;
        self.nat.iter().try_for_each(|nat| writeln!(f, "{nat}"))?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "table {} {{ ", self.name)?;
        separated(f, &self.nets, ", ")?;
        f.write_str(" }")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self.action {
            Action::Pass { .. } => "pass",
            Action::Block => "block",
            Action::Reject { .. } => "reject",
        })?;
        if let Some(direction) = self.direction {
            write!(f, " {direction}")?;
        }
        if self.log {
            f.write_str(" log")?;
        }
        word(f, " on", self.on.as_ref())?;
        word(f, " via", self.via.as_ref())?;
        write!(f, "{}", self.matches)?;
        match self.action {
            Action::Pass { stateless: true } => f.write_str(" stateless"),
            Action::Reject { prohibited: true } => f.write_str(" with prohibited"),
            _ => Ok(()),
        }
    }
}

impl Display for Nat {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("nat")?;
        word(f, " on", self.on.as_ref())?;
        write!(f, "{} -> ", self.matches)?;
        match &self.to {
            Source::Address(addr) => write!(f, "{addr}"),
            Source::Interface(name) => write!(f, "({name})"),
        }
    }
}

impl Display for Rdr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("rdr")?;
        word(f, " on", self.on.as_ref())?;
        write!(f, "{} -> {}", self.matches, self.to)?;
        word(f, " port", self.port.as_ref())
    }
}

impl Display for Direction {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Forward => "forward",
        })
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let family = self.family.map(|family| match family {
            Family::Inet => " inet",
            Family::Inet6 => " inet6",
        });
        f.write_str(family.unwrap_or_default())?;
        if !self.protocols.is_empty() {
            f.write_str(" proto ")?;
            list(f, self.protocols.iter().map(|p| protocol(*p)))?;
        }
        end(f, " from", &self.from)?;
        end(f, " to", &self.to)?;
        if !self.icmp_types.is_empty() {
            f.write_str(" icmp-type ")?;
            list(f, &self.icmp_types)?;
        }
        Ok(())
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Host::Net(net) => write!(f, "{net}"),
            Host::Interface(name) => write!(f, "({name})"),
            Host::Table(name) => write!(f, "<{name}>"),
        }
    }
}

impl Display for Net {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match (self.addr, self.len) {
            (IpAddr::V4(addr), 32) => write!(f, "{addr}"),
            (IpAddr::V6(addr), 128) => write!(f, "{addr}"),
            (addr, len) => write!(f, "{addr}/{len}"),
        }
    }
}

/// A protocol's name or number.
pub(crate) fn protocol(number: u8) -> String {
    match number {
        ICMP => "icmp".into(),
        TCP => "tcp".into(),
        UDP => "udp".into(),
        ICMP6 => "icmp6".into(),
        other => other.to_string(),
    }
}

fn word(f: &mut Formatter<'_>, key: &str, value: Option<&impl Display>) -> Result {
    value.map_or(Ok(()), |value| write!(f, "{key} {value}"))
}

fn end(f: &mut Formatter<'_>, key: &str, end: &End) -> Result {
    let (hosts, ports) = (&end.hosts, &end.ports);
    if hosts.list.is_empty() && ports.ranges.is_empty() {
        return Ok(());
    }
    f.write_str(key)?;
    if !hosts.list.is_empty() {
        f.write_str(if hosts.negated { " ! " } else { " " })?;
        list(f, &hosts.list)?;
    }
    if !ports.ranges.is_empty() {
        f.write_str(if ports.negated { " port ! " } else { " port " })?;
        list(
            f,
            ports
                .ranges
                .iter()
                .map(|&(first, last)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                }),
        )?;
    }
    Ok(())
}

/// One as it is, several in braces.
fn list<T: Display>(f: &mut Formatter<'_>, items: impl IntoIterator<Item = T>) -> Result {
    let items: Vec<T> = items.into_iter().collect();
    match &items[..] {
        [one] => write!(f, "{one}"),
        items => {
            f.write_str("{ ")?;
            separated(f, items, ", ")?;
            f.write_str(" }")
        }
    }
}

fn separated<T: Display>(f: &mut Formatter<'_>, items: &[T], by: &str) -> Result {
    items.iter().enumerate().try_for_each(|(n, item)| match n {
        0 => write!(f, "{item}"),
        _ => write!(f, "{by}{item}"),
    })
}

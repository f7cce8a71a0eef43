//! Interfaces that are made on demand by name, as ifconfig(8)'s create has it: `veth0`, `tap0`, `bridge0`.

use std::fmt;
use std::sync::Arc;

use abi::Errno;
use hypercall::Host;
use kern::{Component, Curlwp, Stage};

use crate::{EtherAddr, Ifnet, Interfaces};

/// Makes interfaces of a kind.
pub trait Cloner: Send + Sync {
    /// Makes one, which is down. The name may end in `%d`, see [`Config`](crate::Config).
    fn create(
        &self,
        cx: &Curlwp<'_>,
        interfaces: &Arc<Interfaces>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError>;

    /// The parameters it knows, with what they mean, for help and messages: `dev=NAME the host's tap device`.
    fn params(&self) -> &'static [(&'static str, &'static str)];

    /// The parameter that says what an interface is on, which rump calls its link string; `None` where there is nothing to say.
    fn link(&self) -> Option<&'static str> {
        None
    }
}

/// The component of a kind of interfaces.
pub const fn interface_component(
    name: &'static str,
    init: fn(&Curlwp<'_>) -> Result<(), Errno>,
) -> Component {
    Component {
        name,
        stage: Stage::NetIf,
        requires: &["net"],
        init,
    }
}

/// Why there is no interface: what a program is answered, and what a person can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfError {
    /// The error number.
    pub errno: Errno,
    /// What, why, and the way out.
    pub text: String,
}

impl IfError {
    /// An error with its text.
    pub fn new(errno: Errno, text: impl Into<String>) -> IfError {
        IfError {
            errno,
            text: text.into(),
        }
    }
}

impl fmt::Display for IfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for IfError {}

impl From<Errno> for IfError {
    fn from(errno: Errno) -> IfError {
        IfError::new(errno, format!("{errno}"))
    }
}

/// Parameters of an interface: `key=value` with commas in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads `dev=tap0,mtu=9000`. A word without `=` is a key without a value. `EINVAL` for a key that comes twice or has no name.
    pub fn parse(text: &str) -> Result<Params, IfError> {
        let mut params = Params::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let twice = params.get(key).is_some();
            if key.is_empty() || twice {
                let why = if twice { "comes twice" } else { "has no name" };
                return Err(IfError::new(
                    Errno::EINVAL,
                    format!("{text}: a parameter {key} {why}"),
                ));
            }
            params.set(key, value);
        }
        Ok(params)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: &str) {
        self.0.push((key.into(), value.into()));
    }

    /// The value of a key that there must be.
    pub fn required(&self, kind: &str, key: &str) -> Result<&str, IfError> {
        self.get(key)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| IfError::new(Errno::EINVAL, format!("{kind}: say {key}=...")))
    }

    /// A value as a number between bounds.
    pub fn number(
        &self,
        key: &str,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Result<Option<u32>, IfError> {
        let Some(text) = self.get(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(IfError::new(
                Errno::EINVAL,
                format!(
                    "{key}={text}: not a number from {} to {}",
                    bounds.start(),
                    bounds.end()
                ),
            )),
        }
    }

    /// The Ethernet address under `mac`, or a random one.
    pub fn address(&self, host: &dyn Host) -> Result<EtherAddr, IfError> {
        let Some(text) = self.get("mac") else {
            return Ok(random_address(host));
        };
        parse_address(text)
            .filter(|address| address[0] & 1 == 0)
            .ok_or_else(|| {
                let text = format!("mac={text}: not an Ethernet address as 02:00:5e:10:00:01");
                IfError::new(Errno::EINVAL, text)
            })
    }

    /// `EINVAL` for a key that is none of these.
    pub(crate) fn check(
        &self,
        kind: &str,
        known: &[(&'static str, &'static str)],
    ) -> Result<(), IfError> {
        let name = |word: &'static str| word.split('=').next().unwrap_or(word);
        for (key, _) in &self.0 {
            if !known.iter().any(|(word, _)| name(word) == key) {
                let words: Vec<_> = known.iter().map(|(word, _)| *word).collect();
                return Err(IfError::new(
                    Errno::EINVAL,
                    format!(
                        "{kind}: no parameter {key}; there are: {}",
                        words.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Reads `02:00:5e:10:00:01`.
pub fn parse_address(text: &str) -> Option<EtherAddr> {
    let mut address = EtherAddr::default();
    let mut parts = text.split(':');
    for byte in &mut address {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(address)
}

/// An address that nobody else has, in the range for those who choose their own (IEEE 802, locally administered).
pub fn random_address(host: &dyn Host) -> EtherAddr {
    let mut address = EtherAddr::default();
    host.random(&mut address);
    address[0] = (address[0] & !1) | 2;
    address
}

impl Interfaces {
    /// Makes interfaces of a kind available. `EEXIST` when there is such a kind already.
    pub fn add_cloner(
        &self,
        cx: &Curlwp<'_>,
        kind: &'static str,
        cloner: Arc<dyn Cloner>,
    ) -> Result<(), Errno> {
        let mut cloners = self.cloners.lock(cx.cpu());
        if cloners.iter().any(|(k, _)| *k == kind) {
            return Err(Errno::EEXIST);
        }
        cloners.push((kind, cloner));
        Ok(())
    }

    /// The kinds of interfaces that can be made, with the parameters of each.
    pub fn kinds(
        &self,
        cx: &Curlwp<'_>,
    ) -> Vec<(&'static str, &'static [(&'static str, &'static str)])> {
        let cloners = self.cloners.lock(cx.cpu());
        cloners.iter().map(|(k, c)| (*k, c.params())).collect()
    }

    /// Makes an interface of a kind, by a name or, without one, by the kind's with the first number that is free.
    pub fn create(
        self: &Arc<Self>,
        cx: &Curlwp<'_>,
        kind: &str,
        name: Option<&str>,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let Some(cloner) = self.cloner(cx, kind) else {
            let kinds: Vec<_> = self.kinds(cx).into_iter().map(|(k, _)| k).collect();
            return Err(IfError::new(
                Errno::EOPNOTSUPP,
                format!(
                    "{kind}: no such kind of interface; there are: {}",
                    kinds.join(", ")
                ),
            ));
        };
        params.check(kind, cloner.params())?;
        let numbered = format!("{kind}%d");
        cloner.create(cx, self, name.unwrap_or(&numbered), params)
    }

    fn cloner(&self, cx: &Curlwp<'_>, kind: &str) -> Option<Arc<dyn Cloner>> {
        let cloners = self.cloners.lock(cx.cpu());
        let found = cloners.iter().find(|(k, _)| *k == kind);
        found.map(|(_, cloner)| cloner.clone())
    }

    /// The parameter that says what the interface of a name is on ([`Cloner::link`]); `None` for kinds without.
    pub fn link_of(&self, cx: &Curlwp<'_>, name: &str) -> Option<&'static str> {
        self.cloner(cx, kind_of(name))?.link()
    }

    /// Makes the interface of a name whose kind is what stands before the number: `veth3`; `veth` takes the first free number.
    pub fn create_named(
        self: &Arc<Self>,
        cx: &Curlwp<'_>,
        name: &str,
        params: &Params,
    ) -> Result<Arc<Ifnet>, IfError> {
        let kind = kind_of(name);
        let name = (kind.len() != name.len()).then_some(name);
        self.create(cx, kind, name, params)
    }
}

/// What stands before the number.
fn kind_of(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_what_is_wrong_with_them_is_said() {
        let params = Params::parse("dev=tap0,server,mtu=9000").expect("good");
        assert_eq!(params.get("dev"), Some("tap0"));
        assert_eq!(params.get("server"), Some(""));
        assert_eq!(params.number("mtu", 68..=65_520), Ok(Some(9000)));
        assert!(params.number("mtu", 68..=1500).is_err());
        assert!(params.required("tap", "host").is_err());
        let known: &[_] = &[("dev=NAME", ""), ("server", ""), ("mtu=N", "")];
        assert_eq!(params.check("tap", known), Ok(()));
        let error = params.check("tap", &known[..1]).expect_err("unknown");
        assert_eq!(error.text, "tap: no parameter server; there are: dev=NAME");
        for bad in ["a=1,a=2", "=1"] {
            assert!(Params::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_read_and_made() {
        assert_eq!(
            parse_address("02:00:5e:10:0:1"),
            Some([2, 0, 0x5e, 0x10, 0, 1])
        );
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "2:0:5e:10:0:g",
            "002:0:5e:10:0:1",
        ] {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
        let host = hypercall::PosixHost::new();
        assert_eq!(random_address(&*host)[0] & 3, 2);
    }
}

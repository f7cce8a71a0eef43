//! The packet filter of a kernel, near or far, by its devices (see [`npf`]).

use std::io::{self, Read, Write};

use abi::{Errno, Invoke};

use crate::Process;

const RULES: &str = "/dev/npf";
const STATES: &str = "/dev/npfstates";

/// A line of a packet filter's rules, with what it has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallRule {
    /// The line; one that begins with `#` is no rule.
    pub text: String,
    /// Packets that it fitted, and those of the connections that it let in.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A connection that a packet filter knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallState {
    /// `tcp`, `udp`, `icmp`, `icmp6` or a number.
    pub protocol: String,
    /// Source and destination of its first packet, as it came.
    pub ends: [String; 2],
    /// The same as it went on, which is something else where it is translated.
    pub translated: [String; 2],
    /// `opening`, `answered`, `established`, `closing` or `closed`.
    pub state: String,
    /// Seconds until it is forgotten if nothing comes.
    pub expires: u64,
    /// Packets and bytes its way.
    pub sent: [u64; 2],
    /// Packets and bytes of the answers.
    pub received: [u64; 2],
}

impl<S: Invoke> Process<S> {
    /// Replaces a kernel's rules by those of a text, all or none of them. The error says where the text is wrong, as `LINE:COLUMN: ...`;
    /// `EPERM` and `EACCES` for who is not the superuser, `ENOENT` where there is no packet filter.
    pub fn load_firewall(&self, rules: &str) -> io::Result<()> {
        self.tell(RULES, rules)
    }

    /// A kernel's rules in the language of rules, with what they have counted as comments; empty where there are none.
    pub fn firewall_text(&self) -> io::Result<String> {
        let text = self.read(RULES)?;
        String::from_utf8(text).map_err(|_| malformed("no text"))
    }

    /// A kernel's rules with what they have counted, in order.
    pub fn firewall(&self) -> io::Result<Vec<FirewallRule>> {
        let text = self.firewall_text()?;
        let rule = |line: &str| {
            let (text, figures) = line.rsplit_once(" # ")?;
            let mut words = figures.split(' ');
            Some(FirewallRule {
                text: text.into(),
                packets: words.next()?.parse().ok()?,
                bytes: words.nth(1)?.parse().ok()?,
            })
        };
        Ok(text.lines().filter_map(rule).collect())
    }

    /// The connections that a kernel's packet filter knows.
    pub fn firewall_states(&self) -> io::Result<Vec<FirewallState>> {
        let text = self.read(STATES)?;
        let text = String::from_utf8(text).map_err(|_| malformed("no text"))?;
        let states = text
            .lines()
            .map(|line| state(line).ok_or_else(|| malformed(line)));
        states.collect()
    }

    /// Has a kernel's packet filter forget the connections that clauses of the language of rules mean, as `proto tcp to port 80`; without
    /// any, all. They are compared with first packets as the rules saw them. The error says what is wrong with the clauses.
    pub fn flush_firewall(&self, clauses: &str) -> io::Result<()> {
        self.tell(STATES, &format!("flush {clauses}"))
    }

    /// Writes a text to a device, which is asked what is wrong with it.
    fn tell(&self, device: &str, text: &str) -> io::Result<()> {
        let mut device = self.open_with(device, abi::O_RDWR, 0)?;
        match device.write(text.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL.0) => {
                let mut why = String::new();
                device.read_to_string(&mut why)?;
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
            Err(error) => Err(error),
        }
    }
}

fn state(line: &str) -> Option<FirewallState> {
    let mut words = line.split(' ');
    let mut word = || words.next().map(str::to_owned);
    let protocol = word()?;
    let ends = [word()?, word()?];
    let translated = [word()?, word()?];
    let state = word()?;
    let mut number = || word()?.parse().ok();
    Some(FirewallState {
        protocol,
        ends,
        translated,
        state,
        expires: number()?,
        sent: [number()?, number()?],
        received: [number()?, number()?],
    })
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the packet filter answers {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_loaded_shown_and_refused() {
        let kernel = crate::builder().boot().expect("boots");
        let process = Process::new(&kernel).expect("a process");
        assert_eq!(process.firewall().expect("rules"), []);
        process
            .load_firewall("pass out\nblock in\n")
            .expect("loaded");
        let rules = process.firewall().expect("rules");
        let texts: Vec<&str> = rules.iter().map(|rule| rule.text.as_str()).collect();
        assert_eq!(texts, ["pass out", "block in", "# passed by no rule"]);
        let refused = process
            .load_firewall("pass out\nblock on\n")
            .expect_err("a word is missing");
        assert!(
            refused.to_string().starts_with("2:9: the line ends"),
            "{refused}"
        );
        assert_eq!(process.firewall().expect("rules").len(), 3);
        assert_eq!(process.firewall_states().expect("states"), []);
        process.flush_firewall("").expect("flushed");
        process.flush_firewall("inet proto udp").expect("flushed");
        let refused = process.flush_firewall("on eth0").expect_err("no clause");
        assert!(
            refused.to_string().starts_with("1:7: \"on\": unknown word"),
            "{refused}"
        );
        process.load_firewall("").expect("loaded");
        assert_eq!(process.firewall_text().expect("text"), "");
    }

    #[test]
    fn a_states_line_has_all_of_it() {
        let line = "tcp 10.0.0.2:5 10.9.0.1:80 10.9.0.7:5 10.9.0.1:80 established 86400 1 60 2 120";
        let state = state(line).expect("a state");
        assert_eq!(
            (state.state.as_str(), state.expires),
            ("established", 86_400)
        );
        assert_eq!(
            (state.translated[0].as_str(), state.received),
            ("10.9.0.7:5", [2, 120])
        );
        assert_eq!(super::state("tcp 10.0.0.2:5"), None);
    }
}

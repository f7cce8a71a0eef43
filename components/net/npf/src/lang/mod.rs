//! The language of rules: what can be said ([`Ruleset`]), reading it (`parse`), and writing it (`print`).
//!
//! One rule a line; `#` begins a comment; a list in braces may go over several lines. Packets are compared with the rules from the
//! first to the last, and the first one that fits decides. What none fits passes, with a state.
//!
//! ```text
//! line        = rule | nat | rdr | table | set
//! rule        = ( "pass" | "block" | "drop" | "reject" ) { clause }
//! clause      = "in" | "out" | "forward"        for this kernel, from it, through it; without one of them all three
//!             | "log"                           a line in the kernel's messages, at most ten a second
//!             | "on" INTERFACE                  by which it comes in (in, forward) or leaves (out)
//!             | "via" INTERFACE                 by which it leaves (forward)
//!             | match
//!             | "stateless"                     (pass) no state: answers need a rule of their own
//!             | "with" "prohibited"             (reject) with ICMP's "prohibited" in place of the usual answer
//!             | "all"                           nothing more; for who reads it
//! match       = "inet" | "inet6"
//!             | "proto" ( PROTO | "{" PROTO { "," PROTO } "}" )
//!             | "from" end | "to" end
//!             | "icmp-type" ( TYPE | "{" TYPE { "," TYPE } "}" )
//! end         = hosts [ "port" ports ] | "port" ports
//! hosts       = "any" | [ "!" ] ( host | "{" host { "," host } "}" )
//! host        = ADDRESS | ADDRESS "/" LENGTH | "(" INTERFACE ")" | "<" TABLE ">"
//! ports       = [ "!" ] ( range | "{" range { "," range } "}" )
//! range       = NUMBER | NUMBER "-" NUMBER
//! nat         = "nat" { "on" INTERFACE | match } "->" ( ADDRESS | "(" INTERFACE ")" )
//! rdr         = "rdr" { "on" INTERFACE | match } "->" ADDRESS [ "port" NUMBER ]
//! table       = "table" NAME "{" ( ADDRESS | ADDRESS "/" LENGTH ) { "," ... } "}"
//! set         = "set" "states" NUMBER           the most connections that are known at once
//! ```
//!
//! PROTO is `tcp`, `udp`, `icmp`, `icmp6` or a number; TYPE a number or one of the names that [`TYPES`] has. `(INTERFACE)` stands for the
//! addresses that the interface has when a packet comes.
//!
//! Clauses come in any order, each once. `nat` gives connections that leave by an interface another source; `rdr` gives those that come in
//! another destination, before the rules are asked, which therefore name the new one.

mod parse;
mod print;
mod scan;

#[cfg(test)]
mod tests;

use core::fmt;
use core::net::IpAddr;

pub(crate) use parse::flush;
pub(crate) use print::protocol;

/// Internet protocol numbers.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP6: u8 = 58;

/// How many connections are known at once where nothing else is said.
pub const DEFAULT_STATES: usize = 65_536;
/// The most that may be asked for.
pub const MOST_STATES: usize = 1 << 20;
/// The longest text, in bytes.
pub const MOST_TEXT: usize = 1 << 20;

/// Names of ICMP's types: those of ICMP (RFC 792, RFC 1256) and of ICMPv6 (RFC 4443, RFC 4861).
pub const TYPES: &[(&str, Option<u8>, Option<u8>)] = &[
    ("echo-reply", Some(0), Some(129)),
    ("unreachable", Some(3), Some(1)),
    ("too-big", None, Some(2)),
    ("redirect", Some(5), Some(137)),
    ("echo-request", Some(8), Some(128)),
    ("router-advertisement", Some(9), Some(134)),
    ("router-solicitation", Some(10), Some(133)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("neighbour-solicitation", None, Some(135)),
    ("neighbour-advertisement", None, Some(136)),
];

/// A whole text of rules. Its [`Display`](fmt::Display) is a text that reads as the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The most connections that are known at once.
    pub states: usize,
    /// Named lists of addresses.
    pub tables: Vec<Table>,
    /// Translations of sources, in order.
    pub nat: Vec<Nat>,
    /// Translations of destinations, in order.
    pub rdr: Vec<Rdr>,
    /// What decides, in order.
    pub rules: Vec<Rule>,
}

impl Default for Ruleset {
    fn default() -> Ruleset {
        Ruleset {
            states: DEFAULT_STATES,
            tables: Vec::new(),
            nat: Vec::new(),
            rdr: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Ruleset {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.nat.is_empty() && self.rdr.is_empty()
    }
}

/// A named list of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What rules call it.
    pub name: String,
    /// What is in it.
    pub nets: Vec<Net>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What becomes of packets that it fits.
    pub action: Action,
    /// Which packets' way; `None` for all.
    pub direction: Option<Direction>,
    /// Whether they are told of.
    pub log: bool,
    /// The interface that they come in by, or leave by where they come from this kernel.
    pub on: Option<String>,
    /// The interface that forwarded packets leave by.
    pub via: Option<String>,
    /// Which packets.
    pub matches: Match,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Pass {
        /// Its connection is not remembered.
        stateless: bool,
    },
    /// It is gone.
    Block,
    /// It is gone, and who sent it is told.
    Reject {
        /// That somebody forbids it, not that nobody is there.
        prohibited: bool,
    },
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this kernel.
    In,
    /// From this kernel.
    Out,
    /// Through it.
    Forward,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

/// Which packets are meant, by their headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Of this version; `None` for both.
    pub family: Option<Family>,
    /// Of these protocols; empty for all.
    pub protocols: Vec<u8>,
    /// Who sent it.
    pub from: End,
    /// Whom it is for.
    pub to: End,
    /// Of these types of ICMP; empty for all.
    pub icmp_types: Vec<u8>,
}

/// An end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Its addresses.
    pub hosts: Hosts,
    /// Its ports.
    pub ports: Ports,
}

/// Addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// All but these.
    pub negated: bool,
    /// These; empty for all.
    pub list: Vec<Host>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address, or those of a network.
    Net(Net),
    /// Those that an interface has at the time.
    Interface(String),
    /// Those of a table.
    Table(String),
}

/// A network: an address whose bits behind the prefix are 0, and the prefix's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// The address.
    pub addr: IpAddr,
    /// How many bits count.
    pub len: u8,
}

/// Ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// All but these.
    pub negated: bool,
    /// First and last of each range; empty for all.
    pub ranges: Vec<(u16, u16)>,
}

/// A translation of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// The interface that packets leave by.
    pub on: Option<String>,
    /// Which packets.
    pub matches: Match,
    /// The source that they get.
    pub to: Source,
}

/// What a source becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This address.
    Address(IpAddr),
    /// The one that an interface has at the time (masquerading).
    Interface(String),
}

/// A translation of destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdr {
    /// The interface that packets come in by.
    pub on: Option<String>,
    /// Which packets.
    pub matches: Match,
    /// The destination that they get.
    pub to: IpAddr,
    /// And its port; `None` where it stays.
    pub port: Option<u16>,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where: the line, from 1.
    pub line: usize,
    /// And the column in it, in characters from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for SyntaxError {}

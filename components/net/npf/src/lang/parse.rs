//! Lines to rules.

use core::net::IpAddr;
use core::str::FromStr;

use super::scan::{Token, lines};
use super::*;

/// The longest name of an interface.
const INTERFACE_MAX: usize = 15;

impl FromStr for Ruleset {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Ruleset, SyntaxError> {
        let mut rules = Ruleset::default();
        for line in lines(text)? {
            let mut words = Words {
                tokens: &line,
                at: 0,
            };
            statement(&mut words, &mut rules)?;
            words.end()?;
        }
        Ok(rules)
    }
}

/// Reads which connections are meant by `flush` and clauses; by `flush` alone, all. `tables` are those that can be named.
pub(crate) fn flush(text: &str, tables: &[Table]) -> Result<Match, SyntaxError> {
    let lines = lines(text)?;
    let mut words = Words {
        tokens: lines.first().map_or(&[], Vec::as_slice),
        at: 0,
    };
    words.expect(
        "flush",
        "flush, or flush CLAUSES as flush proto tcp to port 80",
    )?;
    let clauses = Clauses::read(&mut words, tables, Kind::Flush)?;
    words.end()?;
    match lines.get(1).and_then(|line| line.first()) {
        Some(more) => Err(more.error("one flush at a time; leave the other lines out")),
        None => Ok(clauses.matches),
    }
}

fn statement(words: &mut Words<'_>, rules: &mut Ruleset) -> Result<(), SyntaxError> {
    let first = words.next("a rule")?;
    let action = match first.text {
        "table" => return table(words, rules),
        "set" => return set(words, rules),
        "nat" => {
            let clauses = Clauses::read(words, &rules.tables, Kind::Nat)?;
            words.expect("->", "what sources become: -> ADDRESS or -> (INTERFACE)")?;
            let to = source(words)?;
            rules.nat.push(Nat {
                on: clauses.on,
                matches: clauses.matches,
                to,
            });
            return Ok(());
        }
        "rdr" => return rdr(words, rules),
        "pass" => Action::Pass { stateless: false },
        "block" | "drop" => Action::Block,
        "reject" => Action::Reject { prohibited: false },
        other => {
            return Err(first.error(format!(
                "\"{other}\": a line begins with pass, block, reject, nat, rdr, table or set"
            )));
        }
    };
    let clauses = Clauses::read(words, &rules.tables, Kind::Rule(action))?;
    rules.rules.push(Rule {
        action: clauses.action(action),
        direction: clauses.direction,
        log: clauses.log,
        on: clauses.on,
        via: clauses.via,
        matches: clauses.matches,
    });
    Ok(())
}

fn table(words: &mut Words<'_>, rules: &mut Ruleset) -> Result<(), SyntaxError> {
    let name = words.next("the table's name")?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.text.chars().all(good) {
        return Err(name.error(format!(
            "\"{}\" is no name of a table; it has letters, digits, _ and -",
            name.text
        )));
    }
    if rules.tables.iter().any(|t| t.name == name.text) {
        return Err(name.error(format!(
            "there is a table {} already; put all of its addresses into one",
            name.text
        )));
    }
    let brace = words.next("the table's addresses in braces")?;
    if brace.text != "{" {
        return Err(brace.error("want the table's addresses in braces: { 10.0.0.0/8, fd00::1 }"));
    }
    words.at -= 1;
    let nets = words.list(|words| {
        let word = words.next("an address")?;
        net(&word)
    })?;
    rules.tables.push(Table {
        name: name.text.into(),
        nets,
    });
    Ok(())
}

fn set(words: &mut Words<'_>, rules: &mut Ruleset) -> Result<(), SyntaxError> {
    words.expect("states", "what is set: states NUMBER")?;
    let word = words.next("how many states there may be")?;
    let number = word.text.parse().ok();
    let number = number.filter(|n| (1..=MOST_STATES).contains(n));
    rules.states = number.ok_or_else(|| {
        word.error(format!(
            "\"{}\": want a number of states from 1 to {MOST_STATES}",
            word.text
        ))
    })?;
    Ok(())
}

fn source(words: &mut Words<'_>) -> Result<Source, SyntaxError> {
    if words.take("(").is_some() {
        let name = interface(&words.next("an interface")?)?;
        words.expect(")", "\")\" behind the interface")?;
        return Ok(Source::Interface(name));
    }
    let word = words.next("an address, or an interface in parentheses")?;
    match word.text.parse() {
        Ok(addr) => Ok(Source::Address(addr)),
        Err(_) => Err(word.error(format!(
            "\"{0}\" is no address; want one, as 192.0.2.1, or an interface in parentheses, as (eth0)",
            word.text
        ))),
    }
}

fn rdr(words: &mut Words<'_>, rules: &mut Ruleset) -> Result<(), SyntaxError> {
    let clauses = Clauses::read(words, &rules.tables, Kind::Rdr)?;
    words.expect(
        "->",
        "the new destination: -> ADDRESS or -> ADDRESS port NUMBER",
    )?;
    let word = words.next("an address")?;
    let to: IpAddr = word.text.parse().map_err(|_| {
        word.error(format!(
            "\"{}\" is no address; want one, as 10.0.0.2",
            word.text
        ))
    })?;
    let port = match words.take("port") {
        None => None,
        Some(key) => {
            clauses.needs_ports(&key)?;
            let word = words.next("a port")?;
            Some(port(&word)?)
        }
    };
    rules.rdr.push(Rdr {
        on: clauses.on,
        matches: clauses.matches,
        to,
        port,
    });
    Ok(())
}

/// What clauses are read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rule(Action),
    Nat,
    Rdr,
    /// Of connections that are there.
    Flush,
}

/// The clauses of a line.
#[derive(Default)]
struct Clauses {
    direction: Option<Direction>,
    log: bool,
    on: Option<String>,
    via: Option<String>,
    matches: Match,
    stateless: bool,
    prohibited: bool,
}

impl Clauses {
    fn action(&self, action: Action) -> Action {
        match action {
            Action::Pass { .. } => Action::Pass {
                stateless: self.stateless,
            },
            Action::Reject { .. } => Action::Reject {
                prohibited: self.prohibited,
            },
            Action::Block => Action::Block,
        }
    }

    /// Reads up to the end of the line or an arrow.
    fn read(words: &mut Words<'_>, tables: &[Table], kind: Kind) -> Result<Clauses, SyntaxError> {
        let mut clauses = Clauses::default();
        let mut seen: Vec<Token<'_>> = Vec::new();
        while let Some(word) = words.peek().filter(|word| word.text != "->") {
            words.at += 1;
            if let Some(before) = seen.iter().find(|s| sort(s.text) == sort(word.text)) {
                return Err(word.error(match before.text == word.text {
                    true => format!("\"{}\" twice; say it once", word.text),
                    false => format!(
                        "\"{}\" beside \"{}\"; say one of them",
                        word.text, before.text
                    ),
                }));
            }
            seen.push(word);
            clauses.clause(&word, words, tables, kind)?;
        }
        clauses.check(&seen, kind)?;
        Ok(clauses)
    }

    fn clause(
        &mut self,
        word: &Token<'_>,
        words: &mut Words<'_>,
        tables: &[Table],
        kind: Kind,
    ) -> Result<(), SyntaxError> {
        let rule = matches!(kind, Kind::Rule(_));
        match word.text {
            "in" if rule => self.direction = Some(Direction::In),
            "out" if rule => self.direction = Some(Direction::Out),
            "forward" if rule => self.direction = Some(Direction::Forward),
            "log" if rule => self.log = true,
            "on" if kind != Kind::Flush => self.on = Some(interface(&words.next("an interface")?)?),
            "via" if rule => self.via = Some(interface(&words.next("an interface")?)?),
            "all" => {}
            "stateless" if matches!(kind, Kind::Rule(Action::Pass { .. })) => self.stateless = true,
            "with" if matches!(kind, Kind::Rule(Action::Reject { .. })) => {
                words.expect("prohibited", "prohibited")?;
                self.prohibited = true;
            }
            "inet" => self.matches.family = Some(Family::Inet),
            "inet6" => self.matches.family = Some(Family::Inet6),
            "proto" => {
                self.matches.protocols = words.list(|words| {
                    let word = words.next("a protocol")?;
                    protocol(&word)
                })?;
            }
            "from" => self.matches.from = end(words, tables)?,
            "to" => self.matches.to = end(words, tables)?,
            // Which numbers names stand for is known when the protocol is.
            "icmp-type" => {
                let from = words.at;
                words.list(|words| words.next("a type of ICMP").map(drop))?;
                let later = Words {
                    tokens: &words.tokens[..words.at],
                    at: from,
                };
                self.matches.icmp_types = types(later, words)?;
            }
            other => return Err(word.error(unknown(other, kind))),
        }
        Ok(())
    }

    /// What does not go together.
    fn check(&self, seen: &[Token<'_>], kind: Kind) -> Result<(), SyntaxError> {
        let at = |text: &str| seen.iter().find(|word| word.text == text);
        if let Some(via) = at("via")
            && self.direction != Some(Direction::Forward)
        {
            return Err(via.error(
                "via says by which interface a forwarded packet leaves; write forward, or on instead of via",
            ));
        }
        for (key, end) in [("from", &self.matches.from), ("to", &self.matches.to)] {
            if let Some(key) = at(key)
                && !end.ports.ranges.is_empty()
            {
                self.needs_ports(key)?;
            }
        }
        if let (Kind::Nat | Kind::Rdr | Kind::Flush, Some(types)) = (kind, at("icmp-type")) {
            return Err(
                types.error("connections are meant here, not messages; leave icmp-type out")
            );
        }
        Ok(())
    }

    fn needs_ports(&self, key: &Token<'_>) -> Result<(), SyntaxError> {
        let ports = |p: &u8| matches!(*p, TCP | UDP);
        let protocols = &self.matches.protocols;
        if protocols.is_empty() || !protocols.iter().all(ports) {
            return Err(key.error(
                "ports are of TCP and UDP; say proto tcp, proto udp or proto { tcp, udp } in this line",
            ));
        }
        Ok(())
    }
}

/// Clauses of which a line has one.
fn sort(word: &str) -> &str {
    match word {
        "in" | "out" | "forward" => "direction",
        "inet" | "inet6" => "family",
        other => other,
    }
}

fn unknown(word: &str, kind: Kind) -> String {
    let rule = matches!(kind, Kind::Rule(_));
    match word {
        "port" => "\"port\" stands behind from or to: to port 80, from any port 53".into(),
        _ if kind == Kind::Flush => {
            format!("\"{word}\": unknown word; there are inet, inet6, proto, from, to and all")
        }
        "stateless" => "stateless is for pass: what does not pass has no state".into(),
        "with" => "with is for reject: nobody is told of what is blocked".into(),
        "via" | "in" | "out" | "forward" | "log" => {
            format!("\"{word}\" is for pass, block and reject; say on INTERFACE here")
        }
        _ => {
            let more = if rule {
                "in, out, forward, log, on, via"
            } else {
                "on"
            };
            format!(
                "\"{word}\": unknown word; there are {more}, inet, inet6, proto, from, to{}",
                if rule {
                    ", icmp-type, stateless, with and all"
                } else {
                    ", all and ->"
                }
            )
        }
    }
}

fn end(words: &mut Words<'_>, tables: &[Table]) -> Result<End, SyntaxError> {
    let mut end = End::default();
    let port_only = words.peek().is_some_and(|word| word.text == "port");
    if !port_only && words.take("any").is_none() {
        end.hosts.negated = words.take("!").is_some();
        end.hosts.list = words.list(|words| host(words, tables))?;
    }
    if words.take("port").is_some() {
        end.ports.negated = words.take("!").is_some();
        end.ports.ranges = words.list(|words| {
            let word = words.next("a port")?;
            range(&word)
        })?;
    }
    Ok(end)
}

fn host(words: &mut Words<'_>, tables: &[Table]) -> Result<Host, SyntaxError> {
    let word = words.next("an address, a network, (INTERFACE), <TABLE> or any")?;
    match word.text {
        "(" => {
            let name = interface(&words.next("an interface")?)?;
            words.expect(")", "\")\" behind the interface")?;
            Ok(Host::Interface(name))
        }
        "<" => {
            let name = words.next("a table")?;
            if !tables.iter().any(|table| table.name == name.text) {
                return Err(name.error(format!(
                    "there is no table {0}; write table {0} {{ ADDRESS, ... }} above this line",
                    name.text
                )));
            }
            words.expect(">", "\">\" behind the table's name")?;
            Ok(Host::Table(name.text.into()))
        }
        _ => net(&word).map(Host::Net),
    }
}

fn net(word: &Token<'_>) -> Result<Net, SyntaxError> {
    let (addr, len) = match word.text.split_once('/') {
        Some((addr, len)) => (addr, Some(len)),
        None => (word.text, None),
    };
    let addr: IpAddr = addr.parse().map_err(|_| {
        word.error(format!(
            "\"{}\" is no address; want ADDRESS or ADDRESS/LENGTH, as 10.0.0.0/24 or fd00::1",
            word.text
        ))
    })?;
    let most: u8 = if addr.is_ipv4() { 32 } else { 128 };
    let len = match len {
        None => Some(most),
        Some(len) => len.parse().ok().filter(|len| *len <= most),
    };
    let len = len.ok_or_else(|| {
        word.error(format!(
            "\"{}\": the prefix is 0 to {most} bits long",
            word.text
        ))
    })?;
    Ok(Net::new(addr, len))
}

impl Net {
    /// The network that an address is in. `len` is at most the address's.
    pub fn new(addr: IpAddr, len: u8) -> Net {
        let addr = match addr {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4((u32::from(ip) & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6((u128::from(ip) & mask).into())
            }
        };
        Net { addr, len }
    }
}

fn interface(word: &Token<'_>) -> Result<String, SyntaxError> {
    let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    let name = word.text;
    if name.len() > INTERFACE_MAX || !name.chars().all(good) || name.contains(['{', '}', '(', '<'])
    {
        return Err(word.error(format!(
            "\"{name}\" is no name of an interface; it has up to {INTERFACE_MAX} letters and digits, as eth0"
        )));
    }
    Ok(name.into())
}

fn protocol(word: &Token<'_>) -> Result<u8, SyntaxError> {
    match word.text {
        "tcp" => Ok(TCP),
        "udp" => Ok(UDP),
        "icmp" => Ok(ICMP),
        "icmp6" => Ok(ICMP6),
        other => other.parse().map_err(|_| {
            word.error(format!(
                "\"{other}\" is no protocol; want tcp, udp, icmp, icmp6 or a number from 0 to 255"
            ))
        }),
    }
}

fn port(word: &Token<'_>) -> Result<u16, SyntaxError> {
    word.text.parse().map_err(|_| {
        word.error(format!(
            "\"{}\" is no port; want a number from 0 to 65535",
            word.text
        ))
    })
}

fn range(word: &Token<'_>) -> Result<(u16, u16), SyntaxError> {
    let Some((first, last)) = word.text.split_once('-') else {
        return port(word).map(|port| (port, port));
    };
    let part = |text| port(&Token { text, ..*word });
    let (first, last) = (part(first)?, part(last)?);
    if first > last {
        return Err(word.error(format!(
            "\"{}\": the range ends before it begins",
            word.text
        )));
    }
    Ok((first, last))
}

/// The types in a list, once the protocol is known, which is somewhere in the line.
fn types(mut list: Words<'_>, line: &Words<'_>) -> Result<Vec<u8>, SyntaxError> {
    let has = |name: &str| line.tokens.iter().any(|word| word.text == name);
    let v6 = match (has("icmp"), has("icmp6")) {
        (true, false) => false,
        (false, true) => true,
        _ => {
            let at = list.tokens[list.at.saturating_sub(1)];
            return Err(at.error(
                "icmp-type goes with one protocol; say proto icmp or proto icmp6 in this line",
            ));
        }
    };
    list.list(|words| {
        let word = words.next("a type of ICMP")?;
        let named = TYPES.iter().find(|(name, ..)| *name == word.text);
        let number = match named {
            Some((_, v4, six)) => {
                if v6 {
                    *six
                } else {
                    *v4
                }
            }
            None => word.text.parse().ok(),
        };
        number.ok_or_else(|| {
            let known = |t: &&(&str, Option<u8>, Option<u8>)| if v6 { t.2 } else { t.1 }.is_some();
            let names: Vec<&str> = TYPES.iter().filter(known).map(|t| t.0).collect();
            word.error(format!(
                "\"{}\" is no type of this protocol; want a number from 0 to 255, or one of {}",
                word.text,
                names.join(", ")
            ))
        })
    })
}

/// The words of a line that are still to be read.
struct Words<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
}

impl<'a> Words<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    /// The next word, which is to be something.
    fn next(&mut self, what: &str) -> Result<Token<'a>, SyntaxError> {
        let word = self.peek().ok_or_else(|| self.missing(what))?;
        self.at += 1;
        Ok(word)
    }

    /// The next word if it is this one.
    fn take(&mut self, text: &str) -> Option<Token<'a>> {
        let word = self.peek().filter(|word| word.text == text)?;
        self.at += 1;
        Some(word)
    }

    fn expect(&mut self, text: &str, what: &str) -> Result<(), SyntaxError> {
        if self.take(text).is_some() {
            return Ok(());
        }
        Err(match self.peek() {
            Some(word) => word.error(format!("\"{}\": want {what}", word.text)),
            None => self.missing(what),
        })
    }

    /// What is missing at the line's end.
    fn missing(&self, what: &str) -> SyntaxError {
        let last = self.tokens.last();
        SyntaxError {
            line: last.map_or(1, |word| word.line),
            column: last.map_or(1, |word| word.column + word.text.chars().count()),
            message: format!("the line ends; want {what}"),
        }
    }

    fn end(&self) -> Result<(), SyntaxError> {
        match self.peek() {
            Some(word) => Err(word.error(format!(
                "\"{}\": the line should end here; a line has one rule",
                word.text
            ))),
            None => Ok(()),
        }
    }

    /// One item, or several in braces with commas between.
    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<Vec<T>, SyntaxError> {
        if self.take("{").is_none() {
            return Ok(vec![item(self)?]);
        }
        let mut items = vec![item(self)?];
        while self.take("}").is_none() {
            self.expect(",", "\",\" between two, or \"}\"")?;
            // A comma before the brace is good style in long lists.
            if self.take("}").is_some() {
                break;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

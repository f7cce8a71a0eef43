//! Names: what addresses they stand for on a kernel, as its programs would find out. Its `/etc/hosts` comes first, then the servers of its
//! `/etc/resolv.conf` are asked over its network (RFC 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use abi::{Errno, Syscalls};
use anyhow::{Result, anyhow, bail};
use rumpclient::Client;
use rumpkit::Process;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

const SOCK_DGRAM: i32 = 2;
const SOL_SOCKET: i32 = 1;
const SO_RCVTIMEO: i32 = 20;
const PORT: u16 = 53;
/// As resolv.conf(5): three servers, each asked twice.
const SERVERS: usize = 3;
const TRIES: usize = 2;
/// Seconds to wait for an answer.
const PATIENCE: u64 = 2;
/// The longest answer without TCP that we ask for none with.
const ANSWER_MAX: usize = 4096;

/// The address that a text is, or the first that its name has.
pub(super) fn resolve(process: &Process<Client>, text: &str) -> Result<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let file = |path| String::from_utf8_lossy(&process.read(path).unwrap_or_default()).into_owned();
    if let Some(ip) = in_hosts(&file("/etc/hosts"), text) {
        return Ok(ip);
    }
    let servers = servers(&file("/etc/resolv.conf"));
    if servers.is_empty() {
        bail!(
            "{text}: no such name in the kernel's /etc/hosts, and its /etc/resolv.conf names no server; give an address, or dns= with --net"
        );
    }
    if Name::new(text).is_err() {
        bail!("{text}: neither an address, as 10.0.0.1 or fd00::1, nor a name");
    }
    let mut trouble = String::new();
    for server in servers {
        match ask_server(process, server, text) {
            Ok(Some(ip)) => return Ok(ip),
            Ok(None) => bail!("{text}: {server} knows no address of this name"),
            Err(error) => trouble = format!("{server}: {error}"),
        }
    }
    Err(anyhow!("{text}: no name server answers; {trouble}"))
}

/// The address of a name in the text of hosts(5).
fn in_hosts(hosts: &str, name: &str) -> Option<IpAddr> {
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        let named = words.any(|word| word.eq_ignore_ascii_case(name.trim_end_matches('.')));
        named.then_some(ip)
    })
}

/// The servers in the text of resolv.conf(5).
fn servers(conf: &str) -> Vec<IpAddr> {
    let servers = conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    servers.take(SERVERS).collect()
}

/// Asks a server for an address of IPv4, then of IPv6; `None` when the name has neither.
fn ask_server(process: &Process<Client>, server: IpAddr, name: &str) -> Result<Option<IpAddr>> {
    for kind in [TYPE::A, TYPE::AAAA] {
        let query = query(std::process::id() as u16, name, kind)?;
        if let Some(ip) = exchange(process, server, &query)? {
            return Ok(Some(ip));
        }
    }
    Ok(None)
}

fn query(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>> {
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    query
        .questions
        .push(Question::new(Name::new(name)?, kind, class, false));
    Ok(query.build_bytes_vec()?)
}

/// Sends a query until it is answered; the address in the answer.
fn exchange(process: &Process<Client>, server: IpAddr, query: &[u8]) -> Result<Option<IpAddr>> {
    let sys = process.sys();
    let family: u16 = if server.is_ipv4() { 2 } else { 10 };
    let fd = sys.socket(family.into(), SOCK_DGRAM, 0)? as i32;
    let mut addr = [family.to_le_bytes(), PORT.to_be_bytes()].concat();
    match server {
        IpAddr::V4(ip) => addr.extend([&ip.octets()[..], &[0; 8]].concat()),
        IpAddr::V6(ip) => addr.extend([&[0; 4], &ip.octets()[..], &[0; 4]].concat()),
    }
    let wait = [PATIENCE.to_le_bytes(), [0; 8]].concat();
    let talk = || -> Result<Option<IpAddr>> {
        sys.connect(fd, &addr, addr.len())?;
        sys.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, wait.len())?;
        for _ in 0..TRIES {
            sys.sendto(fd, query, query.len(), 0, &[], 0)?;
            let mut answer = vec![0; ANSWER_MAX];
            loop {
                match sys.recvfrom(fd, &mut answer, ANSWER_MAX, 0, &mut [], &mut []) {
                    Ok(len) => {
                        if let Some(found) = answered(query, &answer[..len as usize]) {
                            return found;
                        }
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        bail!("no answer")
    };
    let result = talk();
    let _ = sys.close(fd);
    result
}

/// What an answer says to a query; `None` when it is no answer to it.
fn answered(query: &[u8], answer: &[u8]) -> Option<Result<Option<IpAddr>>> {
    let (query, answer) = (Packet::parse(query).ok()?, Packet::parse(answer).ok()?);
    let same = query.id() == answer.id()
        && answer.has_flags(PacketFlag::RESPONSE)
        && query.questions.first()?.qname == answer.questions.first()?.qname;
    if !same {
        return None;
    }
    match answer.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        other => return Some(Err(anyhow!("it answers {other:?}"))),
    }
    let address = answer
        .answers
        .iter()
        .find_map(|record| match &record.rdata {
            RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
            RData::AAAA(a) => Some(Ipv6Addr::from(a.address).into()),
            _ => None,
        });
    Some(Ok(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, CNAME};

    #[test]
    fn hosts_and_resolv_conf_are_read_as_their_manual_pages_say() {
        let hosts = "# 10.0.0.9 bob\n127.0.0.1\tlocalhost\n10.0.1.2 alice Alice.lab # bob\nnoise\n";
        assert_eq!(in_hosts(hosts, "ALICE.lab."), "10.0.1.2".parse().ok());
        assert_eq!(in_hosts(hosts, "bob"), None);
        let conf = "search x\nnameserver 10.0.0.1\n;nameserver 1.1.1.1\n nameserver fd00::1 \nnameserver\n";
        let two: Vec<IpAddr> = ["10.0.0.1", "fd00::1"]
            .map(|ip| ip.parse().expect("ip"))
            .to_vec();
        assert_eq!(servers(conf), two);
    }

    #[test]
    fn an_answer_is_taken_when_it_is_to_what_was_asked() {
        let asked = query(7, "www.example.org", TYPE::A).expect("a query");
        let mut answer = Packet::parse(&asked).expect("parses").into_reply();
        let record =
            |name, rdata| ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, 60, rdata);
        let alias = CNAME(Name::new_unchecked("web.example.org"));
        answer
            .answers
            .push(record("www.example.org", RData::CNAME(alias)));
        let bytes = answer.build_bytes_vec().expect("built");
        let none = answered(&asked, &bytes)
            .expect("an answer")
            .expect("no error");
        assert_eq!(none, None);
        let address = A {
            address: 0x0a00_0007,
        };
        answer
            .answers
            .push(record("web.example.org", RData::A(address)));
        let bytes = answer.build_bytes_vec().expect("built");
        let found = answered(&asked, &bytes)
            .expect("an answer")
            .expect("no error");
        assert_eq!(found, "10.0.0.7".parse().ok());
        let other = query(8, "www.example.org", TYPE::A).expect("a query");
        assert!(answered(&other, &bytes).is_none(), "another number");
        assert!(
            answered(&asked, &asked).is_none(),
            "a question is no answer"
        );
        assert!(answered(&asked, &bytes[..20]).is_none());
    }
}

//! What an interface is connected to, in words, and what to say when that fails.

use abi::Errno;
use hypercall::WireSpec;
use net::{IfError, Params};

/// The largest MTU: an IP packet, whole 64-bit words, as passt has it.
pub(crate) const MTU_MAX: u32 = 65_520;

pub(crate) const PARAMS: &[(&str, &str)] = &[
    ("tap=NAME", "a tap device of the host"),
    ("packet=NAME", "a network interface of the host, raw"),
    (
        "unix=PATH",
        "QEMU's stream protocol on a unix socket, as passt has it",
    ),
    ("listen", "with unix=: wait there for a peer"),
    ("dgram=PATH", "QEMU's datagram protocol on a unix socket"),
    ("peer=PATH", "with dgram=: the other end's socket"),
    ("wire=NAME", "what the host knows under this name"),
    ("mac=ADDRESS", "the Ethernet address; a random one without"),
    ("mtu=BYTES", "the MTU; 1500 without"),
];

/// What the parameters say, which is one thing.
pub(crate) fn of(params: &Params) -> Result<WireSpec, IfError> {
    let backends = ["tap", "packet", "unix", "dgram", "wire"];
    let mut given = backends.iter().filter(|key| params.get(key).is_some());
    let (Some(backend), None) = (given.next(), given.next()) else {
        let text = "virt: say one of tap=NAME, packet=NAME, unix=PATH, dgram=PATH, wire=NAME";
        return Err(IfError::new(Errno::EINVAL, text));
    };
    let value = params.required("virt", backend)?;
    Ok(match *backend {
        "tap" => WireSpec::Tap(value.into()),
        "packet" => WireSpec::Packet(value.into()),
        "unix" => WireSpec::Stream {
            path: value.into(),
            listen: params.get("listen").is_some(),
        },
        "dgram" => WireSpec::Datagram {
            path: value.into(),
            peer: params.required("virt", "peer")?.into(),
        },
        _ => WireSpec::Named(value.into()),
    })
}

/// Why there is no wire, and what can be done.
pub(crate) fn failed(spec: &WireSpec, errno: Errno) -> IfError {
    let text = match spec {
        WireSpec::Tap(name) => tap_failed(name, errno),
        WireSpec::Packet(name) => match errno {
            Errno::ENODEV => {
                format!("{name}: the host has no such network interface; see: ip link")
            }
            Errno::EPERM | Errno::EACCES => format!(
                "{name}: the host does not let us use it raw; run as root or with CAP_NET_RAW, or use unix= with passt"
            ),
            other => format!("{name}: {other}"),
        },
        WireSpec::Stream { path, listen } => stream_failed(&text(path), *listen, errno),
        WireSpec::Datagram { path, .. } => match errno {
            Errno::EADDRINUSE => {
                format!("{}: somebody else is there; use another path", text(path))
            }
            other => format!("{}: cannot be made: {other}", text(path)),
        },
        WireSpec::Named(name) => match errno {
            Errno::ENODEV => format!("{name}: the host knows no wire of this name"),
            other => format!("{name}: {other}"),
        },
    };
    IfError::new(errno, text)
}

fn tap_failed(name: &str, errno: Errno) -> String {
    match errno {
        Errno::ENOENT | Errno::ENXIO => {
            "/dev/net/tun: the host has no tap devices; load them with: modprobe tun".into()
        }
        Errno::EPERM | Errno::EACCES => format!(
            "{name}: the host does not let us use this tap device; run as root, or have root make it for you: ip tuntap add dev {name} mode tap user $USER"
        ),
        Errno::EBUSY => format!("{name}: somebody else uses this tap device; use another name"),
        Errno::EINVAL => format!(
            "{name}: no name of a tap device: at most 15 bytes, and none of a device of another kind; see: ip link"
        ),
        other => format!("{name}: {other}"),
    }
}

fn stream_failed(path: &str, listen: bool, errno: Errno) -> String {
    match errno {
        Errno::EADDRINUSE if listen => {
            format!("{path}: somebody else is there; use another path")
        }
        Errno::ENOENT if !listen => {
            format!("{path}: nobody is there; start it first, with: passt --socket {path}")
        }
        Errno::ECONNREFUSED => format!(
            "{path}: nobody listens there any more; start it again, with: passt --socket {path}"
        ),
        Errno::ENOENT => format!("{path}: there is no such directory; make it first"),
        Errno::ENAMETOOLONG => {
            format!("{path}: too long for a socket's path, which has 107 bytes; use a shorter one")
        }
        Errno::EACCES | Errno::EPERM => {
            format!("{path}: the host does not let us in; see: ls -l {path}")
        }
        other => format!("{path}: {other}"),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

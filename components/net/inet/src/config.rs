//! What can be set in a stack: the sysctl nodes below `net`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use abi::Errno;
use kern::Curlwp;
use kern::sysctl::{Node, Value};

use crate::Inet;

macro_rules! config {
    ($($(#[$doc:meta])* $field:ident = $default:literal in $range:expr, $($name:literal),+;)*) => {
        /// The settings, each a number under the names that NetBSD and Linux have for it.
        pub(crate) struct Config {
            $($(#[$doc])* $field: AtomicI64,)*
        }

        impl Default for Config {
            fn default() -> Config {
                Config { $($field: AtomicI64::new($default),)* }
            }
        }

        impl Config {
            $($(#[$doc])* pub(crate) fn $field(&self) -> i64 {
                self.$field.load(Ordering::Relaxed)
            })*

            /// Adds the nodes.
            pub(crate) fn attach(&self, cx: &Curlwp<'_>, inet: &Arc<Inet>) -> Result<(), Errno> {
                $($(node(cx, inet, $name, |c| &c.$field, $range)?;)+)*
                Ok(())
            }
        }
    };
}

config! {
    /// Whether packets for others are forwarded, IPv4.
    forwarding4 = 0 in 0..=1, "net.inet.ip.forwarding", "net.ipv4.ip_forward";
    /// Whether packets for others are forwarded, IPv6.
    forwarding6 = 0 in 0..=1, "net.inet6.ip6.forwarding", "net.ipv6.conf.all.forwarding";
    /// Hops that an IPv4 packet may make.
    ttl = 64 in 1..=255, "net.inet.ip.ttl", "net.ipv4.ip_default_ttl";
    /// Hops that an IPv6 packet may make.
    hop_limit = 64 in 1..=255, "net.inet6.ip6.hlim", "net.ipv6.conf.all.hop_limit";
    /// The first port that is given out.
    first_port = 32768 in 1..=65535, "net.inet.ip.anonportmin";
    /// The last port that is given out.
    last_port = 60999 in 1..=65535, "net.inet.ip.anonportmax";
    /// The first port that everybody may bind.
    unprivileged_port = 1024 in 0..=65536, "net.ipv4.ip_unprivileged_port_start";
    /// Whether an echo request to a broadcast address is answered not.
    ignore_broadcast_echo = 1 in 0..=1, "net.ipv4.icmp_echo_ignore_broadcasts";
    /// ICMP errors that may be sent in a second.
    icmp_rate = 1000 in 0..=1_000_000, "net.ipv4.icmp_msgs_per_sec";
    /// The most groups of IPv4 that a socket may join.
    most_groups = 20 in 1..=65536, "net.ipv4.igmp_max_memberships";
    /// The most sources of one group of IPv4 that a socket may list.
    most_sources4 = 10 in 1..=65536, "net.ipv4.igmp_max_msf";
    /// The most sources of one group of IPv6 that a socket may list.
    most_sources6 = 64 in 1..=65536, "net.ipv6.mld_max_msf";
    /// Whether addresses are made from routers' advertisements.
    accept_ra = 1 in 0..=1, "net.inet6.ip6.accept_rtadv", "net.ipv6.conf.all.accept_ra";
    /// Bytes that all TCP connections may keep together; 0 until the stack knows its memory.
    tcp_memory = 0 in 0..=i64::MAX, "net.inet.tcp.memory";
    /// TCP connections without a socket that may go on; beyond, they are reset.
    tcp_max_orphans = 4096 in 0..=1_000_000, "net.inet.tcp.max_orphans", "net.ipv4.tcp_max_orphans";
    /// How often a new IPv6 address is asked for before it is used.
    dad_transmits = 1 in 0..=10, "net.inet6.ip6.dad_count", "net.ipv6.conf.all.dad_transmits";
}

impl Config {
    /// How much memory there is: an eighth of what caches may take is TCP's.
    pub(crate) fn share_memory(&self, limit: u64) {
        let share = i64::try_from(limit / 8).unwrap_or(i64::MAX);
        self.tcp_memory
            .store(share.max(16 << 20), Ordering::Relaxed);
    }

    /// Has routers' advertisements accepted.
    pub(crate) fn accept_advertisements(&self) {
        self.accept_ra.store(1, Ordering::Relaxed);
    }
}

fn node(
    cx: &Curlwp<'_>,
    inet: &Arc<Inet>,
    name: &str,
    field: fn(&Config) -> &AtomicI64,
    range: std::ops::RangeInclusive<i64>,
) -> Result<(), Errno> {
    let (reader, writer) = (Arc::downgrade(inet), Arc::downgrade(inet));
    let read = move |_: &Curlwp<'_>| match reader.upgrade() {
        Some(inet) => field(&inet.config).load(Ordering::Relaxed),
        None => 0,
    };
    let write = move |_: &Curlwp<'_>, value: Value| {
        let Value::Int(value) = value else {
            return Err(Errno::EINVAL);
        };
        if !range.contains(&value) {
            return Err(Errno::EINVAL);
        }
        if let Some(inet) = writer.upgrade() {
            field(&inet.config).store(value, Ordering::Relaxed);
        }
        Ok(())
    };
    let node = Node::int(read).writable(write);
    cx.kernel().sysctl().add(cx, name, node)
}

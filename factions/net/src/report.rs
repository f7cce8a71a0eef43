//! What the faction tells of itself: `net/dev` of proc(5), and the variables of all sockets.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use abi::Errno;
use kern::Curlwp;
use kern::sysctl::Node;

use crate::common::{DEFAULT_BUF, MAX_BUF};
use crate::syscalls::SOMAXCONN;
use crate::{Interfaces, Net};

/// Adds the reports and the variables.
pub(crate) fn attach(cx: &Curlwp<'_>) -> Result<(), Errno> {
    cx.kernel()
        .reports()
        .add(cx, "net/dev", |cx| match Net::of(cx) {
            Ok(net) => dev(cx, net.interfaces()),
            Err(_) => String::new(),
        });
    let limits = [
        ("net.core.somaxconn", SOMAXCONN as u32),
        ("net.core.rmem_default", DEFAULT_BUF),
        ("net.core.wmem_default", DEFAULT_BUF),
        // What setsockopt(2) takes; it doubles it.
        ("net.core.rmem_max", MAX_BUF / 2),
        ("net.core.wmem_max", MAX_BUF / 2),
    ];
    for (name, value) in limits {
        let node = Node::int(move |_| value.into());
        cx.kernel().sysctl().add(cx, name, node)?;
    }
    Ok(())
}

/// The counts of all interfaces.
fn dev(cx: &Curlwp<'_>, interfaces: &Interfaces) -> String {
    let mut out = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
"
    .to_owned();
    for interface in interfaces.list().iter() {
        let s = &interface.stats;
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, multicast] = [
            &s.rx_bytes,
            &s.rx_packets,
            &s.rx_errors,
            &s.rx_dropped,
            &s.multicast,
        ]
        .map(|count| count.load(Relaxed));
        let [tx_bytes, tx_packets, tx_errors, tx_dropped] =
            [&s.tx_bytes, &s.tx_packets, &s.tx_errors, &s.tx_dropped]
                .map(|count| count.load(Relaxed));
        let name = interface.name(cx.cpu());
        let _ = writeln!(
            out,
            "{name:>6}: {rx_bytes:>7} {rx_packets:>7} {rx_errors:>4} {rx_dropped:>4}    0     0          0 {multicast:>9} \
             {tx_bytes:>8} {tx_packets:>7} {tx_errors:>4} {tx_dropped:>4}    0     0       0          0"
        );
    }
    out
}

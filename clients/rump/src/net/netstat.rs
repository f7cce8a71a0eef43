//! `rump netstat`: the sockets of a kernel.

use anyhow::Context;

use crate::cli::Netstat;
use crate::failure::Outcome;
use crate::remote::connect;
use crate::table::{Cell, Table};

/// `rump netstat`.
pub(crate) fn netstat(options: &Netstat) -> Outcome {
    let process = connect(&options.server.url)?;
    let sockets = process.sockets().context("the sockets cannot be listed")?;
    let mut table = Table::new(&["PROTOCOL", "STATE", "IN", "OUT", "LOCAL", "REMOTE"]);
    for socket in sockets {
        if options.listening && socket.state != "listen" {
            continue;
        }
        table.row(vec![
            Cell::Text(socket.protocol.into()),
            Cell::Text(socket.state.into()),
            Cell::Text(socket.receive_queue.to_string()),
            Cell::Text(socket.send_queue.to_string()),
            Cell::Text(socket.local.to_string()),
            Cell::Text(socket.remote.map_or_else(|| "-".into(), |r| r.to_string())),
        ]);
    }
    print!("{}", table.render(options.json));
    Ok(0)
}

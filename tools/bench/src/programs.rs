//! Unmodified programs on the loopback interface: a server and the program that measures it, both run plainly on the host and both
//! by `rump run` on a kernel.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::children;
use crate::figure::{Output, Target};
use crate::measure::Effort;

/// Starts a server and waits until it has said that it listens. The name of the pipe is new each time.
const PRELUDE: &str = "up() { word=$1; shift; pipe=$(mktemp -u $DIR/pipe.XXXXXX); mkfifo $pipe; \"$@\" > $pipe 2>&1 & SERVER=$!\n\
                       exec 9< $pipe; grep -q -m1 \"$word\" <&9; }\n";

/// Requests in a second that nginx with two workers answers on 16 connections, by wrk.
const NGINX: &str = "up 'start worker process ' nginx -c $DIR/nginx.conf\n\
                     wrk -t1 -c16 -d1 http://127.0.0.1:28080/ | sed -n 's,^Requests/sec: *,,p'\n\
                     kill $SERVER; wait $SERVER";

/// Gbit/s of one connection, by iperf3.
const IPERF3: &str = "up listening iperf3 -s -1 -p 28081 --forceflush\n\
                      iperf3 -c 127.0.0.1 -p 28081 -t 1 -f g | sed -n 's,.* \\([0-9.]*\\) Gbits/sec.*receiver.*,\\1,p'\n\
                      wait $SERVER";

pub(crate) fn run(effort: &Effort, output: &mut Output) -> Result<()> {
    let dir = tempfile::tempdir()?;
    configure(dir.path())?;
    for (name, text, target) in [
        ("net.nginx_per_s", NGINX, Target::LeastOfHost(0.5)),
        ("net.iperf3_gbit", IPERF3, Target::LeastOfHost(0.5)),
    ] {
        if output.wants(name) {
            let rump = std::env::current_exe()?.with_file_name("rump");
            let inside = || {
                let mut command = Command::new(&rump);
                command.args(["run", "--net", "loop", "--", "sh"]);
                command
            };
            let (ours, host) = effort.samples(
                || measure(inside(), dir.path(), text),
                || measure(Command::new("sh"), dir.path(), text),
            )?;
            output.figure(name, ours, Some(host), target);
        }
    }
    Ok(())
}

/// The configuration of nginx, and the small file that it serves.
fn configure(dir: &Path) -> Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("index.html"), "hello\n")?;
    let at = dir.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {at}/{what};\n"))
        .concat();
    let text = format!(
        "worker_processes 2; daemon off; pid {at}/pid; error_log stderr notice;\n\
         events {{ accept_mutex off; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000;\n{paths}\
         server {{ listen 127.0.0.1:28080; root {at}; }} }}\n"
    );
    Ok(fs::write(dir.join("nginx.conf"), text)?)
}

/// Runs a script by a command that ends in a shell; the number that it prints.
fn measure(mut shell: Command, dir: &Path, text: &str) -> Result<f64> {
    shell.args(["-euc", &format!("{PRELUDE}{text}")]);
    shell.env("DIR", dir);
    let printed = children::finished(&mut shell)?;
    let number = printed.trim().parse();
    number.with_context(|| format!("{text}\nprinted {printed:?}"))
}

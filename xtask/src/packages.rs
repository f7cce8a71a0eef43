//! The Debian packages that tests, demo and benches use.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

/// A program and the Debian package it comes in.
const NEEDED: [(&str, &str); 32] = [
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/usr/bin/sqlite3", "sqlite3"),
    ("/usr/bin/pydoc3", "python3"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/tar", "tar"),
    ("/usr/bin/cc", "gcc"),
    ("/usr/bin/pkg-config", "pkg-config"),
    ("/usr/bin/fuse2fs", "fuse2fs"),
    ("/usr/bin/fusermount", "fuse"),
    ("/usr/bin/mount", "mount"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/passt", "passt"),
    ("/usr/bin/tshark", "tshark"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/ping", "iputils-ping"),
    ("/usr/bin/traceroute", "traceroute"),
    ("/usr/sbin/nginx", "nginx-light"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/bin/ab", "apache2-utils"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/iperf3", "iperf3"),
    ("/usr/bin/nc", "netcat-openbsd"),
    ("/usr/bin/dig", "bind9-dnsutils"),
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/scp", "openssh-client"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/sbin/ethtool", "ethtool"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/bin/nmap", "nmap"),
    ("/usr/sbin/arping", "arping"),
];

/// The packages of [`NEEDED`] that are not installed.
fn missing() -> Vec<&'static str> {
    NEEDED
        .iter()
        .filter(|(program, _)| !std::path::Path::new(program).exists())
        .map(|&(_, package)| package)
        .collect()
}

/// Sees to it that everything in [`NEEDED`] is there: installs it as root, else says what to install.
pub(crate) fn ensure() -> Result<()> {
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !is_root() || !sh::has("apt-get") {
        bail!(
            "these Debian packages are missing: {list}; install them with: apt-get install {list}"
        );
    }
    println!("installing Debian packages: {list}");
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&packages);
    apt(&install)?;
    let still = missing();
    if !still.is_empty() {
        bail!(
            "apt-get installed {list}, but {} did not bring its program",
            still.join(" ")
        );
    }
    Ok(())
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    let (ok, text) = sh::output(&mut command)?;
    if !ok {
        bail!("apt-get {}:\n{text}", args.join(" "));
    }
    Ok(())
}

/// Whether we may install packages and mount.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().context("id -u");
    id.is_ok_and(|out| out.stdout == b"0\n")
}

//! `cargo xtask install PREFIX`: the C libraries where a C program finds them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sh;

/// Where to.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The directory that gets lib/, lib/pkgconfig/ and include/rump/, such as /usr/local
    prefix: PathBuf,
}

/// A library, and the directory of the crate that it comes from.
const LIBRARIES: [(&str, &str); 2] = [
    ("rump", "frontends/librump"),
    ("rumpclient", "clients/librumpclient"),
];

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut build = sh::cargo(["build", "--release"]);
    for (name, _) in LIBRARIES {
        build.args(["-p", &format!("rumpkit-lib{name}")]);
    }
    sh::run(&mut build)?;
    let prefix = std::path::absolute(&options.prefix)?;
    for dir in ["lib/pkgconfig", "include/rump"] {
        let dir = prefix.join(dir);
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("{} cannot be made", dir.display()))?;
    }
    for (name, dir) in LIBRARIES {
        let built = sh::root().join("target/release");
        for file in [format!("lib{name}.so"), format!("lib{name}.a")] {
            copy(&built.join(&file), &prefix.join("lib").join(file))?;
        }
        let template = sh::root().join(dir).join(format!("{name}.pc.in"));
        let text = std::fs::read_to_string(&template)
            .with_context(|| template.display().to_string())?
            .replace("@PREFIX@", &prefix.to_string_lossy())
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        let to = prefix.join("lib/pkgconfig").join(format!("{name}.pc"));
        std::fs::write(&to, text).with_context(|| to.display().to_string())?;
    }
    for header in std::fs::read_dir(sh::root().join("include/rump"))? {
        let header = header?;
        copy(
            &header.path(),
            &prefix.join("include/rump").join(header.file_name()),
        )?;
    }
    println!(
        "installed; compile with: PKG_CONFIG_PATH={}/lib/pkgconfig pkg-config --cflags --libs rump",
        prefix.display()
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .with_context(|| format!("{} to {}", from.display(), to.display()))
        .map(drop)
}

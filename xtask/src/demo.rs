//! `cargo xtask demo`: the main job, shown: unmodified Debian programs on a real ext4 image inside our kernel, the image then
//! checked by the host's own tools.
//!
//! Each step is a `rump run` of its own, so each one boots a kernel, mounts the image, and leaves it clean.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::report::seconds;
use crate::{packages, sh};

/// What the demo is given.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Keep the image and the files of the demo in target/demo
    #[arg(long)]
    keep: bool,
}

const IMAGE_MIB: u64 = 512;
/// Programs that write to one database at a time, and transactions of each.
const WRITERS: usize = 4;
const COMMITS: usize = 50;

pub(crate) fn run(options: &Options) -> Result<()> {
    println!("rumpkit demo: unmodified programs on an ext4 image, in a kernel that is a library");
    let began = Instant::now();
    let mut demo = Demo::new()?;
    demo.step("Debian packages", |_| {
        packages::ensure().map(|()| String::new())
    });
    demo.step("build the rump command and the shim", build);
    demo.step("make an ext4 image", make_image);
    demo.step("ls, cp: a source tree", copy_tree);
    demo.step("sqlite3: concurrent writers", sqlite);
    demo.step("python3: walk and copy the tree", python);
    demo.step("tar: there and back, byte for byte", tar);
    demo.step("git: clone, commit, fsck", git);
    demo.step("e2fsck -fn, from outside", e2fsck);
    demo.step("the database, read by the host", database_outside);
    demo.conclude(options.keep, began)
}

struct Demo {
    dir: PathBuf,
    failed: usize,
}

impl Demo {
    fn new() -> Result<Demo> {
        let dir = sh::root().join("target/demo");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(Demo { dir, failed: 0 })
    }

    /// Takes a step and prints a line about it. After a failure the rest is left out: it would say the same again.
    fn step(&mut self, name: &str, step: impl FnOnce(&Demo) -> Result<String>) {
        if self.failed > 0 {
            return;
        }
        let began = Instant::now();
        let result = step(self);
        let time = seconds(began.elapsed());
        match result {
            Ok(detail) => println!("  ok     {name:<38} {time:>8}  {detail}"),
            Err(error) => {
                self.failed += 1;
                println!("  FAILED {name:<38} {time:>8}\n{error:#}");
            }
        }
    }

    fn conclude(&self, keep: bool, began: Instant) -> Result<()> {
        let time = seconds(began.elapsed());
        if self.failed > 0 {
            bail!(
                "the demo failed after {time}; its files are in {}",
                self.dir.display()
            );
        }
        println!("  everything as it should be, in {time}");
        if keep {
            println!("  image and files: {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.dir.join("disk.img")
    }

    /// The source tree that is copied about, on the host.
    fn source(&self) -> PathBuf {
        self.dir.join("source")
    }

    /// Runs a shell script on a kernel that has the image mounted at /rump/data; what it prints.
    fn rump(&self, script: &str) -> Result<String> {
        let rump = sh::root().join("target/release/rump");
        let mut command = Command::new(rump);
        command
            .arg("run")
            .arg("--mount")
            .arg(format!("ext4:{}:/data", self.image().display()))
            .args(["--", "/bin/sh", "-euc", script])
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("SOURCE", self.source())
            .env("DIR", &self.dir)
            .env("HOME", &self.dir)
            .current_dir(&self.dir);
        let (ok, text) = sh::output(&mut command)?;
        if !ok {
            bail!("rump run failed; it printed:\n{text}\nthe script was:\n{script}");
        }
        Ok(text)
    }
}

fn build(_: &Demo) -> Result<String> {
    sh::run(&mut sh::cargo([
        "build",
        "--quiet",
        "--release",
        "-p",
        "rumpkit-rump",
        "-p",
        "rumpkit-hijack",
    ]))?;
    Ok(String::new())
}

fn make_image(demo: &Demo) -> Result<String> {
    let image = demo.image();
    fs::File::create(&image)?.set_len(IMAGE_MIB << 20)?;
    let mkfs = sh::which("mkfs.ext4").context("mkfs.ext4 is not installed: package e2fsprogs")?;
    sh::run(Command::new(mkfs).args(["-q", "-F"]).arg(&image))?;
    make_source(&demo.source())?;
    Ok(format!("{IMAGE_MIB} MiB"))
}

/// A source tree: the project's own, with a link, an empty directory, and a file that is larger than a page cache's first read.
fn make_source(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("empty"))?;
    for part in [
        "abi",
        "hypercall",
        "kernel",
        "factions",
        "components",
        "frontends",
        "clients",
    ] {
        sh::run(
            Command::new("cp")
                .arg("-r")
                .arg(sh::root().join(part))
                .arg(dir),
        )?;
    }
    std::os::unix::fs::symlink("abi/src/lib.rs", dir.join("link"))?;
    let large: Vec<u8> = (0..8u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(dir.join("large"), large)?;
    Ok(())
}

fn copy_tree(demo: &Demo) -> Result<String> {
    let text = demo.rump(
        "cp -a \"$SOURCE\" /rump/data/copy\n\
         ls -lR /rump/data/copy > \"$DIR/listing\"\n\
         diff -r \"$SOURCE\" /rump/data/copy\n\
         find /rump/data/copy -type f | wc -l",
    )?;
    Ok(format!("{} files", last_line(&text)))
}

fn sqlite(demo: &Demo) -> Result<String> {
    for writer in 0..WRITERS {
        let mut sql = String::from(".timeout 60000\n");
        for i in 0..COMMITS {
            sql.push_str(&format!(
                "insert into t values ({writer}, {i}, hex(randomblob(100)));\n"
            ));
        }
        fs::write(demo.dir.join(format!("writer{writer}.sql")), sql)?;
    }
    let text = demo.rump(&format!(
        "db=/rump/data/demo.db\n\
         sqlite3 $db 'create table t (writer int, i int, text text)'\n\
         pids=\n\
         for w in $(seq 0 {}); do sqlite3 -bail $db < \"$DIR/writer$w.sql\" & pids=\"$pids $!\"; done\n\
         for p in $pids; do wait $p; done\n\
         sqlite3 $db 'pragma integrity_check' 'select count(*) from t'",
        WRITERS - 1
    ))?;
    check_database(&text)?;
    Ok(format!(
        "{WRITERS} writers, {} transactions, integrity_check ok",
        WRITERS * COMMITS
    ))
}

fn check_database(text: &str) -> Result<()> {
    let want = format!("ok\n{}", WRITERS * COMMITS);
    if text.trim() != want {
        bail!("the database should say {want:?} and says {text:?}");
    }
    Ok(())
}

const WALK: &str = r#"
import filecmp, os, shutil, sys
source, copy = sys.argv[1:]
shutil.copytree(source, copy, symlinks=True)
files = 0
for here, dirs, names in os.walk(source):
    there = os.path.join(copy, os.path.relpath(here, source))
    assert sorted(os.listdir(here)) == sorted(os.listdir(there)), here
    for name in names:
        a, b = os.path.join(here, name), os.path.join(there, name)
        if os.path.islink(a):
            assert os.readlink(a) == os.readlink(b), a
        else:
            assert filecmp.cmp(a, b, shallow=False), a
        files += 1
os.rename(os.path.join(copy, "large"), os.path.join(copy, "larger"))
assert os.stat(os.path.join(copy, "larger")).st_size == 8 << 20
print(files)
"#;

fn python(demo: &Demo) -> Result<String> {
    fs::write(demo.dir.join("walk.py"), WALK)?;
    let text = demo.rump("/usr/bin/python3 \"$DIR/walk.py\" /rump/data/copy /rump/data/python")?;
    Ok(format!("{} files compared", last_line(&text)))
}

fn tar(demo: &Demo) -> Result<String> {
    let text = demo.rump(
        "tar -cf /rump/data/a.tar -C \"$SOURCE\" .\n\
         mkdir /rump/data/untar\n\
         tar -xf /rump/data/a.tar -C /rump/data/untar\n\
         tar -cf \"$DIR/b.tar\" -C /rump/data/untar .\n\
         mkdir \"$DIR/back\"\n\
         tar -xf \"$DIR/b.tar\" -C \"$DIR/back\"\n\
         wc -c < /rump/data/a.tar",
    )?;
    sh::run(
        Command::new("diff")
            .arg("-r")
            .arg(demo.source())
            .arg(demo.dir.join("back")),
    )?;
    let bytes: u64 = last_line(&text).parse().unwrap_or(0);
    Ok(format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)))
}

fn git(demo: &Demo) -> Result<String> {
    let text = demo.rump(
        "git config --global user.name demo\n\
         git config --global user.email demo@example.org\n\
         git config --global init.defaultBranch main\n\
         git config --global safe.directory '*'\n\
         git -C \"$SOURCE\" init -q\n\
         git -C \"$SOURCE\" add -A\n\
         git -C \"$SOURCE\" commit -q -m source\n\
         git clone -q --no-hardlinks \"$SOURCE\" /rump/data/clone\n\
         cd /rump/data/clone\n\
         echo changed >> abi/src/lib.rs\n\
         git commit -q -a -m 'on a rump kernel'\n\
         git fsck --strict --no-progress\n\
         test -z \"$(git status --porcelain)\"\n\
         git rev-list --count HEAD\n\
         git -C \"$SOURCE\" ls-files | wc -l",
    )?;
    Ok(format!("{} files, fsck ok", last_line(&text)))
}

fn e2fsck(demo: &Demo) -> Result<String> {
    let e2fsck = sh::which("e2fsck").context("e2fsck is not installed: package e2fsprogs")?;
    let (ok, text) = sh::output(Command::new(e2fsck).arg("-fn").arg(demo.image()))?;
    if !ok {
        bail!("e2fsck finds errors:\n{text}");
    }
    let files = text
        .lines()
        .find(|l| l.contains(" files ("))
        .unwrap_or_default();
    let files = files
        .rsplit('/')
        .nth(2)
        .and_then(|_| files.split(": ").nth(1));
    Ok(format!("clean: {}", files.unwrap_or("no errors")))
}

/// Takes the database out of the image with the host's debugfs and lets the host's sqlite3 check it.
fn database_outside(demo: &Demo) -> Result<String> {
    let debugfs = sh::which("debugfs").context("debugfs is not installed: package e2fsprogs")?;
    let out = demo.dir.join("outside.db");
    let dump = format!("dump /demo.db {}", out.display());
    sh::output(Command::new(debugfs).args(["-R", &dump]).arg(demo.image()))?;
    let mut check = Command::new("sqlite3");
    check
        .arg(out)
        .args(["pragma integrity_check", "select count(*) from t"]);
    let (_, text) = sh::output(&mut check)?;
    check_database(&text)?;
    Ok("integrity_check ok".to_owned())
}

fn last_line(text: &str) -> &str {
    text.trim().lines().last().unwrap_or_default().trim()
}

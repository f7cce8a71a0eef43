//! The C examples: compiled by plain gcc with what pkg-config says, run, and their output compared.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where cargo puts what it builds, in the profile of this test.
fn target() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    me.ancestors().nth(2).unwrap().to_owned()
}

/// A library: the one this test was built with, or one that stands on its own.
fn built(lib: &str) -> PathBuf {
    let beside = target().join("deps").join(lib);
    if beside.exists() {
        beside
    } else {
        target().join(lib)
    }
}

/// The clients' library is nobody's dependency, so it is built when it is wanted.
fn build_client() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "rumpkit-librumpclient"]);
    if target().ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.current_dir(root()).status().unwrap().success());
}

/// A directory in which librump is installed, as `cargo xtask install` does.
fn installed() -> &'static Path {
    static PREFIX: OnceLock<TempDir> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| {
        let prefix = tempfile::tempdir().unwrap();
        let to = prefix.path();
        std::fs::create_dir_all(to.join("lib/pkgconfig")).unwrap();
        std::fs::create_dir_all(to.join("include")).unwrap();
        let link = |from: PathBuf, to: PathBuf| std::os::unix::fs::symlink(from, to).unwrap();
        build_client();
        for lib in ["librump.so", "librump.a", "librumpclient.so"] {
            link(built(lib), to.join("lib").join(lib));
        }
        let headers = root().join("include/rump").canonicalize().unwrap();
        link(headers, to.join("include/rump"));
        for (name, text) in [
            ("rump.pc", include_str!("../rump.pc.in")),
            (
                "rumpclient.pc",
                include_str!("../../../clients/librumpclient/rumpclient.pc.in"),
            ),
        ] {
            let text = text
                .replace("@PREFIX@", to.to_str().unwrap())
                .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
            std::fs::write(to.join("lib/pkgconfig").join(name), text).unwrap();
        }
        prefix
    });
    prefix.path()
}

fn text(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(
        out.status.success(),
        "{command:?}: {}\n{stdout}{stderr}",
        out.status
    );
    stdout.into_owned()
}

/// Compiles an example against a library, shared or static.
fn compile(name: &str, dir: &Path, library: &str, linking: &[&str]) -> PathBuf {
    let flags = text(
        Command::new("pkg-config")
            .args(["--cflags", "--libs", library])
            .args(linking.iter().filter(|f| **f == "--static"))
            .env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig")),
    );
    let program = dir.join(name);
    let source = root().join("examples/c").join(format!("{name}.c"));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .arg(&program)
        .arg(source);
    for flag in flags.split_whitespace() {
        match flag {
            "-lrump" if linking.contains(&"--static") => gcc.arg("-l:librump.a"),
            flag => gcc.arg(flag),
        };
    }
    text(&mut gcc);
    program
}

/// Compiles an example, runs it in a directory of its own, and compares its output.
fn example_with(name: &str, linking: &[&str], args: &[&Path]) {
    example_on(name, linking, args, "2");
}

/// The same on so many virtual CPUs.
fn example_on(name: &str, linking: &[&str], args: &[&Path], ncpu: &str) {
    let dir = tempfile::tempdir().unwrap();
    let program = compile(name, dir.path(), "rump", linking);
    let out = text(
        Command::new(program)
            .args(args)
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .env("RUMP_NCPU", ncpu)
            .current_dir(dir.path()),
    );
    let want = root().join("examples/c").join(format!("{name}.out"));
    assert_eq!(out, std::fs::read_to_string(want).unwrap(), "{name}");
}

fn example(name: &str) {
    example_with(name, &[], &[]);
}

#[test]
fn files() {
    example("files");
}

#[test]
fn files_linked_statically() {
    example_with("files", &["--static"], &[]);
}

#[test]
fn lwproc() {
    example("lwproc");
}

#[test]
fn lwproc_on_one_cpu() {
    example_on("lwproc", &[], &[], "1");
}

#[test]
fn a_parameter_that_makes_no_sense_is_refused_with_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("lwproc", dir.path(), "rump", &[]);
    let out = Command::new(program)
        .env("LD_LIBRARY_PATH", installed().join("lib"))
        .env("RUMP_NCPU", "many")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && said.contains("RUMP_NCPU=many"),
        "{said}"
    );
}

#[test]
fn a_kernel_on_its_hosts_network() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("sockin", dir.path(), "rump", &[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&peer).read_line(&mut line).unwrap();
        peer.write_all(format!("welcome, {line}").as_bytes())
            .unwrap();
    });
    let run = |net: &str| {
        let mut command = Command::new(&program);
        command
            .arg(&port)
            .env("LD_LIBRARY_PATH", installed().join("lib"));
        command.env("RUMP_NET", net);
        command
    };
    assert_eq!(text(&mut run("sockin")), "in the file: welcome, a kernel\n");
    server.join().unwrap();
    let refused = run("wifi").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("RUMP_NET=wifi"),
        "{said}"
    );
}

#[test]
fn every_header_compiles_alone() {
    let dir = tempfile::tempdir().unwrap();
    for header in std::fs::read_dir(root().join("include/rump")).unwrap() {
        let name = header.unwrap().file_name().into_string().unwrap();
        let source = dir.path().join("alone.c");
        std::fs::write(&source, format!("#include <rump/{name}>\n")).unwrap();
        text(
            Command::new("gcc")
                .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
                .arg("-D_GNU_SOURCE")
                .arg(format!("-I{}", root().join("include").display()))
                .arg(source),
        );
    }
}

#[test]
fn every_header_is_for_cxx_too() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("all.cc");
    let mut text_of = String::new();
    for header in std::fs::read_dir(root().join("include/rump")).unwrap() {
        let name = header.unwrap().file_name().into_string().unwrap();
        // Either library's: their functions of one name are of two kinds.
        if name != "rump_syscallshotgun.h" {
            text_of += &format!("#include <rump/{name}>\n");
        }
    }
    text_of += r#"
        #include <cstdio>
        int main() {
            int fds[2];
            struct kevent ev;
            if (rump_init() != 0 || rump_sys_pipe(fds) != 0)
                return 1;
            EV_SET(&ev, fds[1], EVFILT_WRITE, EV_ADD, 0, 0, nullptr);
            int kq = rump_sys_kqueue();
            int n = rump_sys_kevent(kq, &ev, 1, &ev, 1, nullptr);
            std::printf("%d %d\n", n, int(ev.ident) == fds[1]);
            rump_sys_reboot(0, nullptr);
            return 1;
        }
    "#;
    std::fs::write(&source, text_of).unwrap();
    let flags = text(
        Command::new("pkg-config")
            .args(["--cflags", "--libs", "rump"])
            .env("PKG_CONFIG_PATH", installed().join("lib/pkgconfig")),
    );
    let program = dir.path().join("all");
    text(
        Command::new("g++")
            .args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([&program, &source])
            .args(flags.split_whitespace()),
    );
    let said = text(Command::new(program).env("LD_LIBRARY_PATH", installed().join("lib")));
    assert_eq!(said, "1 1\n");
}

/// The functions that a library exports.
fn exports(library: &str) -> Vec<String> {
    let library = installed().join("lib").join(library);
    let table = text(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library),
    );
    let names = table.lines().filter_map(|l| l.split(' ').nth(2));
    names.map(str::to_owned).collect()
}

/// The functions that a header declares.
fn declared(header: &str) -> Vec<String> {
    let path = root().join("include/rump").join(header);
    let text = std::fs::read_to_string(path).unwrap();
    let prototypes = text.lines().filter(|l| {
        let begins = l.starts_with(|c: char| c.is_ascii_lowercase());
        begins && l.contains('(') && !l.starts_with("static")
    });
    let name = |line: &str| {
        let before = line.split('(').next()?;
        let start = before.rfind([' ', '*'])? + 1;
        Some(before[start..].to_owned())
    };
    prototypes.filter_map(name).collect()
}

#[test]
fn what_the_headers_declare_is_in_the_libraries_and_nothing_else() {
    let all = |headers: &[&str]| {
        let mut names: Vec<_> = headers.iter().flat_map(|h| declared(h)).collect();
        names.sort();
        names
    };
    let mut librump = exports("librump.so");
    librump.sort();
    let mut librumpclient = exports("librumpclient.so");
    librumpclient.sort();
    assert_eq!(
        librump,
        all(&[
            "rump.h",
            "netconfig.h",
            "rumpkern_if_pub.h",
            "rumpvfs_if_pub.h",
            "rumpvnode_if.h",
            "rump_syscalls.h",
            "rumperr.h",
        ])
    );
    assert_eq!(
        librumpclient,
        all(&["rumpclient.h", "rump_syscalls.h", "rumperr.h"])
    );
}

#[test]
fn misuse() {
    example("misuse");
}

#[test]
fn misuse_linked_statically() {
    example_with("misuse", &["--static"], &[]);
}

#[test]
fn netconfig() {
    example("netconfig");
}

#[test]
fn etfs() {
    example("etfs");
}

#[test]
fn signals() {
    example("signals");
}

#[test]
fn kqueue() {
    example("kqueue");
}

#[test]
fn kqueue_on_one_cpu() {
    example_on("kqueue", &[], &[], "1");
}

#[test]
fn vnodemore() {
    example("vnodemore");
}

#[test]
fn vnodemore_on_one_cpu() {
    example_on("vnodemore", &[], &[], "1");
}

#[test]
fn handles() {
    example("handles");
}

#[test]
fn timers() {
    example("timers");
}

#[test]
fn semaphores() {
    example("semaphores");
}

#[test]
fn server_and_client() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("unix://{}/socket", dir.path().display());
    let server = compile("server", dir.path(), "rump", &[]);
    let client = compile("client", dir.path(), "rumpclient", &[]);
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", installed().join("lib"));
        command
    };
    text(run(&server).arg(&url));
    let out = text(run(&client).env("RUMP_SERVER", &url));
    let want = root().join("examples/c/client.out");
    assert_eq!(out, std::fs::read_to_string(want).unwrap());
    assert!(!dir.path().join("socket").exists(), "the socket goes");
    let bad = run(&server).arg("nowhere").output().unwrap();
    assert_eq!(bad.status.code(), Some(kern::Errno::EINVAL.0));
}

#[test]
fn module() {
    example("module");
}

/// A module in C, as a shared object.
fn compile_module(name: &str, dir: &Path) -> PathBuf {
    let object = dir.join(format!("{name}.so"));
    text(
        Command::new("gcc")
            .args([
                "-std=gnu11",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-g",
                "-shared",
                "-fPIC",
                "-o",
            ])
            .arg(&object)
            .arg(root().join("examples/c").join(format!("{name}.c")))
            .arg(format!("-I{}", root().join("include").display())),
    );
    object
}

#[test]
fn a_module_is_loaded_by_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let object = compile_module("counter", dir.path());
    example_with("dlmodule", &["-ldl"], &[&object]);
}

#[test]
fn kernel() {
    example("kernel");
}

#[test]
fn shotgun() {
    example("shotgun");
}

/// An ext4 image with a file `greeting` in it.
fn image_in(dir: &Path) -> PathBuf {
    let (tree, image) = (dir.join("tree"), dir.join("disk"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("greeting"), "from the host\n").unwrap();
    text(
        Command::new("/usr/sbin/mkfs.ext4")
            .args(["-q", "-d"])
            .args([&tree, &image])
            .arg("8M"),
    );
    image
}

#[test]
fn image() {
    let dir = tempfile::tempdir().unwrap();
    let image = image_in(dir.path());
    example_with("image", &[], &[&image]);
    text(Command::new("/usr/sbin/e2fsck").arg("-fn").arg(&image));
    let answer = text(
        Command::new("/usr/sbin/debugfs")
            .args(["-R", "cat /answer"])
            .arg(&image),
    );
    assert_eq!(answer, "from librump\n");
}

/// How a kernel goes down: the process's status, what it said, and whether what it had written is in the image.
fn reboot(how: &str) -> (std::process::ExitStatus, String, String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let image = image_in(dir.path());
    let program = compile("reboot", dir.path(), "rump", &["-pthread"]);
    let socket = dir.path().join("socket");
    let out = Command::new(program)
        .arg(how)
        .args([&image, &socket])
        .env("LD_LIBRARY_PATH", installed().join("lib"))
        .output()
        .unwrap();
    let (said, told) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    );
    assert!(said.starts_with("served: yes\n"), "{said}{told}");
    let late = Command::new("/usr/sbin/debugfs")
        .args(["-R", "cat /late"])
        .arg(&image)
        .output()
        .unwrap();
    let clean = Command::new("/usr/sbin/e2fsck")
        .arg("-fn")
        .arg(&image)
        .output();
    if out.status.code().is_some() && how != "nosync" {
        assert!(clean.unwrap().status.success(), "{how}: the image is clean");
        assert!(!socket.exists(), "{how}: the socket goes");
    }
    (out.status, said, told, late.stdout == b"just in time\n")
}

#[test]
fn a_kernel_that_goes_down_syncs_and_unmounts_and_ends_its_process() {
    let (status, _, told, written) = reboot("plain");
    assert_eq!(status.code(), Some(0), "{told}");
    assert!(
        told.contains("rump kernel halting...") && told.contains("halted\n"),
        "{told}"
    );
    assert!(written);
}

#[test]
fn a_kernel_that_is_told_not_to_sync_does_not() {
    let (status, _, told, written) = reboot("nosync");
    assert_eq!(status.code(), Some(0), "{told}");
    assert!(!written);
}

#[test]
fn a_kernel_that_is_to_dump_aborts_at_once() {
    use std::os::unix::process::ExitStatusExt;
    let (status, _, told, written) = reboot("dump");
    assert_eq!(status.signal(), Some(6), "SIGABRT: {told}");
    assert!(!written);
}

#[test]
fn a_kernel_that_halts_leaves_its_process_and_there_is_no_other() {
    let (status, said, told, written) = reboot("halt");
    assert_eq!(status.code(), Some(0), "{told}");
    assert!(written);
    let esd = "Cannot send after transport endpoint shutdown";
    assert_eq!(
        said,
        format!("served: yes\na call: {esd}\nrump_init: {esd}\n")
    );
    assert!(told.contains("host process restart required"), "{told}");
}

#[test]
fn event_counters_and_boot_messages_go_to_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let program = compile("kernel", dir.path(), "rump", &[]);
    let told = |verbose: &str| {
        let out = Command::new(&program)
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .env("RUMP_NCPU", "2")
            .env("RUMP_VERBOSE", verbose)
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    let quiet = told("0");
    let is_counter = |line: &&str| {
        let (names, count) = line.rsplit_once(": ").unwrap_or_default();
        names.contains(" / ") && count.parse::<u64>().is_ok()
    };
    assert!(quiet.lines().any(|l| is_counter(&l)), "{quiet}");
    assert!(!quiet.contains("rump virtual cpu"), "{quiet}");
    let loud = told("1");
    assert!(
        loud.contains("cpu0 at thinair0: rump virtual cpu")
            && loud.contains("cpu1 at thinair0: rump virtual cpu"),
        "{loud}"
    );
}

#[test]
fn a_client_becomes_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("unix://{}/socket", dir.path().display());
    let server = compile("server", dir.path(), "rump", &[]);
    let daemon = compile("daemon", dir.path(), "rumpclient", &[]);
    let file = dir.path().join("out");
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .env("RUMP_SERVER", &url);
        command
    };
    text(run(&server).arg(&url));
    // The end of its standard error is the daemon's end.
    let out = run(&daemon).arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!((out.status.code(), told.as_str()), (Some(0), "done\n"));
    let want = root().join("examples/c/daemon.out");
    assert_eq!(
        std::fs::read_to_string(file).unwrap(),
        std::fs::read_to_string(want).unwrap()
    );
    // Another client halts it.
    let mut client = run(&compile("client", dir.path(), "rumpclient", &[]));
    text(&mut client);
}

#[test]
fn a_disk_that_fails_is_an_error_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let image = image_in(dir.path());
    let program = compile("image", dir.path(), "rump", &[]);
    let run = |fail: &str, seed: &str| {
        let out = Command::new(&program)
            .arg(&image)
            .env("LD_LIBRARY_PATH", installed().join("lib"))
            .env("RUMP_BLKFAIL", fail)
            .env("RUMP_BLKFAIL_SEED", seed)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status, said)
    };
    let (status, said) = run("10000", "1");
    assert!(said.contains("mount: Input/output error"), "{said}");
    assert!(said.contains("RUMP_BLKFAIL_SEED=1"), "{said}");
    assert_eq!(status.code(), Some(1));
    let (_, said) = run("10001", "1");
    assert!(said.contains("RUMP_BLKFAIL=10001: want"), "{said}");
    // Some fail: whatever becomes of the calls, nothing dies of it.
    for seed in 0..8 {
        let (status, said) = run("1000", &seed.to_string());
        assert!(status.code().is_some(), "{status}: {said}");
    }
}

#[test]
fn vnode() {
    example("vnode");
}

#[test]
fn lost_connections() {
    let dir = tempfile::tempdir().unwrap();
    let server = compile("server", dir.path(), "rump", &[]);
    let client = compile("lost", dir.path(), "rumpclient", &[]);
    let out = Command::new(client)
        .arg(server)
        .env("LD_LIBRARY_PATH", installed().join("lib"))
        .env(
            "RUMP_SERVER",
            format!("unix://{}/socket", dir.path().display()),
        )
        .output()
        .unwrap();
    let want = root().join("examples/c/lost.out");
    let (said, told) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    // The two threads say their lines in any order.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let want = std::fs::read_to_string(want).unwrap();
    assert_eq!(sorted(&said), sorted(&want), "{told}");
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("is gone"), "{told}");
}

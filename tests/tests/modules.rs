//! Loadable modules, in C and in Rust, in a served kernel.

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Server, binary, finish, rump, run, scratch};

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../include")
}

/// Compiles C to a shared object.
fn object(source: &Path, object: &Path) {
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ])
    .arg(format!("-I{}", include().display()))
    .arg("-o")
    .args([object, source]);
    finish(&mut gcc).ok();
}

fn counter(dir: &Path) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c/counter.c");
    let to = dir.join("counter.so");
    object(&source, &to);
    to.to_str().unwrap().to_owned()
}

/// A module that says when it starts, requires what it is told, and answers `error` to its start.
fn plain(dir: &Path, name: &str, required: &str, error: &str) -> String {
    let text = format!(
        r#"
        #include <errno.h>
        #include <rump/rumpmodule.h>
        RUMP_MODULE(MODULE_CLASS_MISC, {name}, {required});
        static int {name}_modcmd(modcmd_t cmd, void *arg)
        {{
            if (cmd == MODULE_CMD_INIT)
                rumpm_log(arg, "{name} starts");
            return {error};
        }}
        "#
    );
    raw(dir, name, &text)
}

fn raw(dir: &Path, name: &str, text: &str) -> String {
    let source = dir.join(format!("{name}.c"));
    let to = dir.join(format!("{name}.so"));
    std::fs::write(&source, text).unwrap();
    object(&source, &to);
    to.to_str().unwrap().to_owned()
}

/// The order in which modules said that they start.
fn starts(server: &Server) -> Vec<String> {
    let messages = server.rump(&["dmesg"]).ok();
    let lines = messages.lines().filter_map(|l| l.strip_suffix(" starts"));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_module_in_c_serves_programs() {
    let dir = scratch();
    let server = Server::start(&["-m", &counter(dir.path())]);
    server.rump(&["sysctl", "counter.value=41"]).ok();
    assert_eq!(server.exec(&["cat", "/rump/dev/counter"]).ok(), "41\n");
    assert!(
        server
            .exec(&["stat", "-c", "%F %a", "/rump/dev/counter"])
            .ok()
            .starts_with("character special file 444")
    );
    server
        .rump(&["sysctl", "counter.value=-1"])
        .fails(125, &["counter.value"]);
    assert_eq!(
        server.rump(&["sysctl", "kern.modules"]).ok(),
        "kern.modules = counter\n"
    );
    server.halt();
}

#[test]
fn a_module_in_rust_serves_programs() {
    let module = binary("librump_greeter.so");
    let server = Server::start(&["-m", module.to_str().unwrap()]);
    let greet = "echo sun > /rump/dev/greeter; cat /rump/dev/greeter";
    assert_eq!(server.exec(&["sh", "-c", greet]).ok(), "hello, sun\n");
    server
        .rump(&["sysctl", "greeter.greeting=good morning"])
        .ok();
    assert_eq!(
        server.exec(&["cat", "/rump/dev/greeter"]).ok(),
        "good morning, sun\n"
    );
    server
        .rump(&["sysctl", "greeter.greeting="])
        .fails(125, &["greeter.greeting"]);
    assert!(server.exec(&["test", "-d", "/rump/tmp/greeter"]).status == 0);
    assert!(server.rump(&["dmesg"]).ok().contains("greeter: there"));
    server.halt();
}

#[test]
fn what_is_no_module_of_this_version_is_refused_with_the_reason() {
    let dir = scratch();
    let url = format!("unix://{}/k", dir.path().display());
    let refused = |module: &str, words: &[&str]| {
        for option in ["-m", "-l"] {
            run(["server", "-s", option, module, &url]).fails(125, &[&[module], words].concat());
        }
    };
    let of = |name: &str, abi: &str| {
        // Whoever calls it has not looked at the word first.
        let text = format!(
            "#include <stdint.h>\n#include <stdlib.h>\n\
             const uint64_t rump_module_abi = {abi};\nconst void *const rump_module_info = (const void *)1;\n"
        );
        raw(dir.path(), name, &text)
    };
    refused(
        &of("older", "(uint64_t)200 << 16 | 1"),
        &["rumpkit 0.0.2 (module interface 1)", "build it again"],
    );
    refused(
        &of("newer", "(uint64_t)1000000 << 16 | 77"),
        &["module interface 77", "build it again"],
    );
    refused(&raw(dir.path(), "library", "int x;\n"), &["is no module"]);
    let text = dir.path().join("text.so");
    std::fs::write(&text, "not an object\n").unwrap();
    refused(text.to_str().unwrap(), &["cannot be loaded"]);
    refused("/no/such/module.so", &["no such module"]);
    // The word is right and a symbol is missing.
    let needs = "#include <rump/rumpmodule.h>\nint rump_sys_getpid(void);\n\
                 RUMP_MODULE(MODULE_CLASS_MISC, needs, NULL);\n\
                 static int needs_modcmd(modcmd_t c, void *a) { (void)c; (void)a; return rump_sys_getpid(); }\n";
    refused(&raw(dir.path(), "needs", needs), &["rump_sys_getpid"]);
    refused(
        &plain(dir.path(), "stubborn", "NULL", "ENODEV"),
        &["stubborn", "does not start", "No such device"],
    );
}

#[test]
fn names_are_looked_for_in_the_modulebase_with_what_they_require() {
    let (dir, elsewhere) = (scratch(), scratch());
    plain(dir.path(), "top", "\"middle,base\"", "0");
    plain(dir.path(), "middle", "\"base\"", "0");
    plain(dir.path(), "base", "NULL", "0");
    let base = dir.path().to_str().unwrap();
    let server = Server::start_with(&["-m", "top"], &[("RUMP_MODULEBASE", base)]);
    assert_eq!(starts(&server), ["base", "middle", "top"]);
    server.halt();

    let top = dir.path().join("top.so");
    let top = top.to_str().unwrap();
    let url = format!("unix://{}/k", elsewhere.path().display());
    for none in ["", "0"] {
        let mut command = rump(["server", "-s", "-m", top, &url]);
        finish(command.env("RUMP_MODULEBASE", none)).fails(125, &["requires middle"]);
        let mut command = rump(["server", "-s", "-m", "top", &url]);
        finish(command.env("RUMP_MODULEBASE", none)).fails(125, &["top: no such module"]);
    }
    // In a circle.
    plain(elsewhere.path(), "one", "\"two\"", "0");
    plain(elsewhere.path(), "two", "\"one\"", "0");
    let mut command = rump(["server", "-s", "-m", "one", &url]);
    command.env("RUMP_MODULEBASE", elsewhere.path());
    finish(&mut command).fails(125, &["requires one"]);
}

#[test]
fn component_libraries_start_with_the_kernel_in_any_order() {
    let dir = scratch();
    let base = plain(dir.path(), "base", "NULL", "0");
    let middle = plain(dir.path(), "middle", "\"base\"", "0");
    let top = plain(dir.path(), "top", "\"middle,base\"", "0");
    for order in [[&base, &middle, &top], [&top, &middle, &base]] {
        let [a, b, c] = order;
        let server = Server::start(&["-l", a, "-l", b, "-l", c]);
        assert_eq!(starts(&server), ["base", "middle", "top"]);
        server.halt();
    }
}

//! A program that does on purpose what real programs do by chance.

mod common;

use std::process::Command;

use common::{Rump, have};

fn compile(rump: &Rump, flags: &[&str], source: &str, to: &str) {
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-pthread", "-o", to])
        .args(flags)
        .args(["-x", "c", source])
        .current_dir(rump.dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn registers_signals_threads_and_vfork_are_borne() {
    if !have("gcc") {
        return;
    }
    let rump = Rump::boot();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture.c");
    compile(&rump, &[], source, "torture");
    let program = rump.dir.path().join("torture");
    let output = rump
        .command(program.to_str().unwrap())
        .arg("/rump/tmp")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
    assert_eq!(
        out,
        "own system calls\nregisters\nvfork\nthreads\nsignals\npassing\n"
    );
}

#[test]
fn objects_are_rewritten_when_they_are_loaded() {
    if !have("gcc") || !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let source = rump.dir.path().join("lib.c");
    std::fs::write(
        &source,
        "long my_access(const char *path) {
            long ret;
            __asm__ volatile(\"syscall\" : \"=a\"(ret) : \"0\"(21L), \"D\"(path), \"S\"(0L) : \"rcx\", \"r11\", \"memory\");
            return ret;
        }",
    )
    .unwrap();
    compile(&rump, &["-shared", "-fPIC"], "lib.c", "lib.so");
    let got = rump.python(
        r#"
import ctypes, shutil
open("/rump/tmp/f", "w").close(); shutil.copy("lib.so", "/rump/tmp/lib.so")
for name in ("./lib.so", "/rump/tmp/lib.so"):
    lib = ctypes.CDLL(name); lib.my_access.restype = ctypes.c_long
    print(lib.my_access(b"/rump/tmp/f"), lib.my_access(b"/rump/tmp/g"))
"#,
    );
    assert_eq!(got, "0 -2\n0 -2\n");
}

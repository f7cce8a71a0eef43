//! Holds the header, the shims and the table of docs/librump.md to `syscalls.master`; with RUMPKIT_WRITE=1 writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use abi::table::TABLE;

/// A line of the master file.
struct Call {
    ret: String,
    name: String,
    params: Vec<Param>,
    served: Served,
    note: String,
}

struct Param {
    ty: String,
    name: String,
    variadic: bool,
}

enum Served {
    /// A call of the table, with an expression for each of its arguments.
    By(String, Vec<String>),
    /// A function of a module by hand.
    Hand(String),
    /// Answers an error.
    Absent(String),
}

enum Line {
    Section(String),
    Call(Call),
}

fn master() -> Vec<Line> {
    include_str!("../syscalls.master")
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(|l| match l.strip_prefix("== ") {
            Some(section) => Line::Section(section.to_owned()),
            None => Line::Call(call(l).unwrap_or_else(|| panic!("syscalls.master: {l}"))),
        })
        .collect()
}

fn call(line: &str) -> Option<Call> {
    let (line, note) = line.split_once(" -- ").unwrap_or((line, ""));
    let (before, rest) = line.split_once('(')?;
    let (params, served) = rest.split_once(')')?;
    let (ret, name) = before.rsplit_once(' ')?;
    let params = match params {
        "void" => Vec::new(),
        params => params.split(", ").map(param).collect::<Option<_>>()?,
    };
    let served = served.trim();
    let served = if let Some(by) = served.strip_prefix("= ") {
        let (call, args) = match by.split_once('(') {
            Some((call, args)) => (
                call,
                args.strip_suffix(')')?
                    .split(", ")
                    .map(str::to_owned)
                    .collect(),
            ),
            None => (by, params.iter().map(|p| p.name.clone()).collect()),
        };
        Served::By(call.to_owned(), args)
    } else if let Some(module) = served.strip_prefix("by ") {
        Served::Hand(module.to_owned())
    } else {
        Served::Absent(served.strip_prefix("absent ")?.to_owned())
    };
    Some(Call {
        ret: ret.to_owned(),
        name: name.to_owned(),
        params,
        served,
        note: note.to_owned(),
    })
}

fn param(text: &str) -> Option<Param> {
    let (text, variadic) = match text.strip_prefix("...") {
        Some(text) => (text, true),
        None => (text, false),
    };
    let at = text.rfind(|c: char| !c.is_alphanumeric() && c != '_')? + 1;
    Some(Param {
        ty: text[..at].trim_end().to_owned(),
        name: text[at..].to_owned(),
        variadic,
    })
}

impl Call {
    fn prototype(&self) -> String {
        let params: Vec<String> = self
            .params
            .iter()
            .map(|p| match (p.variadic, p.ty.ends_with('*')) {
                (true, _) => "...".to_owned(),
                (false, true) => format!("{}{}", p.ty, p.name),
                (false, false) => format!("{} {}", p.ty, p.name),
            })
            .collect();
        let params = match params.is_empty() {
            true => "void".to_owned(),
            false => params.join(", "),
        };
        format!("{} {}({params});", self.ret, self.name)
    }

    fn rust_params(&self) -> String {
        let params: Vec<String> = self
            .params
            .iter()
            .map(|p| format!("{}: {}", p.name, rust_type(&p.ty)))
            .collect();
        params.join(", ")
    }
}

fn rust_type(c: &str) -> &'static str {
    if c.ends_with('*') {
        return match c.starts_with("const ") {
            true => "*const c_void",
            false => "*mut c_void",
        };
    }
    match c {
        "int" | "pid_t" | "clockid_t" => "i32",
        "unsigned int" | "uint32_t" | "mode_t" | "uid_t" | "gid_t" | "socklen_t" => "u32",
        "long" | "off_t" => "i64",
        "unsigned long" | "dev_t" => "u64",
        "size_t" => "usize",
        "ssize_t" | "intptr_t" => "isize",
        "timer_t" => "*mut c_void",
        "void" => "()",
        other => panic!("no Rust type for {other}"),
    }
}

fn calls(lines: &[Line]) -> impl Iterator<Item = &Call> {
    lines.iter().filter_map(|l| match l {
        Line::Call(call) => Some(call),
        Line::Section(_) => None,
    })
}

fn header(lines: &[Line]) -> String {
    let mut out = String::from(HEADER);
    for line in lines {
        match line {
            Line::Section(name) => write!(out, "\n/* {name} */\n").unwrap(),
            Line::Call(call) => writeln!(out, "{}", call.prototype()).unwrap(),
        }
    }
    out.push_str("\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* _RUMP_RUMP_SYSCALLS_H_ */\n");
    out
}

const HEADER: &str = r#"/*
 * The system calls of a rump kernel, with NetBSD's names and argument order, the host's types, and the host's way to tell an
 * error: -1 and errno (posix_fadvise, posix_fallocate and clock_nanosleep answer the error itself).
 * Made from frontends/librump/syscalls.master; do not edit.
 */
#ifndef _RUMP_RUMP_SYSCALLS_H_
#define _RUMP_RUMP_SYSCALLS_H_

#include <sys/select.h>
#include <sys/types.h>
#include <sys/socket.h>

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct aiocb;
struct epoll_event;
struct iovec;
struct itimerval;
struct kevent;
struct mmsghdr;
struct pollfd;
struct rlimit;
struct rump_statvfs;
struct stat;
struct statvfs;
struct timeval;
"#;

fn shims(lines: &[Line]) -> String {
    let mut out = String::from(
        "// Made from frontends/librump/syscalls.master; do not edit.\n\nuse std::ffi::c_void;\n\nuse super::{absent, shims};\n\nshims! {\n",
    );
    for call in calls(lines) {
        if let Served::By(by, args) = &call.served {
            let (name, params, ret) = (&call.name, call.rust_params(), rust_type(&call.ret));
            let args = args.join(", ");
            // A C function without a value leaves its register alone.
            let ret = if ret == "()" { "i32" } else { ret };
            writeln!(out, "    fn {name}({params}) -> {ret} = {by}({args});").unwrap();
        }
    }
    out.push_str("}\n\nabsent! {\n");
    for call in calls(lines) {
        if let Served::Absent(errno) = &call.served {
            let (name, params, ret) = (&call.name, call.rust_params(), rust_type(&call.ret));
            writeln!(out, "    fn {name}({params}) -> {ret} = {errno};").unwrap();
        }
    }
    out.push_str("}\n");
    out
}

const BEGIN: &str = "<!-- made from frontends/librump/syscalls.master -->\n";
const END: &str = "<!-- end -->\n";

/// The C examples, by name.
fn examples() -> BTreeMap<String, String> {
    let all = std::fs::read_dir(root().join("examples/c")).unwrap();
    let paths = all.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "c"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn table(lines: &[Line]) -> String {
    let examples = examples();
    let shown_by = |call: &str| {
        let calls = format!("{call}(");
        let mut all = examples.iter().filter(|(_, text)| text.contains(&calls));
        all.next()
            .map_or(String::new(), |(name, _)| format!("`{name}`"))
    };
    let mut out = String::new();
    for line in lines {
        match line {
            Line::Section(name) => write!(
                out,
                "\n### {name}\n\n| call | | | shown by |\n|---|---|---|---|\n"
            )
            .unwrap(),
            Line::Call(call) => {
                let how = match &call.served {
                    Served::By(by, _) => format!("`{by}`"),
                    Served::Hand(module) => {
                        let own = Path::new(env!("CARGO_MANIFEST_DIR"))
                            .join(format!("src/{module}.rs"))
                            .exists();
                        let dir = if own { "" } else { "sys/" };
                        format!("by hand, `{dir}{module}.rs`")
                    }
                    Served::Absent(errno) => format!("absent: `{errno}`"),
                };
                let shown = shown_by(&call.name);
                writeln!(out, "| `{}` | {how} | {} | {shown} |", call.name, call.note).unwrap();
            }
        }
    }
    out
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a made file with the one in the tree, or writes it.
fn hold(path: &Path, want: &str) {
    let have = std::fs::read_to_string(path).unwrap_or_default();
    if have == want {
        return;
    }
    if std::env::var_os("RUMPKIT_WRITE").is_some() {
        std::fs::write(path, want).unwrap();
        return;
    }
    panic!(
        "{} is stale: RUMPKIT_WRITE=1 cargo test -p rumpkit-librump --test generated",
        path.display()
    );
}

#[test]
fn header_shims_and_table_are_those_of_the_master_file() {
    let lines = master();
    hold(
        &root().join("include/rump/rump_syscalls.h"),
        &header(&lines),
    );
    hold(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sys/generated.rs"),
        &shims(&lines),
    );
    let page = root().join("docs/librump.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("docs/librump.md has the table");
    let (_, after) = rest
        .split_once(END)
        .expect("docs/librump.md has the table's end");
    hold(
        &page,
        &format!("{before}{BEGIN}{}\n{END}{after}", table(&lines)),
    );
}

#[test]
fn every_shim_has_the_arguments_of_its_call() {
    for call in calls(&master()) {
        let Served::By(by, args) = &call.served else {
            continue;
        };
        let desc = TABLE
            .iter()
            .find(|d| d.name == by)
            .unwrap_or_else(|| panic!("{}: no call {by}", call.name));
        assert_eq!(args.len(), desc.args.len(), "{}", call.name);
    }
}

#[test]
fn every_call_is_there_once() {
    let mut seen = BTreeMap::new();
    for call in calls(&master()) {
        *seen.entry(call.name.clone()).or_insert(0) += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(seen.len() >= 206, "{}", seen.len());
}

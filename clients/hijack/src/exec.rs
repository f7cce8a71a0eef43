//! execve(2): the new program must be hijacked as this one is, and go on as the same process of the kernel.
//!
//! The environment gets what the shim needs to load again and to find its connection, also when the program passes an
//! empty one. A program that the loader would not load the shim into (statically linked, of another machine, with a
//! changed user) is refused with `EACCES` and a message, for it would run on the host unseen. A script is judged by
//! its interpreter. A program that lives in the kernel is copied into a memory file and run from there.

use abi::{AT_EMPTY_PATH, AT_FDCWD, Errno, F_DUPFD_CLOEXEC, O_CLOEXEC, O_RDONLY, Stat, nr};

use crate::config::Config;
use crate::elf::{Elf, PT_INTERP};
use crate::fds::{err, kernel_call};
use crate::init;
use crate::mapvec::MapVec;
use crate::message::{Bytes, say};
use crate::names::{Place, place};
use crate::process::leave_to_parent;
use crate::state::{process, raw_thread};
use crate::sys::{self, failed, host};

/// How often a script may be another script's interpreter, as on Linux.
const SCRIPT_DEPTH: u32 = 4;
/// As much of a file as says what it is, the program headers of any usual one included.
const HEAD: usize = 4096;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_ISUID: u32 = 0o4000;
const S_ISGID_EXEC: u32 = 0o2010;
const PR_GET_NO_NEW_PRIVS: u64 = 39;
const X_OK: u64 = 1;

/// execve(2) and execveat(2). Only comes back when the new program cannot run; `None` leaves it to the host.
pub(crate) fn execve(
    config: &Config<'_>,
    dir: i32,
    path: u64,
    argv: u64,
    envp: u64,
    flags: u64,
) -> Option<i64> {
    if !init::connected() {
        return None;
    }
    Some(
        match run(
            config,
            &Target {
                dir,
                path: path as *const u8,
                flags,
            },
            Argv(argv),
            envp,
            0,
        ) {
            Ok(ret) => ret,
            Err(errno) => err(errno),
        },
    )
}

/// The file to run.
struct Target {
    dir: i32,
    path: *const u8,
    flags: u64,
}

/// The address of the argument vector; the program's, or one made for a script.
#[derive(Clone, Copy)]
struct Argv(u64);

fn run(
    config: &Config<'_>,
    target: &Target,
    argv: Argv,
    envp: u64,
    depth: u32,
) -> Result<i64, Errno> {
    if depth > SCRIPT_DEPTH {
        return Err(Errno::ELOOP);
    }
    if (target.path as usize) < 4096 {
        return Err(Errno::EFAULT);
    }
    // SAFETY: the program's path, or an interpreter's name of ours.
    match unsafe { place(config, process(), target.dir, target.path) } {
        Place::Host => run_host(config, target, argv, envp, depth),
        Place::Kernel(name) => run_kernel(config, target, name, argv, envp, depth),
    }
}

/// A program of the host.
fn run_host(
    config: &Config<'_>,
    target: &Target,
    argv: Argv,
    envp: u64,
    depth: u32,
) -> Result<i64, Errno> {
    let fd = open_host(target)?;
    let mut head = [0u8; HEAD];
    // SAFETY: a buffer of ours; the descriptor is closed in every case.
    let (got, verdict) = unsafe {
        let got = host!(pread64, fd, head.as_mut_ptr(), HEAD, 0);
        let verdict = changes_user(fd);
        host!(close, fd);
        (got, verdict)
    };
    let head = head.get(..got.max(0) as usize).unwrap_or(&[]);
    if verdict? {
        return Err(refuse(
            target.path,
            "it changes its user or group, and the loader preloads nothing into such a program",
        ));
    }
    if let Some(script) = Script::parse(head) {
        let interpreter = place_of(config, script.interpreter()) == Place::Host;
        if interpreter {
            // The host reads the first line itself; the interpreter is judged here.
            judge_interpreter(config, &script, depth + 1)?;
            return Ok(hand_over(target, argv, envp));
        }
        return run_script(config, target, &script, argv, envp, depth);
    }
    judge(target.path, head)?;
    Ok(hand_over(target, argv, envp))
}

/// Opens the file for judging.
fn open_host(target: &Target) -> Result<i64, Errno> {
    // SAFETY: the program's path; the descriptor is new.
    let fd = unsafe {
        if *target.path == 0 && target.flags & AT_EMPTY_PATH as u64 != 0 {
            let link = crate::message::Line::new(format_args!("/proc/self/fd/{}\0", target.dir));
            host!(open, link.bytes().as_ptr(), O_RDONLY | O_CLOEXEC, 0)
        } else {
            host!(openat, target.dir, target.path, O_RDONLY | O_CLOEXEC, 0)
        }
    };
    match fd {
        -13 if executable(target) => Err(refuse(
            target.path,
            "it cannot be read, so nobody can tell whether the shim would be loaded",
        )),
        _ if failed(fd) => Err(Errno(-fd as i32)),
        _ => Ok(fd),
    }
}

fn executable(target: &Target) -> bool {
    // SAFETY: the program's path.
    unsafe { host!(faccessat, target.dir, target.path, X_OK) == 0 }
}

/// Whether running the file would change the user or group, by its mode bits or its capabilities.
fn changes_user(fd: i64) -> Result<bool, Errno> {
    let mut stat = [0u8; Stat::SIZE];
    // SAFETY: a buffer of the size of struct stat, and calls without effect.
    unsafe {
        let ret = host!(fstat, fd, stat.as_mut_ptr());
        if failed(ret) {
            return Err(Errno(-ret as i32));
        }
        let stat = Stat::from_bytes(&stat);
        if stat.st_mode & S_IFMT != S_IFREG {
            return Err(Errno::EACCES);
        }
        if host!(prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 {
            return Ok(false);
        }
        let user = stat.st_mode & S_ISUID != 0 && i64::from(stat.st_uid) != host!(getuid);
        let group =
            stat.st_mode & S_ISGID_EXEC == S_ISGID_EXEC && i64::from(stat.st_gid) != host!(getgid);
        let capable =
            host!(getuid) != 0 && host!(fgetxattr, fd, c"security.capability".as_ptr(), 0, 0) > 0;
        Ok(user || group || capable)
    }
}

/// Whether the loader would load the shim into a program that begins so.
fn judge(path: *const u8, head: &[u8]) -> Result<(), Errno> {
    if !head.starts_with(b"\x7fELF") {
        return Err(Errno::ENOEXEC);
    }
    let Some(elf) = Elf::parse(head) else {
        return Err(refuse(
            path,
            "it is not a program for 64-bit x86, which the shim is made for",
        ));
    };
    if !elf.segments().any(|s| s.kind == PT_INTERP) {
        return Err(refuse(
            path,
            "it is statically linked, so no shim can be loaded into it",
        ));
    }
    Ok(())
}

/// Says why a program is not run.
fn refuse(path: *const u8, why: &str) -> Errno {
    say(format_args!(
        "rump_hijack: {}: not run: {why}. It would use the host's files unseen. Use a dynamically linked program of \
         the same kind, or run it without rump.\n",
        // SAFETY: a path that the host or the kernel has read before.
        Bytes(unsafe { core::ffi::CStr::from_ptr(path.cast()) }.to_bytes())
    ));
    Errno::EACCES
}

/// The first line of a script.
struct Script {
    line: [u8; 256],
    /// End of the interpreter's name; a NUL stands there.
    name_end: usize,
    /// Its one argument, up to a NUL.
    argument: Option<usize>,
}

impl Script {
    /// Reads a head; `None` for what is no script.
    fn parse(head: &[u8]) -> Option<Script> {
        let rest = head.strip_prefix(b"#!")?;
        let end = rest
            .iter()
            .position(|&b| b == b'\n' || b == 0)
            .unwrap_or(rest.len())
            .min(255);
        let text = rest.get(..end)?.trim_ascii();
        let mut line = [0u8; 256];
        line.get_mut(..text.len())?.copy_from_slice(text);
        let blank = |b: &u8| *b == b' ' || *b == b'\t';
        let name_end = text.iter().position(blank).unwrap_or(text.len());
        let argument = text
            .get(name_end..)?
            .iter()
            .position(|b| !blank(b))
            .map(|at| name_end + at);
        *line.get_mut(name_end)? = 0;
        (name_end != 0).then_some(Script {
            line,
            name_end,
            argument,
        })
    }

    fn interpreter(&self) -> *const u8 {
        debug_assert_eq!(self.line[self.name_end], 0);
        self.line.as_ptr()
    }
}

fn place_of(config: &Config<'_>, path: *const u8) -> Place {
    // SAFETY: an interpreter's name of ours, with its NUL.
    unsafe { place(config, process(), AT_FDCWD, path) }
}

/// Judges a host script's interpreter, and that one's if it is a script too.
fn judge_interpreter(config: &Config<'_>, script: &Script, depth: u32) -> Result<(), Errno> {
    if depth > SCRIPT_DEPTH {
        return Err(Errno::ELOOP);
    }
    let target = Target {
        dir: AT_FDCWD,
        path: script.interpreter(),
        flags: 0,
    };
    let fd = open_host(&target)?;
    let mut head = [0u8; HEAD];
    // SAFETY: a buffer of ours, and the descriptor from above.
    let (got, changes) = unsafe {
        let got = host!(pread64, fd, head.as_mut_ptr(), HEAD, 0);
        let changes = changes_user(fd);
        host!(close, fd);
        (got, changes)
    };
    if changes? {
        return Err(refuse(
            target.path,
            "it changes its user or group, and the loader preloads nothing into such a program",
        ));
    }
    let head = head.get(..got.max(0) as usize).unwrap_or(&[]);
    match Script::parse(head) {
        Some(next) if place_of(config, next.interpreter()) == Place::Host => {
            judge_interpreter(config, &next, depth + 1)
        }
        Some(_) => Err(Errno::ENOEXEC),
        None => judge(target.path, head),
    }
}

/// Runs a script as the host's kernel does: interpreter, its argument, the script's name, the rest.
fn run_script(
    config: &Config<'_>,
    target: &Target,
    script: &Script,
    argv: Argv,
    envp: u64,
    depth: u32,
) -> Result<i64, Errno> {
    let mut new = MapVec::<u64>::default();
    let mut push = |value: u64| new.push(value).map_err(|_| Errno::ENOMEM);
    push(script.interpreter() as u64)?;
    if let Some(at) = script.argument {
        push(script.line[at..].as_ptr() as u64)?;
    }
    push(target.path as u64)?;
    for arg in vector(argv.0).skip(1) {
        push(arg)?;
    }
    push(0)?;
    let interpreter = Target {
        dir: AT_FDCWD,
        path: script.interpreter(),
        flags: 0,
    };
    run(
        config,
        &interpreter,
        Argv(new.as_ptr() as u64),
        envp,
        depth + 1,
    )
}

/// A program that lives in the kernel, under `name` there.
fn run_kernel(
    config: &Config<'_>,
    target: &Target,
    name: *const u8,
    argv: Argv,
    envp: u64,
    depth: u32,
) -> Result<i64, Errno> {
    let ok = kernel_call(
        nr::faccessat,
        &[target.dir as u64, name as u64, X_OK, 0, 0, 0],
    );
    if ok != 0 {
        return Err(Errno(-ok as i32));
    }
    let memfd = memory_file()?;
    // The number of the memory file serves in the kernel as well: no kernel descriptor has it.
    let args = [
        target.dir as u64,
        name as u64,
        (O_RDONLY | O_CLOEXEC) as u64,
        0,
        0,
        0,
    ];
    let hints = [memfd as i32, -1];
    let client = &process().client;
    let fd = client.call_hinted(raw_thread(), nr::openat, &args, hints);
    let copy = if fd < 0 {
        Err(Errno(-fd as i32))
    } else {
        let copy = copy_program(fd as u64, memfd);
        kernel_call(nr::close, &[fd as u64, 0, 0, 0, 0, 0]);
        copy
    };
    let ret = copy.and_then(|head| run_copy(config, target, memfd, &head, argv, envp, depth));
    // SAFETY: the memory file made above.
    unsafe { host!(close, memfd) };
    ret
}

/// Runs what a memory file has, copied from `target` in the kernel.
fn run_copy(
    config: &Config<'_>,
    target: &Target,
    memfd: i64,
    head: &[u8; HEAD],
    argv: Argv,
    envp: u64,
    depth: u32,
) -> Result<i64, Errno> {
    match Script::parse(head) {
        Some(script) => run_script(config, target, &script, argv, envp, depth),
        None => judge(target.path, head).map(|()| {
            let copy = Target {
                dir: memfd as i32,
                path: c"".as_ptr().cast(),
                flags: AT_EMPTY_PATH as u64,
            };
            hand_over(&copy, argv, envp)
        }),
    }
}

/// A memory file out of the program's way.
fn memory_file() -> Result<i64, Errno> {
    let floor = process().floor.load(core::sync::atomic::Ordering::Acquire);
    // SAFETY: new descriptors of the shim's.
    unsafe {
        let low = host!(memfd_create, c"rump".as_ptr(), 1);
        if failed(low) {
            return Err(Errno(-low as i32));
        }
        let memfd = host!(fcntl, low, F_DUPFD_CLOEXEC, floor);
        host!(close, low);
        if failed(memfd) {
            return Err(Errno::EMFILE);
        }
        Ok(memfd)
    }
}

/// Copies an open kernel file into a memory file; answers how the file begins, with zeros behind its end.
fn copy_program(fd: u64, memfd: i64) -> Result<[u8; HEAD], Errno> {
    let mut stat = [0u8; Stat::SIZE];
    let ret = kernel_call(nr::fstat, &[fd, stat.as_mut_ptr() as u64, 0, 0, 0, 0]);
    let stat = Stat::from_bytes(&stat);
    if ret != 0 || stat.st_mode & S_IFMT != S_IFREG {
        return Err(Errno::EACCES);
    }
    let size = stat.st_size as u64;
    // SAFETY: the memory file gets the size and is mapped for as long as it is filled.
    unsafe {
        if size == 0 || failed(host!(ftruncate, memfd, size)) {
            return Err(Errno::ENOEXEC);
        }
        let writable = sys::PROT_READ | sys::PROT_WRITE;
        let at = host!(mmap, 0, size, writable, 1, memfd, 0);
        if failed(at) {
            return Err(Errno::ENOMEM);
        }
        let mut done = 0;
        let mut got = 1;
        while done < size && got > 0 {
            got = kernel_call(
                nr::pread64,
                &[fd, at as u64 + done, size - done, done, 0, 0],
            );
            done += got.max(0) as u64;
        }
        let mut head = [0u8; HEAD];
        let len = (size as usize).min(HEAD);
        core::ptr::copy_nonoverlapping(at as *const u8, head.as_mut_ptr(), len);
        sys::unmap(at as *mut u8, size as usize);
        if got < 0 {
            return Err(Errno(-got as i32));
        }
        Ok(head)
    }
}

/// The strings of a vector that ends in a null pointer.
fn vector(at: u64) -> impl Iterator<Item = u64> {
    let mut next = at;
    core::iter::from_fn(move || {
        if next < 4096 {
            return None;
        }
        // SAFETY: the program's vector (or one of ours), read up to its null pointer.
        let value = unsafe { *(next as *const u64) };
        next += 8;
        (value != 0).then_some(value)
    })
}

/// The call itself, with the environment that the next shim needs. Comes back only with an error.
fn hand_over(target: &Target, argv: Argv, envp: u64) -> i64 {
    let process = process();
    let mut state = [0u8; 256];
    let Ok(len) = process.client.exec_prepare(&mut state) else {
        return err(Errno::EIO);
    };
    let handed = state.get(..len).unwrap_or(&[]);
    let inside = process.cwd.load(core::sync::atomic::Ordering::Acquire) == crate::cwd::INSIDE;
    let ret = match Environment::new(envp, handed, inside) {
        None => err(Errno::ENOMEM),
        Some(environment) => {
            leave_to_parent(environment.at, environment.bytes);
            // SAFETY: the program's call with a longer environment, which lives until the call has read it.
            let ret = unsafe {
                host!(
                    execveat,
                    target.dir,
                    target.path,
                    argv.0,
                    environment.at,
                    target.flags
                )
            };
            leave_to_parent(core::ptr::null_mut(), 0);
            // SAFETY: the mapping of the environment, which did not become another program's.
            unsafe { sys::unmap(environment.at, environment.bytes) };
            ret
        }
    };
    process.client.exec_cancel();
    ret
}

/// The environment of the next program in a mapping: pointers, a null pointer, and the strings that are new.
struct Environment {
    at: *mut u8,
    bytes: usize,
}

/// Variables that only say something to the very next program.
const HANDOVER: [&[u8]; 3] = [
    b"RUMPCLIENT__EXECFD=",
    b"RUMPHIJACK__PWDINRUMP=",
    b"RUMP__PARSEDSERVER=",
];

impl Environment {
    fn new(envp: u64, handed: &[u8], inside: bool) -> Option<Environment> {
        let preload = vector(envp).find_map(|var| tail_of(var, b"LD_PRELOAD="));
        let preload_len = preload.map_or(0, c_len);
        let shim = init::shim();
        let pointers = vector(envp).count() + 8;
        let strings = handed.len() + shim.len() + preload_len + 256;
        let bytes = pointers * 8 + strings;
        let at = sys::map_anon(0, bytes, 0)?;
        let mut out = Writer {
            next: at.cast(),
            text: at.wrapping_add(pointers * 8),
        };
        let mut has = [false; 2];
        for var in vector(envp) {
            let dropped = HANDOVER.iter().any(|name| tail_of(var, name).is_some());
            if dropped || tail_of(var, b"LD_PRELOAD=").is_some() {
                continue;
            }
            has[0] |= tail_of(var, b"RUMP_SERVER=").is_some();
            has[1] |= tail_of(var, b"RUMPHIJACK=").is_some();
            out.pointer(var);
        }
        if !has[0] {
            out.pointer(init::server_variable());
        }
        if !has[1] && init::hijack_variable() != 0 {
            out.pointer(init::hijack_variable());
        }
        out.pointer(init::parsed_variable());
        out.string(&[b"RUMPCLIENT__EXECFD=", handed]);
        if inside {
            out.string(&[b"RUMPHIJACK__PWDINRUMP=1"]);
        }
        // SAFETY: the program's string up to its NUL, counted above.
        let theirs = preload.map_or(&b""[..], |p| unsafe {
            core::slice::from_raw_parts(p as *const u8, preload_len)
        });
        let has_shim = theirs
            .split(|&b| b == b':' || b == b' ')
            .any(|word| word == shim);
        match (has_shim, theirs.is_empty()) {
            (true, _) => out.string(&[b"LD_PRELOAD=", theirs]),
            (false, true) => out.string(&[b"LD_PRELOAD=", shim]),
            (false, false) => out.string(&[b"LD_PRELOAD=", shim, b":", theirs]),
        }
        out.pointer(0);
        Some(Environment { at, bytes })
    }
}

/// Writes pointers from the front and strings behind them, into room that was counted.
struct Writer {
    next: *mut u64,
    text: *mut u8,
}

impl Writer {
    fn pointer(&mut self, value: u64) {
        // SAFETY: room for every variable, eight more and the end was counted.
        unsafe {
            self.next.write(value);
            self.next = self.next.add(1);
        }
    }

    fn string(&mut self, parts: &[&[u8]]) {
        self.pointer(self.text as u64);
        for part in parts.iter().copied().chain([&b"\0"[..]]) {
            // SAFETY: the strings' lengths and names were counted.
            unsafe {
                core::ptr::copy_nonoverlapping(part.as_ptr(), self.text, part.len());
                self.text = self.text.add(part.len());
            }
        }
    }
}

/// The address behind `name` when the string at `var` begins with it.
fn tail_of(var: u64, name: &[u8]) -> Option<u64> {
    let text = var as *const u8;
    // SAFETY: a string of the program's environment, read up to the first byte that differs, its NUL at the latest.
    let same = name
        .iter()
        .enumerate()
        .all(|(i, &b)| unsafe { *text.add(i) } == b);
    same.then_some(var + name.len() as u64)
}

fn c_len(at: u64) -> usize {
    // SAFETY: a string of the program's environment.
    unsafe { core::ffi::CStr::from_ptr(at as *const core::ffi::c_char) }
        .to_bytes()
        .len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(head: &str) -> Option<(String, Option<String>)> {
        let script = Script::parse(head.as_bytes())?;
        let text = |from: usize| {
            let rest = &script.line[from..];
            String::from_utf8_lossy(&rest[..rest.iter().position(|&b| b == 0).unwrap()])
                .into_owned()
        };
        Some((text(0), script.argument.map(text)))
    }

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        assert_eq!(parts("#!/bin/sh\nx"), Some(("/bin/sh".into(), None)));
        assert_eq!(
            parts("#! /usr/bin/env python3 -u \n"),
            Some(("/usr/bin/env".into(), Some("python3 -u".into())))
        );
        assert_eq!(parts("#!/bin/sh"), Some(("/bin/sh".into(), None)));
        assert_eq!(
            parts("#!/bin/sh -e\0\0"),
            Some(("/bin/sh".into(), Some("-e".into())))
        );
        assert_eq!(parts("#!\n"), None);
        assert_eq!(parts("\x7fELF"), None);
        assert!(parts(&format!("#!/{}", "x".repeat(500))).is_some());
    }

    #[test]
    fn the_next_environment_has_what_the_next_shim_needs() {
        init::for_test("unix:///s", "path=/rump", "/lib/shim.so");
        let own: Vec<_> = ["A=1", "LD_PRELOAD=/x.so", "RUMPCLIENT__EXECFD=old", "B=2"]
            .map(|s| std::ffi::CString::new(s).unwrap())
            .into();
        let mut envp: Vec<u64> = own.iter().map(|s| s.as_ptr() as u64).collect();
        envp.push(0);
        for (envp, want) in [
            (
                envp.as_ptr() as u64,
                &["A=1", "B=2", "LD_PRELOAD=/lib/shim.so:/x.so"][..],
            ),
            (0, &["LD_PRELOAD=/lib/shim.so"][..]),
        ] {
            let new = Environment::new(envp, b"5,6", true).unwrap();
            let got: Vec<String> = vector(new.at as u64)
                .map(|s| {
                    // SAFETY: a C string of the new environment.
                    unsafe { core::ffi::CStr::from_ptr(s as *const i8) }
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            for var in want.iter().chain(&[
                "RUMP_SERVER=unix:///s",
                "RUMPHIJACK=path=/rump",
                "RUMP__PARSEDSERVER=unix:///s",
                "RUMPCLIENT__EXECFD=5,6",
                "RUMPHIJACK__PWDINRUMP=1",
            ]) {
                assert_eq!(got.iter().filter(|g| g == var).count(), 1, "{var}: {got:?}");
            }
            assert_eq!(got.len(), want.len() + 5);
        }
    }
}

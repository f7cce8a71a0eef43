//! Processes, threads and descriptors under the shim.

mod common;

use common::{Rump, have};

#[test]
fn children_and_their_children_share_files() {
    let rump = Rump::boot();
    let got = rump.sh(
        "exec 7> /rump/tmp/log; (echo child >&7; (echo grandchild >&7); bash -c 'echo exec >&7'); echo parent >&7
         for i in 1 2 3; do echo $i >&7 & done; wait; exec 7>&-
         sort /rump/tmp/log",
    );
    assert_eq!(got, "1\n2\n3\nchild\nexec\ngrandchild\nparent\n");
}

#[test]
fn exec_keeps_descriptors_and_directory_but_those_that_close() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os
os.chdir("/rump/tmp")
keep = os.open("keep", os.O_RDWR | os.O_CREAT); os.set_inheritable(keep, True); os.write(keep, b"before")
lose = os.open("lose", os.O_RDWR | os.O_CREAT)
code = f"""
import os
os.write({keep}, b" after"); print(os.getcwd(), os.listdir("."))
try: os.fstat({lose}); print("still open")
except OSError as e: print(e.errno)
print(open("keep").read())
"""
os.execve("/usr/bin/env", ["env", "PATH=" + os.environ["PATH"], "python3", "-c", code], {})
"#,
    );
    let mut lines = got.lines();
    assert!(lines.next().unwrap().starts_with("/rump/tmp ["), "{got}");
    assert_eq!(lines.collect::<Vec<_>>(), ["9", "before after"]);
}

#[test]
fn descriptors_are_duplicated_closed_and_limited_like_any() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os, fcntl, resource
def errno(f, *a):
    try: return f(*a)
    except OSError as e: return -e.errno
k = os.open("/rump/tmp/k", os.O_RDWR | os.O_CREAT); h = os.open("h", os.O_RDWR | os.O_CREAT)
print(h == k + 1)
os.write(k, b"0123456789")
d = os.dup(k); os.lseek(d, 4, 0); print(os.read(k, 2), d == h + 1)
e = fcntl.fcntl(k, fcntl.F_DUPFD, 50); print(e, os.fstat(e).st_size, fcntl.fcntl(e, fcntl.F_GETFD))
os.dup2(k, h); print(os.fstat(h).st_size); os.dup2(os.open("h", os.O_RDONLY), d); print(os.fstat(d).st_size)
os.dup2(k, 60); os.close(60); print(errno(os.fstat, 60), errno(os.dup, 60))
print(errno(os.dup2, 61, k), os.fstat(k).st_size)
os.closerange(40, 70); print(errno(os.fstat, e))
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 1024))
fds = []
while (fd := errno(os.open, "/rump/tmp/k", os.O_RDONLY)) >= 0: fds.append(fd)
print(fd, max(fds)); [os.close(f) for f in fds]
os.closerange(3, 1 << 20); print(errno(os.fstat, k))
print(open("/rump/tmp/k").read())
for f in range(3, 4096): errno(os.close, f)
print(open("/rump/tmp/k").read())
"#,
    );
    assert_eq!(
        got,
        "True\nb'45' True\n50 10 0\n10\n0\n-9 -9\n-9 10\n-9\n-24 19\n-9\n0123456789\n0123456789\n"
    );
}

#[test]
fn threads_read_and_write_at_once() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os, threading
def work(n):
    for i in range(50):
        name = f"/rump/tmp/{n}-{i}"
        with open(name, "wb") as f: f.write(bytes([n]) * 10000)
        assert open(name, "rb").read() == bytes([n]) * 10000
        os.unlink(name)
for _ in range(3):
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [t.start() for t in threads]; [t.join() for t in threads]
print(os.listdir("/rump/tmp"))
"#,
    );
    assert_eq!(got, "[]\n");
}

#[test]
fn waits_mix_host_and_kernel_descriptors() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os, select, threading, time
os.mkfifo("/rump/tmp/fifo")
k = os.open("/rump/tmp/fifo", os.O_RDWR | os.O_NONBLOCK); r, w = os.pipe()
names = {k: "kernel", r: "host"}
def show(events): print(sorted(names[fd] for fd, _ in events))
def waiter(kind):
    p = select.poll() if kind == "poll" else select.epoll()
    for fd in (k, r): p.register(fd, select.POLLIN)
    return p
def drain():
    for fd in (k, r):
        os.set_blocking(fd, False)
        try: os.read(fd, 100)
        except BlockingIOError: pass
for kind in ("poll", "epoll"):
    p = waiter(kind)
    print(p.poll(0.01 if kind == "epoll" else 10))
    os.write(w, b"x"); show(p.poll(5000)); drain()
    os.write(k, b"x"); show(p.poll(5000)); drain()
    os.write(k, b"x"); os.write(w, b"x"); show(p.poll(5000)); drain()
    for fd in (k, w):
        # Whoever writes does so once the other is asleep in its wait, or before: both must wake it.
        t = threading.Thread(target=os.write, args=(fd, b"y")); t.start(); show(p.poll()); t.join(); drain()
    if kind == "epoll":
        p.unregister(k); os.write(k, b"x"); print(p.poll(0.01)); p.close(); drain()
def names_of(sets): return [sorted(names.get(fd, "other") for fd in s) for s in sets]
print(names_of(select.select([k, r], [], [], 0.01)))
os.write(k, b"x"); print(names_of(select.select([k, r], [w], [], 5)))
os.write(w, b"x"); print(names_of(select.select([k, r], [], [])))
"#,
    );
    let once = "[]\n['host']\n['kernel']\n['host', 'kernel']\n['kernel']\n['host']\n";
    let want = format!(
        "{once}{once}[]\n[[], [], []]\n[['kernel'], ['other'], []]\n[['host', 'kernel'], [], []]\n"
    );
    assert_eq!(got, want);
}

#[test]
fn a_child_that_cannot_run_its_program_tells_its_parent() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os
for program in ("/nosuch/program", "/rump/nosuch"):
    try: os.posix_spawn(program, [program], {})
    except OSError as e: print(e.errno)
k = os.open("/rump/tmp/k", os.O_RDWR | os.O_CREAT)
pid = os.posix_spawn("/bin/echo", ["echo", "spawned"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, k, 1)])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.pread(k, 100, 0))
"#,
    );
    assert_eq!(got, "2\n2\n0 b'spawned\\n'\n");
}

#[test]
fn programs_in_the_kernel_run() {
    let rump = Rump::boot();
    let got = rump.sh(
        "cp /bin/echo /rump/tmp/echo; /rump/tmp/echo from the kernel
         printf '#!/bin/sh\\necho script $0 $1\\n' > /rump/tmp/script; chmod +x /rump/tmp/script; /rump/tmp/script arg
         cd /rump/tmp; ./script rel; ./echo rel
         printf '#!/rump/tmp/echo -n\\n' > $HOME/s; chmod +x $HOME/s; $HOME/s x; echo
         printf 'x' > notexec; ./notexec 2> /dev/null || echo $?",
    );
    let home = rump.dir.path().display();
    assert_eq!(
        got,
        format!(
            "from the kernel\nscript /rump/tmp/script arg\nscript ./script rel\nrel\n{home}/s x\n126\n"
        )
    );
}

#[test]
fn a_static_program_is_refused_by_name() {
    if !have("gcc") {
        return;
    }
    let rump = Rump::boot();
    let made = std::process::Command::new("sh")
        .arg("-c")
        .arg("echo 'int main(){return 0;}' | gcc -static -x c -o static -")
        .current_dir(rump.dir.path())
        .status()
        .unwrap();
    if !made.success() {
        eprintln!("no static libc: not tested");
        return;
    }
    let output = rump.try_sh("./static || echo status $?");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("./static: not run: it is statically linked"),
        "{errors}"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "status 126\n");
}

#[test]
fn signals_interrupt_calls_that_wait_in_the_kernel() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os, signal
os.mkfifo("/rump/tmp/f"); k = os.open("/rump/tmp/f", os.O_RDWR)
class Stop(Exception): pass
def handler(*_):
    open("/rump/tmp/seen", "w").write("in the handler")
    raise Stop
signal.signal(signal.SIGALRM, handler); signal.setitimer(signal.ITIMER_REAL, 0.05)
try: os.read(k, 1)
except Stop: print(open("/rump/tmp/seen").read())
def again(*_): os.write(k, b"z")
signal.signal(signal.SIGALRM, again); signal.setitimer(signal.ITIMER_REAL, 0.05)
print(os.read(k, 1))
"#,
    );
    assert_eq!(got, "in the handler\nb'z'\n");
}

#[test]
fn every_object_is_explained() {
    let rump = Rump::boot();
    let to = rump.dir.path().join("explained");
    let status = rump
        .command("/bin/true")
        .env("RUMPHIJACK_EXPLAIN", &to)
        .status()
        .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(to).unwrap();
    let libc = text.lines().find(|l| l.contains("libc.so")).unwrap();
    assert!(libc.contains(" system-call sites, "), "{text}");
}

#[test]
fn nonsense_in_the_variable_ends_the_program() {
    let rump = Rump::boot();
    let output = rump
        .command("/bin/echo")
        .env("RUMPHIJACK", "path=/rump,nosuch=1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuch=1"));
}

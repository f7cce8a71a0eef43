//! Unmodified programs on files of the kernel.

mod common;

use common::{Rump, have};

#[test]
fn cat_reads_a_file_of_the_kernel() {
    let rump = Rump::boot();
    rump.inside().write("/tmp/hello", "from inside\n").unwrap();
    let output = rump.command("cat").arg("/rump/tmp/hello").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout, b"from inside\n");
}

#[test]
fn missing_names_are_missing_and_host_names_are_not() {
    let rump = Rump::boot();
    let output = rump.try_sh("cat /rump/tmp/nosuch");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("No such file or directory"),
        "{output:?}"
    );
    assert_eq!(
        rump.sh("test -e /etc/passwd; test ! -e /rump/etc/passwd; test -d /rump; echo yes"),
        "yes\n"
    );
}

#[test]
fn the_shell_redirects_to_and_from_the_kernel() {
    let rump = Rump::boot();
    let got = rump.sh("echo one > /rump/tmp/a
         echo two >> /rump/tmp/a
         exec 5< /rump/tmp/a; read x <&5; read y <&5; exec 5<&-
         echo $x-$y
         cat < /rump/tmp/a | tr a-z A-Z > /rump/tmp/b
         cat /rump/tmp/b
         { echo err >&2; } 2> /rump/tmp/c; cat /rump/tmp/c
         exec 3>&1 > /rump/tmp/d; echo hidden; ls /rump/tmp; exec 1>&3 3>&-
         cat /rump/tmp/d
         cat <<< here > /rump/tmp/e; cat /rump/tmp/e");
    assert_eq!(got, "one-two\nONE\nTWO\nerr\nhidden\na\nb\nc\nd\nhere\n");
    assert_eq!(rump.inside().read("/tmp/a").unwrap(), b"one\ntwo\n");
}

#[test]
fn the_working_directory_can_be_inside() {
    let rump = Rump::boot();
    let got = rump.sh(
        "mkdir -p /rump/tmp/x/y; cd /rump/tmp/x; pwd; /bin/pwd; echo hi > f; cat ./f; ls
         cd y; /bin/pwd; cat ../f; cd ..; /bin/pwd
         cd /rump; /bin/pwd; cat tmp/x/f
         cd /rump/tmp/../..; /bin/pwd
         cd /tmp; /bin/pwd
         cd /rump/tmp; cd -; cd /; /bin/pwd",
    );
    assert_eq!(
        got,
        "/rump/tmp/x\n/rump/tmp/x\nhi\nf\ny\n/rump/tmp/x/y\nhi\n/rump/tmp/x\n/rump\nhi\n/\n/tmp\n/tmp\n/\n"
    );
}

#[test]
fn names_relative_to_the_root_and_names_of_descriptors_lead_inside() {
    let rump = Rump::boot();
    let got = rump.sh(
        "cd /; echo hi > rump/tmp/f; cat ./rump/tmp/f; cd rump/tmp; /bin/pwd; cd /tmp; ls rump 2> /dev/null || echo none
         cat /dev/stdin < /rump/tmp/f; exec 9< /rump/tmp/f; cat /dev/fd/9; echo out > /dev/stdout | cat",
    );
    assert_eq!(got, "hi\n/rump/tmp\nnone\nhi\nhi\nout\n");
}

#[test]
fn names_relative_to_a_descriptor_of_the_root_lead_inside() {
    let rump = Rump::boot();
    let script = r#"
import os
root = os.open("/", os.O_PATH | os.O_DIRECTORY)
os.mkdir("rump/tmp/d", dir_fd=root)
fd = os.open("rump", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
fd = os.open("tmp", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
os.fchdir(fd)
print(os.getcwd(), os.listdir("."), os.stat("./rump", dir_fd=root).st_ino == os.stat("/rump").st_ino)
tmp = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
try: os.stat("rump", dir_fd=tmp)
except FileNotFoundError: print("none")
"#;
    let output = rump
        .command("python3")
        .args(["-c", script])
        .output()
        .unwrap();
    let got = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(got, "/rump/tmp ['d'] True\nnone\n", "{output:?}");
}

#[test]
fn writing_to_a_named_pipe_that_nobody_reads_is_a_signal() {
    let rump = Rump::boot();
    let got = rump.sh("cd /rump/tmp; mkfifo p; exec 3<> p 4> p 3>&-
         (echo x >&4) || echo $?; (trap '' PIPE; echo x >&4) 2> /dev/null || echo $?
         cat /etc/passwd >&4 || echo $?");
    assert_eq!(got, "141\n1\n141\n");
}

#[test]
fn trees_are_copied_packed_and_compared() {
    let rump = Rump::boot();
    let got = rump.sh(
        "mkdir -p src/deep/er; echo a > src/a; echo b > src/deep/b; ln -s a src/link; chmod 640 src/a
         head -c 300000 /dev/urandom > src/deep/er/big
         touch -d '2001-02-03 04:05:06' src/deep/b
         cp -a src /rump/tmp/copy; diff -r src /rump/tmp/copy
         stat -c '%a %Y' /rump/tmp/copy/a | cut -d' ' -f1; stat -c %Y /rump/tmp/copy/deep/b; readlink /rump/tmp/copy/link
         tar -C /rump/tmp -cf /rump/tmp/t.tar copy; mkdir /rump/tmp/out; tar -C /rump/tmp/out -xf /rump/tmp/t.tar
         diff -r src /rump/tmp/out/copy; cp -a /rump/tmp/out/copy back; diff -r src back
         find /rump/tmp/copy | sort | sed s,/rump/tmp/,,; du -s /rump/tmp/copy > /dev/null
         mv /rump/tmp/copy/a /rump/tmp/moved; mv /rump/tmp/moved here; cat here; mv here /rump/tmp/again
         rm -r /rump/tmp/copy /rump/tmp/out /rump/tmp/t.tar; ls /rump/tmp",
    );
    assert_eq!(
        got,
        "640\n981173106\na\ncopy\ncopy/a\ncopy/deep\ncopy/deep/b\ncopy/deep/er\ncopy/deep/er/big\ncopy/link\na\nagain\n"
    );
}

#[test]
fn ls_shows_what_stat_says() {
    let rump = Rump::boot();
    rump.inside().write("/tmp/f", vec![7; 1234]).unwrap();
    let got =
        rump.sh("ls -l /rump/tmp; ls -a /rump; stat -c '%s %F' /rump/tmp/f; wc -c < /rump/tmp/f");
    assert!(got.contains(" 1234 "), "{got}");
    assert!(got.contains("\ntmp\n"), "{got}");
    assert!(got.ends_with("1234 regular file\n1234\n"), "{got}");
}

#[test]
fn python_walks_copies_and_runs_programs() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import os, shutil, subprocess, sys, tempfile, mmap
os.makedirs("/rump/tmp/a/b")
for i in range(20):
    with open(f"/rump/tmp/a/b/{i}", "w") as f: f.write(str(i) * 1000)
shutil.copytree("/rump/tmp/a", "/rump/tmp/c")
shutil.copytree("/rump/tmp/c", "out")
print(sum(len(files) for _, _, files in os.walk("/rump/tmp/c")), len(os.listdir("out/b")))
shutil.copyfile("/etc/passwd", "/rump/tmp/p"); assert open("/rump/tmp/p").read() == open("/etc/passwd").read()
shutil.copyfile("/rump/tmp/p", "p"); assert open("p").read() == open("/etc/passwd").read()
r = subprocess.run(["cat", "/rump/tmp/a/b/7"], capture_output=True, text=True); assert r.stdout == "7" * 1000, r
with open("/rump/tmp/o", "w") as f: subprocess.run(["echo", "to a file"], stdout=f, check=True)
print(open("/rump/tmp/o").read().strip())
try: subprocess.run(["/rump/nosuch"])
except FileNotFoundError as e: print("no such", e.filename)
os.chdir("/rump/tmp"); print(os.getcwd(), subprocess.run(["pwd"], capture_output=True, text=True).stdout.strip())
with open("m", "wb") as f: f.write(b"x" * 5000 + b"end")
with open("m", "rb") as f:
    m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ); print(m[-3:], len(m)); m.close()
with open("m", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); m[1:2] = b"z"; print(os.pread(f.fileno(), 3, 0)); os.pwrite(f.fileno(), b"x", 1); print(m[:3])
    if not os.fork(): m[4:5] = b"c"; os._exit(0)
    os.wait(); print(m[3:6], os.pread(f.fileno(), 3, 3)); m[4:5] = b"x"; m.flush(); m.close()
with open("m", "rb") as f:
    try: mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_WRITE)
    except OSError as e: print(e.errno)
with open("m", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY); m[0:1] = b"y"; m.close(); print(f.read(2))
fd = os.open("m", os.O_RDONLY); d = os.open("/rump/tmp", os.O_RDONLY)
print(os.stat("m", dir_fd=d).st_size, os.path.realpath("/rump/tmp/../tmp/m"))
os.rename("m", "n", src_dir_fd=d, dst_dir_fd=d); print(os.path.exists("m"), os.path.exists("n"))
try: os.rename("/rump/tmp/n", "/tmp/n")
except OSError as e: print(e.errno)
"#,
    );
    assert_eq!(
        got,
        "20 20\nto a file\nno such /rump/nosuch\n/rump/tmp /rump/tmp\nb'end' 5003\nb'xzx'\nb'xxx'\nb'xcx' b'xcx'\n13\nb'xx'\n5003 /rump/tmp/m\nFalse True\n18\n"
    );
}

#[test]
fn sqlite_keeps_a_database_in_the_kernel() {
    if !have("python3") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.python(
        r#"
import sqlite3, threading
def work(n):
    db = sqlite3.connect("/rump/tmp/db", timeout=60)
    for i in range(20):
        with db: db.execute("insert into t values (?, ?)", (n, i))
db = sqlite3.connect("/rump/tmp/db"); db.execute("create table t (a, b)"); db.commit()
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(db.execute("select count(*) from t").fetchone()[0], db.execute("pragma integrity_check").fetchone()[0])
"#,
    );
    assert_eq!(got, "80 ok\n");
}

#[test]
fn git_keeps_a_repository_in_the_kernel() {
    if !have("git") {
        return;
    }
    let rump = Rump::boot();
    let got = rump.sh(
        "git config --global user.email a@b; git config --global user.name a; git config --global init.defaultBranch main
         git config --global advice.detachedHead false
         git init -q /rump/tmp/r; cd /rump/tmp/r
         for i in 1 2 3 4 5; do echo line $i >> f$i; git add .; git commit -qm c$i; done
         git -c gc.auto=0 clone -q /rump/tmp/r /rump/tmp/clone; cd /rump/tmp/clone; git log --oneline | wc -l; git fsck 2>&1
         git gc -q; git fsck 2>&1; git checkout -q HEAD~2; ls
         git clone -q /rump/tmp/r $HOME/out; diff -r /rump/tmp/r/f5 $HOME/out/f5; git -C $HOME/out status --short",
    );
    assert_eq!(got, "5\nf1\nf2\nf3\n");
}

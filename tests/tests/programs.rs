//! Unmodified Debian programs on a real ext4 image; the host's e2fsck finds it clean after each.

use std::fs;
use std::path::Path;

use support::{Image, run, script};

/// A tree with the things that trees have.
fn make_tree(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    for i in 0..40usize {
        fs::write(dir.join(format!("a/file{i}")), vec![i as u8; i * 700]).unwrap();
    }
    fs::write(dir.join("a/b/c/large"), vec![0x5a; 3 << 20]).unwrap();
    fs::write(dir.join("a/nothing"), b"").unwrap();
    fs::write(dir.join("a/ünïcode name"), b"x").unwrap();
    std::os::unix::fs::symlink("b/c/large", dir.join("a/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.join("a/dangling")).unwrap();
    fs::hard_link(dir.join("a/file7"), dir.join("a/b/hard")).unwrap();
}

#[test]
fn ls_shows_what_an_image_holds() {
    let image = Image::ext4(32);
    let mount = image.at("/data");
    assert_eq!(
        run(["run", "--mount", &mount, "--", "ls", "/rump/data"]).ok(),
        "lost+found\n"
    );
    let long = run([
        "run",
        "--mount",
        &mount,
        "--",
        "ls",
        "-ld",
        "/rump/data/lost+found",
    ])
    .ok();
    assert!(long.starts_with("drwx------"), "{long}");
    image.is_clean();
}

#[test]
fn what_one_kernel_wrote_the_next_one_and_the_host_read() {
    let image = Image::ext4(32);
    let mount = image.at("/data");
    let with = ["--mount", mount.as_str()];
    script(
        &with,
        image.dir(),
        "echo first > /rump/data/f; mkdir /rump/data/d; chmod 640 /rump/data/f",
    )
    .ok();
    image.is_clean();
    let second = script(
        &with,
        image.dir(),
        "cat /rump/data/f; echo second >> /rump/data/f; stat -c %a /rump/data/f",
    );
    assert_eq!(second.ok(), "first\n640\n");
    image.is_clean();
    let mut debugfs = std::process::Command::new("/usr/sbin/debugfs");
    let cat = support::finish(debugfs.args(["-R", "cat /f"]).arg(image.path()));
    assert_eq!(cat.ok(), "first\nsecond\n");
}

#[test]
fn cp_brings_a_tree_in_and_out_unchanged() {
    let image = Image::ext4(64);
    make_tree(&image.dir().join("tree"));
    script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "cp -a $DIR/tree /rump/data/tree; diff -r --no-dereference $DIR/tree /rump/data/tree; cp -a /rump/data/tree $DIR/back\n\
         test $(stat -c %h /rump/data/tree/a/file7) = 2\n\
         diff -r --no-dereference $DIR/tree $DIR/back; rm -r /rump/data/tree; test -z \"$(ls /rump/data | grep -v lost)\"",
    )
    .ok();
    image.is_clean();
}

#[test]
fn tar_there_and_back_is_the_same_byte_for_byte() {
    let image = Image::ext4(64);
    make_tree(&image.dir().join("tree"));
    script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "tar -C $DIR/tree --sort=name -cf /rump/data/a.tar .\n\
         mkdir /rump/data/x; tar -C /rump/data/x -xf /rump/data/a.tar\n\
         tar -C /rump/data/x --sort=name -cf $DIR/b.tar .\n\
         cmp /rump/data/a.tar $DIR/b.tar",
    )
    .ok();
    image.is_clean();
}

#[test]
fn sqlite_with_concurrent_writers_keeps_its_integrity() {
    let image = Image::ext4(64);
    let out = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "db=/rump/data/t.db; sqlite3 $db 'create table t (w int, i int)'\n\
         pids=\n\
         for w in 1 2 3 4; do\n\
           { echo '.timeout 100000'; for i in $(seq 20); do echo \"insert into t values ($w, $i);\"; done; } > $DIR/$w.sql\n\
           sqlite3 -bail $db < $DIR/$w.sql & pids=\"$pids $!\"\n\
         done\n\
         for p in $pids; do wait $p; done\n\
         sqlite3 $db 'pragma integrity_check' 'select count(*), count(distinct w) from t'",
    );
    assert_eq!(out.ok(), "ok\n80|4\n");
    image.is_clean();
}

#[test]
fn sqlite_processes_share_the_index_of_a_write_ahead_log() {
    let image = Image::ext4(64);
    let out = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "db=/rump/data/t.db; sqlite3 $db 'pragma journal_mode=wal' 'create table t (w int, i int)'\n\
         pids=\n\
         for w in 1 2 3; do\n\
           { echo '.timeout 100000'; for i in $(seq 20); do echo \"insert into t values ($w, $i);\"; done; } > $DIR/$w.sql\n\
           sqlite3 -bail $db < $DIR/$w.sql & pids=\"$pids $!\"\n\
         done\n\
         for p in $pids; do wait $p; done\n\
         sqlite3 $db 'pragma integrity_check' 'select count(*), count(distinct w) from t' 'pragma journal_mode'",
    );
    assert_eq!(out.ok(), "wal\nok\n60|3\nwal\n");
    image.is_clean();
}

#[test]
fn what_is_stored_in_a_shared_mapping_is_the_files_and_msync_keeps_it() {
    let image = Image::ext4(32);
    let mount = image.at("/data");
    fs::write(
        image.dir().join("store.py"),
        "import mmap, os, signal\n\
         fd = os.open('/rump/data/f', os.O_RDWR | os.O_CREAT)\n\
         os.ftruncate(fd, 1 << 20)\n\
         m = mmap.mmap(fd, 1 << 20); os.close(fd)\n\
         m[5000:5005] = b'early'; m.flush()\n\
         m[900000:900004] = b'late'\n\
         print(open('/rump/data/f', 'rb').read()[900000:900004], flush=True)\n\
         os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    .unwrap();
    let out = script(
        &["--mount", &mount],
        image.dir(),
        "python3 $DIR/store.py || test $? = 137\n\
         tail -c +5001 /rump/data/f | head -c 5; tail -c +900001 /rump/data/f | head -c 4",
    );
    assert_eq!(out.ok(), "b'late'\nearlylate");
    image.is_clean();
    let mut debugfs = std::process::Command::new("/usr/sbin/debugfs");
    let cat = support::finish(debugfs.args(["-R", "cat /f"]).arg(image.path()));
    let text = cat.ok();
    assert_eq!(text.len(), 1 << 20);
    assert_eq!(
        (&text[5000..5005], &text[900_000..900_004]),
        ("early", "late")
    );
}

#[test]
fn python_walks_and_copies_a_tree() {
    let image = Image::ext4(64);
    make_tree(&image.dir().join("tree"));
    fs::write(
        image.dir().join("walk.py"),
        "import filecmp, os, shutil, sys\n\
         a, b = sys.argv[1:]\n\
         shutil.copytree(a, b, symlinks=True)\n\
         seen = 0\n\
         for here, dirs, files in os.walk(a):\n\
         \x20   for f in files:\n\
         \x20       p, q = os.path.join(here, f), os.path.join(b, os.path.relpath(here, a), f)\n\
         \x20       assert os.path.islink(p) == os.path.islink(q)\n\
         \x20       assert os.path.islink(p) or filecmp.cmp(p, q, shallow=False), q\n\
         \x20       seen += 1\n\
         print(seen)\n",
    )
    .unwrap();
    let out = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "/usr/bin/python3 $DIR/walk.py $DIR/tree /rump/data/one; /usr/bin/python3 $DIR/walk.py /rump/data/one /rump/data/two",
    );
    assert_eq!(out.ok(), "46\n46\n");
    image.is_clean();
}

#[test]
fn git_clones_commits_and_finds_its_repository_sound() {
    let image = Image::ext4(64);
    make_tree(&image.dir().join("tree"));
    let out = script(
        &["--mount", &image.at("/data")],
        image.dir(),
        "git config --global user.name t; git config --global user.email t@example.org\n\
         git config --global safe.directory '*'; git config --global init.defaultBranch main\n\
         cd $DIR/tree; git init -q; git add -A; git commit -q -m one\n\
         git clone -q --no-hardlinks $DIR/tree /rump/data/clone\n\
         cd /rump/data/clone; echo more >> a/file1; git commit -q -a -m two\n\
         git fsck --strict --no-progress 2>&1; git status --porcelain; git rev-list --count HEAD",
    );
    assert_eq!(out.ok(), "2\n");
    image.is_clean();
}

#[test]
fn the_shell_works_across_the_border() {
    let dir = support::scratch();
    let out = script(
        &["--tmpfs", "/t"],
        dir.path(),
        "cd /rump/t; pwd; mkdir -p a/b; echo hello > a/b/f; cat < a/b/f | tr a-z A-Z; cd a/b; pwd; cat f\n\
         (cd ..; ls); cp f $DIR/g; cat $DIR/g; cd /; cat /rump/t/a/b/f; cd /rump/t; pwd -P",
    );
    let want = "/rump/t\nHELLO\n/rump/t/a/b\nhello\nb\nhello\nhello\n/rump/t\n";
    assert_eq!(out.ok(), want);
}

#[test]
fn find_sort_and_dd_do_what_they_do_on_the_host() {
    let dir = support::scratch();
    let out = script(
        &["--tmpfs", "/t"],
        dir.path(),
        "cd /rump/t; for i in 3 1 2; do echo $i > f$i; done; find . -type f | sort; sort f3 f1 f2\n\
         dd if=/dev/zero of=z bs=4096 count=3 seek=2 2>/dev/null; stat -c %s z; truncate -s 5 z; wc -c < z\n\
         ln -s f1 s; readlink s; mv f1 m; test ! -e s; rm -f *; ls -A | wc -l",
    );
    assert_eq!(out.ok(), "./f1\n./f2\n./f3\n1\n2\n3\n20480\n5\nf1\n0\n");
}

#[test]
fn symbolic_links_with_absolute_names_lead_where_programs_mean() {
    let dir = support::scratch();
    let out = script(
        &["--tmpfs", "/t"],
        dir.path(),
        "cd /rump/t; mkdir d; echo in > d/f; ln -s /rump/t/d l; cat l/f; readlink l; realpath l/f; cd l; pwd -P",
    );
    assert_eq!(out.ok(), "in\n/rump/t/d\n/rump/t/d/f\n/rump/t/d\n");
}

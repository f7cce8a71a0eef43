//! Unmodified Debian programs with their sockets on a kernel: servers and clients on its loopback interface.
//!
//! Each test has a kernel of its own, so ports never collide. A server says on a pipe that it listens; nobody sleeps.

use std::fs;
use std::path::Path;

use support::{
    CURL, Ended, PYTHON, Packaged, Server, big, finish, have, python_on_the_host, script,
};

const NGINX: Packaged = ("/usr/sbin/nginx", "nginx-light");

/// `up WORD PROG...` starts a server, which is $SERVER, and returns when it has printed WORD; `down` ends it.
const PRELUDE: &str = "\
up() {
  word=$1; shift; rm -f $DIR/log; mkfifo $DIR/log
  \"$@\" > $DIR/log 2>&1 & SERVER=$!
  exec 9< $DIR/log
  grep -q -m1 \"$word\" <&9
}
down() { kill $SERVER; wait $SERVER || true; }
";

/// Runs a script with [`PRELUDE`] on a kernel with a loopback interface.
fn on_loop(dir: &Path, text: &str) -> Ended {
    script(&["--net", "loop"], dir, &format!("{PRELUDE}{text}"))
}

#[test]
fn curl_fetches_from_pythons_server_over_both_families() {
    if !have(&[PYTHON, CURL]) {
        return;
    }
    let dir = support::scratch();
    big(dir.path());
    let out = on_loop(
        dir.path(),
        "for host in 127.0.0.1 ::1; do\n\
           up Serving /usr/bin/python3 -u -m http.server 8000 --bind $host -d $DIR\n\
           case $host in *:*) name=[$host];; *) name=$host;; esac\n\
           curl -sS http://$name:8000/big | cmp - $DIR/big; echo $host $?\n\
           curl -s -o /dev/null -w '%{http_code}\\n' http://$name:8000/none\n\
           down\n\
           curl -s http://$name:8000/big || echo refused $?\n\
         done",
    );
    let each = |host| format!("{host} 0\n404\nrefused 7\n");
    assert_eq!(out.ok(), each("127.0.0.1") + &each("::1"));
}

/// nginx with two workers of another user, serving `DIR` on both families.
fn nginx_config(dir: &Path) {
    let at = dir.display();
    fs::write(
        dir.join("nginx.conf"),
        format!(
            "worker_processes 2; user www-data; daemon off; pid {at}/nginx.pid; error_log stderr notice;\n\
             events {{ use epoll; accept_mutex off; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
             client_body_temp_path {at}/t1; proxy_temp_path {at}/t2; fastcgi_temp_path {at}/t3;\n\
             uwsgi_temp_path {at}/t4; scgi_temp_path {at}/t5;\n\
             server {{ listen 127.0.0.1:8080; listen [::1]:8080; root {at}/www; }} }}\n"
        ),
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.join("www")).unwrap();
    big(&dir.join("www"));
    fs::write(dir.join("www/index.html"), "hello\n").unwrap();
}

/// Its workers come when it listens; told to quit, it says how it ended.
const NGINX_UP: &str = "up 'start worker process ' nginx -c $DIR/nginx.conf\n";
const NGINX_DOWN: &str = "\nkill -QUIT $SERVER; wait $SERVER; echo $?; \
                          grep -E '\\[(alert|emerg|crit)\\]' <&9 || true\n";

#[test]
fn nginx_serves_from_workers_of_another_user() {
    if !have(&[NGINX, CURL, ("/usr/bin/ab", "apache2-utils")]) {
        return;
    }
    let dir = support::scratch();
    nginx_config(dir.path());
    let out = on_loop(
        dir.path(),
        &format!(
            "{NGINX_UP}\
             curl -sS http://127.0.0.1:8080/\n\
             curl -sS http://127.0.0.1:8080/big | cmp - $DIR/www/big; echo v4 $?\n\
             curl -sS 'http://[::1]:8080/big' | cmp - $DIR/www/big; echo v6 $?\n\
             curl -sS -r 1000000-1000009 http://127.0.0.1:8080/big | wc -c\n\
             ab -q -n 100 -c 4 http://127.0.0.1:8080/ | grep -E 'Complete|Failed'\n\
             ab -q -k -n 40 -c 4 http://127.0.0.1:8080/big | grep -E 'Complete|Failed'\n\
             {NGINX_DOWN}"
        ),
    );
    let bench = |n| format!("Complete requests:      {n}\nFailed requests:        0\n");
    let want = format!("hello\nv4 0\nv6 0\n10\n{}{}0\n", bench(100), bench(40));
    assert_eq!(out.ok(), want);
}

#[test]
fn wrk_sees_no_error_of_nginx() {
    if !have(&[NGINX, ("/usr/bin/wrk", "wrk")]) {
        return;
    }
    let dir = support::scratch();
    nginx_config(dir.path());
    let out = on_loop(
        dir.path(),
        &format!(
            "{NGINX_UP}\
             wrk -t2 -c16 -d1 http://127.0.0.1:8080/ > $DIR/wrk\n\
             grep -E -c '^ *[1-9][0-9]* requests in' $DIR/wrk; grep -E 'Socket errors|Non-2xx' $DIR/wrk || true\n\
             {NGINX_DOWN}"
        ),
    );
    assert_eq!(out.ok(), "1\n0\n");
}

#[test]
fn redis_answers_its_benchmark() {
    if !have(&[("/usr/bin/redis-server", "redis-server")]) {
        return;
    }
    let dir = support::scratch();
    let out = on_loop(
        dir.path(),
        "up 'Ready to accept' redis-server --port 6379 --bind 127.0.0.1 ::1 --save '' --dir $DIR\n\
         redis-cli -h ::1 set key value; redis-cli get key\n\
         redis-benchmark -q -n 1000 -c 10 -t set,lpush | tr '\\r' '\\n' | grep -c 'requests per second'\n\
         redis-benchmark -q -n 2000 -c 10 -P 16 -t get | tr '\\r' '\\n' | grep -c 'requests per second'\n\
         redis-cli llen mylist; redis-cli shutdown nosave; wait $SERVER; echo $?",
    );
    assert_eq!(out.ok(), "OK\nvalue\n2\n1\n1000\n0\n");
}

#[test]
fn iperf3_measures_both_ways_in_parallel_and_over_udp() {
    if !have(&[("/usr/bin/iperf3", "iperf3")]) {
        return;
    }
    let dir = support::scratch();
    let out = on_loop(
        dir.path(),
        "for how in '127.0.0.1' '127.0.0.1 -P 3' '::1 -R' '127.0.0.1 -u -b 20M'; do\n\
           up listening iperf3 -s -1 --forceflush\n\
           iperf3 -c $how -t 1 > $DIR/out; echo $how $?\n\
           grep -q receiver $DIR/out; wait $SERVER\n\
         done",
    );
    assert_eq!(
        out.ok(),
        "127.0.0.1 0\n127.0.0.1 -P 3 0\n::1 -R 0\n127.0.0.1 -u -b 20M 0\n"
    );
}

#[test]
fn asyncio_mixes_streams_datagrams_and_children() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    fs::write(
        dir.path().join("echo.py"),
        include_str!("network/asyncio_echo.py"),
    )
    .unwrap();
    let out = on_loop(dir.path(), "/usr/bin/python3 $DIR/echo.py");
    assert_eq!(out.ok(), "20 echoes\nb'ping'\nb'through cat'\n");
}

#[test]
fn sockets_behave_under_python_as_they_do_on_the_host() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    let text = include_str!("network/sockets.py");
    let host = python_on_the_host(dir.path(), "sockets.py", text);
    assert!(host.ends_with("done\n"), "{host}");
    let out = on_loop(dir.path(), "/usr/bin/python3 $DIR/sockets.py");
    assert_eq!(out.ok(), host);
}

#[test]
fn streams_used_in_every_order_are_as_on_the_host() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    let text = include_str!("network/ahead.py");
    let host = python_on_the_host(dir.path(), "ahead.py", text);
    assert!(host.ends_with("told True\n"), "{host}");
    let out = on_loop(dir.path(), "/usr/bin/python3 $DIR/ahead.py");
    assert_eq!(out.ok(), host);
}

#[test]
fn duplicates_of_an_epoll_descriptor_are_one_instance() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    let text = include_str!("network/duplicates.py");
    let host = python_on_the_host(dir.path(), "duplicates.py", text);
    assert!(host.ends_with("done\n"), "{host}");
    let out = on_loop(dir.path(), "/usr/bin/python3 $DIR/duplicates.py");
    assert_eq!(out.ok(), host);
}

#[test]
fn netcat_carries_bytes_and_datagrams() {
    if !have(&[("/usr/bin/nc", "netcat-openbsd")]) {
        return;
    }
    let dir = support::scratch();
    big(dir.path());
    let out = on_loop(
        dir.path(),
        "mkfifo $DIR/err; nc -v -l 127.0.0.1 7000 > $DIR/got 2> $DIR/err & p=$!\n\
         exec 8< $DIR/err; grep -q -m1 Listening <&8\n\
         nc -N 127.0.0.1 7000 < $DIR/big; wait $p; cmp $DIR/got $DIR/big; echo same\n\
         up Bound nc -v -u -l -W 1 127.0.0.1 7001\n\
         echo datagram | nc -u -w 1 127.0.0.1 7001; wait $SERVER; grep -a datagram <&9\n\
         nc -z 127.0.0.1 7000 || echo refused $?",
    );
    assert_eq!(out.ok(), "same\ndatagram\nrefused 1\n");
}

#[test]
fn dig_asks_over_udp_and_tcp() {
    if !have(&[PYTHON, ("/usr/bin/dig", "bind9-dnsutils")]) {
        return;
    }
    let dir = support::scratch();
    fs::write(dir.path().join("dns.py"), include_str!("network/dns.py")).unwrap();
    let out = on_loop(
        dir.path(),
        "up up /usr/bin/python3 -u $DIR/dns.py\n\
         dig +short +noedns @127.0.0.1 a.example; dig +short +noedns +tcp @127.0.0.1 b.example; wait $SERVER; echo $?",
    );
    assert_eq!(out.ok(), "192.0.2.7\n192.0.2.7\n0\n");
}

#[test]
fn git_clones_over_http() {
    if !have(&[PYTHON]) {
        return;
    }
    let dir = support::scratch();
    big(dir.path());
    let out = on_loop(
        dir.path(),
        "git init -q one; mv big one; cd one; git config user.name t; git config user.email t@example.org\n\
         git add big; git commit -q -m one; cd ..; git clone -q --bare one two.git; git -C two.git update-server-info\n\
         up Serving /usr/bin/python3 -u -m http.server 8000 --bind 127.0.0.1 -d $DIR\n\
         git clone -q http://127.0.0.1:8000/two.git three; echo $?; cmp one/big three/big; git -C three fsck --no-progress\n\
         down",
    );
    assert_eq!(out.ok(), "0\n");
}

#[test]
fn ssh_logs_in_through_a_server_that_confines_itself() {
    let is_root = finish(std::process::Command::new("id").arg("-u")).ok() == "0\n";
    if !have(&[("/usr/sbin/sshd", "openssh-server")]) || !is_root {
        println!("not tested: sshd must be root");
        return;
    }
    let dir = support::scratch();
    big(dir.path());
    let at = dir.path().display();
    fs::write(
        dir.path().join("sshd_config"),
        format!(
            "Port 2222\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/id.pub\n\
             StrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
        ),
    )
    .unwrap();
    fs::write(
        dir.path().join("ssh_config"),
        format!(
            "Host kernel\nHostName 127.0.0.1\nPort 2222\nUser root\nIdentityFile {at}/id\nIdentitiesOnly yes\n\
             UserKnownHostsFile /dev/null\nStrictHostKeyChecking no\nLogLevel ERROR\n"
        ),
    )
    .unwrap();
    // The privilege separation directory, which a service's start makes otherwise.
    fs::create_dir_all("/run/sshd").unwrap();
    let out = on_loop(
        dir.path(),
        "for key in host id; do ssh-keygen -q -t ed25519 -N '' -f $DIR/$key; done\n\
         up 'Server listening' /usr/sbin/sshd -D -e -f $DIR/sshd_config\n\
         echo there and back | ssh -F $DIR/ssh_config kernel cat; echo $?\n\
         ssh -F $DIR/ssh_config kernel \"cat > $DIR/got\" < $DIR/big; cmp $DIR/got $DIR/big; echo same\n\
         scp -q -F $DIR/ssh_config $DIR/big kernel:$DIR/copied; cmp $DIR/copied $DIR/big; echo same\n\
         ssh -F $DIR/ssh_config kernel 'exit 7' < /dev/null || echo $?; down",
    );
    assert_eq!(out.ok(), "there and back\n0\nsame\nsame\n7\n");
}

#[test]
fn programs_that_join_a_served_kernel_meet_there() {
    if !have(&[PYTHON, CURL]) {
        return;
    }
    let dir = support::scratch();
    big(dir.path());
    let server = Server::start(&["--net", "loop"]);
    let exec = |text: &str| {
        let text = format!("{PRELUDE}{text}");
        let mut command = server.command(&["exec", &server.url, "--", "/bin/sh", "-euc", &text]);
        command.env("RUMPHIJACK", "socket=all:nolocal");
        command.env("DIR", dir.path());
        command
    };
    let mut serving = exec(
        "up Serving /usr/bin/python3 -u -m http.server 8000 --bind 127.0.0.1 -d $DIR\n\
         echo > $DIR/ready; read line < $DIR/end; down",
    );
    for name in ["ready", "end"] {
        let made = finish(std::process::Command::new("mkfifo").arg(dir.path().join(name)));
        made.ok();
    }
    let mut serving = serving.spawn().expect("rump starts");
    // Opening the pipe waits for the server's word.
    fs::read(dir.path().join("ready")).unwrap();
    let out = finish(&mut exec(
        "curl -sS http://127.0.0.1:8000/big | cmp - $DIR/big; echo $?; echo > $DIR/end",
    ));
    assert_eq!(out.ok(), "0\n");
    assert!(serving.wait().expect("a child").success());
}

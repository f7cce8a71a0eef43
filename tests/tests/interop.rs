//! The kernel's stack and the host's talk to each other: unmodified programs over a tap device and over a veth pair, as clients and as
//! servers, in both families, and tshark finds nothing wrong with any packet.
//!
//! Each test has a network namespace of the host with a kernel on a link to it. Over the tap device checksums and cutting are left to
//! whoever comes last; on the veth pair both are done before the wire and a second capture is made there, so that every checksum is a
//! real one. A program is a line in [`programs`]: what the server does, what the client does, and what the client shall say.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{Namespace, Server, big, finish, judge, scratch, signal};
use tempfile::TempDir;

/// What is between the kernel and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Medium {
    Tap,
    Veth,
}

/// Who is a client of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// The server is on the host.
    ToHost,
    /// The server is on the kernel.
    ToKernel,
}

/// The addresses of one family.
#[derive(Clone, Copy)]
struct Family {
    number: &'static str,
    host: &'static str,
    kernel: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        number: "4",
        host: "10.9.0.1",
        kernel: "10.9.0.2",
    },
    Family {
        number: "6",
        host: "fd00:9::1",
        kernel: "fd00:9::2",
    },
];

/// A program that is tried.
struct Program {
    /// Starts the server; empty where the stack is the server.
    server: &'static str,
    /// What the client does.
    client: &'static str,
    /// What it prints.
    says: &'static str,
    /// Ports of connections that are refused or cut off as part of it.
    resets: &'static [u16],
    /// Files that are made in `$DIR` beforehand.
    files: &'static [(&'static str, &'static str)],
    /// It becomes other users, which nobody can do in a user namespace.
    root: bool,
}

/// `up WORD PROG...` starts a server, one of $SERVER, and returns when it has printed WORD. What it prints further is in `$DIR/said`.
const PRELUDE: &str = "\
SERVER=
up() {
  word=$1; shift; log=$(mktemp -u log-XXXXXX); mkfifo $log
  \"$@\" > $log 2>&1 & SERVER=\"$SERVER $!\"
  exec 9< $log; rm $log
  grep -q -m1 \"$word\" <&9
  cat <&9 >> said & exec 9<&-
}
";

/// A link between a kernel and a namespace of the host.
struct Link {
    dir: TempDir,
    kernel: Option<Server>,
    /// tcpdump on the host's end, where what it sees is complete.
    dump: Option<Child>,
    host: Namespace,
}

impl Link {
    fn new(medium: Medium) -> Option<Link> {
        let host = Namespace::new()?;
        let dir = scratch();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dir.path(), open).expect("mode");
        let (made, kind) = match medium {
            Medium::Tap => ("ip tuntap add dev host0 mode tap", "tap:host0"),
            // The kernel's end is nobody's on the host.
            Medium::Veth => (
                "ip link add host0 type veth peer name kernel0\n\
                 for end in host0 kernel0; do ethtool -K $end tx off tso off gso off gro off > /dev/null; done\n\
                 echo 1 > /proc/sys/net/ipv6/conf/kernel0/disable_ipv6; ip link set kernel0 up",
                "if:kernel0",
            ),
        };
        let [v4, v6] = &FAMILIES;
        host.run(&format!(
            "{made}\nip addr add {}/24 dev host0; ip addr add {}/64 dev host0 nodad; ip link set host0 up",
            v4.host, v6.host
        ))
        .ok();
        let dump = (medium == Medium::Veth).then(|| tcpdump(&host, dir.path()));
        let net = format!(
            "{kind},{}/24,{}/64,name=eth0,mac=02:00:00:00:00:02,pcap={}",
            v4.kernel,
            v6.kernel,
            dir.path().join("kernel.pcapng").display()
        );
        let kernel = Server::start_in(&host, &["--net", &net]);
        // Servers that look at addresses, as dnsmasq does, leave out those that are still being probed.
        let probed = "while ip -6 -o addr show dev eth0 tentative | grep -q inet6; do :; done";
        let shell = ["exec", &kernel.url, "--", "/bin/sh", "-euc", probed];
        finish(&mut host.enter(kernel.command(&shell))).ok();
        Some(Link {
            dir,
            kernel: Some(kernel),
            dump,
            host,
        })
    }

    /// A script, on the kernel or on the host.
    fn script(&self, on_kernel: bool, family: Family, direction: Direction, text: &str) -> Command {
        let text = format!("{PRELUDE}{text}");
        let mut command = if on_kernel {
            let kernel = self.kernel.as_ref().expect("it is there until the end");
            let shell = ["exec", &kernel.url, "--", "/bin/sh", "-euc", &text];
            self.host.enter(kernel.command(&shell))
        } else {
            self.host.shell(&text)
        };
        let (server, client) = match direction {
            Direction::ToHost => (family.host, family.kernel),
            Direction::ToKernel => (family.kernel, family.host),
        };
        let at = if family.number == "6" {
            format!("[{server}]")
        } else {
            server.to_owned()
        };
        command
            .envs([("HOST", server), ("AT", &at), ("ME", client)])
            .env("V", family.number)
            .env("DIR", self.dir.path())
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path());
        command
    }

    /// Ends everything and has the captures judged.
    fn judge(mut self, resets: &[u16]) {
        let kernel = self.kernel.take().expect("it is there until now");
        kernel.halt();
        judge::assert_flawless(&self.dir.path().join("kernel.pcapng"), resets);
        if let Some(dump) = self.dump.take() {
            end(dump);
            judge::assert_flawless(&self.dir.path().join("host.pcap"), resets);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(dump) = self.dump.take() {
            end(dump);
        }
        // What went wrong is in the captures and logs.
        self.dir.disable_cleanup(std::thread::panicking());
    }
}

/// Has tcpdump write what it has and end.
fn end(mut dump: Child) {
    signal(dump.id(), "INT");
    dump.wait().expect("it is ours");
}

/// Captures on the host's end of the link. It says when it listens.
fn tcpdump(host: &Namespace, dir: &Path) -> Child {
    let script = format!(
        "exec tcpdump --immediate-mode -i host0 -n -U -B 65536 -w {}/host.pcap",
        dir.display()
    );
    let mut dump = host.shell(&script);
    let mut dump = dump.stderr(Stdio::piped()).spawn().expect("it starts");
    let said = dump.stderr.as_mut().expect("a pipe");
    let mut lines = BufReader::new(said).lines();
    let listens = lines.any(|line| line.is_ok_and(|line| line.contains("listening on")));
    assert!(listens, "tcpdump does not listen");
    dump
}

impl Program {
    /// Runs it over a medium: both directions, both families, and then the captures are judged.
    fn run(&self, medium: Medium) {
        let Some(link) = Link::new(medium) else {
            return;
        };
        if self.root && !link.host.is_root() {
            println!(
                "not tested: in a user namespace it cannot become another user; run it as root"
            );
            return;
        }
        for (name, text) in self.files {
            fs::write(link.dir.path().join(name), text).expect("written");
        }
        big(link.dir.path());
        for direction in [Direction::ToHost, Direction::ToKernel] {
            for family in FAMILIES {
                self.run_once(&link, direction, family);
            }
        }
        link.judge(self.resets);
    }

    fn run_once(&self, link: &Link, direction: Direction, family: Family) {
        let what = format!("{direction:?}, IPv{}", family.number);
        let on_kernel = direction == Direction::ToKernel;
        let mut server = (!self.server.is_empty()).then(|| {
            let text = format!(
                "{}\necho ready; read end || true; kill $SERVER 2> /dev/null || true; wait",
                self.server
            );
            let mut server = link.script(on_kernel, family, direction, &text);
            let mut server = server
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("it starts");
            let mut line = String::new();
            let out = server.stdout.as_mut().expect("a pipe");
            BufReader::new(out).read_line(&mut line).expect("reads");
            assert_eq!(line, "ready\n", "{what}: the server does not start");
            server
        });
        let mut client = link.script(!on_kernel, family, direction, self.client);
        let ended = finish(&mut client);
        if let Some(server) = &mut server {
            drop(server.stdin.take());
            server.wait().expect("it is ours");
        }
        let said = fs::read(link.dir.path().join("said")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(2000)..]);
        assert_eq!(
            (ended.status, &*ended.stdout),
            (0, self.says),
            "{what}: it also said: {}\nthe server said: {said}",
            ended.stderr,
        );
    }
}

/// Makes of each program a module with a test for each medium.
macro_rules! programs {
    ($($(#[$why:meta])* $name:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[$why])*
            mod $name {
                use super::*;

                // A program that says everything needs nothing of it.
                #[allow(clippy::needless_update)]
                const PROGRAM: Program = Program { $($field: $value,)* ..NOTHING };

                #[test]
                fn over_a_tap_device() {
                    PROGRAM.run(Medium::Tap);
                }

                #[test]
                fn over_a_veth_pair() {
                    PROGRAM.run(Medium::Veth);
                }
            }
        )*
    };
}

/// A program that does nothing, to say the rest.
const NOTHING: Program = Program {
    server: "",
    client: "",
    says: "",
    resets: &[],
    files: &[],
    root: false,
};

/// nginx with two workers of another user, serving `$DIR` in clear and with TLS, and taking files.
const NGINX: (&str, &str) = (
    "nginx.conf",
    "worker_processes 2; user root; daemon off; pid nginx.pid; error_log stderr notice; events { use epoll; }\n\
     http { access_log off; sendfile on; tcp_nopush on; client_max_body_size 10m; keepalive_requests 1000000;\n\
     client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
     server { listen 8080; listen [::]:8080; listen 8443 ssl http2; listen [::]:8443 ssl http2;\n\
     ssl_certificate cert.pem; ssl_certificate_key key.pem; root .; dav_methods PUT; } }\n",
);

/// A key and a certificate for it.
const CERTIFICATE: (&str, &str) = (
    "certify",
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -subj /CN=x -days 2 2> /dev/null\n",
);

programs! {
    asyncio_streams_and_datagrams {
        server: "up serving /usr/bin/python3 -u $DIR/streams.py serve $HOST",
        client: "/usr/bin/python3 $DIR/streams.py ask $HOST",
        says: "streams\nmany\ndatagrams\n",
        files: &[("streams.py", include_str!("interop/streams.py"))],
    }

    iperf3 {
        // One for each time: between two it listens to nobody.
        server: "for port in 1 2 3 4 5 6 7; do up listening iperf3 -s -1 --forceflush -p 520$port; done",
        client: "port=5200; for how in '' -R --bidir '-P 4' '-u -b 100M' '-u -b 100M -R' '-u -b 100M -l 20000'; do\n\
                   port=$((port + 1)); iperf3 -$V -c $HOST -p $port -n 8M $how > out || { cat out; exit 1; }\n\
                   grep -q 'iperf Done' out && echo \"done $how\"\n\
                 done",
        says: "done \ndone -R\ndone --bidir\ndone -P 4\ndone -u -b 100M\ndone -u -b 100M -R\ndone -u -b 100M -l 20000\n",
        // Who has what was asked for closes, whatever else is on its way.
        resets: &[5201, 5202, 5203, 5204, 5205, 5206, 5207],
    }

    curl_from_python {
        server: "up Serving /usr/bin/python3 -u -m http.server 8000 --bind $HOST -d $DIR",
        client: "curl -sS http://$AT:8000/big | cmp - big && echo same\n\
                 curl -sS -o /dev/null -w '%{http_code}\\n' http://$AT:8000/none\n\
                 curl -sS http://$AT:8001/ 2> /dev/null || echo refused $?",
        says: "same\n404\nrefused 7\n",
        resets: &[8001],
    }

    /// Over HTTP/1.1 and, with TLS, HTTP/2.
    nginx_for_curl {
        server: ". ./certify; up 'start worker process ' nginx -p $DIR -c nginx.conf",
        client: "for url in http://$AT:8080 https://$AT:8443; do\n\
                   curl -sSk --http2 -w '%{http_version}\\n' -o got $url/big; cmp got big\n\
                   curl -sSk --http1.1 -w '%{http_version} %{size_upload}\\n' -o got -T big $url/put-$V; cmp put-$V big; rm put-$V\n\
                   curl -sSk --http2 -Z $url/big $url/big $url/big -o got1 -o got2 -o got3; for n in 1 2 3; do cmp got$n big; done\n\
                   curl -sSk -r 1000000-1000009 $url/big | wc -c\n\
                 done",
        says: "1.1\n1.1 3000017\n10\n2\n1.1 3000017\n10\n",
        files: &[CERTIFICATE, NGINX],
        root: true,
    }

    nginx_for_wrk {
        server: ". ./certify; up 'start worker process ' nginx -p $DIR -c nginx.conf",
        client: "wrk -t2 -c16 -d1 http://$AT:8080/small > out\n\
                 grep -c '^ *[1-9][0-9]* requests in' out; ! grep -E 'Socket errors|Non-2xx' out",
        says: "1\n",
        // It ends in the middle of its requests.
        resets: &[8080],
        files: &[CERTIFICATE, NGINX, ("small", "hello\n")],
        root: true,
    }

    redis {
        server: "up 'Ready to accept' redis-server --port 6379 --bind $HOST --protected-mode no --save '' --dir $DIR",
        client: "redis-cli -h $HOST set key value; redis-cli -h $HOST get key\n\
                 redis-benchmark -h $HOST -q -n 1000 -c 10 -t set,lpush | tr '\\r' '\\n' | grep -c 'requests per second'\n\
                 redis-benchmark -h $HOST -q -n 2000 -c 10 -P 16 -t get | tr '\\r' '\\n' | grep -c 'requests per second'\n\
                 redis-cli -h $HOST -x set file < big; redis-cli -h $HOST --raw get file | head -c -1 | cmp - big; redis-cli -h $HOST flushall",
        says: "OK\nvalue\n2\n1\nOK\nOK\n",
    }

    ssh {
        server: "for key in host id; do test -f $key || ssh-keygen -q -t ed25519 -N '' -f $key; done\n\
                 mkdir -p /run/sshd; echo \"HostKey $DIR/host\nAuthorizedKeysFile $DIR/id.pub\nListenAddress $AT:2222\" | cat sshd_base - > sshd_config\n\
                 up 'Server listening' /usr/sbin/sshd -D -e -f $DIR/sshd_config",
        client: "echo \"HostName $HOST\" | cat ssh_base - > ssh_config\n\
                 echo there and back | ssh -F ssh_config peer cat; echo $?\n\
                 ssh -F ssh_config peer \"cat > $DIR/got\" < big; cmp got big; echo same\n\
                 scp -q -F ssh_config big peer:$DIR/copied; cmp copied big; scp -q -F ssh_config peer:$DIR/copied back; cmp back big; echo same\n\
                 ssh -F ssh_config peer 'exit 7' < /dev/null || echo $?",
        says: "there and back\n0\nsame\nsame\n7\n",
        files: &[
            ("sshd_base", "StrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"),
            ("ssh_base", "Host peer\nPort 2222\nUser root\nIdentityFile id\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\n\
                          StrictHostKeyChecking no\nLogLevel ERROR\n"),
        ],
        root: true,
    }

    dig_from_dnsmasq {
        server: "many=; text=$(printf '%0250d' 7); for n in 1 2 3 4 5 6 7 8 9 10 11 12; do many=$many,$text; done\n\
                 up started dnsmasq --keep-in-foreground --log-facility=- --conf-file=/dev/null --user=root --pid-file= --no-resolv --no-hosts \\\n\
                 --listen-address=$HOST --bind-interfaces --edns-packet-max=8192 --host-record=a.example,192.0.2.7,2001:db8::7 --txt-record=big.example$many",
        client: "dig +short @$HOST a.example; dig +short @$HOST AAAA a.example; dig +short +tcp @$HOST a.example\n\
                 dig +short +bufsize=512 @$HOST TXT big.example | wc -c; dig +short +bufsize=8000 +notcp @$HOST TXT big.example | wc -c",
        says: "192.0.2.7\n2001:db8::7\n192.0.2.7\n3036\n3036\n",
    }

    netcat {
        server: "up Listening nc -v -n -k -l $HOST 7000",
        client: "nc -n -N $HOST 7000 < big && echo sent; nc -n -z $HOST 7001 || echo refused",
        says: "sent\nrefused\n",
        resets: &[7001],
    }

    git_daemon {
        server: "rm -rf one two.git; git init -q one; cp big one; cd one; git add big; git commit -q -m one; cd ..; git clone -q --bare one two.git\n\
                 up 'Ready to rumble' git daemon --verbose --export-all --enable=receive-pack --reuseaddr --listen=$HOST --base-path=$DIR",
        client: "rm -rf three; git clone -q git://$AT/two.git three; cmp big three/big; git -C three fsck --no-progress; cd three\n\
                 head -c 500000 big > half; git add half; git commit -q -m two; git push -q; git -C ../two.git log --format=%s",
        says: "two\none\n",
        files: &[(".gitconfig", "[user]\nname = t\nemail = t@example.org\n[safe]\ndirectory = *\n")],
    }

    openssl {
        server: ". ./certify; up ACCEPT openssl s_server -accept $AT:4433 -key key.pem -cert cert.pem -WWW",
        client: "for version in -tls1_2 -tls1_3; do\n\
                   printf 'GET /big HTTP/1.0\\r\\n\\r\\n' | openssl s_client $version -quiet -ign_eof -connect $AT:4433 2> /dev/null > got || true\n\
                   tail -c 3000017 got | cmp - big && echo same\n\
                 done",
        says: "same\nsame\n",
        files: &[CERTIFICATE],
    }

    ping {
        client: "once='ping -n -c 1 -W 60'\n\
                 for size in 0 1 56 1400 1472 1473 8000 65000; do $once -q -s $size $HOST | grep -o '[0-9]* received'; done\n\
                 ping -n -q -f -c 500 -w 60 $HOST | grep -c '[5-9][0-9][0-9] received'\n\
                 if [ $V = 4 ]; then head=28; else head=48; fi\n\
                 $once -q -M do -s $((1500 - head)) $HOST | grep -o '[0-9]* received'\n\
                 $once -M do -s $((1501 - head)) $HOST > out 2>&1 || grep -o 'message too long' out",
        says: "1 received\n1 received\n1 received\n1 received\n1 received\n1 received\n1 received\n1 received\n1\n1 received\nmessage too long\n",
    }

    traceroute {
        client: "for how in '' -I '-T -p 9'; do traceroute -n -q 3 -w 10 $how $HOST | tail -n +2 | grep -o \"$HOST .*ms\" | grep -o ms | wc -l; done",
        says: "3\n3\n3\n",
        resets: &[9],
    }

    /// They make frames of their own.
    nmap_and_arping {
        server: "up Listening nc -v -n -k -l $HOST 7000",
        client: "if [ $V = 6 ]; then how=-6; else how=; fi\n\
                 for scan in -sS -sT; do nmap $how -n -Pn $scan -p 7000,7001 $HOST | awk '/^70/ { print $1, $2 }'; done\n\
                 device=$(ip -$V -o addr | grep \" $ME/\" | tr -s ' ' | cut -d' ' -f2)\n\
                 [ $V = 6 ] || arping -i $device -c 2 $HOST | grep -q '2 packets received'",
        says: "7000/tcp open\n7001/tcp closed\n7000/tcp open\n7001/tcp closed\n",
        resets: &[7000, 7001],
    }

    ip_and_ss {
        server: "up Listening nc -v -n -k -l $HOST 7000",
        client: "device=$(ip -$V -brief addr | grep \" $ME/\" | cut -d' ' -f1 | cut -d@ -f1)\n\
                 /usr/bin/python3 -c \"import socket as s; print(s.if_indextoname(s.if_nametoindex('$device')) == '$device')\"\n\
                 ip -$V -brief addr | grep -c \" $ME/\"; ip -$V route get $HOST | grep -c \"src $ME\"\n\
                 bash -c 'exec 3<> /dev/tcp/$HOST/7000; ss -Htin dst $AT | grep -c -E \"ESTAB|mss:14\"'; ip -$V neigh | grep -c \"^$HOST .*lladdr\"",
        says: "True\n1\n1\n2\n1\n",
    }
}

//! Where a server can be reached, and by whom.

mod support;

use abi::{Errno, O_CREAT, O_RDONLY, O_RDWR, Stat, Syscalls};
use rumpclient::{Client, Reconnect};
use support::{eventually, kernel};
use sysproxy::{Error, Options};

#[test]
fn every_kind_of_url_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = format!("unix://{}/s", dir.path().display());
    let name = format!("unix://@kinds-{}", std::process::id());
    let tcp = (20_000..60_000).find_map(|port| {
        let url = format!("tcp://127.0.0.1:{port}");
        let server = sysproxy::serve(&kernel(), &url, Options::default()).ok()?;
        Some((url, server))
    });
    let (tcp, _tcp_server) = tcp.unwrap();
    let kernel = kernel();
    let _servers =
        [&path, &name].map(|url| sysproxy::serve(&kernel, url, Options::default()).unwrap());
    for url in [&path, &name, &tcp] {
        let client = Client::connect(url, "kinds").unwrap();
        let fd = client.open(c"/f", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
        for i in 0..20 {
            assert_eq!(client.pwrite64(fd, b"hello", 5, i * 5), Ok(5), "{url}");
        }
        let mut stat = [0; Stat::SIZE];
        client.stat(c"/f", &mut stat).unwrap();
        assert_eq!(Stat::from_bytes(&stat).st_size, 100);
        assert_eq!(client.open(c"/missing", 0, 0), Err(Errno::ENOENT));
    }
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("s");
    let url = format!("unix://{}", at.display());
    let kernel = kernel();
    drop(std::os::unix::net::UnixListener::bind(&at).unwrap());
    let server = sysproxy::serve(&kernel, &url, Options::default()).unwrap();
    let second = sysproxy::serve(&kernel, &url, Options::default())
        .err()
        .unwrap();
    assert!(matches!(second, Error::Live { .. }), "{second}");
    drop(server);
    assert!(!at.exists());
    std::fs::write(&at, "precious").unwrap();
    let file = sysproxy::serve(&kernel, &url, Options::default())
        .err()
        .unwrap();
    assert!(matches!(file, Error::NotASocket { .. }), "{file}");
    assert!(at.exists());
}

#[test]
fn a_wrong_url_says_what_is_wrong() {
    let kernel = kernel();
    for (url, word) in [
        ("http://x", "unix://"),
        ("unix://", "names nothing"),
        ("unix:///no/such/dir/s", "directory"),
        ("tcp://1.2.3.4", "port"),
        ("tcp://example.org:80", "address"),
        ("tcp://203.0.113.1:80", "address"),
    ] {
        let error = sysproxy::serve(&kernel, url, Options::default())
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(text.contains(url) && text.contains(word), "{text}");
    }
    assert_eq!(Client::connect("http://x", "x").err(), Some(Errno::EINVAL));
    assert_eq!(
        Client::connect("unix:///no/s", "x").err(),
        Some(Errno::ENOENT)
    );
}

#[test]
fn only_the_servers_own_user_reaches_files_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "of the host").unwrap();
    let file = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    let kernel = kernel();
    let path = format!("unix://{}/s", dir.path().display());
    let _local = sysproxy::serve(&kernel, &path, Options::default()).unwrap();
    let (tcp, _remote) = (20_000..60_000)
        .find_map(|port| {
            let url = format!("tcp://127.0.0.1:{port}");
            let server = sysproxy::serve(&kernel, &url, Options::default()).ok()?;
            Some((url, server))
        })
        .unwrap();
    let register = |client: &Client| client.etfs_register(c"/secret", &file, 0, 0, 11);
    let far = Client::connect(&tcp, "far").unwrap();
    assert_eq!(register(&far), Err(Errno::EPERM));
    let near = Client::connect(&path, "near").unwrap();
    assert_eq!(register(&near), Ok(0));
    assert_eq!(far.etfs_remove(c"/secret"), Err(Errno::EPERM));
    assert!(
        far.open(c"/secret", O_RDONLY, 0).is_ok(),
        "what is registered is the kernel's"
    );
}

#[test]
fn a_client_finds_a_new_server_if_it_is_to() {
    let kernel = kernel();
    let url = format!("unix://@again-{}", std::process::id());
    let serve = || sysproxy::serve(&kernel, &url, Options::default()).unwrap();
    let server = serve();
    let never = Client::connect(&url, "never").unwrap();
    let once = Client::with_policy(&url, "once", Reconnect::Once).unwrap();
    let forever = Client::with_policy(&url, "forever", Reconnect::Forever).unwrap();
    let pid = once.getpid();
    let fd = once.open(c"/once", O_CREAT | O_RDWR, 0o644).unwrap() as i32;
    drop(server);
    for client in [&never, &once] {
        while client.getpid() != Err(Errno::ENOTCONN) {}
    }
    assert!(once.getpid().is_err(), "no server");
    let _server = serve();
    eventually("once more", || once.getpid().is_ok());
    assert_ne!(once.getpid(), pid, "a new process");
    assert_eq!(once.fsync(fd), Err(Errno::EBADF));
    eventually("for ever", || forever.getpid().is_ok());
    assert_eq!(never.getpid(), Err(Errno::ENOTCONN));
}

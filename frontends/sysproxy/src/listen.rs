//! Where clients arrive.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use abi::sysproxy::Url;

use crate::Error;

/// A listening socket; a path that it made goes when it is dropped.
pub(crate) enum Listener {
    /// With the path, where it has one, and whether that was taken away already.
    Unix(UnixListener, Option<(PathBuf, AtomicBool)>),
    Tcp(TcpListener),
}

impl Listener {
    pub(crate) fn bind(url: Url<'_>, text: &str) -> Result<Listener, Error> {
        let io = |cause| Error::Io {
            url: text.to_owned(),
            cause,
        };
        let listener = match url {
            Url::Unix(path) => {
                let path = Path::new(std::ffi::OsStr::from_bytes(path));
                Listener::Unix(
                    bind_path(path, text)?,
                    Some((path.to_owned(), AtomicBool::new(false))),
                )
            }
            Url::Abstract(name) => {
                let addr = SocketAddr::from_abstract_name(name).map_err(io)?;
                let listener = UnixListener::bind_addr(&addr).map_err(|e| match e.kind() {
                    io::ErrorKind::AddrInUse => Error::Live {
                        url: text.to_owned(),
                    },
                    _ => io(e),
                })?;
                Listener::Unix(listener, None)
            }
            Url::Tcp(addr) => Listener::Tcp(TcpListener::bind(addr).map_err(io)?),
        };
        match &listener {
            Listener::Unix(l, _) => l.set_nonblocking(true),
            Listener::Tcp(l) => l.set_nonblocking(true),
        }
        .map_err(io)?;
        Ok(listener)
    }

    /// The next client, if there is one waiting, and whether it is on this machine.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, bool)> {
        match self {
            Listener::Unix(l, _) => l.accept().map(|(s, _)| (s.into(), true)),
            Listener::Tcp(l) => {
                let (socket, _) = l.accept()?;
                socket.set_nodelay(true)?;
                Ok((socket.into(), false))
            }
        }
    }

    /// Takes the socket's path away, so that nobody new finds it; once, because the name may be another server's then.
    pub(crate) fn unlink(&self) {
        if let Listener::Unix(_, Some(path)) = self
            && !path.1.swap(true, Ordering::SeqCst)
        {
            let _ = fs::remove_file(&path.0);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(l, _) => l.as_fd(),
            Listener::Tcp(l) => l.as_fd(),
        }
    }
}

fn bind_path(path: &Path, text: &str) -> Result<UnixListener, Error> {
    let io = |cause| Error::Io {
        url: text.to_owned(),
        cause,
    };
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let kind = fs::symlink_metadata(path).map_err(io)?.file_type();
            if !kind.is_socket() {
                return Err(Error::NotASocket {
                    url: text.to_owned(),
                });
            }
            match UnixStream::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                _ => {
                    return Err(Error::Live {
                        url: text.to_owned(),
                    });
                }
            }
            fs::remove_file(path).map_err(io)?;
            UnixListener::bind(path).map_err(io)?
        }
        other => other.map_err(io)?,
    };
    // Who may be a client is decided by who asks (`Options::any_user`), not by the path: a program that became another user goes on
    // making connections for its threads and children.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(io)?;
    Ok(listener)
}

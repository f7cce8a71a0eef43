//! Why a server does not start.

use std::fmt;
use std::io;

use abi::sysproxy::UrlError;

/// Why a server does not start: the thing, the cause, and the way out.
#[derive(Debug)]
pub enum Error {
    /// The URL names no place to serve at.
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        cause: UrlError,
    },
    /// Another server listens there.
    Live {
        /// The URL.
        url: String,
    },
    /// There is a file at the path that is no socket.
    NotASocket {
        /// The URL.
        url: String,
    },
    /// The host refuses.
    Io {
        /// The URL.
        url: String,
        /// What it says.
        cause: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Url { url, cause } => write!(f, "cannot serve at {url:?}: it {cause}"),
            Error::Live { url } => write!(
                f,
                "cannot serve at {url:?}: another server listens there; halt it, or choose another URL"
            ),
            Error::NotASocket { url } => write!(
                f,
                "cannot serve at {url:?}: there is a file at this path that is no socket; remove it, or choose another path"
            ),
            Error::Io { url, cause } => {
                let hint = match cause.kind() {
                    io::ErrorKind::NotFound => "; make the directory first",
                    io::ErrorKind::PermissionDenied => "; choose a place that you may write to",
                    io::ErrorKind::AddrInUse => "; choose another port",
                    io::ErrorKind::AddrNotAvailable => "; use an address of this machine, or *",
                    _ => "",
                };
                write!(f, "cannot serve at {url:?}: {cause}{hint}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Url { cause, .. } => Some(cause),
            Error::Io { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

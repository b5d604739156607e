//! Where callers are listened for: `quickfire://ADDRESS:PORT` or `unix:///PATH`.
//!
//! Numbers only, no host names: a listener that depends on a name server binds something else on a bad day.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port of a `quickfire://` address that names none.
pub const PORT_DEFAULT: u16 = 7450;

/// The longest path a Unix socket can have: `sun_path` is 108 bytes, one of them the closing zero.
pub const SOCKET_PATH_SIZE_MAX: usize = 107;

/// Stands for the run directory at the front of a `unix://` address, so that the default needs no machine's path.
const RUN_DIR_PLACEHOLDER: &str = "DIR/";

/// One place to listen at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listen {
    /// TCP. Port 0 lets the kernel choose; the router tells which it was.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Why a text is no place to listen at. The message completes the sentence "`TEXT` ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotListen {
    /// Neither of the two schemes.
    #[error("starts with neither quickfire:// nor unix://")]
    UnknownScheme,
    /// A name, or nothing, where an address belongs.
    #[error(
        "needs an IP address (or localhost) in front of the port, like quickfire://127.0.0.1:{PORT_DEFAULT}"
    )]
    NotAnAddress,
    /// Not a number up to 65535.
    #[error("has a port that is not a number from 0 to 65535")]
    NotAPort,
    /// A relative or empty path.
    #[error(
        "needs an absolute path, like unix:///run/quickfire.sock, or unix://DIR/NAME for the run directory"
    )]
    NotAnAbsolutePath,
    /// The kernel would cut it off.
    #[error("is a path of {size} bytes, a Unix socket's may have {SOCKET_PATH_SIZE_MAX}")]
    PathTooLong {
        /// Bytes of the path given.
        size: usize,
    },
    /// No path holds a zero byte.
    #[error("holds a zero byte")]
    ZeroByte,
}

impl Listen {
    /// Whether the kernel chooses the port, so that two of them are two places.
    pub fn is_any_free_port(&self) -> bool {
        matches!(self, Listen::Tcp(address) if address.port() == 0)
    }

    /// This place with `DIR` replaced by the run directory, checked against the kernel's limit for socket paths.
    pub fn resolve(self, run_dir: &Path) -> Result<Listen, NotListen> {
        let path = match self {
            Listen::Tcp(address) => return Ok(Listen::Tcp(address)),
            Listen::Unix(path) => match path.strip_prefix(RUN_DIR_PLACEHOLDER) {
                Ok(name) => run_dir.join(name),
                Err(_) => path,
            },
        };
        let size = path.as_os_str().len();
        if size > SOCKET_PATH_SIZE_MAX {
            return Err(NotListen::PathTooLong { size });
        }
        Ok(Listen::Unix(path))
    }
}

impl FromStr for Listen {
    type Err = NotListen;

    fn from_str(text: &str) -> Result<Listen, NotListen> {
        if text.contains('\0') {
            return Err(NotListen::ZeroByte);
        }
        if let Some(rest) = text.strip_prefix("unix://") {
            let is_complete =
                !rest.ends_with('/') && (rest.starts_with('/') || rest.starts_with(RUN_DIR_PLACEHOLDER));
            return if is_complete {
                Ok(Listen::Unix(PathBuf::from(rest)))
            } else {
                Err(NotListen::NotAnAbsolutePath)
            };
        }
        let Some(rest) = text.strip_prefix("quickfire://") else { return Err(NotListen::UnknownScheme) };
        tcp_address(rest.strip_suffix('/').unwrap_or(rest)).map(Listen::Tcp)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "quickfire://{address}"),
            Listen::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `127.0.0.1:7450`, `127.0.0.1`, `[::1]:7450`, `[::1]` or `localhost:7450`.
fn tcp_address(text: &str) -> Result<SocketAddr, NotListen> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(NotListen::NotAPort)?)),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let ip = if host == "localhost" {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else if text.starts_with('[') {
        IpAddr::V6(host.parse::<Ipv6Addr>().map_err(|_| NotListen::NotAnAddress)?)
    } else {
        IpAddr::V4(host.parse::<Ipv4Addr>().map_err(|_| NotListen::NotAnAddress)?)
    };
    let port = match port {
        None => PORT_DEFAULT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| NotListen::NotAPort)?
        }
        Some(_) => return Err(NotListen::NotAPort),
    };
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, NotListen>) {
        let parsed: Result<Listen, NotListen> = text.parse();
        assert_eq!(parsed.map(|listen| listen.to_string()), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn addresses_read_back_as_written() {
        check("quickfire://127.0.0.1:7450", Ok("quickfire://127.0.0.1:7450"));
        check("quickfire://[::1]:99", Ok("quickfire://[::1]:99"));
        check("quickfire://localhost", Ok("quickfire://127.0.0.1:7450"));
        check("quickfire://0.0.0.0:0", Ok("quickfire://0.0.0.0:0"));
        check("unix:///run/q.sock", Ok("unix:///run/q.sock"));
        check("unix://DIR/q.sock", Ok("unix://DIR/q.sock"));
    }

    #[test]
    fn what_is_wrong_with_an_address_is_named() {
        check("http://127.0.0.1", Err(NotListen::UnknownScheme));
        check("quickfire://example.org:7450", Err(NotListen::NotAnAddress));
        check("quickfire://:7450", Err(NotListen::NotAnAddress));
        check("quickfire://127.0.0.1:", Err(NotListen::NotAPort));
        check("quickfire://127.0.0.1:65536", Err(NotListen::NotAPort));
        check("quickfire://127.0.0.1:+1", Err(NotListen::NotAPort));
        check("quickfire://[::1]7450", Err(NotListen::NotAPort));
        check("unix://q.sock", Err(NotListen::NotAnAbsolutePath));
        check("unix:///", Err(NotListen::NotAnAbsolutePath));
        check("unix:///a\0b", Err(NotListen::ZeroByte));
    }

    #[test]
    fn the_run_directory_takes_the_place_of_its_name_and_counts_towards_the_length() {
        let listen: Listen = "unix://DIR/q.sock".parse().unwrap();
        assert_eq!(listen.clone().resolve(Path::new("/run/q")), Ok(Listen::Unix("/run/q/q.sock".into())));
        let deep = "/d".repeat(60);
        assert_eq!(listen.resolve(Path::new(&deep)), Err(NotListen::PathTooLong { size: 127 }));
    }
}

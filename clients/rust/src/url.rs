//! Where a router listens, as people write it: `quickfire://HOST:PORT`, `unix:///PATH` or `shm:///RUN_DIR`.
//!
//! In: text from a flag, the environment or code.  Out: a [`RouterUrl`], or a [`UrlError`] that says what is wrong.
//! Never: looks a name up or opens anything (see `dial.rs`).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where callers connect when nothing else is said.
pub const URL_DEFAULT: &str = "quickfire://127.0.0.1:7450";

/// The environment variable that replaces [`URL_DEFAULT`].
pub const URL_VARIABLE: &str = "QUICKFIRE_CONNECT";

const PORT_DEFAULT: u16 = 7450;

/// The address of a router.
///
/// ```
/// use quickfire_client::RouterUrl;
///
/// let url: RouterUrl = "quickfire://localhost".parse()?;
/// assert_eq!(url.to_string(), "quickfire://localhost:7450");
///
/// let url: RouterUrl = "unix:///run/quickfire/router.sock".parse()?;
/// assert_eq!(url, RouterUrl::Unix("/run/quickfire/router.sock".into()));
/// # Ok::<(), quickfire_client::UrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouterUrl {
    /// `quickfire://HOST:PORT`: TCP. The port may be left out (7450); an IPv6 address stands in brackets.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:///PATH`: a Unix stream socket at an absolute path.
    Unix(PathBuf),
    /// `shm:///RUN_DIR`: shared memory with the router that has this run directory.
    Shm(PathBuf),
}

impl RouterUrl {
    /// The address in `$QUICKFIRE_CONNECT`, else [`URL_DEFAULT`].
    pub fn from_env() -> Result<Self, UrlError> {
        match std::env::var(URL_VARIABLE) {
            Ok(text) => text.parse(),
            Err(std::env::VarError::NotPresent) => URL_DEFAULT.parse(),
            Err(std::env::VarError::NotUnicode(text)) => {
                Err(UrlError::UnknownScheme { url: text.to_string_lossy().into_owned() })
            }
        }
    }
}

/// Why a text is not the address of a router.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// None of the three.
    #[error(
        "`{url}` is not a router address: expected quickfire://HOST:PORT, unix:///PATH or shm:///RUN_DIR"
    )]
    UnknownScheme {
        /// What was given.
        url: String,
    },
    /// Nothing stands where the host belongs.
    #[error("`{url}` names no host")]
    HostMissing {
        /// What was given.
        url: String,
    },
    /// The text after the colon is not a port.
    #[error("`{url}`: `{port}` is not a port (1 to 65535)")]
    PortInvalid {
        /// What was given.
        url: String,
        /// The part that should be a port.
        port: String,
    },
    /// These addresses need an absolute path: `unix:///PATH`, `shm:///RUN_DIR`, with three slashes.
    #[error("`{url}` needs an absolute path: unix:///PATH or shm:///RUN_DIR")]
    PathNotAbsolute {
        /// What was given.
        url: String,
    },
    /// Something follows the port.
    #[error("`{url}` has something after the port: `{rest}`")]
    TrailingText {
        /// What was given.
        url: String,
        /// The part that does not belong there.
        rest: String,
    },
}

impl FromStr for RouterUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        if let Some(path) = url.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(UrlError::PathNotAbsolute { url: url.into() });
            }
            return Ok(Self::Unix(path.into()));
        }
        if let Some(path) = url.strip_prefix("shm://") {
            if !path.starts_with('/') {
                return Err(UrlError::PathNotAbsolute { url: url.into() });
            }
            return Ok(Self::Shm(path.into()));
        }
        let Some(authority) = url.strip_prefix("quickfire://") else {
            return Err(UrlError::UnknownScheme { url: url.into() });
        };
        let authority = match authority.split_once('/') {
            None | Some((_, "")) => authority.trim_end_matches('/'),
            Some((_, rest)) => {
                return Err(UrlError::TrailingText { url: url.into(), rest: format!("/{rest}") });
            }
        };
        let (host, port) = split_host(authority).ok_or_else(|| UrlError::HostMissing { url: url.into() })?;
        let port = match port {
            None => PORT_DEFAULT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| UrlError::PortInvalid { url: url.into(), port: text.into() })?,
        };
        Ok(Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for RouterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "quickfire://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "quickfire://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Shm(path) => write!(f, "shm://{}", path.display()),
        }
    }
}

/// `host:port`, `host`, `[v6]:port` or `[v6]`; `None` when there is no host.
fn split_host(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => match authority.find(':') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        },
    };
    if host.is_empty() {
        return None;
    }
    match rest {
        "" => Some((host, None)),
        _ => Some((host, Some(rest.strip_prefix(':').unwrap_or(rest)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<&str, &str>) {
        let parsed = url.parse::<RouterUrl>();
        let shown = parsed.as_ref().map(ToString::to_string).map_err(ToString::to_string);
        assert_eq!(shown.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn addresses_are_read_and_written_back_in_full() {
        check("quickfire://127.0.0.1:7450", Ok("quickfire://127.0.0.1:7450"));
        check("quickfire://router.local", Ok("quickfire://router.local:7450"));
        check("quickfire://localhost:80/", Ok("quickfire://localhost:80"));
        check("quickfire://[::1]:9", Ok("quickfire://[::1]:9"));
        check("quickfire://[::1]", Ok("quickfire://[::1]:7450"));
        check("unix:///run/q.sock", Ok("unix:///run/q.sock"));
        check("shm:///run/quickfire", Ok("shm:///run/quickfire"));
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong() {
        check("quickfire://", Err("`quickfire://` names no host"));
        check("quickfire://:1", Err("`quickfire://:1` names no host"));
        check("quickfire://[::1", Err("`quickfire://[::1` names no host"));
        check("quickfire://a:0", Err("`quickfire://a:0`: `0` is not a port (1 to 65535)"));
        check("quickfire://a:b", Err("`quickfire://a:b`: `b` is not a port (1 to 65535)"));
        check("quickfire://a:1/x", Err("`quickfire://a:1/x` has something after the port: `/x`"));
        check("unix://run/q", Err("`unix://run/q` needs an absolute path: unix:///PATH or shm:///RUN_DIR"));
        check("shm://run", Err("`shm://run` needs an absolute path: unix:///PATH or shm:///RUN_DIR"));
        let scheme = "`http://a` is not a router address: expected quickfire://HOST:PORT, unix:///PATH or shm:///RUN_DIR";
        check("http://a", Err(scheme));
    }
}

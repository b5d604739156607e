//! Where clients connect: TCP and Unix sockets, bound with an error that says what is in the way.
//!
//! Always: every shard has its own TCP socket on the same port (SO_REUSEPORT), so that the kernel spreads connections;
//! shards share one Unix socket, for which there is no such thing.
//! Never: takes a Unix socket's path away from a process that still answers on it.
//! Why an address in use is tried for a while: the kernel takes a killed router's io_uring apart in the background, after
//! its process is gone and its locks are free, and the listening sockets in it take connections until then.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::config::Listen;

/// Connections that may wait to be accepted: a burst of clients at start must not see refusals. The kernel cuts it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long an address may be in use before it is called so. A dead router's sockets were seen to linger for tens of
/// milliseconds, and on a busy machine for longer; who really has the address keeps it, and we say so two seconds late.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two tries.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// Why a place to listen can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has the address.
    #[error("{listen} is in use by another process: stop it, or choose another address with --listen")]
    InUse {
        /// The place.
        listen: Listen,
    },
    /// Something that is no socket lies at the path.
    #[error("{} exists and is not a socket: remove it, or choose another path with --listen", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Anything else the kernel says.
    #[error("can't listen at {listen}: {error}")]
    Refused {
        /// The place.
        listen: Listen,
        /// The kernel's word.
        #[source]
        error: io::Error,
    },
}

/// One place to listen at, opened once for each shard.
#[derive(Debug)]
pub struct Listener {
    /// What was bound: the port is known also where the kernel chose it.
    pub bound: Listen,
    /// One socket for each shard.
    pub sockets: Vec<OwnedFd>,
    /// The file of a Unix socket, removed at the end.
    pub socket_file: Option<PathBuf>,
}

impl Listener {
    /// Opens `listen` for `shard_count` shards; waits a while for a dead router to let go of it.
    pub fn bind(listen: &Listen, shard_count: usize) -> Result<Listener, ListenError> {
        let give_up_at = Instant::now() + RELEASE_TIMEOUT;
        Self::bind_while(listen, shard_count, || {
            std::thread::sleep(RELEASE_POLL);
            Instant::now() < give_up_at
        })
    }

    /// Tries again for as long as the address is in use and `is_worth_waiting` says so, which is to take its time.
    fn bind_while(
        listen: &Listen,
        shard_count: usize,
        mut is_worth_waiting: impl FnMut() -> bool,
    ) -> Result<Listener, ListenError> {
        loop {
            match Self::bind_once(listen, shard_count) {
                Err(ListenError::InUse { .. }) if is_worth_waiting() => {}
                result => return result,
            }
        }
    }

    fn bind_once(listen: &Listen, shard_count: usize) -> Result<Listener, ListenError> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { listen: listen.clone() },
            _ => ListenError::Refused { listen: listen.clone(), error },
        };
        match listen {
            Listen::Tcp(address) => {
                let (bound, sockets) = bind_tcp(*address, shard_count).map_err(refused)?;
                Ok(Listener { bound: Listen::Tcp(bound), sockets, socket_file: None })
            }
            Listen::Unix(path) => {
                clear_stale(path, listen)?;
                let socket = UnixListener::bind(path).map_err(refused)?;
                rustix::net::listen(&socket, BACKLOG).map_err(|error| refused(error.into()))?;
                let sockets = (0..shard_count)
                    .map(|_| socket.try_clone().map(OwnedFd::from))
                    .collect::<io::Result<_>>()
                    .map_err(refused)?;
                Ok(Listener { bound: listen.clone(), sockets, socket_file: Some(path.clone()) })
            }
        }
    }
}

fn bind_tcp(address: SocketAddr, shard_count: usize) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    // First alone, without SO_REUSEPORT: with it, a second router of the same user would silently share the port.
    drop(open_tcp(address, false)?);
    let first = open_tcp(address, true)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..shard_count {
        sockets.push(open_tcp(bound, true)?.into());
    }
    Ok((bound, sockets))
}

fn open_tcp(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of a router that just ended must not keep the next one from starting.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, is_shared)?;
    // Accepted sockets inherit it: replies are coalesced here, the kernel need not wait for more.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Removes the file of a socket on which nobody answers, as a killed router leaves it behind.
fn clear_stale(path: &Path, listen: &Listen) -> Result<(), ListenError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| ListenError::Refused { listen: listen.clone(), error })
        }
        // Removed since we looked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Somebody accepted, or is too busy to: alive in any case.
        _ => Err(ListenError::InUse { listen: listen.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};

    fn any_port() -> Listen {
        Listen::Tcp((Ipv4Addr::LOCALHOST, 0).into())
    }

    #[test]
    fn a_port_is_shared_between_shards_and_told() {
        let listener = Listener::bind(&any_port(), 3).expect("binds");
        let Listen::Tcp(address) = listener.bound else { panic!("tcp") };
        assert_ne!(address.port(), 0);
        assert_eq!(listener.sockets.len(), 3);
        TcpStream::connect(address).expect("connects");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let first = Listener::bind(&any_port(), 1).expect("binds");
        let second = Listener::bind_while(&first.bound, 1, || false);
        assert!(matches!(second, Err(ListenError::InUse { .. })), "{second:?}");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("directory");
        let listen = Listen::Unix(dir.path().join("router.sock"));
        let first = Listener::bind(&listen, 2).expect("binds");
        let second = Listener::bind_while(&listen, 1, || false);
        assert!(matches!(second, Err(ListenError::InUse { .. })), "{second:?}");
        drop(first);
        Listener::bind_once(&listen, 1).expect("replaces what nobody answers on");
    }

    #[test]
    fn an_address_that_a_dead_router_still_holds_is_waited_for() {
        let dir = tempfile::tempdir().expect("directory");
        for listen in [Listen::Unix(dir.path().join("router.sock")), any_port()] {
            let first = Listener::bind(&listen, 1).expect("binds");
            let bound = first.bound.clone();
            // Given: sockets that are closed only while the next router waits for its third try.
            let mut lingering = Some(first);
            let mut waits = 0;
            let second = Listener::bind_while(&bound, 1, || {
                waits += 1;
                if waits == 3 {
                    lingering = None;
                }
                true
            });
            assert!(second.is_ok(), "{second:?}");
            assert_eq!(waits, 3);
        }
    }

    #[test]
    fn an_address_that_stays_in_use_is_given_up() {
        let first = Listener::bind(&any_port(), 1).expect("binds");
        let mut waits = 0;
        let second = Listener::bind_while(&first.bound, 1, || {
            waits += 1;
            waits < 5
        });
        assert!(matches!(second, Err(ListenError::InUse { .. })), "{second:?}");
        assert_eq!(waits, 5);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("precious");
        fs::write(&path, "data").expect("writes");
        let refused = Listener::bind(&Listen::Unix(path.clone()), 1);
        assert!(matches!(refused, Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read(&path).expect("reads"), b"data");
    }
}

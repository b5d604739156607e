//! The way between the floor's client and its forwarder, seen from one of them: two rings, or a stream socket.
//!
//! Never: blocks. A socket that has nothing to give or no room answers zero.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use super::Transport;
use super::ring::Ring;

/// Asked of the kernel for each direction of a socket: two windows of 8,192 messages of 64 bytes, so that no write of
/// a pipelined run finds the socket full. The kernel gives what its limits allow.
const SOCKET_BUFFER_SIZE: usize = 1 << 20;

/// One end.
pub enum Link {
    /// A loopback connection.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
    /// A ring for each direction.
    Shm {
        /// What this end says.
        out: Ring,
        /// What it hears.
        into: Ring,
    },
}

impl Link {
    /// The forwarder's end.
    pub fn accept(dir: &Path, transport: Transport) -> std::io::Result<Self> {
        match transport {
            // A worker without a forwarder stands in its place.
            Transport::Shm | Transport::Direct => Self::shm(dir, "forwarder-client", "client-forwarder"),
            Transport::Unix => {
                let listener = UnixListener::bind(dir.join("socket.new"))?;
                std::fs::rename(dir.join("socket.new"), dir.join("socket"))?;
                Self::unix(listener.accept()?.0)
            }
            Transport::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                std::fs::write(dir.join("port.new"), listener.local_addr()?.port().to_string())?;
                std::fs::rename(dir.join("port.new"), dir.join("port"))?;
                Self::tcp(listener.accept()?.0)
            }
        }
    }

    /// The client's end; waits until the forwarder listens.
    pub fn connect(dir: &Path, transport: Transport) -> std::io::Result<Self> {
        let wait_for = |name: &str| {
            while !dir.join(name).exists() {
                std::thread::yield_now();
            }
            dir.join(name)
        };
        match transport {
            Transport::Shm | Transport::Direct => Self::shm(dir, "client-forwarder", "forwarder-client"),
            Transport::Unix => Self::unix(UnixStream::connect(wait_for("socket"))?),
            Transport::Tcp => {
                let port = std::fs::read_to_string(wait_for("port"))?;
                let port: u16 = port.parse().map_err(std::io::Error::other)?;
                Self::tcp(TcpStream::connect(("127.0.0.1", port))?)
            }
        }
    }

    fn shm(dir: &Path, out: &str, into: &str) -> std::io::Result<Self> {
        Ok(Self::Shm { out: Ring::open(dir, out)?, into: Ring::open(dir, into)? })
    }

    fn tcp(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        widen(&stream)?;
        Ok(Self::Tcp(stream))
    }

    fn unix(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        widen(&stream)?;
        Ok(Self::Unix(stream))
    }

    /// Sends what it can of these bytes; answers how many.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Shm { out, .. } => {
                out.send(bytes);
                Ok(bytes.len())
            }
            Self::Tcp(stream) => none_if_would_block(stream.write(bytes)),
            Self::Unix(stream) => none_if_would_block(stream.write(bytes)),
        }
    }

    /// Takes what is there and fits; answers how many bytes.
    pub fn receive(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Shm { into, .. } => Ok(into.receive(out)),
            Self::Tcp(stream) => none_if_would_block(stream.read(out)),
            Self::Unix(stream) => none_if_would_block(stream.read(out)),
        }
    }
}

fn widen(socket: &impl AsFd) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_SIZE)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_SIZE)?;
    Ok(())
}

fn none_if_would_block(result: std::io::Result<usize>) -> std::io::Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        // The client leaves first; what remains is the order to stop.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(0),
        other => other,
    }
}

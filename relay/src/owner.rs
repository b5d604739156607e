//! Whose process is at the other end of a loopback socket, by the kernel's word.
//!
//! A loopback port belongs to nobody: while a program is starting, somebody else of the host could take the port that it was
//! given, and get its calls. The kernel lists each socket with its user (`/proc/net/tcp`); a relay talks to its own user's only.

use std::io;
use std::net::SocketAddr;

/// The state of a socket that listens, as the kernel writes it.
const LISTENING: &str = "0A";
/// Both list sockets of IPv4: one that listens for both is in the second.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Refuses a port of this host that no socket of our user listens on, or that another user's listens on too.
pub fn check_listener(port: u16) -> io::Result<()> {
    let mut owners = Vec::new();
    for table in TABLES {
        // Without IPv6 there is no second table.
        match std::fs::read_to_string(table) {
            Ok(text) => owners.extend(listeners(&text, port)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    judge(&owners, rustix::process::geteuid().as_raw(), port)
}

/// Refuses a peer of this host that is not known as a socket of our user.
pub fn check_peer(peer: SocketAddr, ours: SocketAddr) -> io::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    for table in TABLES {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        match connected(&text, peer, ours) {
            None => {}
            Some(owner) if owner == user => return Ok(()),
            Some(other) => return Err(io::Error::other(format!("it is user {other}'s"))),
        }
    }
    Err(io::Error::other("the kernel does not know whose it is"))
}

fn judge(owners: &[u32], ours: u32, port: u16) -> io::Result<()> {
    match owners.iter().find(|owner| **owner != ours) {
        None if owners.is_empty() => {
            Err(io::Error::other(format!("the kernel knows no socket that listens on port {port}")))
        }
        None => Ok(()),
        Some(other) => Err(io::Error::other(format!("user {other} listens on port {port}"))),
    }
}

/// The users of the sockets that listen on a port.
fn listeners(table: &str, port: u16) -> impl Iterator<Item = u32> {
    let local = format!(":{port:04X}");
    table.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let address = fields.nth(1)?;
        let state = fields.nth(1)?;
        let user = fields.nth(3)?;
        (address.ends_with(&local) && state == LISTENING).then(|| user.parse().ok()).flatten()
    })
}

/// The user of the socket at `local` that is connected to `remote`.
fn connected(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (written(local)?, written(remote)?);
    table.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_its = fields.nth(1)?.ends_with(&local) && fields.next()?.ends_with(&remote);
        let user = fields.nth(4)?;
        is_its.then(|| user.parse().ok()).flatten()
    })
}

/// An address of IPv4 as the kernel writes it: its four bytes as one number of this machine.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn our_own_listener_is_known_and_a_port_without_one_is_not() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            // A machine without IPv6 has nothing to show for the second.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(check_listener(port).is_ok(), "{address}");
        }
        assert!(check_listener(0).is_err(), "nobody can listen there");
    }

    #[test]
    fn our_own_connection_is_known_and_one_that_is_not_there_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.local_addr().unwrap();
        let stream = TcpStream::connect(ours).unwrap();
        let peer = stream.local_addr().unwrap();
        assert!(check_peer(peer, ours).is_ok());
        assert!(check_peer(peer, peer).is_err());
        assert!(check_peer("[::1]:80".parse().unwrap(), ours).is_err());
    }

    #[test]
    fn a_port_that_somebody_else_listens_on_too_is_refused() {
        assert!(judge(&[7, 7], 7, 80).is_ok());
        assert!(judge(&[7, 8], 7, 80).unwrap_err().to_string().contains("user 8"));
        assert!(judge(&[], 7, 80).is_err());
    }

    #[test]
    fn the_table_is_read_as_the_kernel_writes_it_and_any_other_text_is_survived() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1\n\
             1: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1001        0 1 1\n\
             2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1002        0 1 1\n\
             3: 0100007F:1F90 00000000:0000 0A\n";
        assert_eq!(listeners(table, 0x1F90).collect::<Vec<_>>(), [1000]);
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(connected(table, address(0x1F90), address(0x50)), Some(1001));
        assert_eq!(connected(table, address(0x50), address(0x1F90)), None);
    }
}

//! Whose process is at the other end of a loopback socket, by the kernel's word.
//!
//! A loopback port belongs to nobody: while a program is starting, somebody else of the host could take the port that it was
//! given, and get its calls. The kernel lists each socket with its user (`/proc/net/tcp`); a relay talks to its own user's only.

use std::io;

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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn our_own_listener_is_known_and_a_port_without_one_is_not() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            // A machine without IPv6 has nothing to show for the second.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(check_listener(port).is_ok(), "{address}");
            drop(listener);
            assert!(check_listener(port).is_err(), "{address}");
        }
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
    }
}

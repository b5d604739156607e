//! The shim as a shard knows it: who keeps the processes that attach here, and what it has to be told.
//!
//! ```text
//!  accepted ──▶ (shard 0) look at the configuration ──▶ which editions serve here ──▶ ... each that begins to ──▶ stop
//!                                                       how many are wanted here  ──▶ ... each change
//! ```
//! In: words for the shim.  Out: the same on its socket, in their order.
//! Owns: what the socket had no room for yet; it is tried again about every millisecond.
//! Always: which edition of a function serves is told when its first worker attaches, and of every function to a shim that is
//! new here: whatever either side missed, the shim learns which processes may go.
//! Never: waits. A shim that leaves more than [`OUTBOX_SIZE_MAX`] unread is as good as gone: its connection ends, and if it
//! lives it comes back and is told all of it.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use engine::Nanos;
use protocol::FunctionName;
use protocol::attach::{MESSAGE_SIZE_MAX, Message};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// A word about each of 16,384 functions, the most that a router can know.
const OUTBOX_SIZE_MAX: usize = 16_384 * MESSAGE_SIZE_MAX;
/// Time between two tries to send what had no room.
const RETRY: Nanos = Nanos::from_ms(1);

/// See above.
#[derive(Default)]
pub(super) struct ShimPeer {
    shim: Option<Rc<UnixStream>>,
    outbox: Vec<u8>,
    retry_at: Option<Nanos>,
}

impl ShimPeer {
    /// A shim attached.
    pub fn attach(&mut self, socket: Rc<UnixStream>) {
        *self = ShimPeer { shim: Some(socket), ..ShimPeer::default() };
    }

    /// It is gone.
    pub fn detach(&mut self) {
        *self = ShimPeer::default();
    }

    /// Whether there is one.
    pub fn is_attached(&self) -> bool {
        self.shim.is_some()
    }

    /// Says something to the shim; nothing if there is none.
    pub fn tell(&mut self, now: Nanos, message: Message) {
        if self.shim.is_some() {
            message.encode(&mut self.outbox);
            self.flush(now);
        }
    }

    /// This edition of a function serves.
    pub fn tell_serves(&mut self, now: Nanos, name: &str, edition: u64) {
        // The configuration has the same bound of names.
        if let Ok(name) = FunctionName::new(name) {
            self.tell(now, Message::EditionServes { name, edition });
        }
    }

    /// Tries again what had no room.
    pub fn on_time(&mut self, now: Nanos) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.flush(now);
        }
    }

    /// When `on_time` has something to do next.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.retry_at
    }

    fn flush(&mut self, now: Nanos) {
        self.retry_at = None;
        let Some(shim) = &self.shim else { return };
        while !self.outbox.is_empty() {
            match rustix::net::send(shim, &self.outbox, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(size) => drop(self.outbox.drain(..size)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.outbox.len() <= OUTBOX_SIZE_MAX => {
                    self.retry_at = Some(now.plus(RETRY));
                    return;
                }
                Err(_) => {
                    // Its end comes as an event of its own.
                    self.outbox.clear();
                    let _ = shim.shutdown(std::net::Shutdown::Both);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_finds_no_room_is_told_in_order_when_there_is_some() {
        // Given: a shim that does not read, and more words than its socket holds.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut peer = ShimPeer::default();
        peer.tell(Nanos(0), Message::ShimStop);
        peer.attach(Rc::new(ours));
        let mut told = Vec::new();
        let mut edition = 0;
        while peer.next_timer().is_none() {
            edition += 1;
            peer.tell_serves(Nanos(7), "echo", edition);
            Message::EditionServes { name: FunctionName::new("echo").unwrap(), edition }.encode(&mut told);
        }
        assert_eq!(peer.next_timer(), Some(Nanos(7).plus(RETRY)));
        // When it reads. Expect: every word once; the one from before it came is not for it.
        theirs.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        let mut now = Nanos(7);
        while heard.len() < told.len() {
            let mut bytes = [0; 1 << 16];
            heard.extend_from_slice(theirs.read(&mut bytes).map_or(&[], |size| &bytes[..size]));
            now = now.plus(RETRY);
            peer.on_time(now);
        }
        assert_eq!(heard, told);
        assert_eq!(peer.next_timer(), None);
    }

    #[test]
    fn a_shim_that_never_reads_is_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut peer = ShimPeer::default();
        peer.attach(Rc::new(ours));
        peer.outbox = vec![0; OUTBOX_SIZE_MAX + (1 << 20)];
        peer.tell(Nanos(0), Message::ShimReload);
        assert_eq!(peer.next_timer(), None);
        theirs.read_to_end(&mut Vec::new()).expect("its end");
    }
}

//! Stage 6 of 8: an order for one more copy of a template, until the copy is there.
//!
//! In: a template's socket, the copy's own socket.  Out: the copy's process, as the kernel names it.
//! Owns: the shim's ends of the copy's socket and of its output.
//! Always: the copy waits for our word before it does anything, so that it is known before it can fail, and asks for the shim's
//! death while the shim's end of the socket proves that it lives.
//! Never: takes a process id from what was written. SO_PASSCRED is set before the other end of the socket is given away.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use protocol::template::{Message, RECORD_SIZE, SocketPath, TemplateMisbehaved};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, sockopt,
};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use shm_ring::pass::send_with_fds;

use crate::process::{AdoptRefused, Process, adopt};

/// See above.
pub struct Order {
    pub number: u64,
    /// The number of the place that gets the copy.
    pub place: usize,
    pub socket: OwnedFd,
    output: [OwnedFd; 2],
}

/// A copy that waits to be known.
pub struct Newborn {
    /// The number of the place that gets it.
    pub place: usize,
    pub pid: Pid,
    socket: OwnedFd,
    output: [OwnedFd; 2],
}

/// Why nothing can be read any more.
pub enum ReceiveFailed {
    /// The other end is gone.
    Closed,
    /// What came is no record.
    Misbehaved(TemplateMisbehaved),
}

impl Order {
    /// Sends it, with the copy's ends of everything.
    pub fn send(
        template: &OwnedFd,
        number: u64,
        place: usize,
        attach_socket: SocketPath,
    ) -> io::Result<Self> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_passcred(&ours, true)?;
        let (stdout, to_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, to_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let output = [stdout, stderr];
        for pipe in &output {
            // Ours alone: the other end stays as a program expects its output to be.
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let record = Message::Copy { order: number, attach_socket }.encode();
        send_with_fds(template, &record, &[to_stdout.as_fd(), to_stderr.as_fd(), theirs.as_fd()])?;
        Ok(Self { number, place, socket: ours, output })
    }

    /// Which process it has become, or why none.
    pub fn outcome(&self) -> Option<Result<Pid, String>> {
        match receive(&self.socket) {
            Ok(None) => None,
            Ok(Some((Message::Born, Some(pid)))) => Some(Ok(pid)),
            Ok(Some(_)) => Some(Err("the copy began with another word than that it is there".into())),
            Err(ReceiveFailed::Closed) => Some(Err("the copy ended before it said that it is there".into())),
            Err(ReceiveFailed::Misbehaved(misbehaved)) => {
                Some(Err(format!("the copy sent what is no word of one: {misbehaved}")))
            }
        }
    }

    pub fn into_newborn(self, pid: Pid) -> Newborn {
        Newborn { place: self.place, pid, socket: self.socket, output: self.output }
    }
}

impl Newborn {
    /// Makes it a process of the shim's like one that it started, and lets it begin.
    pub fn adopt(self) -> Result<Process, AdoptRefused> {
        let process = adopt(self.pid, self.output)?;
        // If it does not get this, it has ended, and will be reaped.
        let _ = send_with_fds(&self.socket, &Message::Go.encode(), &[]);
        Ok(process)
    }
}

/// The next record and, where the socket asks for it, who sent it; nothing if none has come.
pub fn receive(socket: &OwnedFd) -> Result<Option<(Message, Option<Pid>)>, ReceiveFailed> {
    // One byte more than a record, so that a longer message shows. Room for who sent it and for nothing else: descriptors that
    // somebody sends along are not taken.
    let mut bytes = [0; RECORD_SIZE + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Ok(received) if received.bytes > 0 => break received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return Err(ReceiveFailed::Closed),
        }
    };
    let sender = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
        _ => None,
    });
    let message = Message::decode(&bytes[..received.bytes]).map_err(ReceiveFailed::Misbehaved)?;
    Ok(Some((message, sender)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    /// An order, and what the template got with it: stdout, stderr, the copy's socket.
    fn order() -> (Order, Vec<OwnedFd>) {
        let (ours, theirs) = template();
        let path = SocketPath::from_bytes(b"/run/attach-0.sock").unwrap();
        let order = Order::send(&ours, 7, 3, path).unwrap();
        let (mut bytes, mut fds) = ([0; RECORD_SIZE], Vec::new());
        let size = shm_ring::pass::receive_with_fds(&theirs, &mut bytes, &mut fds).unwrap();
        assert_eq!(Message::decode(&bytes[..size]), Ok(Message::Copy { order: 7, attach_socket: path }));
        assert_eq!(fds.len(), 3);
        (order, fds)
    }

    #[test]
    fn who_says_that_it_was_born_is_known_from_the_kernel() {
        let (order, fds) = order();
        assert_eq!(order.outcome(), None, "nobody has said anything");
        send_with_fds(&fds[2], &Message::Born.encode(), &[]).unwrap();
        assert_eq!(order.outcome(), Some(Ok(rustix::process::getpid())));
    }

    #[test]
    fn a_copy_that_ends_talks_nonsense_or_begins_wrongly_ends_the_order() {
        let said = |words: &[u8]| {
            let (order, mut fds) = order();
            let socket = fds.pop().unwrap();
            if !words.is_empty() {
                send_with_fds(&socket, words, &[]).unwrap();
            }
            drop(socket);
            order.outcome().unwrap().unwrap_err()
        };
        assert!(said(&[]).contains("ended before"));
        assert!(said(b"hello").contains("5 bytes"));
        assert!(said(&[0; 4096]).contains("129 bytes"));
        assert!(said(&Message::Go.encode()).contains("another word"));
    }

    #[test]
    fn descriptors_that_are_sent_along_are_not_taken() {
        let (order, fds) = order();
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let bell = fds[0].as_fd();
        send_with_fds(&fds[2], &Message::Born.encode(), &[bell, bell, bell]).unwrap();
        assert!(order.outcome().unwrap().is_ok());
        assert_eq!(std::fs::read_dir("/proc/self/fd").unwrap().count(), before);
    }

    #[test]
    fn a_process_that_is_not_a_child_is_not_adopted() {
        let (order, _fds) = order();
        // Our own process is nobody's child here.
        let refused = order.into_newborn(rustix::process::getpid()).adopt();
        assert!(matches!(refused.map(|_| ()), Err(AdoptRefused::NoChild)));
    }
}

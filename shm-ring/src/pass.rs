//! File descriptors over a Unix stream socket (SCM_RIGHTS), with plain `sendmsg` and `recvmsg`: attaching is rare, and
//! io_uring's receive has had trouble with control messages.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Descriptors in one message: twice the two (ring, bell) that an attach carries.
pub const FDS_MAX: usize = 4;

/// Sends `bytes` with `fds` attached to the first of them, and returns how many bytes the socket took. With
/// descriptors, send a message the socket has room for (the attach records have 64 bytes): the rest of a short write
/// goes without them.
pub fn send_with_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    assert!(fds.len() <= FDS_MAX, "at most {FDS_MAX} descriptors in a message");
    assert!(!bytes.is_empty(), "descriptors travel with bytes");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let has_room = ancillary.push(SendAncillaryMessage::ScmRights(fds));
        assert!(has_room, "the space was made for {FDS_MAX}");
    }
    retry_interrupted(|| {
        // NOSIGNAL: a peer that is gone is an error to handle, not a signal to die of. DONTWAIT: so is one that does not
        // read, and the router waits for nobody.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, flags)
    })
}

/// Receives bytes into `buffer` and appends attached descriptors, closed on exec, to `fds`. 0 bytes: the peer is gone.
/// A message with more than [`FDS_MAX`] descriptors is an error (`MSGSIZE`), and all of them are closed.
pub fn receive_with_fds(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = retry_interrupted(|| {
        let into = &mut [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(&socket, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let received = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(received) => Some(received),
        _ => None,
    });
    if message.flags.contains(ReturnFlags::CTRUNC) {
        received.flatten().for_each(drop);
        return Err(Errno::MSGSIZE);
    }
    fds.extend(received.flatten());
    Ok(message.bytes)
}

fn retry_interrupted<T>(mut operation: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match operation() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::doorbell::EventDoorbell;

    #[test]
    fn a_passed_bell_rings_at_the_sender() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let bell = EventDoorbell::new().unwrap();
        assert_eq!(send_with_fds(&ours, b"hello", &[bell.as_fd()]), Ok(5));
        let mut buffer = [0; 16];
        let mut fds = Vec::new();
        assert_eq!(receive_with_fds(&theirs, &mut buffer, &mut fds), Ok(5));
        assert_eq!(&buffer[..5], b"hello");
        EventDoorbell::from_fd(fds.pop().unwrap()).ring().unwrap();
        assert_eq!(bell.silence(), Ok(true));
        assert!(fds.is_empty());
    }

    #[test]
    fn a_message_without_descriptors_has_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_with_fds(&ours, b"x", &[]).unwrap();
        let mut fds = Vec::new();
        assert_eq!(receive_with_fds(&theirs, &mut [0; 4], &mut fds), Ok(1));
        assert!(fds.is_empty());
    }

    #[test]
    fn too_many_descriptors_are_refused_and_none_is_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let bells: Vec<_> = (0..FDS_MAX + 4).map(|_| EventDoorbell::new().unwrap()).collect();
        let borrowed: Vec<_> = bells.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)));
        rustix::net::sendmsg(&ours, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
        let mut fds = Vec::new();
        assert_eq!(receive_with_fds(&theirs, &mut [0; 4], &mut fds), Err(Errno::MSGSIZE));
        assert!(fds.is_empty());
    }

    #[test]
    fn a_peer_that_left_is_an_end_and_an_error_not_a_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(receive_with_fds(&ours, &mut [0; 4], &mut Vec::new()), Ok(0));
        assert_eq!(send_with_fds(&ours, b"x", &[]), Err(Errno::PIPE));
    }
}

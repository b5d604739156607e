//! The one background thread of a client: reads answers, keeps deadlines, finishes blocked writes, connects again. On a ring
//! (`ring_thread.rs`) it reads only the answers that no waiting caller looks for himself.
//!
//! In: the socket, the wake-up descriptor, the clock.  Out: completed calls.
//! Owns: the bytes received and not yet decoded.
//! Always: a connection's end reaches every waiter before the next connection is tried.
//! Never: runs a caller's waker while holding the link's lock; busy-waits.
//! Why a thread of our own: callers need no runtime, a future is as good as a blocking call, and a caller that never
//! looks again still gets its deadline kept and its PINGs answered.

use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backoff::Backoff;
use crate::connection::Event;
use crate::dial::Dial;
use crate::error::Disconnect;
use crate::link::{Hurry, Life, Link, Sleep, Up, Waiter, complete};
use crate::ring_thread;
use crate::stream::Stream;

/// Room for received bytes at first: one read takes hundreds of small answers. Grows to the largest frame that came.
const INBOUND_SIZE: usize = 64 * 1024;

/// Runs until the client is dropped.
pub(crate) fn run(link: &Link, dial: &Dial) {
    let _closes_the_link = CloseOnEnd(link);
    let mut reader =
        Reader { inbound: vec![0; INBOUND_SIZE], filled: 0, events: Vec::new(), expired: Vec::new() };
    let mut backoff = Backoff::new();
    loop {
        let is_ring = matches!(link.lock().life, Life::Up(Up::Ring(_)));
        let cause = if is_ring { ring_thread::serve(link) } else { reader.serve(link) };
        link.go_down(cause);
        loop {
            if !link.pause(backoff.next_delay()) {
                return;
            }
            // Why it failed is not kept: the next attempt is the remedy, and callers are told `Unreachable`.
            if let Ok(dialled) = dial.dial(&link.function_names()) {
                backoff.reset();
                if !link.go_up(dialled) {
                    return;
                }
                break;
            }
        }
    }
}

/// However this thread ends, nobody may wait for it any longer: a caller's waker that panics unwinds through here.
struct CloseOnEnd<'a>(&'a Link);

impl Drop for CloseOnEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Reader {
    inbound: Vec<u8>,
    filled: usize,
    // Kept for their capacity.
    events: Vec<Event<Waiter>>,
    expired: Vec<Waiter>,
}

impl Reader {
    /// Serves one connection to its end.
    fn serve(&mut self, link: &Link) -> Disconnect {
        self.filled = 0;
        let stream = match &link.lock().life {
            Life::Up(Up::Socket(up)) => Arc::clone(&up.stream),
            Life::Up(Up::Ring(_)) | Life::Down | Life::Closed => return Disconnect::ClientDropped,
        };
        loop {
            let read = self.read(&stream);
            let handled = self.handle(link);
            complete(&mut self.events, &mut self.expired);
            let interest = match (handled, read) {
                (Err(cause), _) | (_, Err(cause)) => return cause,
                (Ok(_), Ok(Read::More)) => continue,
                (Ok(interest), Ok(Read::Empty)) => interest,
            };
            if let Some(interest) = interest {
                self.sleep(link, &stream, interest);
            }
        }
    }

    fn read(&mut self, stream: &Stream) -> Result<Read, Disconnect> {
        if self.filled == self.inbound.len() {
            // A frame larger than the room: the codec has bounded its size by what HELLO agreed.
            self.inbound.resize(self.inbound.len() * 2, 0);
        }
        let room = self.inbound.get_mut(self.filled..).unwrap_or_default();
        match stream.read(room) {
            Ok(0) => Err(Disconnect::Closed),
            Ok(count) => {
                self.filled += count;
                Ok(Read::More)
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock => Ok(Read::Empty),
                std::io::ErrorKind::Interrupted => Ok(Read::More),
                kind => Err(Disconnect::Io(kind)),
            },
        }
    }

    /// Gives what was received to the session and lets it act. `Ok(None)`: look again before sleeping.
    fn handle(&mut self, link: &Link) -> Result<Option<Interest>, Disconnect> {
        let mut state = link.lock();
        let Life::Up(Up::Socket(up)) = &mut state.life else { return Err(Disconnect::ClientDropped) };
        let outbound_size = up.session.outbound_size();
        let received = self.inbound.get(..self.filled).unwrap_or_default();
        let consumed =
            up.session.handle_bytes(received, &mut self.events).map_err(Disconnect::RouterMisbehaved)?;
        self.inbound.copy_within(consumed..self.filled, 0);
        self.filled -= consumed;

        let now = Instant::now();
        up.session.expire(now, &mut self.expired);
        if let Some(status) = up.session.goaway()
            && up.session.is_idle()
        {
            return Err(Disconnect::GoAway(status));
        }
        if up.session.outbound_size() > outbound_size && !up.is_blocked {
            // A PONG, or CANCELs for what expired. What callers appended, they write.
            link.notify(&state);
            link.flush(state, Hurry::Now);
            return Ok(None);
        }
        let interest = Interest { is_blocked: up.is_blocked, until: up.session.deadline_next() };
        state.sleeps_until = Sleep::Until(interest.until);
        link.notify(&state);
        Ok(Some(interest))
    }

    fn sleep(&self, link: &Link, stream: &Stream, interest: Interest) {
        let wanted = if interest.is_blocked { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut descriptors = [PollFd::new(stream, wanted), PollFd::new(&link.wake, PollFlags::IN)];
        let timeout = interest.until.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        // An interrupted poll is a wake-up like any other.
        let _count_or_interrupted = poll(&mut descriptors, timeout.as_ref());
        let is_writable = descriptors[0].revents().contains(PollFlags::OUT);
        let is_rung = !descriptors[1].revents().is_empty();
        if is_rung {
            let _emptied = rustix::io::read(&link.wake, &mut [0; 8]);
        }
        let mut state = link.lock();
        state.sleeps_until = Sleep::Awake;
        if let Life::Up(Up::Socket(up)) = &mut state.life
            && is_writable
        {
            up.is_blocked = false;
            link.flush(state, Hurry::Now);
        }
    }
}

enum Read {
    More,
    Empty,
}

/// What to wake up for, besides bytes to read.
#[derive(Clone, Copy)]
struct Interest {
    is_blocked: bool,
    until: Option<Instant>,
}

//! A connection on which calls can be made: a socket and its session, or a ring. What both can do has one name here.
//!
//! In: what `dial.rs` made.  Out: calls taken, and everybody who still waits when it is over.

use std::sync::Arc;

use protocol::{CallId, Status};

use super::Waiter;
use crate::connection::{Invocation, NotTaken, Session};
use crate::dial::Line;
use crate::ring::RingUp;
use crate::stream::Stream;

/// A connection on which calls can be made.
#[derive(Debug)]
pub(crate) enum Up {
    Socket(SocketUp),
    Ring(Box<RingUp>),
}

#[derive(Debug)]
pub(crate) struct SocketUp {
    pub(crate) session: Session<Waiter>,
    pub(crate) stream: Arc<Stream>,
    pub(super) is_writing: bool,
    /// The socket is full: the I/O thread watches it, nobody else tries.
    pub(crate) is_blocked: bool,
    pub(super) spare: Vec<u8>,
}

impl Up {
    pub(super) fn new(line: Line) -> Self {
        match line {
            Line::Socket { stream, hello } => Self::Socket(SocketUp {
                session: Session::new(&hello),
                stream: Arc::new(stream),
                is_writing: false,
                is_blocked: false,
                spare: Vec::new(),
            }),
            Line::Ring { client, sleeper } => Self::Ring(Box::new(RingUp::new(*client, sleeper))),
        }
    }

    pub(super) fn invoke(
        &mut self,
        invocation: &Invocation,
        payload: &[u8],
        waiter: Waiter,
    ) -> Result<CallId, (NotTaken, Waiter)> {
        match self {
            Self::Socket(up) => up.session.invoke(invocation, payload, waiter),
            Self::Ring(ring) => ring.invoke(invocation, payload, waiter),
        }
    }

    /// `false`: there is no room for the question just now.
    pub(super) fn resolve(&mut self, name: &str, waiter: Waiter) -> bool {
        match self {
            Self::Socket(up) => up.session.resolve(name, waiter).is_ok(),
            Self::Ring(ring) => ring.resolve(name, waiter).is_ok(),
        }
    }

    pub(super) fn goaway(&self) -> Option<Status> {
        match self {
            Self::Socket(up) => up.session.goaway(),
            Self::Ring(ring) => ring.goaway(),
        }
    }

    /// Whoever waits for the other side is woken.
    pub(super) fn shut_down(&self) {
        match self {
            Self::Socket(up) => up.stream.shut_down(),
            Self::Ring(ring) => ring.shut_down(),
        }
    }

    /// Everyone who waits, and whether their request may have reached the router whole.
    pub(super) fn into_waiters(self) -> Vec<(Waiter, bool)> {
        match self {
            Self::Socket(up) => up.session.into_waiters().collect(),
            Self::Ring(ring) => ring.into_waiters(),
        }
    }
}

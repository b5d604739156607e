//! What the client's thread does while the connection is a ring: sees answers that no caller looks for, keeps deadlines,
//! hears the socket.
//!
//! In: the ring, its socket, the wake-up descriptor, the clock.  Out: completed calls; at the end, why it ended.
//! Always: sleeps in one of two places. While calls are outstanding on the ring's own word, where the router wakes it, and at most
//! 20 ms, because a router that dies wakes nobody; else in `poll`, where it costs nothing.
//! Never: runs a caller's waker while holding the link's lock.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use shm_ring::Memory;

use crate::error::Disconnect;
use crate::link::{Life, Link, Up, complete};
use crate::ring::{Looker, Rest};

/// Serves one ring to its end.
pub(crate) fn serve(link: &Link) -> Disconnect {
    let (mut events, mut expired) = (Vec::new(), Vec::new());
    let (connection, sleeper) = {
        let state = link.lock();
        let Life::Up(Up::Ring(ring)) = &state.life else { return Disconnect::ClientDropped };
        (state.connection, ring.sleeper())
    };
    let mut may_be_more = false;
    loop {
        let mut state = link.lock();
        let Life::Up(Up::Ring(ring)) = &mut state.life else { return Disconnect::ClientDropped };
        ring.thread_is_awake();
        let looked = ring.look_everywhere(&mut events);
        ring.expire(Instant::now(), &mut expired);
        if looked.count > 0 || !expired.is_empty() || looked.ended.is_some() {
            link.notify(&state);
            drop(state);
            complete(&mut events, &mut expired);
            if let Some(cause) = looked.ended {
                return cause;
            }
            may_be_more = true;
            continue;
        }
        if let Some(status) = ring.goaway().filter(|_| ring.is_idle()) {
            return Disconnect::GoAway(status);
        }
        if std::mem::take(&mut may_be_more) && !ring.is_idle() {
            // What was worth waking for is often followed by more.
            drop(state);
            link.look(connection, Looker::Thread, || false);
            continue;
        }
        let rest = ring.rest(Instant::now());
        drop(state);
        match rest {
            Rest::No => continue,
            Rest::OnRing { word, value, timeout } => {
                sleeper.memory.futex_wait(word, value, Some(timeout));
            }
            Rest::Idle => {
                let mut descriptors =
                    [PollFd::new(&sleeper.socket, PollFlags::IN), PollFd::new(&link.wake, PollFlags::IN)];
                // An interrupted poll is a wake-up like any other.
                let _count_or_interrupted = poll(&mut descriptors, None);
                if !descriptors[1].revents().is_empty() {
                    let _emptied = rustix::io::read(&link.wake, &mut [0; 8]);
                }
            }
        }
    }
}

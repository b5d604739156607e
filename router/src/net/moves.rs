//! Connections that change their shard: how one leaves, and how one arrives. Beside stage 1.
//!
//! ```text
//!  giver                                                                     receiver
//!  accepted ─────────── another shard has fewer ──────────┐
//!                                                         ├─ room in its inbox ─▶ received from, as if accepted there
//!  Open ── picked ──▶ paused, calls answered, output sent ┘
//!            │                            │
//!            │ DEPARTURE_TIMEOUT over,    └─ inbox full: stays, received from again
//!            └ or the router drains: stays
//! ```
//! In: the decisions of `placement`, connections given to this shard.  Out: connections given to others.
//! Owns: the socket from the moment the edge releases it until an inbox has it.
//! Always: a connection moves at rest: nothing more is received from it, each of its calls is answered, and each answer
//! is with the kernel. What then goes over is its socket, what HELLO fixed, and the front of a frame that is not
//! complete. Bytes that the peer sends meanwhile wait in the socket, so that nothing is lost, doubled or out of order.
//! Why a pause and not waiting for a quiet moment: a client that keeps calls outstanding has none.
//! Tests: `moves/tests.rs`, and `tests/placement.rs` with threads and real load.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use engine::{Nanos, ShardId};

use super::life::{Happening, Life};
use super::{Desk, Net};
use crate::io::Io;
use crate::placement::balance::{Candidate, pick};
use crate::placement::board::INBOX_COUNT;
use crate::placement::{Order, Placement, Step};
use crate::shard::Owner;

/// How long a connection that is to leave may take to come to rest. New calls of it wait so long at worst; connections
/// of slow calls don't get there, and are not what loads a shard.
const DEPARTURE_TIMEOUT: Nanos = Nanos::from_ms(20);
/// A connection that arrived stays at least this long: a second decision about it within a second is haste.
const STAY_MIN: Nanos = Nanos::from_secs(1);
/// One that did not come to rest is not asked again for this long, so that pauses cost it no more than 0.2 % of its time.
const STAY_AFTER_FAILURE: Nanos = Nanos::from_secs(10);

/// A connection between two shards.
pub struct Moved {
    socket: OwnedFd,
    /// What it is besides; `None`: it was accepted a moment ago, and nobody has heard of it yet.
    agreed: Option<Agreed>,
}

/// What a connection takes along.
struct Agreed {
    frame_size_max: u32,
    credits: u32,
    partial: Vec<u8>,
    skip: usize,
}

/// A connection that is to leave.
pub struct Departure {
    index: u32,
    generation: u32,
    target: ShardId,
    until: Nanos,
    /// Nothing more is received from it.
    is_paused: bool,
}

/// What is to be done with it now.
enum Fate {
    Wait,
    Go,
    Stay,
    /// It is no more.
    Forget,
}

impl Net {
    /// From now on connections may be given to other shards and come from them.
    pub fn join(&mut self, placement: Placement) {
        self.placement = Some(placement);
    }

    /// Takes what other shards gave, lets go what is at rest, and decides, once a period. Returns how much there was to do.
    #[inline]
    pub fn balance(&mut self, desk: &mut Desk<'_>, io: &mut Io) -> usize {
        if self.placement.is_none() {
            return 0;
        }
        let mut work = 0;
        while work < INBOX_COUNT
            && let Some(moved) = self.placement.as_ref().and_then(Placement::take)
        {
            self.arrive(desk, io, moved);
            work += 1;
        }
        if !self.departures.is_empty() {
            work += self.let_go(desk, io);
        }
        match self
            .placement
            .as_mut()
            .map(|placement| placement.on_time(desk.now, desk.stats.counters.busy_ns))
        {
            Some(Step::Move(order)) if !self.is_draining => self.begin_departures(desk, io, &order),
            Some(Step::Measure) => self.connections.iter_mut().for_each(|connection| connection.weight = 0),
            Some(Step::Stay | Step::Move(_)) | None => {}
        }
        work
    }

    /// Nothing more is received from a connection that is to leave.
    pub fn on_paused(&mut self, index: u32) {
        let departure = self.departures.iter_mut().find(|departure| departure.index == index);
        departure.into_iter().for_each(|departure| departure.is_paused = true);
    }

    /// Gives a connection accepted here to the shard it belongs to; returns the socket if that is this one.
    pub(super) fn pass_on(&mut self, desk: &mut Desk<'_>, socket: OwnedFd) -> Option<OwnedFd> {
        let Some(placement) = &mut self.placement else { return Some(socket) };
        let Some(target) = placement.home_of_new(desk.now) else { return Some(socket) };
        match placement.give(target, Moved { socket, agreed: None }) {
            Ok(()) => {
                desk.stats.counters.connections_moved_out += 1;
                None
            }
            Err(moved) => {
                desk.stats.counters.moves_refused += 1;
                Some(moved.socket)
            }
        }
    }

    /// Everybody stays: the router drains, and each connection is told so here.
    pub(super) fn cancel_departures(&mut self, io: &mut Io) {
        for departure in self.departures.drain(..) {
            let connection = &self.connections[departure.index as usize];
            if connection.generation == departure.generation {
                io.resume(connection.source);
            }
        }
    }

    /// When the next departure is given up.
    pub(super) fn next_departure_timer(&self) -> Option<Nanos> {
        self.departures.iter().map(|departure| departure.until).min()
    }

    fn begin_departures(&mut self, desk: &Desk<'_>, io: &mut Io, order: &Order) {
        let mut total = 0;
        self.candidates.clear();
        for (connection, index) in self.connections.iter().zip(0..) {
            total += connection.weight;
            if connection.life == Life::Open && desk.now >= connection.stays_until {
                self.candidates.push(Candidate { index, weight: connection.weight });
            }
        }
        for index in pick(order, &mut self.candidates, total) {
            let connection = &self.connections[index as usize];
            io.pause(connection.source);
            self.departures.push(Departure {
                index,
                generation: connection.generation,
                target: order.target,
                until: desk.now.plus(DEPARTURE_TIMEOUT),
                is_paused: false,
            });
        }
    }

    fn let_go(&mut self, desk: &mut Desk<'_>, io: &mut Io) -> usize {
        let mut work = 0;
        let mut next = 0;
        while let Some(departure) = self.departures.get(next) {
            let (index, target) = (departure.index, departure.target);
            match self.fate(departure, desk.now) {
                Fate::Wait => {
                    next += 1;
                    continue;
                }
                Fate::Forget => {}
                Fate::Go => self.give(desk, io, index, target),
                Fate::Stay => {
                    desk.stats.counters.moves_given_up += 1;
                    let connection = &mut self.connections[index as usize];
                    connection.stays_until = desk.now.plus(STAY_AFTER_FAILURE);
                    io.resume(connection.source);
                }
            }
            self.departures.swap_remove(next);
            work += 1;
        }
        work
    }

    fn fate(&self, departure: &Departure, now: Nanos) -> Fate {
        let connection = &self.connections[departure.index as usize];
        if connection.generation != departure.generation {
            return Fate::Forget;
        }
        let is_at_rest = departure.is_paused
            && connection.calls.count() == 0
            && !connection.is_sending()
            && connection.output.is_empty();
        match connection.life {
            Life::Open if is_at_rest => Fate::Go,
            Life::Open if now < departure.until => Fate::Wait,
            // Too late, or told to go meanwhile: it is here that its end must be heard of.
            _ => Fate::Stay,
        }
    }

    /// Hands a connection at rest over. If there is no room for it, it goes on here as if nothing had been.
    fn give(&mut self, desk: &mut Desk<'_>, io: &mut Io, index: u32, target: ShardId) {
        let connection = &mut self.connections[index as usize];
        let Some(placement) = &self.placement else { return };
        let socket = io.release(connection.source).expect("at rest here means at rest at the edge");
        let agreed = Agreed {
            frame_size_max: connection.frame_size_max,
            credits: connection.credits,
            partial: std::mem::take(&mut connection.partial),
            skip: std::mem::take(&mut connection.skip),
        };
        let claimed = agreed.partial.capacity();
        match placement.give(target, Moved { socket, agreed: Some(agreed) }) {
            Ok(()) => {
                desk.payloads.release_partial(claimed);
                desk.stats.counters.connections_moved_out += 1;
                self.happen(desk, io, index, Happening::Left);
            }
            Err(Moved { socket, agreed }) => {
                desk.stats.counters.moves_refused += 1;
                connection.source = io.receive(socket, Owner::Connection(index).tag());
                if let Some(agreed) = agreed {
                    (connection.partial, connection.skip) = (agreed.partial, agreed.skip);
                }
            }
        }
    }

    fn arrive(&mut self, desk: &mut Desk<'_>, io: &mut Io, moved: Moved) {
        desk.stats.counters.connections_moved_in += 1;
        let Some(agreed) = moved.agreed else { return self.open(desk, io, moved.socket) };
        // Never refused, because it was told that it may call: beyond the bound by as many as the inbox holds.
        let index = self.claim_slot(desk, io, moved.socket, agreed.frame_size_max);
        let connection = &mut self.connections[index as usize];
        connection.life = connection.life.on(Happening::HelloAgreed);
        connection.credits = agreed.credits;
        connection.stays_until = desk.now.plus(STAY_MIN);
        desk.payloads.claim_partial(agreed.partial.capacity());
        (connection.partial, connection.skip) = (agreed.partial, agreed.skip);
        if self.is_draining {
            self.leave(desk, io, index);
        }
    }
}

#[cfg(test)]
mod tests;

//! One connection of the generator: its slots, its bytes going out, its answers coming in.
//!
//! In: calls to send; readiness of the socket.  Out: frames, and answers to the tally.
//! Owns: the bytes not yet written and the front of an answer cut off by a read. The large read buffer belongs to the
//! generator and serves all connections in turn: ten thousand of them would not fit any cache, one does.
//! Always: a slot holds at most one outstanding call; an answer counts only for the call its id names.
//! Never: allocates per call (buffers keep their capacity), blocks, or panics on the router's bytes.

use std::io::{self, Read, Write};
use std::mem::offset_of;
use std::ops::Range;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use protocol::{
    ArchivedFrameHeader, CallId, Extensions, FrameParts, HEADER_SIZE, Hello, Kind, decode, encode,
};

use crate::dial::{Dialled, DialledSocket};
use crate::pattern::Pattern;
use crate::tally::{Answered, Tally};

/// Bytes asked of one read: as many as loopback moves at its best rate, and well within a second-level cache.
pub(crate) const READ_SIZE: usize = 128 * 1024;

/// The frame of every call of a run, complete but for the call's id and pattern.
///
/// Why a template: copying 100 ready bytes and writing two fields over them takes half the instructions of encoding
/// each frame anew.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    frame: Vec<u8>,
    payload_size: usize,
    compares_payloads: bool,
}

/// Where the id stands in a frame: the header's own layout, asserted by the codec.
const CALL_ID_AT: Range<usize> = {
    let start = offset_of!(ArchivedFrameHeader, call_id);
    start..start + size_of::<u64>()
};

impl Template {
    /// `parts` of an INVOKE; its call id does not matter.
    pub(crate) fn new(parts: &FrameParts, payload_size: usize, compares_payloads: bool) -> Self {
        let mut frame = Vec::new();
        encode(&mut frame, parts, &Extensions::NONE, &vec![0; payload_size]);
        Self { frame, payload_size, compares_payloads }
    }

    #[inline]
    fn append_to(&self, out: &mut Vec<u8>, call_id: CallId, pattern: Pattern) {
        let frame_at = out.len();
        out.extend_from_slice(&self.frame);
        // Both ranges lie in what was just appended: `new` made it, and no peer had a say in it.
        let frame = &mut out[frame_at..];
        frame[CALL_ID_AT].copy_from_slice(&call_id.0.to_le_bytes());
        pattern.fill(call_id.0, &mut frame[HEADER_SIZE..HEADER_SIZE + self.payload_size]);
    }
}

pub(crate) struct Connection {
    stream: Stream,
    frame_size_max: u32,
    pattern: Pattern,
    slots: Vec<Slot>,
    free: Vec<u32>,
    outbound: Vec<u8>,
    written: usize,
    partial: Vec<u8>,
    /// The socket may have bytes for us.
    pub(crate) is_readable: bool,
    /// The socket took everything so far.
    is_writable: bool,
    /// New calls may be sent.
    is_open: bool,
    /// The router sends nothing after what the socket holds.
    pub(crate) is_at_end: bool,
    /// The socket is gone.
    is_lost: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    intended_at_ns: u64,
    sent_at_ns: u64,
    generation: u32,
    is_taken: bool,
}

/// How far one read got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Answers taken.
    pub(crate) count: u64,
    /// The read filled its buffer: there is more.
    pub(crate) has_more: bool,
}

/// The connection cannot be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// By the router, or by the system.
    Closed,
    /// By us: the router's bytes are not the protocol.
    Misbehaved,
}

impl Connection {
    /// Takes over a greeted socket. `slot_count` is at most the credits granted.
    pub(crate) fn new(dialled: Dialled, slot_count: u32, pattern: Pattern) -> io::Result<Self> {
        let Dialled { socket, hello: Hello { frame_size_max, .. } } = dialled;
        Ok(Self {
            stream: Stream::nonblocking(socket)?,
            frame_size_max,
            pattern,
            slots: vec![Slot::default(); slot_count as usize],
            free: (0..slot_count).rev().collect(),
            outbound: Vec::new(),
            written: 0,
            partial: Vec::new(),
            is_readable: false,
            is_writable: true,
            is_open: true,
            is_at_end: false,
            is_lost: false,
        })
    }

    /// A call can be sent now.
    pub(crate) fn has_credit(&self) -> bool {
        self.is_open && !self.free.is_empty()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Calls that can be outstanding at once.
    pub(crate) fn slot_count(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(crate) fn outstanding(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Appends one call to what goes out next. `false` without a credit.
    #[inline]
    pub(crate) fn send(&mut self, template: &Template, intended_at_ns: u64, now_ns: u64) -> bool {
        let Some(call_id) = self.claim_slot(intended_at_ns, now_ns) else { return false };
        template.append_to(&mut self.outbound, call_id, self.pattern);
        true
    }

    /// The same for a call that has a frame of its own.
    pub(crate) fn send_call(
        &mut self,
        parts: &FrameParts,
        payload: &[u8],
        intended_at_ns: u64,
        now_ns: u64,
    ) -> bool {
        let Some(call_id) = self.claim_slot(intended_at_ns, now_ns) else { return false };
        let parts = FrameParts { call_id, ..*parts };
        encode(&mut self.outbound, &parts, &Extensions::NONE, payload);
        true
    }

    /// The id of the next call, if there is a credit for it.
    #[inline]
    fn claim_slot(&mut self, intended_at_ns: u64, now_ns: u64) -> Option<CallId> {
        if !self.is_open {
            return None;
        }
        let index = self.free.pop()?;
        let slot = self.slots.get_mut(index as usize)?;
        let generation = slot.generation.wrapping_add(1);
        *slot = Slot { intended_at_ns, sent_at_ns: now_ns, generation, is_taken: true };
        Some(CallId::new(index, generation))
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Lost> {
        while self.is_writable && self.written < self.outbound.len() {
            let rest = self.outbound.get(self.written..).unwrap_or_default();
            match self.stream.write(rest) {
                Ok(0) => return Err(Lost::Closed),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Lost::Closed),
            }
        }
        if self.written == self.outbound.len() {
            self.outbound.clear();
            self.written = 0;
        } else if self.written > self.outbound.len() / 2 {
            // Half is gone: moving the rest to the front costs less than it saves, each byte moves at most once
            // for each byte written.
            self.outbound.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    pub(crate) fn on_writable(&mut self) {
        self.is_writable = true;
    }

    /// Reads once into `scratch` and takes every whole answer out of it. `now` is asked after the read.
    pub(crate) fn receive(
        &mut self,
        template: &Template,
        scratch: &mut Vec<u8>,
        tally: &mut Tally,
        now: impl FnOnce() -> u64,
    ) -> Result<Received, Lost> {
        let kept = self.partial.len();
        if scratch.len() < kept + READ_SIZE {
            // An answer larger than the buffer: HELLO bounds how large it can be.
            scratch.resize(kept + READ_SIZE, 0);
        }
        let (front, room) = scratch.split_at_mut(kept);
        front.copy_from_slice(&self.partial);
        let room = room.get_mut(..READ_SIZE).unwrap_or_default();
        let count = loop {
            match self.stream.read(room) {
                Ok(0) => return Err(Lost::Closed),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    return Ok(Received { count: 0, has_more: false });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Lost::Closed),
            }
        };
        // A read that did not fill its room has emptied the socket (epoll(7)); the next bytes make a new edge. The end of
        // the stream may have shared the edge of the last bytes, so it is looked for.
        self.is_readable = count == room.len() || self.is_at_end;
        let now_ns = now();
        let bytes = scratch.get(..kept + count).unwrap_or_default();
        let (consumed, answers) = self.handle_bytes(bytes, template, tally, now_ns)?;
        self.partial.clear();
        self.partial.extend_from_slice(bytes.get(consumed..).unwrap_or_default());
        Ok(Received { count: answers, has_more: self.is_readable })
    }

    /// Lost, or told to go away and without a call outstanding.
    pub(crate) fn is_over(&self) -> bool {
        self.is_lost || (!self.is_open && self.outstanding() == 0)
    }

    /// Gives up the socket; returns how many calls lost their answer with it.
    pub(crate) fn lose(&mut self) -> u64 {
        let outstanding = self.outstanding();
        self.is_lost = true;
        self.is_open = false;
        self.is_readable = false;
        self.is_writable = false;
        self.outbound.clear();
        self.written = 0;
        self.slots.clear();
        self.free.clear();
        outstanding
    }

    pub(crate) fn source(&mut self) -> &mut dyn Source {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    fn handle_bytes(
        &mut self,
        bytes: &[u8],
        template: &Template,
        tally: &mut Tally,
        now_ns: u64,
    ) -> Result<(usize, u64), Lost> {
        let mut rest = bytes;
        let mut answers = 0;
        while let Some(frame) = decode(rest, self.frame_size_max).map_err(|_| Lost::Misbehaved)? {
            match frame.kind {
                Kind::Reply => {
                    answers += 1;
                    match self.take_slot(frame.header.call_id) {
                        None => tally.count_mismatch(),
                        Some(Slot { intended_at_ns, sent_at_ns, .. }) => {
                            let matches = !template.compares_payloads
                                || self.pattern.matches(
                                    frame.header.call_id.0,
                                    template.payload_size,
                                    frame.payload,
                                );
                            let status = frame.header.status;
                            tally.count_answer(
                                now_ns,
                                Answered { intended_at_ns, sent_at_ns, status, matches },
                            );
                        }
                    }
                }
                Kind::Ping => {
                    let pong = FrameParts::pong(frame.header.budget_us);
                    encode(&mut self.outbound, &pong, &Extensions::NONE, frame.payload);
                }
                // Outstanding calls still get their answers; nothing new is sent.
                Kind::Goaway => self.is_open = false,
                Kind::Pong => {}
                Kind::Hello | Kind::Resolve | Kind::Resolved | Kind::Invoke | Kind::Cancel => {
                    return Err(Lost::Misbehaved);
                }
            }
            rest = rest.get(frame.size()..).unwrap_or_default();
        }
        Ok((bytes.len() - rest.len(), answers))
    }

    /// The call with exactly this id, if it is outstanding.
    #[inline]
    fn take_slot(&mut self, call_id: CallId) -> Option<Slot> {
        let slot = self.slots.get_mut(call_id.slot() as usize)?;
        if !slot.is_taken || slot.generation != call_id.generation() {
            return None;
        }
        slot.is_taken = false;
        self.free.push(call_id.slot());
        Some(*slot)
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn nonblocking(socket: DialledSocket) -> io::Result<Self> {
        Ok(match socket {
            DialledSocket::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Self::Tcp(TcpStream::from_std(stream))
            }
            DialledSocket::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Self::Unix(UnixStream::from_std(stream))
            }
        })
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

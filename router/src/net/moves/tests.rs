//! Two shards' connections on one thread, with real sockets and a clock that is moved by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use engine::{Engine, FunctionSpec, Limits, TenantSpec};
use protocol::{CallId, Extensions, FrameParts, FunctionId, Hello, Kind, Status, decode, encode};

use super::*;
use crate::config::IoChoice;
use crate::frontend::Bell;
use crate::io::{Event, IoOptions};
use crate::net::NetOptions;
use crate::payloads::Payloads;
use crate::placement::{Board, Thresholds};
use crate::stats::ShardStats;
use crate::tape::Tape;
use crate::workers::{NoResult, Workers};

/// A generous limit after which a test gives up instead of hanging.
const TURNS_MAX: usize = 20_000;
/// How far the clock goes on in a turn.
const TURN: Nanos = Nanos::from_ms(1);
const GIVER: usize = 0;
const RECEIVER: usize = 1;

struct Side {
    io: Io,
    net: Net,
    engine: Engine,
    payloads: Payloads,
    stats: ShardStats,
    tape: Tape,
    workers: Workers,
}

impl Side {
    fn new(board: &Arc<Board>, own: u8, connections_max: u32) -> Side {
        let io =
            IoOptions { submission_count: 64, completion_count: 256, buffer_count: 4, buffer_size: 4096 };
        let mut net = Net::new(NetOptions {
            frame_size_max: 1 << 20,
            credits: 64,
            connections_max,
            output_size_max: 1 << 20,
            output_stall_max: Nanos::from_secs(1),
            output_memory_max: 1 << 24,
            hello_timeout: Nanos::from_secs(60),
            close_timeout: Nanos::from_secs(60),
        });
        net.join(Placement::new(board.clone(), ShardId(own), Thresholds::default()));
        // Calls of it wait for ever, because it has no worker.
        let waits = FunctionSpec { timeout: Nanos::from_secs(3600), ..FunctionSpec::named("waits") };
        Side {
            io: Io::choose(IoChoice::Auto, io).expect("a ring, or epoll"),
            net,
            engine: Engine::new(ShardId(own), Limits::default(), TenantSpec::only_default(), vec![waits])
                .expect("an engine"),
            payloads: Payloads::new(1 << 20),
            stats: ShardStats::new(1),
            tape: Tape::none(),
            workers: Workers::default(),
        }
    }

    /// What `Shard::turn` does for connections.
    fn turn(&mut self, now: Nanos) {
        let Side { io, net, engine, payloads, stats, tape, workers } = self;
        let desk = &mut Desk { now, engine, payloads, stats, tape };
        io.wait(Some(Duration::from_micros(100)));
        while let Some(event) = io.poll() {
            let index = |tag| match Owner::of(tag) {
                Owner::Connection(index) => index,
                other => panic!("{other:?}"),
            };
            match event {
                Event::Received { tag, chunk } => net.on_received(desk, io, workers, index(tag), chunk),
                Event::Sent { tag, buffer } => net.on_sent(desk, io, index(tag), buffer),
                Event::Paused { tag } => net.on_paused(index(tag)),
                Event::Ended { tag, .. } | Event::SendFailed { tag, .. } => net.on_gone(desk, io, index(tag)),
                other => panic!("{other:?}"),
            }
        }
        net.on_time(desk, io);
        while let Some(answer) = desk.engine.poll_answer() {
            desk.payloads.release(answer.invocation);
            net.answer(desk, io, answer.origin, &[answer], |_| NoResult);
        }
        net.flush(desk, io);
        net.balance(desk, io);
        desk.payloads.settle(io);
        io.submit();
    }

    fn with_desk<T>(&mut self, now: Nanos, act: impl FnOnce(&mut Net, &mut Desk<'_>, &mut Io) -> T) -> T {
        let Side { io, net, engine, payloads, stats, tape, .. } = self;
        act(net, &mut Desk { now, engine, payloads, stats, tape }, io)
    }
}

/// Both sides, and the clock.
struct Pair {
    sides: Vec<Side>,
    board: Arc<Board>,
    now: Nanos,
    /// Which of them takes turns; the others stand still.
    is_awake: [bool; 2],
    /// How much of each turn each of them counts as work.
    busy: [Nanos; 2],
}

impl Pair {
    fn new(connections_max: u32) -> Pair {
        let bells = [(); 2].map(|()| Arc::new(Bell::new().expect("a bell")));
        let board = Arc::new(Board::new(bells, connections_max));
        let sides = (0..2).map(|own| Side::new(&board, own, connections_max)).collect();
        Pair { sides, board, now: Nanos::from_secs(1), is_awake: [true; 2], busy: [Nanos::ZERO; 2] }
    }

    fn turn(&mut self) {
        self.now = self.now.plus(TURN);
        for (side, busy) in self.sides.iter_mut().zip(self.busy) {
            side.stats.counters.busy_ns += busy.0;
        }
        for (side, _) in self.sides.iter_mut().zip(self.is_awake).filter(|(_, is_awake)| *is_awake) {
            side.turn(self.now);
        }
    }

    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&Pair) -> bool) {
        for _ in 0..TURNS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("gave up waiting for: {what}");
    }

    /// A connection that the kernel gave to the first shard.
    fn connect(&mut self) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
        stream.set_nonblocking(true).expect("nonblocking");
        let (accepted, _) = listener.accept().expect("accepts");
        let now = self.now;
        self.sides[GIVER].with_desk(now, |net, desk, io| net.on_accepted(desk, io, accepted.into()));
        Client { stream, received: Vec::new(), load: b"load".to_vec(), is_loading: false }
    }

    /// Three connections: two on the first shard, one on the other, and all have said HELLO.
    fn three_connections(&mut self) -> [Client; 3] {
        let mut clients = [(); 3].map(|()| {
            let mut client = self.connect();
            client.send(&FrameParts::hello(), &Hello::from_client(0, CREDITS).encode());
            assert_eq!(self.frame(&mut client).kind, Kind::Hello);
            client
        });
        assert_eq!(self.open_counts(), [2, 1]);
        // The one in the middle was passed on.
        clients.swap(1, 2);
        clients
    }

    fn open_counts(&self) -> [u32; 2] {
        [GIVER, RECEIVER].map(|side| self.sides[side].net.open_count())
    }

    /// The next frame for this client that is not about load.
    fn frame(&mut self, client: &mut Client) -> Received {
        let mut frame = None;
        self.turn_until("a frame", |_| {
            frame = client.poll().filter(|frame| !client.is_load(frame));
            frame.is_some()
        });
        frame.expect("there is one")
    }

    fn ping(&mut self, client: &mut Client, payload: &[u8]) {
        client.send(&FrameParts::ping(7), payload);
        let pong = self.frame(client);
        assert_eq!((pong.kind, &*pong.payload), (Kind::Pong, payload));
    }

    /// The first shard has no time left, and each of these clients always has a ping outstanding, until `done`.
    fn load_until(&mut self, clients: &mut [&mut Client], what: &str, done: impl FnMut(&Pair) -> bool) {
        self.load_side_until(GIVER, clients, what, done);
    }

    fn load_side_until(
        &mut self,
        side: usize,
        clients: &mut [&mut Client],
        what: &str,
        mut done: impl FnMut(&Pair) -> bool,
    ) {
        self.busy[side] = TURN;
        self.turn_until(what, |pair| {
            clients.iter_mut().for_each(|client| client.keep_loading());
            done(pair)
        });
        self.busy[side] = Nanos::ZERO;
    }
}

const CREDITS: u32 = 4;

struct Received {
    kind: Kind,
    status: Status,
    call_id: CallId,
    payload: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    /// What it says again and again to be a part of a shard's load.
    load: Vec<u8>,
    is_loading: bool,
}

impl Client {
    fn send(&mut self, parts: &FrameParts, payload: &[u8]) {
        self.send_bytes(&frame(parts, payload));
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("room in the socket");
    }

    fn poll(&mut self) -> Option<Received> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(size) => self.received.extend_from_slice(&bytes[..size]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let frame = decode(&self.received, 1 << 20).expect("the router speaks the protocol")?;
        let received = Received {
            kind: frame.kind,
            status: Status::try_from(frame.header.status).expect("a known status"),
            call_id: frame.header.call_id,
            payload: frame.payload.to_vec(),
        };
        let size = frame.size();
        self.received.drain(..size);
        Some(received)
    }

    /// Sends the next ping if the last one is answered.
    fn keep_loading(&mut self) {
        if let Some(frame) = self.poll() {
            assert!(self.is_load(&frame), "{:?}", frame.kind);
        }
        if !self.is_loading {
            let load = self.load.clone();
            self.send(&FrameParts::ping(7), &load);
            self.is_loading = true;
        }
    }

    /// True for the one answer to that.
    fn is_load(&mut self, frame: &Received) -> bool {
        let is_load = self.is_loading && frame.kind == Kind::Pong && frame.payload == self.load;
        self.is_loading &= !is_load;
        is_load
    }

    /// After what was sent before the end.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = self.stream.read_to_end(&mut rest).map_err(|error| error.kind());
        matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset))
    }
}

fn frame(parts: &FrameParts, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, parts, &Extensions::NONE, payload);
    bytes
}

fn has_moved(pair: &Pair) -> bool {
    pair.open_counts() == [1, 2]
}

#[test]
fn a_new_connection_is_passed_on_to_the_shard_with_fewer() {
    let mut pair = Pair::new(64);
    let mut clients = pair.three_connections();
    clients.iter_mut().for_each(|client| pair.ping(client, b"still here"));
    let counters = |pair: &Pair, side: usize| {
        let counters = &pair.sides[side].stats.counters;
        (counters.connections_accepted, counters.connections_moved_out, counters.connections_moved_in)
    };
    assert_eq!(counters(&pair, GIVER), (3, 1, 0));
    assert_eq!(counters(&pair, RECEIVER), (0, 0, 1));
    drop(clients);
    pair.turn_until("the ends are noticed", |pair| pair.open_counts() == [0, 0]);
    assert_eq!(pair.sides[RECEIVER].stats.counters.connections_closed, 1, "where it was served");
}

#[test]
fn a_full_shard_passes_new_connections_on_and_the_last_one_is_told() {
    let mut pair = Pair::new(2);
    let mut clients: Vec<_> = (0..5).map(|_| pair.connect()).collect();
    pair.turn_until("all are somewhere", |pair| pair.open_counts().iter().sum::<u32>() == 5);
    assert_eq!(pair.open_counts(), [3, 2]);
    let told = pair.frame(clients.last_mut().expect("five"));
    assert_eq!((told.kind, told.status), (Kind::Goaway, Status::TooManyConnections));
}

#[test]
fn a_connection_of_a_loaded_shard_moves_and_keeps_what_was_agreed() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, mut other] = pair.three_connections();
    pair.load_until(&mut [&mut first, &mut second], "a move", has_moved);
    assert_eq!(pair.sides[GIVER].stats.counters.connections_closed, 0, "it is open elsewhere");

    // Expect: everybody is served, and the one that moved has its credits and no more.
    for client in [&mut first, &mut second, &mut other] {
        pair.ping(client, b"still here");
        client.send(&FrameParts::invoke(CallId::new(CREDITS, 1), FunctionId(0)), b"");
        assert_eq!(pair.frame(client).status, Status::CreditsExceeded);
        let call = CallId::new(CREDITS - 1, 1);
        client.send(&FrameParts::invoke(call, FunctionId(0)), b"");
        client.send(&FrameParts::cancel(call), b"");
        let answer = pair.frame(client);
        assert_eq!((answer.call_id, answer.status), (call, Status::Cancelled));
    }
}

#[test]
fn frames_sent_while_a_connection_moves_are_answered_once_and_in_order() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    pair.load_until(&mut [&mut first, &mut second], "a departure", |pair| {
        !pair.sides[GIVER].net.departures.is_empty() || has_moved(pair)
    });
    for number in 0..100 {
        first.send(&FrameParts::ping(number), &number.to_le_bytes());
        second.send(&FrameParts::ping(number), &number.to_le_bytes());
    }
    for client in [&mut first, &mut second] {
        for number in 0u32..100 {
            assert_eq!(pair.frame(client).payload, number.to_le_bytes());
        }
        assert!(client.poll().is_none());
    }
    assert!(has_moved(&pair));
}

#[test]
fn half_a_frame_moves_with_its_connection_and_its_memory_with_it() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    let ping = frame(&FrameParts::ping(7), &[9; 100]);
    // Given: both connections that may move were measured, and have sent the front of a frame in the end.
    let weight = |pair: &Pair| {
        pair.sides[GIVER]
            .net
            .connections
            .iter()
            .map(|connection| connection.weight)
            .min()
            .expect("connections")
    };
    let mut before = 0;
    pair.load_until(&mut [&mut first, &mut second], "the begin of measuring", |pair| {
        std::mem::replace(&mut before, weight(pair)) > weight(pair)
    });
    pair.load_until(&mut [&mut first, &mut second], "a measurement", |pair| weight(pair) > 0);
    first.send_bytes(&ping[..50]);
    second.send_bytes(&ping[..50]);
    pair.load_until(&mut [], "a move", has_moved);
    let claimed = |pair: &Pair| [GIVER, RECEIVER].map(|side| pair.sides[side].payloads.bytes_claimed());
    let [kept, moved] = claimed(&pair);
    assert!(kept >= 50 && moved >= 50, "{kept}, {moved}");

    for client in [&mut first, &mut second] {
        client.send_bytes(&ping[50..]);
        assert_eq!(pair.frame(client).payload, [9; 100]);
    }
    assert_eq!(claimed(&pair), [0, 0]);
}

#[test]
fn a_connection_whose_call_is_not_answered_in_time_stays_and_is_left_alone() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    let call = CallId::new(0, 1);
    for client in [&mut first, &mut second] {
        client.send(&FrameParts::invoke(call, FunctionId(0)), b"");
    }
    // Only the other one is less than half of the load.
    first.load = vec![1; 3000];
    let given_up = |pair: &Pair| pair.sides[GIVER].stats.counters.moves_given_up;
    pair.load_until(&mut [&mut first, &mut second], "giving up", |pair| given_up(pair) > 0);
    let until = pair.now.plus(Nanos::from_secs(2));
    pair.load_until(&mut [&mut first, &mut second], "two more seconds", |pair| pair.now > until);
    assert_eq!(given_up(&pair), 1, "asked once");
    assert_eq!(pair.open_counts(), [2, 1]);
    for client in [&mut first, &mut second] {
        client.send(&FrameParts::cancel(call), b"");
        assert_eq!(pair.frame(client).status, Status::Cancelled, "it is heard again");
    }
}

#[test]
fn a_connection_that_arrived_stays_for_a_while() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, mut other] = pair.three_connections();
    // Given: one that is more than half of the load wherever it is, so that it is always the other one that goes.
    first.load = vec![1; 3000];
    other.load = vec![2; 3000];
    pair.load_until(&mut [&mut first, &mut second], "a move", has_moved);
    let moved_at = pair.now;
    // Now the one that came makes the receiver a loaded shard.
    let clients = &mut [&mut second, &mut other];
    pair.load_side_until(RECEIVER, clients, "a move back", |pair| pair.open_counts() == [2, 1]);
    assert!(pair.now.since(moved_at) >= STAY_MIN, "{}", pair.now.since(moved_at));
}

#[test]
fn a_full_inbox_leaves_the_connection_where_it_is() {
    let mut pair = Pair::new(1000);
    let [mut first, mut second, _other] = pair.three_connections();
    // Given: a shard that stands still, with a full inbox.
    pair.is_awake[RECEIVER] = false;
    let socket = || OwnedFd::from(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    let given = || Moved { socket: socket(), agreed: None };
    for _ in 0..INBOX_COUNT {
        assert!(pair.board.give(ShardId(1), given()).is_ok());
    }
    assert!(pair.board.give(ShardId(1), given()).is_err());

    let refused = |pair: &Pair| pair.sides[GIVER].stats.counters.moves_refused;
    pair.load_until(&mut [&mut first, &mut second], "a refusal", |pair| refused(pair) > 0);
    for client in [&mut first, &mut second] {
        pair.ping(client, b"still here");
    }
    assert_eq!(pair.open_counts()[GIVER], 2);
}

#[test]
fn a_peer_that_goes_while_its_connection_is_to_leave_is_noticed() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    pair.load_until(&mut [&mut first, &mut second], "a departure", |pair| {
        !pair.sides[GIVER].net.departures.is_empty() || has_moved(pair)
    });
    drop((first, second));
    pair.turn_until("both ends are noticed", |pair| pair.open_counts().iter().sum::<u32>() == 1);
    assert!(pair.sides[GIVER].net.departures.is_empty());
}

#[test]
fn a_connection_that_arrives_at_a_shard_that_drains_is_told_to_go() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    pair.is_awake[RECEIVER] = false;
    let is_given = |pair: &Pair| !pair.sides[RECEIVER].net.is_inbox_empty();
    pair.load_until(&mut [&mut first, &mut second], "a move", is_given);
    let now = pair.now;
    pair.sides[RECEIVER].with_desk(now, |net, desk, io| net.drain(desk, io));
    pair.is_awake[RECEIVER] = true;
    pair.turn_until("it arrives", |pair| !is_given(pair));
    let told: Vec<_> = [&mut first, &mut second]
        .into_iter()
        .filter_map(|client| {
            (0..50).for_each(|_| pair.turn());
            client.poll().filter(|frame| !client.is_load(frame))
        })
        .map(|frame| (frame.kind, frame.status))
        .collect();
    assert_eq!(told, [(Kind::Goaway, Status::GoingAway)]);
}

#[test]
fn a_shard_that_drains_keeps_those_that_were_to_leave_and_tells_them() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    let call = CallId::new(0, 1);
    for client in [&mut first, &mut second] {
        client.send(&FrameParts::invoke(call, FunctionId(0)), b"");
    }
    pair.load_until(&mut [&mut first, &mut second], "a departure", |pair| {
        !pair.sides[GIVER].net.departures.is_empty()
    });
    let now = pair.now;
    pair.sides[GIVER].with_desk(now, |net, desk, io| net.drain(desk, io));
    for client in [&mut first, &mut second] {
        assert_eq!(pair.frame(client).status, Status::GoingAway);
        client.send(&FrameParts::cancel(call), b"");
        assert_eq!(pair.frame(client).status, Status::Cancelled, "it is heard, and answered here");
    }
    // Nothing is given to a shard that drains either.
    let moved = Moved { socket: first.stream.into(), agreed: None };
    assert!(pair.board.give(ShardId(0), moved).is_err());
}

#[test]
fn connections_given_to_a_shard_that_ends_are_closed() {
    let mut pair = Pair::new(64);
    let [mut first, mut second, _other] = pair.three_connections();
    pair.is_awake[RECEIVER] = false;
    let is_given = |pair: &Pair| !pair.sides[RECEIVER].net.is_inbox_empty();
    pair.load_until(&mut [&mut first, &mut second], "a move", is_given);
    let board = pair.board.clone();
    drop(pair.sides.pop());
    assert_ne!(first.is_closed(), second.is_closed(), "the one that was given, and not the other");
    let moved = Moved { socket: second.stream.into(), agreed: None };
    assert!(board.give(ShardId(1), moved).is_err());
}

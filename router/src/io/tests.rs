//! The edge against real sockets, on both backends: every end of an operation that the kernel may choose, and who holds
//! what.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::config::IoChoice;

/// A generous limit after which a test gives up instead of hanging.
const ROUNDS_MAX: usize = 20_000;
const LISTENER: Tag = Tag(1);

/// Each test of this file once for each backend. One that is not listed is dead code, which the build refuses.
macro_rules! on_both_backends {
    ($($test:ident,)*) => {
        mod on_uring {
            $(#[test] fn $test() { super::$test(super::IoChoice::Uring) })*
        }
        mod on_epoll {
            $(#[test] fn $test() { super::$test(super::IoChoice::Epoll) })*
        }
    };
}

on_both_backends! {
    connections_are_accepted_until_the_listener_is_closed,
    bytes_are_received_in_order_and_the_end_is_told,
    a_receive_without_free_buffers_goes_on_once_they_are_back,
    many_starving_connections_share_few_buffers_and_all_get_through,
    an_overflowing_completion_queue_loses_nothing,
    a_buffer_too_large_for_the_socket_is_sent_in_parts_and_comes_back_whole,
    a_send_to_a_peer_that_is_gone_fails_without_a_signal,
    a_closed_source_tells_nothing_more_and_its_slot_gets_a_new_generation,
    a_watched_descriptor_is_told_each_time_it_is_written,
    a_spinning_thread_sees_events_without_ever_waiting,
    dropping_the_edge_in_the_middle_of_everything_closes_its_sockets,
    one_busy_connection_does_not_keep_others_waiting,
    idle_connections_cost_nothing,
    a_peer_that_neither_speaks_nor_reads_costs_nothing,
    a_unix_socket_is_sent_to_in_parts_as_well,
    bytes_before_the_end_are_received_however_they_came,
    a_listener_that_fails_rests_until_it_is_resumed,
    a_shared_nonblocking_listener_is_accepted_from,
    a_paused_stream_receives_nothing_until_it_is_resumed,
    a_pause_that_is_taken_back_at_once_loses_nothing,
    a_paused_stream_that_starves_is_told_and_resumed,
    a_released_stream_goes_on_at_another_edge_without_losing_a_byte,
    a_stream_that_sends_or_is_not_paused_is_not_released,
}

fn small(buffer_count: u16, buffer_size: u32) -> IoOptions {
    IoOptions { submission_count: 64, completion_count: 256, buffer_count, buffer_size }
}

/// Turns until `done` says so. Everything received is added to the stream's bytes and recycled.
struct Desk {
    io: Io,
    received: HashMap<Tag, Vec<u8>>,
    accepted: Vec<OwnedFd>,
    ended: Vec<Tag>,
    sent: Vec<Vec<u8>>,
    failed: Vec<Tag>,
    ready: Vec<Tag>,
    paused: Vec<Tag>,
    progress: usize,
}

impl Desk {
    fn new(choice: IoChoice, options: IoOptions) -> Desk {
        Desk {
            io: Io::choose(choice, options).expect("these tests need io_uring and epoll"),
            received: HashMap::new(),
            accepted: Vec::new(),
            ended: Vec::new(),
            sent: Vec::new(),
            failed: Vec::new(),
            ready: Vec::new(),
            paused: Vec::new(),
            progress: 0,
        }
    }

    fn turn(&mut self) {
        self.turn_at_most(usize::MAX);
    }

    /// A turn that leaves what is beyond so many events for the next.
    fn turn_at_most(&mut self, events_max: usize) {
        self.io.wait(Some(Duration::from_millis(1)));
        for _ in 0..events_max {
            let Some(event) = self.io.poll() else { break };
            match event {
                Event::Accepted { socket, .. } => self.accepted.push(socket),
                Event::AcceptFailed { tag, .. } | Event::SendFailed { tag, .. } => self.failed.push(tag),
                Event::Received { tag, chunk } => {
                    self.received.entry(tag).or_default().extend_from_slice(self.io.bytes(&chunk));
                    self.io.recycle(chunk);
                }
                Event::Progress { .. } => self.progress += 1,
                Event::Sent { buffer, .. } => self.sent.push(buffer),
                Event::Ended { tag, .. } => self.ended.push(tag),
                Event::Ready { tag } => self.ready.push(tag),
                Event::Paused { tag } => self.paused.push(tag),
            }
        }
    }

    fn turn_until(&mut self, what: &str, mut done: impl FnMut(&mut Desk) -> bool) {
        for _ in 0..ROUNDS_MAX {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("gave up waiting for: {what}");
    }

    fn received(&self, tag: Tag) -> &[u8] {
        self.received.get(&tag).map_or(&[], Vec::as_slice)
    }
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")
}

/// A connected pair: our end as a descriptor, the peer as a blocking stream.
fn pair() -> (OwnedFd, TcpStream) {
    let listener = listener();
    let peer = TcpStream::connect(listener.local_addr().expect("address")).expect("connects");
    let (ours, _) = listener.accept().expect("accepts");
    (ours.into(), peer)
}

fn pattern(size: usize) -> Vec<u8> {
    // Repeated whole, because 32 MiB byte by byte take seconds in a debug build.
    let period: Vec<u8> = (0..251).map(|i| (i * 31 % 251) as u8).collect();
    let mut bytes = period.repeat(size / period.len() + 1);
    bytes.truncate(size);
    bytes
}

fn connections_are_accepted_until_the_listener_is_closed(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let listener = listener();
    let address = listener.local_addr().expect("address");
    let id = desk.io.listen(Rc::new(listener), LISTENER);

    let peers: Vec<_> = (0..5)
        .map(|_| {
            desk.io.submit();
            TcpStream::connect(address).expect("connects")
        })
        .collect();
    desk.turn_until("five connections", |desk| desk.accepted.len() == 5);

    desk.io.close(id);
    desk.turn_until("the port is closed", |_| TcpStream::connect(address).is_err());
    assert_eq!(desk.accepted.len(), peers.len());
}

fn bytes_are_received_in_order_and_the_end_is_told(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    desk.io.receive(ours, Tag(7));

    peer.write_all(&pattern(3000)).expect("writes");
    drop(peer);

    desk.turn_until("the end", |desk| desk.ended == [Tag(7)]);
    assert_eq!(desk.received(Tag(7)), pattern(3000));
}

fn a_receive_without_free_buffers_goes_on_once_they_are_back(choice: IoChoice) {
    // Given two buffers, both held by us while more bytes wait
    let mut desk = Desk::new(choice, small(2, 64));
    let (ours, mut peer) = pair();
    desk.io.receive(ours, Tag(7));
    let sent = pattern(20_000);
    peer.write_all(&sent).expect("writes");

    let mut held = Vec::new();
    let mut received = Vec::new();
    for _ in 0..ROUNDS_MAX {
        desk.io.wait(Some(Duration::from_millis(1)));
        while let Some(event) = desk.io.poll() {
            let Event::Received { chunk, .. } = event else {
                panic!("only bytes are expected, not {event:?}")
            };
            received.extend_from_slice(desk.io.bytes(&chunk));
            held.push(chunk);
        }
        assert!(held.len() <= 2, "two buffers exist");
        if received.len() == sent.len() {
            break;
        }
        if desk.io.counters().starved > 0 {
            held.drain(..).for_each(|chunk| desk.io.recycle(chunk));
        }
    }

    // Expect every byte, in order
    assert_eq!(received, sent);
    assert!(desk.io.counters().starved > 0);
    assert!(desk.io.counters().rearmed > 0);
    held.drain(..).for_each(|chunk| desk.io.recycle(chunk));
}

fn many_starving_connections_share_few_buffers_and_all_get_through(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(2, 256));
    let mut peers = Vec::new();
    for index in 0..20 {
        let (ours, mut peer) = pair();
        desk.io.receive(ours, Tag(index));
        peer.write_all(&pattern(5_000)).expect("writes");
        peers.push(peer);
    }
    desk.turn_until("all bytes of all", |desk| (0..20).all(|index| desk.received(Tag(index)).len() == 5_000));
    for index in 0..20 {
        assert_eq!(desk.received(Tag(index)), pattern(5_000));
    }
}

fn an_overflowing_completion_queue_loses_nothing(choice: IoChoice) {
    let options = IoOptions { submission_count: 2, completion_count: 4, buffer_count: 64, buffer_size: 64 };
    let mut desk = Desk::new(choice, options);
    let mut peers = Vec::new();
    for index in 0..40 {
        let (ours, mut peer) = pair();
        desk.io.receive(ours, Tag(index));
        peer.write_all(&pattern(1_000)).expect("writes");
        peers.push(peer);
    }
    desk.turn_until("all bytes of all", |desk| (0..40).all(|index| desk.received(Tag(index)).len() == 1_000));
    for index in 0..40 {
        assert_eq!(desk.received(Tag(index)), pattern(1_000));
    }
    // Only a ring has such a queue; epoll keeps what is not taken.
    let has_overflowed = desk.io.counters().completion_overflows > 0;
    assert_eq!(has_overflowed, choice == IoChoice::Uring, "{:?}", desk.io.counters());
}

fn a_buffer_too_large_for_the_socket_is_sent_in_parts_and_comes_back_whole(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    let id = desk.io.receive(ours, Tag(7));
    let sent = pattern(32 << 20);
    desk.io.send(id, sent.clone());
    // The peer reads nothing yet, so that the kernel can't take everything.
    desk.turn_until("a part went out", |desk| desk.progress > 0);
    assert!(desk.sent.is_empty());

    let size = sent.len();
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; size];
        peer.read_exact(&mut bytes).expect("reads all");
        bytes
    });
    desk.turn_until("the rest", |desk| !desk.sent.is_empty());
    assert!(desk.sent[0] == sent);
    assert!(reader.join().expect("reader") == sent);
    assert!(desk.io.counters().short_sends > 0);
}

fn a_send_to_a_peer_that_is_gone_fails_without_a_signal(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, peer) = pair();
    let id = desk.io.receive(ours, Tag(7));
    drop(peer);
    desk.turn_until("the end", |desk| !desk.ended.is_empty());
    desk.turn_until("a failed send", |desk| {
        if desk.io.is_sending(id) == Some(false) {
            desk.io.send(id, pattern(1 << 20));
        }
        !desk.failed.is_empty()
    });
}

fn a_closed_source_tells_nothing_more_and_its_slot_gets_a_new_generation(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    let id = desk.io.receive(ours, Tag(7));
    desk.io.submit();
    // A send is stuck and bytes are on the way when the source is closed.
    desk.io.send(id, pattern(32 << 20));
    desk.turn_until("a part went out", |desk| desk.progress > 0);
    peer.write_all(&pattern(100)).expect("writes");
    desk.io.close(id);
    desk.turn_until("the kernel let go", |desk| desk.io.is_sending(id).is_none());

    assert_eq!(desk.received(Tag(7)), b"");
    assert!(desk.sent.is_empty());
    let (ours, _peer) = pair();
    let next = desk.io.receive(ours, Tag(8));
    assert_eq!(next.slot, id.slot);
    assert_ne!(next.generation, id.generation);
    // The old name reaches nobody.
    desk.io.close(id);
    desk.io.send(id, vec![1]);
    assert_eq!(desk.io.is_sending(next), Some(false));
}

fn a_watched_descriptor_is_told_each_time_it_is_written(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let doorbell =
        Rc::new(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd"));
    let id = desk.io.watch(doorbell.clone(), Tag(9));
    for rung in 1..=3 {
        rustix::io::write(doorbell.as_fd(), &1u64.to_ne_bytes()).expect("writes");
        desk.turn_until("the doorbell", |desk| desk.ready.len() >= rung);
    }
    desk.io.close(id);
    desk.turn_until("the kernel let go", |desk| desk.io.is_sending(id).is_none());
    assert_eq!(Rc::strong_count(&doorbell), 1);
}

fn a_spinning_thread_sees_events_without_ever_waiting(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    desk.io.receive(ours, Tag(7));
    desk.io.submit();
    peer.write_all(b"quick").expect("writes");
    let mut received = false;
    for _ in 0..10_000_000 {
        desk.io.submit();
        if let Some(Event::Received { chunk, .. }) = desk.io.poll() {
            received = desk.io.bytes(&chunk) == b"quick";
            desk.io.recycle(chunk);
            break;
        }
    }
    assert!(received);
}

fn dropping_the_edge_in_the_middle_of_everything_closes_its_sockets(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(2, 64));
    let (ours, mut peer) = pair();
    let id = desk.io.receive(ours, Tag(7));
    desk.io.send(id, pattern(32 << 20));
    desk.turn_until("a part went out", |desk| desk.progress > 0);
    drop(desk);
    let mut rest = Vec::new();
    // Either the end or a reset: both say that nobody holds the socket any more.
    let _ = peer.read_to_end(&mut rest);
    assert!(rest.len() < 32 << 20);
}

fn one_busy_connection_does_not_keep_others_waiting(choice: IoChoice) {
    // Given a connection with far more to receive than a turn may take, and one that says something small
    let mut desk = Desk::new(choice, small(4, 1024));
    let (busy, mut flood) = pair();
    desk.io.receive(busy, Tag(1));
    flood.write_all(&pattern(60_000)).expect("the sockets hold it");
    desk.turn_at_most(1);
    let (quiet, mut peer) = pair();
    desk.io.receive(quiet, Tag(2));
    peer.write_all(b"hello").expect("writes");

    // Expect it to be heard long before the other has said all
    for _ in 0..ROUNDS_MAX {
        if desk.received(Tag(2)) == b"hello" {
            break;
        }
        desk.turn_at_most(2);
    }
    assert!(desk.received(Tag(1)).len() < 30_000, "{}", desk.received(Tag(1)).len());
    desk.turn_until("the busy one", |desk| desk.received(Tag(1)).len() == 60_000);
}

fn idle_connections_cost_nothing(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let peers: Vec<_> = (0..100)
        .map(|index| {
            let (ours, mut peer) = pair();
            desk.io.receive(ours, Tag(index));
            peer.write_all(b"hello").expect("writes");
            peer
        })
        .collect();
    desk.turn_until("all of them", |desk| desk.received.len() == 100);
    desk.turn();
    let before = *desk.io.counters();
    (0..100).for_each(|_| desk.turn());
    assert_eq!(desk.io.counters().enters - before.enters, 100, "one system call a turn");
    assert_eq!(desk.io.counters().completions, before.completions);
    drop(peers);
}

fn a_peer_that_neither_speaks_nor_reads_costs_nothing(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    let id = desk.io.receive(ours, Tag(7));
    peer.shutdown(std::net::Shutdown::Write).expect("connected");
    desk.turn_until("the end", |desk| desk.ended == [Tag(7)]);
    // Given an end that was told, and a send that can't go on
    let sent = pattern(32 << 20);
    desk.io.send(id, sent.clone());
    desk.turn_until("a part went out", |desk| desk.progress > 0);
    // The kernel may move some more from our side to the peer's.
    let mut enters = 0;
    desk.turn_until("it stands still", |desk| {
        let before = std::mem::replace(&mut enters, desk.io.counters().enters);
        enters - before == 1
    });
    let before = *desk.io.counters();
    (0..20).for_each(|_| desk.turn());
    assert!(desk.io.counters().enters - before.enters <= 25, "{before:?} {:?}", desk.io.counters());

    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; 32 << 20];
        peer.read_exact(&mut bytes).expect("reads all");
        bytes
    });
    desk.turn_until("the rest", |desk| !desk.sent.is_empty());
    assert!(reader.join().expect("reader") == sent);
}

fn a_unix_socket_is_sent_to_in_parts_as_well(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = UnixStream::pair().expect("a pair");
    let id = desk.io.receive(ours.into(), Tag(7));
    let sent = pattern(8 << 20);
    for round in 1..=2 {
        desk.io.send(id, sent.clone());
        desk.turn_until("a part went out", |desk| desk.progress >= round);
        let mut received = vec![0; sent.len()];
        let mut reader = peer.try_clone().expect("a second handle");
        let reader = std::thread::spawn(move || {
            reader.read_exact(&mut received).expect("reads all");
            received
        });
        desk.turn_until("the rest", |desk| desk.sent.len() == round);
        assert!(reader.join().expect("reader") == sent);
        desk.progress = round;
    }
    // And it still listens.
    peer.write_all(b"thanks").expect("writes");
    desk.turn_until("the answer", |desk| desk.received(Tag(7)) == b"thanks");
}

fn bytes_before_the_end_are_received_however_they_came(choice: IoChoice) {
    // Sizes around that of a buffer: whether a receive fills it decides whether there is another look at the socket.
    for size in [0, 1, 1023, 1024, 1025, 2048, 5000] {
        let mut desk = Desk::new(choice, small(2, 1024));
        let (ours, mut peer) = pair();
        peer.write_all(&pattern(size)).expect("writes");
        if size % 2 == 0 {
            // Everything is there before the source is.
            drop(peer);
            desk.io.receive(ours, Tag(7));
        } else {
            desk.io.receive(ours, Tag(7));
            desk.turn_until("the bytes", |desk| desk.received(Tag(7)).len() == size);
            drop(peer);
        }
        desk.turn_until("the end", |desk| desk.ended == [Tag(7)]);
        assert_eq!(desk.received(Tag(7)), pattern(size), "{size} bytes");
    }
}

fn a_listener_that_fails_rests_until_it_is_resumed(choice: IoChoice) {
    // Given a socket that can't accept, which looks like a host out of descriptors and is easier to come by
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    peer.write_all(b"knock").expect("writes");
    let id = desk.io.listen(Rc::new(ours), LISTENER);
    for count in 1..=3 {
        desk.turn_until("it fails", |desk| desk.failed.len() == count);
        (0..10).for_each(|_| desk.turn());
        assert_eq!(desk.failed.len(), count, "it rests");
        desk.io.resume(id);
    }
}

fn a_shared_nonblocking_listener_is_accepted_from(choice: IoChoice) {
    // Shards share a Unix socket, and one of them may be on epoll, which makes it nonblocking.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("shared.sock");
    let listener = UnixListener::bind(&path).expect("binds");
    listener.set_nonblocking(true).expect("nonblocking");
    let mut desk = Desk::new(choice, small(4, 1024));
    desk.io.listen(Rc::new(listener.try_clone().expect("a second handle")), LISTENER);
    desk.turn();
    for count in 1..=3 {
        let _peer = UnixStream::connect(&path).expect("connects");
        desk.turn_until("it is accepted", |desk| desk.accepted.len() == count);
    }
    assert!(desk.failed.is_empty());
    assert!(desk.io.counters().rearmed <= 1, "it is not asked again and again");
}

fn a_paused_stream_receives_nothing_until_it_is_resumed(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    let stream = desk.io.receive(ours, Tag(7));
    peer.write_all(b"before").expect("sends");
    desk.turn_until("the first bytes", |desk| desk.received(Tag(7)) == b"before");

    desk.io.pause(stream);
    desk.turn_until("the pause is told", |desk| desk.paused == [Tag(7)]);
    peer.write_all(b", after").expect("sends");
    drop(peer);
    (0..20).for_each(|_| desk.turn());
    assert_eq!(desk.received(Tag(7)), b"before");
    assert!(desk.ended.is_empty());

    desk.io.resume(stream);
    desk.turn_until("the end", |desk| desk.ended == [Tag(7)]);
    assert_eq!(desk.received(Tag(7)), b"before, after");
    assert_eq!(desk.paused.len(), 1, "told once");
}

fn a_pause_that_is_taken_back_at_once_loses_nothing(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    let stream = desk.io.receive(ours, Tag(7));
    let sent = pattern(64 * 1024);
    let written = sent.clone();
    let writer = std::thread::spawn(move || {
        peer.write_all(&written).expect("sends");
        peer
    });
    while desk.received(Tag(7)).len() < sent.len() {
        desk.io.pause(stream);
        desk.io.resume(stream);
        desk.turn();
        desk.io.pause(stream);
        desk.turn();
        desk.io.resume(stream);
        desk.turn();
    }
    drop(writer.join().expect("writes"));
    desk.turn_until("the end", |desk| desk.ended == [Tag(7)]);
    assert!(desk.received(Tag(7)) == sent, "every byte once and in order");
}

fn a_paused_stream_that_starves_is_told_and_resumed(choice: IoChoice) {
    // Given: one buffer, and somebody who holds it.
    let mut desk = Desk::new(choice, small(1, 16));
    let (ours, mut peer) = pair();
    let stream = desk.io.receive(ours, Tag(7));
    peer.write_all(&pattern(64)).expect("sends");
    let held = loop {
        desk.io.wait(Some(Duration::from_millis(1)));
        if let Some(Event::Received { chunk, .. }) = desk.io.poll() {
            break chunk;
        }
    };
    for _ in 0..20 {
        desk.io.wait(Some(Duration::from_millis(1)));
        assert!(desk.io.poll().is_none(), "nothing can be received");
    }
    desk.io.pause(stream);
    desk.io.recycle(held);
    desk.turn_until("the pause is told", |desk| desk.paused == [Tag(7)]);
    desk.io.resume(stream);
    desk.turn_until("the rest", |desk| desk.received(Tag(7)) == &pattern(64)[16..]);
}

fn a_released_stream_goes_on_at_another_edge_without_losing_a_byte(choice: IoChoice) {
    let mut desks = [Desk::new(choice, small(4, 1024)), Desk::new(choice, small(4, 1024))];
    let (ours, mut peer) = pair();
    let sent = pattern(256 * 1024);
    let written = sent.clone();
    let writer = std::thread::spawn(move || {
        peer.write_all(&written).expect("sends");
        peer
    });
    // Given: a stream that goes to and fro while bytes come.
    let mut stream = desks[0].io.receive(ours, Tag(7));
    let mut received = Vec::new();
    for here in [0, 1].into_iter().cycle() {
        let desk = &mut desks[here];
        desk.turn();
        desk.io.pause(stream);
        desk.turn_until("the pause is told", |desk| !desk.paused.is_empty());
        desk.paused.clear();
        received.extend(desk.received.remove(&Tag(7)).unwrap_or_default());
        let socket = desk.io.release(stream).expect("at rest");
        if received.len() == sent.len() {
            break;
        }
        stream = desks[1 - here].io.receive(socket, Tag(7));
    }
    assert!(received == sent, "every byte once and in order");
    drop(writer.join().expect("writes"));
}

fn a_stream_that_sends_or_is_not_paused_is_not_released(choice: IoChoice) {
    let mut desk = Desk::new(choice, small(4, 1024));
    let (ours, mut peer) = pair();
    let stream = desk.io.receive(ours, Tag(7));
    assert!(desk.io.release(stream).is_none(), "it is received from");

    desk.io.pause(stream);
    let large = pattern(32 << 20);
    desk.io.send(stream, large.clone());
    desk.turn_until("the pause is told", |desk| desk.paused == [Tag(7)]);
    assert!(desk.io.release(stream).is_none(), "it sends");

    let reader = std::thread::spawn(move || {
        let mut read = vec![0; 32 << 20];
        peer.read_exact(&mut read).expect("reads");
        (peer, read)
    });
    desk.turn_until("all of it is sent", |desk| !desk.sent.is_empty());
    let (_peer, read) = reader.join().expect("reads");
    assert!(read == large);
    assert!(desk.io.release(stream).is_some());
    assert!(desk.io.release(stream).is_none(), "once");
}

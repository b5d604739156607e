//! A router on a directory of its own, a client that writes bytes by hand, and workers on threads: real sockets, real
//! rings, and a peer that can be told to misbehave.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::Counter;
use protocol::attach::{self, Message};
use protocol::{
    CallId, Extensions, FrameHeader, FrameParts, FunctionId, FunctionName, Hello, Kind, Status, decode,
    encode,
};
use router::io::IoOptions;
use router::net::NetOptions;
use router::placement::Thresholds;
use router::shard::Publish;
use router::stats::ShardCounters;
use router::{Config, Router, StartOptions};
use shm_ring::doorbell::EventDoorbell;
use shm_ring::{Mapped, Outcome, Taken, WorkerEnd, pass};

/// A generous limit after which a test gives up instead of hanging.
pub const GIVE_UP: Duration = Duration::from_secs(60);

/// A router of one shard with these functions, on a directory of its own.
pub struct Bench {
    pub router: Router,
    pub config: Config,
    pub seen: Seen,
    _dir: tempfile::TempDir,
}

/// What the shard published last, and a way to wait for more.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Option<Published>>>);

/// The shard's counters, and the engine's.
type Published = (ShardCounters, Vec<u64>);

impl Seen {
    pub fn shard<T>(&self, read: impl FnOnce(&ShardCounters) -> T) -> T {
        match &*self.0.lock().expect("lock") {
            Some((counters, _)) => read(counters),
            None => read(&ShardCounters::default()),
        }
    }

    pub fn engine(&self, counter: Counter) -> u64 {
        self.0.lock().expect("lock").as_ref().map_or(0, |(_, values)| values[counter as usize])
    }
}

impl Publish for Seen {
    fn publish(&mut self, _now: engine::Nanos, stats: &router::stats::ShardStats, engine: &engine::Engine) {
        let values = engine::COUNTER_TABLE.iter().map(|row| engine.counters().value(row.counter)).collect();
        *self.0.lock().expect("lock") = Some((stats.counters.clone(), values));
    }
}

/// Makes what a shard tells of itself.
type MakePublish = Box<dyn Fn(u32) -> Box<dyn Publish>>;

pub struct Setup {
    pub toml: String,
    pub io: Option<IoOptions>,
    pub net: Option<fn(&mut NetOptions)>,
    pub attach_user_id: Option<u32>,
    pub router: String,
    /// What each shard tells instead of [`Bench::seen`].
    pub publish: Option<MakePublish>,
    pub placement: Option<Thresholds>,
}

impl Setup {
    pub fn new(functions: &str) -> Setup {
        Setup {
            toml: functions.to_owned(),
            io: None,
            net: None,
            attach_user_id: None,
            router: String::new(),
            publish: None,
            placement: None,
        }
    }

    pub fn start(self) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        // tests/epoll.rs runs the stories of the other files on epoll.
        let io = if env!("CARGO_CRATE_NAME") == "epoll" { "epoll" } else { "auto" };
        let text = format!(
            "[router]\nlisten = [\"quickfire://127.0.0.1:0\", \"unix://DIR/router.sock\"]\nrun_dir = \"{}\"\nio = \"{io}\"\n{}\n{}",
            dir.path().join("run").display(),
            self.router,
            self.toml
        );
        let config = Config::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        let seen = Seen::default();
        let publisher = seen.clone();
        let publish = self.publish.unwrap_or_else(|| Box::new(move |_| Box::new(publisher.clone())));
        let net = self.net;
        let router = router::start_with(
            &config,
            StartOptions {
                publish: Some(Box::new(move |shard| Some(publish(shard)))),
                io: self.io,
                net: net.map(|change| Box::new(change) as Box<dyn Fn(&mut NetOptions)>),
                attach_user_id: self.attach_user_id,
                placement: self.placement,
            },
        )
        .unwrap_or_else(|error| panic!("{error}"));
        Bench { router, config, seen, _dir: dir }
    }
}

/// One function, `echo`, with a small ring.
pub fn echo() -> Setup {
    Setup::new("[functions.echo]\ncommand = [\"true\"]\nslots = 64\n")
}

impl Bench {
    /// A client that has said nothing.
    pub fn connect(&self) -> Wire {
        let address = self.router.tcp_address().expect("a TCP listener");
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(GIVE_UP)).expect("timeout");
        Wire { stream, received: Vec::new(), frame_size_max: 1 << 30 }
    }

    /// A client that may call.
    pub fn client(&self) -> Wire {
        let mut wire = self.connect();
        wire.hello();
        wire
    }

    pub fn worker(&self, name: &str, behave: impl FnMut(&mut Shift<'_>) + Send + 'static) -> Worker {
        self.worker_of(0, name, behave)
    }

    pub fn worker_of(
        &self,
        shard: u32,
        name: &str,
        behave: impl FnMut(&mut Shift<'_>) + Send + 'static,
    ) -> Worker {
        Worker::start(self, shard, name, behave)
    }

    /// A worker that returns its payload.
    pub fn echo_worker(&self) -> Worker {
        self.worker("echo", |shift| shift.answer_all(|payload| payload.to_vec()))
    }

    /// Waits until the published counters say so. The shard publishes before it sleeps, so this ends.
    pub fn until(&self, what: &str, done: impl Fn(&Seen) -> bool) {
        wait_until(what, || done(&self.seen));
    }
}

/// Polls until it is so; gives up much later than any honest machine needs.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < GIVE_UP, "gave up waiting for: {what}");
        std::thread::yield_now();
    }
}

/// A frame as received.
#[derive(Debug, Clone)]
pub struct Received {
    pub header: FrameHeader,
    pub kind: Kind,
    pub status: Status,
    pub extensions: Vec<u8>,
    pub payload: Vec<u8>,
}

/// A client by hand.
pub struct Wire {
    pub stream: TcpStream,
    received: Vec<u8>,
    frame_size_max: u32,
}

impl Wire {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the router reads");
    }

    /// Sends, whether the router still listens or not.
    pub fn send_anyway(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn hello(&mut self) -> Hello {
        self.send(&frame(&FrameParts::hello(), &Hello::from_client(0, 0).encode()));
        let answer = self.next().expect("an answer to HELLO");
        assert_eq!(answer.kind, Kind::Hello, "{answer:?}");
        Hello::decode(&answer.payload).expect("HELLO")
    }

    pub fn invoke(&mut self, call_id: CallId, payload: &[u8]) {
        self.send(&invoke(call_id, payload));
    }

    /// The next frame; `None` when the router closed.
    pub fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(frame) =
                decode(&self.received, self.frame_size_max).expect("the router speaks the protocol")
            {
                let received = Received {
                    header: frame.header,
                    kind: frame.kind,
                    status: Status::try_from(frame.header.status).expect("a known status"),
                    extensions: frame.extensions.to_vec(),
                    payload: frame.payload.to_vec(),
                };
                let size = frame.size();
                self.received.drain(..size);
                return Some(received);
            }
            let mut bytes = vec![0; 1 << 16];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(size) => self.received.extend_from_slice(&bytes[..size]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame came: {error}"),
            }
        }
    }

    /// The reply to this call, which must be the next frame.
    pub fn reply(&mut self, call_id: CallId) -> Received {
        let reply = self.next().expect("a reply");
        assert_eq!((reply.kind, reply.header.call_id), (Kind::Reply, call_id), "{reply:?}");
        reply
    }

    /// Calls and waits.
    pub fn call(&mut self, call_id: CallId, payload: &[u8]) -> Received {
        self.invoke(call_id, payload);
        self.reply(call_id)
    }

    /// Told that the router goes, and closed.
    pub fn expect_goaway_then_end(&mut self) {
        self.expect_goaway(Status::GoingAway);
    }

    /// Nothing but GOAWAYs comes before the end.
    pub fn next_is_end(&mut self) -> bool {
        while let Some(received) = self.next() {
            if received.kind != Kind::Goaway {
                return false;
            }
        }
        true
    }

    /// Told to go with this status, then closed.
    pub fn expect_goaway(&mut self, status: Status) -> String {
        let told = self.next().expect("GOAWAY before the end");
        assert_eq!((told.kind, told.status), (Kind::Goaway, status), "{told:?}");
        assert!(self.next().is_none(), "closed after GOAWAY");
        String::from_utf8(told.payload).expect("a reason")
    }
}

pub fn frame(parts: &FrameParts, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, parts, &Extensions::NONE, payload);
    bytes
}

pub fn invoke(call_id: CallId, payload: &[u8]) -> Vec<u8> {
    frame(&FrameParts::invoke(call_id, FunctionId(0)), payload)
}

pub fn call(slot: u32) -> CallId {
    CallId::new(slot, 1)
}

/// The next record on an attach socket.
pub fn hear(socket: &mut UnixStream) -> Message {
    let mut bytes = Vec::new();
    loop {
        if let Some((message, _)) = attach::decode(&bytes).expect("a record") {
            return message;
        }
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("the router speaks");
        bytes.push(byte[0]);
    }
}

/// A worker on a thread.
pub struct Worker {
    stop: Arc<AtomicBool>,
    pub taken: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    _orders: Sender<()>,
}

/// What a worker's behaviour works with: called again and again until the worker is stopped.
pub struct Shift<'a> {
    pub ring: &'a mut WorkerEnd<Mapped>,
    pub memory: &'a OwnedFd,
    pub socket: &'a UnixStream,
    bell: &'a EventDoorbell,
    taken: &'a AtomicU64,
    pub is_over: bool,
}

impl Shift<'_> {
    /// The next request, if there is one.
    pub fn take(&mut self) -> Option<Taken> {
        let taken = self.ring.next_request().expect("the router keeps to the ring");
        if taken.is_some() {
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
        taken
    }

    pub fn payload(&self, taken: &Taken) -> Vec<u8> {
        let mut payload = Vec::new();
        self.ring.read_payload(taken, &mut payload);
        payload
    }

    pub fn complete(&mut self, taken: Taken, outcome: Outcome, result: &[u8]) {
        let now = router::clock::now().0;
        self.ring.complete(taken, outcome, now, now, result);
    }

    pub fn publish(&mut self) {
        if self.ring.publish() {
            self.bell.ring().expect("the router's bell");
        }
    }

    pub fn ring_bell(&self) {
        self.bell.ring().expect("the router's bell");
    }

    pub fn answer_all(&mut self, mut function: impl FnMut(&[u8]) -> Vec<u8>) {
        while let Some(taken) = self.take() {
            let result = function(&self.payload(&taken));
            self.complete(taken, Outcome::Ok, &result);
        }
        self.publish();
    }
}

impl Worker {
    fn start(
        bench: &Bench,
        shard: u32,
        name: &str,
        mut behave: impl FnMut(&mut Shift<'_>) + Send + 'static,
    ) -> Worker {
        let path = bench.router.run_dir().attach_socket(shard);
        let known = bench.config.functions.iter().find(|function| function.name == name);
        let token = known.map_or(0, |function| function.edition());
        let name = FunctionName::new(name).expect("a name");
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(AtomicU64::new(0));
        let (orders, is_dropped): (Sender<()>, Receiver<()>) = channel();
        let (attached, is_attached) = channel();
        let (stopped, counted) = (stop.clone(), taken.clone());
        let thread = std::thread::spawn(move || {
            let _is_dropped = is_dropped;
            let socket = UnixStream::connect(path).expect("the attach socket");
            let (mut ring, memory, bell) = attach(&socket, name, token);
            attached.send(()).expect("the test waits");
            loop {
                let mut shift = Shift {
                    ring: &mut ring,
                    memory: &memory,
                    socket: &socket,
                    bell: &bell,
                    taken: &counted,
                    is_over: false,
                };
                behave(&mut shift);
                if shift.is_over || stopped.load(Ordering::SeqCst) || ring_is_told_to_stop(&socket) {
                    return;
                }
                let _ = ring.wait(100, Some(Duration::from_millis(5)));
            }
        });
        is_attached.recv_timeout(GIVE_UP).expect("the worker attached");
        Worker { stop, taken, thread: Some(thread), _orders: orders }
    }

    /// Ends the worker as a dying process would: its socket closes.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let is_clean = thread.join().is_ok();
            assert!(is_clean || std::thread::panicking(), "the worker panicked");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// The router said STOP, or is gone.
fn ring_is_told_to_stop(socket: &UnixStream) -> bool {
    let mut byte = [0; 64];
    match rustix::net::recv(socket, &mut byte[..], rustix::net::RecvFlags::DONTWAIT) {
        Ok(_) => true,
        Err(rustix::io::Errno::AGAIN) => false,
        Err(_) => true,
    }
}

/// Attaches as a worker does.
pub fn attach(
    socket: &UnixStream,
    name: FunctionName,
    token: u64,
) -> (WorkerEnd<Mapped>, OwnedFd, EventDoorbell) {
    let mut record = Vec::new();
    Message::AttachWorker { name, token, process_id: std::process::id(), lanes_max: 0 }.encode(&mut record);
    (&*socket).write_all(&record).expect("the router reads");
    let mut bytes = [0; 256];
    let mut fds = Vec::new();
    let size = pass::receive_with_fds(socket, &mut bytes, &mut fds).expect("an answer");
    let (message, _) = protocol::attach::decode(&bytes[..size]).expect("a record").expect("a whole record");
    assert!(matches!(message, Message::Attached(_)), "{message:?}");
    let bell = EventDoorbell::from_fd(fds.pop().expect("a bell"));
    let memory = fds.pop().expect("a ring");
    let ring = WorkerEnd::attach(Mapped::attach(&memory).expect("sealed memory")).expect("a ring");
    (ring, memory, bell)
}

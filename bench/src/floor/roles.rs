//! The floor's three processes. Each spins, moves what is there in batches, and yields its core after a turn
//! without work, because three spinning processes share two cores on small machines.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::ring::{MESSAGE_SIZE, Ring};
use super::{RoleReport, Transport};

/// Messages moved per turn and direction: 64 KiB, the write size with the best loopback TCP throughput.
const BATCH_MAX: u32 = 1024;

/// What a role is told on its command line.
pub struct Task<'a> {
    /// The run's directory, where the rings are.
    pub dir: &'a Path,
    /// How client and forwarder talk.
    pub transport: Transport,
    /// Messages the client keeps outstanding.
    pub window: u32,
    /// How long the client measures.
    pub duration: Duration,
}

/// Runs the role `name` to its end and prints its report as one line of JSON.
pub fn run(name: &str, task: &Task<'_>) -> std::io::Result<()> {
    let report = match name {
        "worker" => worker(task),
        "forwarder" => forwarder(task),
        "client" => client(task),
        _ => Err(std::io::Error::other(format!("no such role: {name}"))),
    }?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn worker(task: &Task<'_>) -> std::io::Result<RoleReport> {
    let mut requests = Ring::open(task.dir, "forwarder-worker")?;
    let mut replies = Ring::open(task.dir, "worker-forwarder")?;
    let mut batch = vec![0; BATCH_MAX as usize * MESSAGE_SIZE];
    while !requests.is_stopped() {
        let room = replies.room(BATCH_MAX).min(BATCH_MAX) as usize * MESSAGE_SIZE;
        let received = requests.receive_into(&mut batch[..room]);
        if received == 0 {
            std::thread::yield_now();
            continue;
        }
        replies.send(&batch[..received]);
    }
    Ok(RoleReport { cpu_ns: cpu_ns(), ..RoleReport::default() })
}

fn forwarder(task: &Task<'_>) -> std::io::Result<RoleReport> {
    let mut client = Link::accept(task)?;
    let mut to_worker = Ring::open(task.dir, "forwarder-worker")?;
    let mut from_worker = Ring::open(task.dir, "worker-forwarder")?;
    let (mut requests, mut replies) = (Buffer::new(), Buffer::new());
    while !to_worker.is_stopped() {
        let mut work = client.receive(&mut requests)?;
        let whole = requests.whole_messages().min(to_worker.room(BATCH_MAX) as usize) * MESSAGE_SIZE;
        if whole > 0 {
            to_worker.send(&requests.filled()[..whole]);
            requests.consume(whole);
        }
        work += replies.receive_from(&mut from_worker);
        work += client.send(&mut replies)?;
        if work == 0 {
            std::thread::yield_now();
        }
    }
    Ok(RoleReport { cpu_ns: cpu_ns(), ..RoleReport::default() })
}

fn client(task: &Task<'_>) -> std::io::Result<RoleReport> {
    let mut router = Link::connect(task)?;
    let mut histogram = Histogram::<u64>::new(3).map_err(std::io::Error::other)?;
    let message = [7u8; MESSAGE_SIZE];
    let (mut requests, mut replies) = (Buffer::new(), Buffer::new());
    let (mut outstanding, mut calls) = (0u32, 0u64);
    let started = Instant::now();
    let mut sent_at = started;
    while started.elapsed() < task.duration {
        let room = (requests.room().len() / MESSAGE_SIZE) as u32;
        for _ in 0..(task.window - outstanding).min(room) {
            requests.append(&message);
            outstanding += 1;
            if task.window == 1 {
                sent_at = Instant::now();
            }
        }
        let mut work = router.send(&mut requests)?;
        work += router.receive(&mut replies)?;
        let whole = replies.whole_messages();
        if whole > 0 {
            replies.consume(whole * MESSAGE_SIZE);
            outstanding -= whole as u32;
            calls += whole as u64;
            if task.window == 1 {
                histogram.record(sent_at.elapsed().as_nanos() as u64).map_err(std::io::Error::other)?;
            }
        }
        if work == 0 {
            std::thread::yield_now();
        }
    }
    let percentile = |p| (task.window == 1).then(|| histogram.value_at_quantile(p));
    Ok(RoleReport {
        calls,
        elapsed_ns: started.elapsed().as_nanos() as u64,
        cpu_ns: cpu_ns(),
        latency_ns_p50: percentile(0.50),
        latency_ns_p99: percentile(0.99),
    })
}

/// The way between client and forwarder, seen from one of them.
enum Link {
    Tcp(TcpStream),
    Shm { out: Ring, into: Ring },
}

impl Link {
    fn accept(task: &Task<'_>) -> std::io::Result<Self> {
        match task.transport {
            Transport::Shm => Ok(Self::Shm {
                out: Ring::open(task.dir, "forwarder-client")?,
                into: Ring::open(task.dir, "client-forwarder")?,
            }),
            Transport::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let port = listener.local_addr()?.port().to_string();
                std::fs::write(task.dir.join("port.new"), port)?;
                std::fs::rename(task.dir.join("port.new"), task.dir.join("port"))?;
                Self::tcp(listener.accept()?.0)
            }
        }
    }

    fn connect(task: &Task<'_>) -> std::io::Result<Self> {
        match task.transport {
            Transport::Shm => Ok(Self::Shm {
                out: Ring::open(task.dir, "client-forwarder")?,
                into: Ring::open(task.dir, "forwarder-client")?,
            }),
            Transport::Tcp => loop {
                let Ok(port) = std::fs::read_to_string(task.dir.join("port")) else {
                    std::thread::yield_now();
                    continue;
                };
                let port: u16 = port.parse().map_err(std::io::Error::other)?;
                return Self::tcp(TcpStream::connect(("127.0.0.1", port))?);
            },
        }
    }

    fn tcp(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Sends what it can from the front of the buffer; answers the bytes sent.
    fn send(&mut self, buffer: &mut Buffer) -> std::io::Result<usize> {
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Ok(0);
        }
        let sent = match self {
            Self::Shm { out, .. } => {
                let whole = buffer.whole_messages().min(out.room(BATCH_MAX) as usize) * MESSAGE_SIZE;
                out.send(&bytes[..whole]);
                whole
            }
            Self::Tcp(stream) => none_if_would_block(stream.write(bytes))?,
        };
        buffer.consume(sent);
        Ok(sent)
    }

    /// Fills the buffer with what is there; answers the bytes received.
    fn receive(&mut self, buffer: &mut Buffer) -> std::io::Result<usize> {
        match self {
            Self::Shm { into, .. } => Ok(buffer.receive_from(into)),
            Self::Tcp(stream) => {
                let received = none_if_would_block(stream.read(buffer.room()))?;
                buffer.end += received;
                Ok(received)
            }
        }
    }
}

/// A batch of bytes on their way: filled at the back, consumed at the front, moved only when it runs out of room.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; 2 * BATCH_MAX as usize * MESSAGE_SIZE].into(), start: 0, end: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn whole_messages(&self) -> usize {
        (self.end - self.start) / MESSAGE_SIZE
    }

    /// Where the next bytes go.
    fn room(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.bytes[self.end..]
    }

    fn append(&mut self, message: &[u8; MESSAGE_SIZE]) {
        self.room()[..MESSAGE_SIZE].copy_from_slice(message);
        self.end += MESSAGE_SIZE;
    }

    fn receive_from(&mut self, ring: &mut Ring) -> usize {
        let received = ring.receive_into(self.room());
        self.end += received;
        received
    }

    fn consume(&mut self, size: usize) {
        self.start += size;
    }
}

fn none_if_would_block(result: std::io::Result<usize>) -> std::io::Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        // The client leaves first; what remains is the order to stop.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(0),
        other => other,
    }
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

//! The floor's three processes: client, forwarder, worker. Each is a loop that moves whatever waits, as many bytes at
//! once as there are, and gives its core away when nothing did.
//!
//! Always: every byte is copied once into and once out of each ring, through a buffer that stays in the first-level
//! cache; messages are counted by the client alone, as bytes divided by their size.
//! Why a copy at all: handing out references into memory that another process writes would take unsafe code here, and
//! a copy of 64 bytes within the cache costs about a nanosecond.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use protocol::{CallId, Extensions, FrameParts, FunctionId, HEADER_SIZE};
use rustix::time::{ClockId, clock_gettime};

use super::link::Link;
use super::ring::Ring;
use super::{RoleReport, Transport};

/// Bytes moved at once where all ways are rings: half of a 32 KiB first-level cache, so that what was copied in is still
/// there when it is copied out.
const RING_BATCH_SIZE: usize = 16 * 1024;
/// Bytes moved at once where a socket is on the way: the write size with the best loopback throughput.
const SOCKET_BATCH_SIZE: usize = 64 * 1024;
/// The client sends when this part of its window is free, and not each few bytes that came back: small writes breed
/// small reads on the other side, and those small writes again, until every message pays for a system call of its own.
const WINDOW_PARTS: u64 = 4;
/// Turns between two looks at the clock: a look costs as much as moving twenty messages.
const TURNS_PER_LOOK: u32 = 64;

/// What a role is told on its command line.
pub struct Task<'a> {
    /// The run's directory, where the rings are.
    pub dir: &'a Path,
    /// How client and forwarder talk.
    pub transport: Transport,
    /// Messages the client keeps outstanding.
    pub window: u32,
    /// Bytes of one message, header included.
    pub message_size: usize,
    /// How long the client measures.
    pub duration: Duration,
}

impl Task<'_> {
    fn batch_size(&self) -> usize {
        match self.transport {
            Transport::Shm | Transport::Direct => RING_BATCH_SIZE,
            Transport::Tcp | Transport::Unix => SOCKET_BATCH_SIZE,
        }
    }
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
    let names = match task.transport {
        Transport::Direct => ["client-forwarder", "forwarder-client"],
        _ => ["forwarder-worker", "worker-forwarder"],
    };
    let mut requests = Ring::open(task.dir, names[0])?;
    let mut replies = Ring::open(task.dir, names[1])?;
    let mut batch = vec![0; task.batch_size()];
    let mut patience = Patience::new(task.transport);
    while !requests.is_stopped() {
        let size = requests.receive(&mut batch);
        if size > 0 {
            replies.send(&batch[..size]);
        }
        patience.after(size);
    }
    Ok(RoleReport { cpu_ns: cpu_ns(), ..RoleReport::default() })
}

fn forwarder(task: &Task<'_>) -> std::io::Result<RoleReport> {
    let mut client = Link::accept(task.dir, task.transport)?;
    let mut to_worker = Ring::open(task.dir, "forwarder-worker")?;
    let mut from_worker = Ring::open(task.dir, "worker-forwarder")?;
    let mut requests = vec![0; task.batch_size()];
    let mut replies = vec![0; task.batch_size()];
    // The part of `replies` that a full socket has left over.
    let mut left = 0..0;
    let mut patience = Patience::new(task.transport);
    while !to_worker.is_stopped() {
        let received = client.receive(&mut requests)?;
        if received > 0 {
            to_worker.send(&requests[..received]);
        }
        if left.is_empty() {
            left = 0..from_worker.receive(&mut replies);
        }
        let mut sent = 0;
        if !left.is_empty() {
            sent = client.send(&replies[left.clone()])?;
            left.start += sent;
        }
        patience.after(received + sent);
    }
    Ok(RoleReport { cpu_ns: cpu_ns(), ..RoleReport::default() })
}

fn client(task: &Task<'_>) -> std::io::Result<RoleReport> {
    let mut router = Link::connect(task.dir, task.transport)?;
    let mut histogram = Histogram::<u64>::new(3).map_err(std::io::Error::other)?;
    let batch_size = task.batch_size();
    let frames = frames(task.message_size, batch_size);
    let mut replies = vec![0; batch_size];
    let outstanding_size_max = u64::from(task.window) * task.message_size as u64;
    let worth_sending = (outstanding_size_max / WINDOW_PARTS).min(batch_size as u64) as usize;
    let (mut sent, mut received) = (0u64, 0u64);
    let mut patience = Patience::new(task.transport);
    let started = Instant::now();
    let mut sent_at = started;
    let mut turns = 0u32;
    let is_timed = task.window == 1;
    loop {
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(TURNS_PER_LOOK) && started.elapsed() >= task.duration {
            break;
        }
        let mut moved = 0;
        let allowed = (outstanding_size_max - (sent - received)).min(batch_size as u64) as usize;
        if allowed >= worth_sending {
            if is_timed && sent == received {
                sent_at = Instant::now();
            }
            let start = (sent % task.message_size as u64) as usize;
            moved = router.send(&frames[start..start + allowed])?;
            sent += moved as u64;
        }
        let size = router.receive(&mut replies)?;
        received += size as u64;
        if is_timed && size > 0 && sent == received {
            histogram.record(sent_at.elapsed().as_nanos() as u64).map_err(std::io::Error::other)?;
        }
        patience.after(moved + size);
    }
    let percentile = |quantile| is_timed.then(|| histogram.value_at_quantile(quantile));
    Ok(RoleReport {
        calls: received / task.message_size as u64,
        elapsed_ns: started.elapsed().as_nanos() as u64,
        cpu_ns: cpu_ns(),
        latency_ns_p50: percentile(0.50),
        latency_ns_p99: percentile(0.99),
        latency_ns_max: is_timed.then(|| histogram.max()),
    })
}

/// Request frames in a row, enough that a batch can begin at any byte of the first.
fn frames(message_size: usize, batch_size: usize) -> Vec<u8> {
    let invoke = FrameParts::invoke(CallId::new(7, 1), FunctionId(0));
    let payload = vec![7; message_size - HEADER_SIZE];
    let mut bytes = Vec::new();
    while bytes.len() < message_size + batch_size {
        protocol::encode(&mut bytes, &invoke, &Extensions::default(), &payload);
    }
    bytes
}

/// When to give the core away: at once where the processes have to share cores, because what an idle one waits
/// for may be waiting for its core; after some spinning where each has its own, because coming back costs a system
/// call.
struct Patience {
    empty_turns: u32,
    empty_turns_max: u32,
}

impl Patience {
    /// About ten microseconds of looking at a cursor.
    const SPINS_WITH_A_CORE_EACH: u32 = 1_000;

    fn new(transport: Transport) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Beside three busy processes some core must be left for the rest of the machine; beside two, both have one.
        let cores_needed = if transport == Transport::Direct { 2 } else { 4 };
        let empty_turns_max = if cores >= cores_needed { Self::SPINS_WITH_A_CORE_EACH } else { 0 };
        Self { empty_turns: 0, empty_turns_max }
    }

    fn after(&mut self, moved: usize) {
        if moved > 0 {
            self.empty_turns = 0;
        } else if self.empty_turns < self.empty_turns_max {
            self.empty_turns += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_protocol_and_of_the_size_asked_for() {
        let bytes = frames(64, 1000);
        let frame = protocol::decode(&bytes, 4096).unwrap().unwrap();
        assert_eq!((frame.size(), frame.payload.len()), (64, 32));
        assert!(bytes.len() >= 1064 && bytes.len().is_multiple_of(64));
    }
}

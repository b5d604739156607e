//! A generator for what `quickfire load` does not do: many functions at once in a skewed mix, all criticalities, and
//! connections of which only some are active.
//!
//! In: a [`Mix`].  Out: [`Measured`].
//! Always: runs as a process of its own (`bench caller-role`), one thread, a closed loop over the active connections;
//! a call's slot is taken again only when its answer has come. The clock starts when as many answers have come as calls
//! can be outstanding: opening thousands of connections and filling a queue is not what a call costs.
//! Never: reports a latency, or compares payloads. `quickfire load` does; this one only has to be cheap and the same on
//! both sides of a ratio.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use protocol::{CallId, Extensions, FrameParts, FunctionId, Status};
use serde::{Deserialize, Serialize};

use crate::experiments::NotMeasured;
use crate::process;
use crate::quickfire::Router;
use crate::wire::Conversation;

/// Bytes of requests written at once for one connection, and of answers read.
const BATCH_SIZE: usize = 64 * 1024;
/// Entries of the table from which a call's function is drawn: enough that the rarest of 100 has its share.
const DRAWS: usize = 1 << 16;
/// How long the first answers may take.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of payload in each request, as everywhere else.
const PAYLOAD: [u8; 32] = [7; 32];

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mix {
    /// The functions, the most wanted first: the n-th is called 1/n times as often as the first.
    pub functions: Vec<String>,
    /// Whether calls take turns through all criticalities; else all are normal.
    pub has_all_criticalities: bool,
    /// Connections.
    pub connections: u32,
    /// Of these, how many call.
    pub active: u32,
    /// Calls outstanding over all active ones.
    pub window: u32,
    /// How long.
    pub seconds: f64,
}

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Results per second.
    pub calls_per_s: f64,
    /// CPU time of the router.
    pub middle_cpu_ns_per_call: f64,
}

/// The line the role prints.
#[derive(Serialize, Deserialize)]
struct Outcome {
    ok: u64,
    refused: u64,
    elapsed_ns: u64,
}

/// Runs the mix against a router.
pub fn run(router: &Router, mix: &Mix) -> Result<Measured, NotMeasured> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["caller-role", router.address(), &serde_json::to_string(mix).map_err(std::io::Error::from)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or_else(|| NotMeasured::Failed("the caller has no output".into()))?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let mut next = || lines.next().transpose().map(Option::unwrap_or_default);
    let result = next().and_then(|_warm| {
        let before = router.spent();
        let line = next()?;
        Ok((before, router.spent(), line))
    });
    process::end(&mut child);
    let (before, after, line) = result?;
    let outcome: Outcome = serde_json::from_str(&line)
        .map_err(|_| NotMeasured::Failed("the caller ended without a result".into()))?;
    if outcome.ok == 0 || outcome.refused * 1000 > outcome.ok {
        return Err(NotMeasured::Failed(format!("{} calls ok, {} refused", outcome.ok, outcome.refused)));
    }
    Ok(Measured {
        calls_per_s: outcome.ok as f64 * 1e9 / outcome.elapsed_ns.max(1) as f64,
        middle_cpu_ns_per_call: (after.router_ns - before.router_ns) as f64 / outcome.ok as f64,
    })
}

/// The process that calls.
pub fn role(address: &str, mix: &Mix) -> std::io::Result<()> {
    process::raise_descriptor_limit();
    let share = mix.window.div_ceil(mix.active.max(1));
    let dial = || Conversation::open(address, share);
    let mut conversations = (0..mix.connections).map(|_| dial()).collect::<std::io::Result<Vec<_>>>()?;
    let mut functions = Vec::new();
    for name in &mix.functions {
        let first = conversations.first_mut().ok_or_else(|| std::io::Error::other("no connection"))?;
        let id = first.resolve(name)?;
        functions.push(id.ok_or_else(|| std::io::Error::other(format!("no function {name}")))?);
    }
    let mut draw = Draw::new(&functions, mix.has_all_criticalities);
    let idle = conversations.split_off(mix.active as usize);
    let mut active =
        conversations.into_iter().map(|one| Caller::new(one, share)).collect::<std::io::Result<Vec<_>>>()?;

    let mut input = vec![0; BATCH_SIZE];
    let mut call_until = |is_over: &dyn Fn(u64) -> bool| -> std::io::Result<(u64, u64)> {
        let (mut ok, mut refused) = (0, 0);
        while !is_over(ok + refused) {
            let mut moved = 0;
            for caller in &mut active {
                moved += caller.send(&mut draw)?;
                moved += caller.receive(&mut input, &mut ok, &mut refused)?;
            }
            if moved == 0 {
                std::thread::yield_now();
            }
        }
        Ok((ok, refused))
    };
    let started = Instant::now();
    call_until(&|answered| answered >= u64::from(mix.window) || started.elapsed() > WARM_UP_TIMEOUT)?;
    println!("warm");
    let (started, duration) = (Instant::now(), Duration::from_secs_f64(mix.seconds));
    let (ok, refused) = call_until(&|_| started.elapsed() >= duration)?;
    let outcome = Outcome { ok, refused, elapsed_ns: started.elapsed().as_nanos() as u64 };
    println!("{}", serde_json::to_string(&outcome)?);
    // The router is asked for its CPU time before it sees ten thousand connections close.
    std::io::stdin().read_line(&mut String::new())?;
    drop(idle);
    Ok(())
}

/// One active connection.
struct Caller {
    stream: TcpStream,
    free: Vec<u32>,
    output: Vec<u8>,
    output_sent: usize,
    /// The front of an answer that a read cut off.
    rest: Vec<u8>,
}

impl Caller {
    fn new(conversation: Conversation, share: u32) -> std::io::Result<Self> {
        let free = (0..share.min(conversation.credits())).collect();
        let stream = conversation.into_stream();
        stream.set_nonblocking(true)?;
        Ok(Self { stream, free, output: Vec::new(), output_sent: 0, rest: Vec::new() })
    }

    fn send(&mut self, draw: &mut Draw) -> std::io::Result<usize> {
        if self.output_sent == self.output.len() {
            self.output.clear();
            self.output_sent = 0;
        }
        while self.output.len() < BATCH_SIZE {
            let Some(slot) = self.free.pop() else { break };
            let parts = draw.next(slot);
            protocol::encode(&mut self.output, &parts, &Extensions::NONE, &PAYLOAD);
        }
        if self.output.is_empty() {
            return Ok(0);
        }
        let sent = none_if_would_block(self.stream.write(&self.output[self.output_sent..]))?;
        self.output_sent += sent;
        Ok(sent)
    }

    fn receive(&mut self, input: &mut [u8], ok: &mut u64, refused: &mut u64) -> std::io::Result<usize> {
        let kept = self.rest.len();
        input[..kept].copy_from_slice(&self.rest);
        let size = none_if_would_block(self.stream.read(&mut input[kept..]))?;
        let mut bytes = &input[..kept + size];
        while let Some(frame) = protocol::decode(bytes, protocol::limits::FRAME_SIZE_MAX_DEFAULT)
            .map_err(std::io::Error::other)?
        {
            self.free.push(frame.header.call_id.slot());
            *(if frame.header.status == Status::Ok as u16 { &mut *ok } else { &mut *refused }) += 1;
            bytes = &bytes[frame.size()..];
        }
        self.rest.clear();
        self.rest.extend_from_slice(bytes);
        Ok(size)
    }
}

/// Which function and criticality the next call has: drawn beforehand, so that drawing costs a table look-up.
struct Draw {
    table: Vec<FunctionId>,
    has_all_criticalities: bool,
    count: usize,
}

impl Draw {
    fn new(functions: &[FunctionId], has_all_criticalities: bool) -> Self {
        let weights: Vec<f64> = (1..=functions.len()).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = weights.iter().sum();
        let mut table = Vec::with_capacity(DRAWS);
        for (function, weight) in functions.iter().zip(weights) {
            let share = (weight / total * DRAWS as f64).round().max(1.0) as usize;
            table.extend(std::iter::repeat_n(*function, share));
        }
        // Fisher and Yates, with a fixed seed: every run draws the same calls.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for index in (1..table.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            table.swap(index, (state % (index as u64 + 1)) as usize);
        }
        Self { table, has_all_criticalities, count: 0 }
    }

    fn next(&mut self, slot: u32) -> FrameParts {
        let function = self.table[self.count % self.table.len()];
        self.count += 1;
        let mut parts = FrameParts::invoke(CallId::new(slot, 1), function);
        if self.has_all_criticalities {
            parts.criticality = (self.count % 4) as u8;
        }
        parts
    }
}

fn none_if_would_block(result: std::io::Result<usize>) -> std::io::Result<usize> {
    match result {
        Ok(0) => Err(std::io::Error::other("the router closed a connection")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_function_is_drawn_a_hundred_times_as_often_as_the_hundredth() {
        let functions: Vec<_> = (0..100).map(FunctionId).collect();
        let draw = Draw::new(&functions, true);
        let count = |id: u32| draw.table.iter().filter(|function| function.0 == id).count() as f64;
        assert!((count(0) / count(99) - 100.0).abs() < 2.0);
        assert!((count(0) / count(1) - 2.0).abs() < 0.1);
    }

    #[test]
    fn calls_take_turns_through_the_criticalities_only_when_asked() {
        let mut all = Draw::new(&[FunctionId(3)], true);
        let drawn: std::collections::BTreeSet<u8> = (0..8).map(|slot| all.next(slot).criticality).collect();
        assert_eq!(drawn.len(), 4);
        let mut normal = Draw::new(&[FunctionId(3)], false);
        assert!((0..8).all(|slot| normal.next(slot).criticality == 1));
    }
}

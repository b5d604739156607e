//! The router's work for one call, in one process, without a system call: what `bench instructions` counts under
//! valgrind.
//!
//! In: a number of calls.  Out: nothing worth reading; the count is valgrind's.
//! A turn takes 64 calls from bytes to bytes: decode, admission into the run queue, dispatch, push into the ring, the
//! worker's half, reap, reply. Each stage is a function that is never inlined, so that the profile names it.
//! Always: the same calls in the same order; the clock is a number that grows by 3 us a turn, as 64 calls at 20 M a
//! second would have it.
//! Never: asks the system for the time (`valgrind` cannot run some ways of asking), allocates once its tables have
//! grown, or uses more of the crates than they show to everybody.
//! Not in it: sockets and io_uring, and the router's own tables between the crates (payloads that wait, connections,
//! statistics). See docs/performance.md.

#![forbid(unsafe_code)]

use std::hint::black_box;

use engine::{
    Answer, Engine, Finished, FunctionSpec, InvocationId, Limits, Nanos, Origin, Push, Request, RunOutcome,
    ShardId, Started, TenantSpec, Verdict, WorkerId,
};
use protocol::{CallId, Extensions, FrameParts, FunctionId};
use shm_ring::{Completion, Generation, Geometry, HeapMemory, Identity, Outcome, RouterEnd, WorkerEnd};

/// Calls of one turn: as many as a batch of a busy connection brings at least.
const BATCH: u32 = 64;
const FRAME_SIZE_MAX: u32 = protocol::limits::FRAME_SIZE_MAX_DEFAULT;
const PAYLOAD: [u8; 32] = [7; 32];
/// As configured by default.
const SLOT_COUNT: u32 = 1024;
const REGION_SIZE: u32 = 4096;

fn main() {
    let calls = std::env::args().nth(1).and_then(|text| text.parse::<u64>().ok());
    let Some(calls) = calls else {
        eprintln!("usage: turn CALLS (a multiple of {BATCH}); `bench instructions` runs it under valgrind");
        std::process::exit(2);
    };
    let mut shard = Shard::new();
    for _ in 0..calls / u64::from(BATCH) {
        assert_eq!(shard.turn(), u64::from(BATCH), "every call is answered in its turn");
    }
}

struct Shard {
    now: Nanos,
    engine: Engine,
    worker_id: WorkerId,
    ring: RouterEnd<HeapMemory>,
    worker: WorkerEnd<HeapMemory>,
    /// One batch as it comes from a connection.
    input: Vec<u8>,
    requests: Vec<Request>,
    pushes: Vec<Push>,
    completions: Vec<Completion>,
    ended: Vec<Answer>,
    output: Vec<u8>,
}

impl Shard {
    fn new() -> Self {
        let spec = FunctionSpec::named("echo");
        let now = Nanos(1);
        let mut engine = Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), vec![spec])
            .expect("a sound configuration");
        let attached = engine.handle_worker_attached(now, FunctionId(0), SLOT_COUNT);
        let worker_id = attached.expect("room for a worker");
        let geometry = Geometry::new(SLOT_COUNT, REGION_SIZE).expect("a geometry within the limits");
        let memory = HeapMemory::new(geometry.memory_size());
        let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
        let ring = RouterEnd::new(memory.clone(), geometry, identity);
        let mut input = Vec::new();
        for slot in 0..BATCH {
            let parts = FrameParts::invoke(CallId::new(slot, 1), FunctionId(0));
            protocol::encode(&mut input, &parts, &Extensions::NONE, &PAYLOAD);
        }
        let batch = BATCH as usize;
        Self {
            now,
            engine,
            worker_id,
            ring,
            worker: WorkerEnd::attach(memory).expect("a ring just made"),
            input,
            requests: Vec::with_capacity(batch),
            pushes: Vec::with_capacity(batch),
            completions: Vec::with_capacity(batch),
            ended: Vec::with_capacity(batch),
            output: Vec::with_capacity(1 << 16),
        }
    }

    /// 64 calls from bytes to bytes. Answers how many replies were written.
    fn turn(&mut self) -> u64 {
        self.now = self.now.plus(Nanos::from_us(3));
        decode(self);
        admit(self);
        let mut replied = 0;
        self.output.clear();
        while replied < u64::from(BATCH) {
            // A worker is given only as much as it can do soon: the first turns take more than one round.
            dispatch(self);
            push(self);
            work(self);
            reap(self);
            replied += reply(self);
        }
        black_box(&self.output);
        replied
    }
}

/// Stage 1: bytes to requests.
#[inline(never)]
fn decode(shard: &mut Shard) {
    let mut bytes = black_box(shard.input.as_slice());
    while let Ok(Some(frame)) = protocol::decode(bytes, FRAME_SIZE_MAX) {
        bytes = &bytes[frame.size()..];
        let header = frame.header;
        shard.requests.push(Request {
            origin: Origin { connection: 0, connection_generation: 1, call_id: header.call_id },
            received_at: shard.now,
            function: header.function_id,
            criticality: header.criticality,
            budget_us: header.budget_us,
            payload_size: header.payload_size,
            flags: header.flags,
        });
    }
}

/// Stages 2 and 3: admission, into the run queue or bound to the worker at once.
#[inline(never)]
fn admit(shard: &mut Shard) {
    let mut pushed = 0;
    if let Some(mut batch) = shard.engine.open_batch(shard.now, FunctionId(0)) {
        let pushes = shard.requests.iter().map_while(|request| batch.push(request));
        shard.pushes.extend(pushes);
        pushed = batch.count() as usize;
        batch.close();
    }
    for request in shard.requests.drain(..).skip(pushed) {
        match shard.engine.handle_request(shard.now, request) {
            Verdict::Pushed(push) => shard.pushes.push(push),
            Verdict::Admitted(_) => {}
            other => panic!("a call of ours was not admitted: {other:?}"),
        }
    }
}

/// Stage 4: deadlines, and the most urgent calls for the worker.
#[inline(never)]
fn dispatch(shard: &mut Shard) {
    shard.engine.handle_time(shard.now, &|_: WorkerId, _: InvocationId| Started::No);
    while let Some(push) = shard.engine.poll_push(shard.now) {
        shard.pushes.push(push);
    }
}

/// Stage 5: into the ring.
#[inline(never)]
fn push(shard: &mut Shard) {
    for push in shard.pushes.drain(..) {
        let request = shm_ring::Request {
            invocation_id: push.invocation.0,
            deadline_at_ns: push.deadline_at.0,
            pushed_at_ns: shard.now.0,
            flags: 0,
            criticality: 1,
            context: None,
        };
        shard.ring.push(request, black_box(&PAYLOAD)).expect("as many slots as credits");
    }
    black_box(shard.ring.publish());
}

/// Stage 7, the ring's part of it: what the worker does for each call beside the function's own work.
#[inline(never)]
fn work(shard: &mut Shard) {
    while let Ok(Some(taken)) = shard.worker.next_request() {
        shard.worker.complete(taken, Outcome::Ok, shard.now.0, shard.now.0, black_box(&PAYLOAD));
    }
    black_box(shard.worker.publish());
}

/// Stage 8, first half: completions out of the ring, and the engine's word on each.
#[inline(never)]
fn reap(shard: &mut Shard) {
    let first = shard.completions.len();
    let completions = &mut shard.completions;
    let found = shard.ring.next_completions(BATCH as usize, |completion| completions.push(completion));
    found.expect("an honest worker");
    let taken = &shard.completions[first..];
    taken.iter().for_each(|completion| shard.engine.prefetch(InvocationId(completion.invocation_id)));
    let finished = |completion: &Completion| {
        let finished = Finished {
            outcome: RunOutcome::Ok,
            started_at: Nanos(completion.started_at_ns),
            finished_at: Nanos(completion.finished_at_ns),
        };
        (InvocationId(completion.invocation_id), finished)
    };
    // As the router does: where a result moves workers, the next one is told anew.
    let (ended, mut rest) = (&mut shard.ended, taken);
    while !rest.is_empty() {
        let told_before = ended.len();
        let results = rest.iter().map(finished);
        shard.engine.handle_results(shard.now, shard.worker_id, results, |answer| ended.push(answer));
        let told = ended.len() - told_before;
        assert!(told > 0, "calls of ours end as nearly every one does");
        rest = &rest[told..];
    }
}

/// Stage 8, second half: reply frames, and slots free again.
#[inline(never)]
fn reply(shard: &mut Shard) -> u64 {
    let count = shard.ended.len() as u64;
    for (answer, completion) in shard.ended.drain(..).zip(shard.completions.drain(..)) {
        let parts = FrameParts::reply(answer.origin.call_id, answer.status);
        let payload_size = completion.result_size as usize;
        protocol::encode_front(&mut shard.output, &parts, &Extensions::NONE, payload_size);
        shard.ring.read_result(&completion, &mut shard.output);
        protocol::encode_padding(&mut shard.output, payload_size);
        shard.ring.release(completion);
    }
    count
}

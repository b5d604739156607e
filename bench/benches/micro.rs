//! What one call costs in each crate, single thread, everything in cache: `cargo bench -p bench`.
//!
//! These are the parts; the whole is measured by `cargo run --release -p bench`, with real processes.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    Completed, Engine, Finished, FunctionSpec, Limits, Nanos, Origin, Push, Request, RunOutcome, ShardId,
    Started, TenantSpec, Verdict,
};
use protocol::{CallId, Extensions, Flags, FrameParts, FunctionId};
use queue::{LaneIndex, Lanes, Links};
use shm_ring::{Generation, Geometry, HeapMemory, Identity, Outcome, RouterEnd, WorkerEnd};

/// Calls per iteration, as a busy turn has them.
const BATCH: u32 = 64;
const FRAME_SIZE_MAX: u32 = 1 << 20;

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protocol");
    group.throughput(Throughput::Elements(1));
    let invoke = FrameParts::invoke(CallId::new(7, 1), FunctionId(3));
    let mut bytes = Vec::new();
    protocol::encode(&mut bytes, &invoke, &Extensions::default(), &[1; 32]);
    group.bench_function("decode a frame of 64 bytes", |bencher| {
        bencher.iter(|| {
            protocol::decode(black_box(&bytes), FRAME_SIZE_MAX).map(|frame| frame.map(|it| it.header))
        });
    });
    let mut out = Vec::with_capacity(1 << 16);
    group.bench_function("encode a frame of 64 bytes", |bencher| {
        bencher.iter(|| {
            out.clear();
            protocol::encode(&mut out, black_box(&invoke), &Extensions::default(), black_box(&[1; 32]));
        });
    });
    group.finish();
}

fn queues(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let mut links = Links::with_capacity(BATCH);
    let mut lanes = Lanes::new();
    group.bench_function("push and pop of 64 over 4 lanes", |bencher| {
        bencher.iter(|| {
            for index in 0..BATCH {
                lanes.push(&mut links, LaneIndex::new((index % 4) as u8, 3), index);
            }
            while let Some(taken) = lanes.pop(&mut links) {
                black_box(taken);
            }
        });
    });
    let (sender, mut receiver) = queue::priority_queue::<u64>(BATCH);
    group.bench_function("push and pop of 64 through the lock-free half", |bencher| {
        bencher.iter(|| {
            for index in 0..BATCH {
                let _ = sender.push(LaneIndex::new((index % 4) as u8, 3), u64::from(index));
            }
            while let Some(taken) = receiver.pop() {
                black_box(taken);
            }
        });
    });
    group.finish();
}

fn rings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shm-ring");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let geometry = Geometry::new(BATCH, 4096).expect("a geometry within the limits");
    let memory = HeapMemory::new(geometry.memory_size());
    let identity = Identity { generation: Generation(1), worker_id: 0, function_id: 0 };
    let mut router = RouterEnd::new(memory.clone(), geometry, identity);
    let mut worker = WorkerEnd::attach(memory).expect("a ring just made");
    let mut result = Vec::with_capacity(1 << 16);
    group.bench_function("push, take, complete and release 64 calls of 32 bytes", |bencher| {
        bencher.iter(|| {
            for number in 0..u64::from(BATCH) {
                let request = shm_ring::Request {
                    invocation_id: number + 1,
                    deadline_at_ns: u64::MAX,
                    pushed_at_ns: 1,
                    flags: 0,
                    criticality: 1,
                    context: None,
                };
                router.push(request, black_box(&[1; 32])).expect("as many slots as calls");
            }
            router.publish();
            while let Ok(Some(taken)) = worker.next_request() {
                worker.complete(taken, Outcome::Ok, 2, 3, black_box(&[2; 32]));
            }
            worker.publish();
            result.clear();
            while let Ok(Some(completion)) = router.next_completion() {
                router.read_result(&completion, &mut result);
                router.release(completion);
            }
        });
    });
    group.finish();
}

fn engine_turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let make = |function_count: u32| {
        let specs = (0..function_count).map(|number| FunctionSpec {
            queue_count_max: 1 << 20,
            ..FunctionSpec::named(format!("function-{number}"))
        });
        let mut engine =
            Engine::new(ShardId(0), Limits::default(), TenantSpec::only_default(), specs.collect())
                .expect("a sound configuration");
        for number in 0..function_count {
            engine.handle_worker_attached(Nanos(1), FunctionId(number), BATCH).expect("room for a worker");
        }
        (engine, Nanos(1))
    };
    for function_count in [1, 100] {
        let name = format!("a turn of 64 calls over {function_count} functions");
        group.bench_function(name, |bencher| {
            let (mut engine, mut now) = make(function_count);
            bencher.iter(|| {
                now = now.plus(Nanos::from_us(3));
                turn(&mut engine, now, function_count);
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("admission refused for an unknown function", |bencher| {
        let (mut engine, now) = make(1);
        bencher.iter_batched(
            || request(0, 1_000, now),
            |request| black_box(engine.handle_request(now, request)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// What a shard's turn asks of the engine for 64 calls that are all answered in it.
fn turn(engine: &mut Engine, now: Nanos, function_count: u32) {
    for number in 0..BATCH {
        match engine.handle_request(now, request(number, number % function_count, now)) {
            Verdict::Pushed(push) => complete(engine, now, push),
            Verdict::Admitted(_) => {}
            other => panic!("not admitted: {other:?}"),
        }
    }
    engine.handle_time(now, &|_, _| Started::No);
    while let Some(push) = engine.poll_push(now) {
        complete(engine, now, push);
    }
}

fn complete(engine: &mut Engine, now: Nanos, push: Push) {
    let finished = Finished { outcome: RunOutcome::Ok, started_at: now, finished_at: now };
    let done = engine.handle_completion(now, push.worker, push.invocation, finished);
    assert!(matches!(done, Completed::Answer(_)));
}

fn request(number: u32, function: u32, now: Nanos) -> Request {
    Request {
        origin: Origin { connection: 0, connection_generation: 1, call_id: CallId::new(number, 1) },
        received_at: now,
        function: FunctionId(function),
        criticality: (number % 4) as u8,
        budget_us: 50_000,
        payload_size: 32,
        flags: Flags::default(),
    }
}

criterion_group!(benches, headers, queues, rings, engine_turn);
criterion_main!(benches);

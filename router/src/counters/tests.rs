//! What a shard publishes is what a reader finds, through the labels alone; and what no shard ever wrote is refused
//! or read, but never a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{Engine, FunctionSpec, Limits, Nanos, ShardId, Started, TenantSpec, WorkerId};
use proptest::prelude::*;
use protocol::FunctionId;
use shm_ring::{HeapMemory, Memory};

use super::layout::{self, Section};
use super::*;
use crate::stats::{FunctionStats, ShardStats};
use crate::workers::FunctionRing;

const FUNCTIONS: [&str; 2] = ["echo", "thumbnail"];
const WORKERS_MAX: u32 = 4;

const FUNCTIONS_MAX: u32 = 3;

fn spec() -> CountersSpec {
    CountersSpec {
        shard: 3,
        pinned_to: Some(0),
        functions_max: FUNCTIONS_MAX,
        workers_max: WORKERS_MAX,
        config_digest: 77,
        started_at: Nanos(1_000),
        started_at_unix_ns: 2_000,
    }
}

fn engine() -> Engine {
    let function = |name: &&str| FunctionSpec {
        queue_count_max: 10,
        payload_size_max: 100,
        ..FunctionSpec::named(*name)
    };
    let limits = Limits { workers_max: WORKERS_MAX, invocations_max: 64, ..Limits::default() };
    Engine::new(ShardId(3), limits, TenantSpec::only_default(), FUNCTIONS.iter().map(function).collect())
        .unwrap()
}

fn memory() -> HeapMemory {
    HeapMemory::new(layout::arrange(&layout::columns(), FUNCTIONS_MAX as usize, WORKERS_MAX as usize).1)
}

fn bytes_of(memory: &HeapMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.size()];
    memory.read(0, &mut bytes);
    bytes
}

fn attached(worker: WorkerId, pid: u32) -> Attached {
    Attached { worker, pid, attached_at: Nanos(1_500) }
}

#[test]
fn what_is_published_is_read_back() {
    // Given
    let mut engine = engine();
    let worker = engine.handle_worker_attached(Nanos(1_500), FunctionId(1), 16).unwrap();
    let mut stats = ShardStats::new(2);
    stats.counters.turns = 5;
    stats.functions[1] = FunctionStats { answered_ok: 8, run_ns: 800, ..FunctionStats::default() };
    for latency in [100, 200, 300, 1_000_000] {
        stats.latencies.total_ns.record(latency);
    }
    stats.latencies.settle();
    // When
    let memory = memory();
    let mut publisher = Publisher::over(memory.clone(), &spec());
    stats.roster.arrive(attached(worker, 4242));
    publisher.publish(Nanos(200_000_000), &engine, &stats);
    // Expect
    let snapshot = Snapshot::decode(&bytes_of(&memory)).unwrap();
    assert_eq!((snapshot.shard, snapshot.pid, snapshot.config_digest), (3, std::process::id(), 77));
    assert_eq!(snapshot.pinned_to, Some(0));
    assert_eq!((snapshot.published_at_ns, snapshot.state, snapshot.is_torn), (200_000_000, "running", false));
    assert_eq!(snapshot.counter("shard.turns"), Some(5));
    assert_eq!(snapshot.counter("engine.workers_attached"), Some(1));
    assert_eq!(snapshot.counter("engine.no_such"), None);
    let turns = snapshot.counters.iter().find(|counter| counter.name == "shard.turns").unwrap();
    assert_eq!((turns.unit.as_str(), turns.meaning.as_str()), ("count", "Turns of the loop."));
    assert_eq!(snapshot.functions[0].name, "echo");
    let thumbnail = &snapshot.functions[1];
    assert_eq!(
        (thumbnail.workers, thumbnail.credit_free, thumbnail.answered_ok, thumbnail.run_ns),
        (1, 16, 8, 800)
    );
    let [found] = snapshot.workers.as_slice() else { panic!("one worker, not {:?}", snapshot.workers) };
    assert_eq!((found.worker_id, found.generation), (worker.index.into(), worker.generation.into()));
    assert_eq!((found.pid, found.function_id, found.slots, found.credits_free), (4242, 1, 16, 16));
    let total = &snapshot.histograms[0];
    assert_eq!((total.name.as_str(), total.count), ("total_ns", 4));
    assert!((200..=210).contains(&total.percentile_ns(0.5)), "{}", total.percentile_ns(0.5));
    assert_eq!(total.percentile_ns(1.0), total.max_ns);
}

#[test]
fn functions_that_come_later_have_rows_up_to_the_room_and_removed_ones_keep_theirs() {
    // Given: two functions, and room for a third.
    let mut engine = engine();
    let mut stats = ShardStats::new(2);
    let memory = memory();
    let mut publisher = Publisher::over(memory.clone(), &spec());
    let mut publish = |engine: &Engine, stats: &ShardStats| {
        publisher.publish(Nanos(2_000), engine, stats);
        Snapshot::decode(&bytes_of(&memory)).unwrap().functions
    };
    assert_eq!(publish(&engine, &stats).len(), 2);
    // When
    let ring = FunctionRing {
        function: FunctionId(2),
        slots: 1,
        payload_size_max: 1,
        edition: 5,
        workers_wanted: 4,
    };
    let third = FunctionSpec { edition: 5, ..FunctionSpec::named("third") };
    let echo = FunctionSpec::named("echo");
    let table = vec![Some(echo.clone()), None, Some(third.clone())];
    engine.handle_reconfigure(TenantSpec::only_default(), table).unwrap();
    stats.respecify(3, &[ring]);
    engine.handle_worker_of_edition(Nanos(1_600), FunctionId(2), 1, 1).unwrap();
    // Expect
    let functions = publish(&engine, &stats);
    let told = |index: usize| {
        let function = &functions[index];
        (function.name.as_str(), function.is_removed, function.workers_wanted, function.workers_earlier)
    };
    assert_eq!(
        [told(0), told(1), told(2)],
        [("echo", false, 0, 0), ("thumbnail", true, 0, 0), ("third", false, 4, 1)]
    );
    // The router refuses before; if it did not, the rest would have no row.
    let fourth = FunctionSpec::named("fourth");
    let table = vec![Some(echo), None, Some(third), Some(fourth)];
    engine.handle_reconfigure(TenantSpec::only_default(), table).unwrap();
    assert_eq!(publish(&engine, &stats).len(), 3);
}

#[test]
fn a_worker_that_went_away_is_gone_and_a_later_one_in_its_place_stays() {
    // Given
    let mut engine = engine();
    let memory = memory();
    let mut publisher = Publisher::over(memory.clone(), &spec());
    let mut stats = ShardStats::new(2);
    let mut pids = |stats: &ShardStats, engine: &Engine| {
        publisher.publish(Nanos(2_000), engine, stats);
        Snapshot::decode(&bytes_of(&memory))
            .unwrap()
            .workers
            .iter()
            .map(|worker| worker.pid)
            .collect::<Vec<_>>()
    };
    let first = engine.handle_worker_attached(Nanos(1_500), FunctionId(1), 16).unwrap();
    stats.roster.arrive(attached(first, 1));
    assert_eq!(pids(&stats, &engine), [1]);
    // When
    engine.handle_worker_lost(Nanos(1_600), first, &|_, _| Started::No);
    stats.roster.leave(first);
    assert!(pids(&stats, &engine).is_empty());
    let second = engine.handle_worker_attached(Nanos(1_700), FunctionId(0), 16).unwrap();
    stats.roster.arrive(attached(second, 2));
    stats.roster.leave(first);
    // Expect
    assert_eq!(second.index, first.index);
    assert_eq!(pids(&stats, &engine), [2]);
}

#[test]
fn a_writer_that_died_while_publishing_leaves_numbers_marked_as_torn() {
    let memory = memory();
    let publisher = Publisher::over(memory.clone(), &spec());
    std::mem::forget(publisher);
    memory.store_u64(layout::header::SEQUENCE, 7, Ordering::Relaxed);
    let snapshot = Snapshot::decode(&bytes_of(&memory)).unwrap();
    assert!(snapshot.is_torn);
    assert_eq!(snapshot.state, "running");
}

#[test]
fn a_file_is_read_while_a_router_works_and_after_it_is_gone() {
    // Given
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("counters-3");
    let engine = engine();
    let mut publisher = Publisher::create(&path, &spec()).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    // When a shard publishes as fast as it can, turns always equal to sleeps
    let writer = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut stats = ShardStats::new(2);
            while !is_over.load(Ordering::Relaxed) {
                stats.counters.turns += 1;
                stats.counters.sleeps += 1;
                publisher.publish(Nanos(stats.counters.turns), &engine, &stats);
                std::thread::yield_now();
            }
            stats.counters.turns
        }
    });
    // Expect that a reader never sees half a publishing
    let mut whole = 0;
    for _ in 0..200 {
        let snapshot = Snapshot::read(&path).unwrap();
        if !snapshot.is_torn {
            assert_eq!(snapshot.counter("shard.turns"), snapshot.counter("shard.sleeps"));
            whole += 1;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let turns = writer.join().unwrap();
    assert!(whole > 0);
    let last = Snapshot::read(&path).unwrap();
    assert_eq!((last.counter("shard.turns"), last.state, last.is_torn), (Some(turns), "stopped", false));
}

#[test]
fn what_is_no_counters_file_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let path = directory.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let told = Snapshot::read(&path).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    };
    check(b"", "header at 0, 256 bytes, ends behind the file's 0");
    check(&[7; 300], "not a counters file (it starts with 0x0707070707070707)");
    let memory = memory();
    let _publisher = Publisher::over(memory.clone(), &spec());
    let whole = bytes_of(&memory);
    check(&whole[..whole.len() - 1], "a section");
    let mut newer = whole.clone();
    newer[layout::header::VERSION] = 2;
    check(&newer, "counters of version 2");
    assert!(matches!(Snapshot::read(&directory.path().join("none")), Err(CountersError::Io { .. })));
}

#[test]
fn latencies_of_shards_add_up() {
    let one = |value: u64, count: u64| {
        let mut buckets = vec![0; buckets::COUNT];
        buckets[buckets::index_of(value)] = count;
        Histogram { name: "total_ns".into(), count, min_ns: value, max_ns: value, buckets }
    };
    let mut sum = one(10, 90);
    sum.add(&one(1_000, 10));
    assert_eq!((sum.count, sum.min_ns, sum.max_ns), (100, 10, 1_000));
    assert_eq!((sum.percentile_ns(0.5), sum.percentile_ns(0.9), sum.percentile_ns(0.99)), (10, 10, 1_000));
}

#[test]
fn labels_fit_their_rows_and_columns_do_not_overlap() {
    let columns = layout::columns();
    for (index, column) in columns.iter().enumerate() {
        assert!(column.name.len() <= 48, "{}", column.name);
        assert!(column.unit.len() <= 16, "{}", column.unit);
        assert!(column.meaning.len() <= 160, "{}: {}", column.name, column.meaning.len());
        assert!(column.offset.is_multiple_of(8));
        for other in columns.iter().take(index).filter(|other| other.section == column.section) {
            assert_ne!(other.name, column.name);
            assert!(other.offset + other.size <= column.offset, "{} and {}", other.name, column.name);
        }
    }
    assert_eq!(columns.iter().filter(|column| column.section == Section::Labels).count(), 0);
}

#[test]
fn the_specification_has_the_columns_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spec/counters.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mark = "<!-- columns: QUICKFIRE_BLESS=1 cargo test -p router -->\n";
    let (prose, written) =
        page.split_once(mark).expect("the page has the mark behind which its tables stand");
    let mut tables = String::new();
    let sections = [
        (Section::Shard, "shard"),
        (Section::Functions, "functions"),
        (Section::Workers, "workers"),
        (Section::Histograms, "histograms"),
    ];
    for (section, title) in sections {
        tables.push_str(&format!(
            "\n### Columns of `{title}`\n\n| offset | size | name | unit | meaning |\n|---|---|---|---|---|\n"
        ));
        for column in layout::columns().iter().filter(|column| column.section == section) {
            let layout::Column { offset, size, name, unit, meaning, .. } = column;
            tables.push_str(&format!("| {offset} | {size} | `{name}` | {unit} | {meaning} |\n"));
        }
    }
    if std::env::var_os("QUICKFIRE_BLESS").is_some() {
        std::fs::write(path, format!("{prose}{mark}{tables}")).unwrap();
        return;
    }
    assert_eq!(written, tables, "QUICKFIRE_BLESS=1 cargo test -p router writes the tables anew");
}

proptest! {
    #[test]
    fn no_damage_makes_a_reader_panic(
        changes in proptest::collection::vec((0usize..60_000, any::<u8>()), 1..40),
        near in proptest::collection::vec((0usize..1024, any::<u64>()), 0..4),
        cut in 0usize..80_000,
    ) {
        let memory = memory();
        let _publisher = Publisher::over(memory.clone(), &spec());
        let mut bytes = bytes_of(&memory);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        for (at, value) in near {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        // The magic survives, so that the deeper checks are reached.
        bytes[..8].copy_from_slice(&layout::MAGIC.to_le_bytes());
        bytes.truncate(cut);
        if let Ok(snapshot) = Snapshot::decode(&bytes) {
            for histogram in &snapshot.histograms {
                let _ = histogram.percentile_ns(0.99);
            }
        }
    }
}

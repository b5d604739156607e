//! What is counted: programs of `bench/examples/`, how far each is run, and which of its functions have a line.

/// A program, run in one way.
pub struct Program {
    /// Its name in the table and on record.
    pub name: &'static str,
    /// Its name under `bench/examples/`.
    pub example: &'static str,
    /// What it is told before the number of calls.
    pub arguments: &'static [&'static str],
    /// Calls after which tables have grown and the worker's pace is known.
    pub calls_few: u64,
    /// So many more that one instruction per call is tens of thousands in the difference.
    pub calls_many: u64,
    /// Its functions that have a line, in the order of a call.
    pub stages: &'static [&'static str],
    /// Which of them the gate holds; `None`: everything that it executes.
    pub gated: Option<&'static str>,
}

/// All of them.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "turn",
        example: "turn",
        arguments: &[],
        calls_few: 32_000,
        calls_many: 64_000,
        stages: &["decode", "admit", "dispatch", "push", "work", "reap", "reply"],
        gated: None,
    },
    // As many calls as a worker has slots by default: full batches, of which no call waits in a queue.
    whole_shard("shard-shm", &["shm", "1024"]),
    whole_shard("shard-tcp", &["tcp", "1024"]),
];

const fn whole_shard(name: &'static str, arguments: &'static [&'static str]) -> Program {
    Program {
        name,
        example: "shard",
        arguments,
        calls_few: 20 * 1_024,
        calls_many: 60 * 1_024,
        stages: &["client_turn", "shard_turn", "worker_turn"],
        gated: Some("shard_turn"),
    }
}

//! What a run is about: how often each event happens, and what the functions are like.
//!
//! Always: a seed belongs to one scenario, by its number, unless `--only` names another; so a thousand seeds are some
//! hundred of each.

use crate::crowd::Matter;
use crate::plan::Kind;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// For `--only`.
    pub name: &'static str,
    /// What it shows, for `--list`.
    pub about: &'static str,
    /// How often each kind of event happens, relative to the others.
    pub weights: &'static [(Kind, u32)],
    /// Functions that need something downstream, in 1,000.
    pub downstream_per_mille: u64,
    /// Calls that bring an error of the function, in 1,000.
    pub error_per_mille: u64,
    /// What is asked of the calls of functions.
    pub policies: Policies,
    /// Processes that run three calls at once, in 1,000.
    pub parallel_per_mille: u64,
    /// Runs that make a call themselves and wait for it, in 1,000.
    pub nested_per_mille: u64,
    /// Shards of the router.
    pub shard_count: u8,
    /// It is not run in the world of `world.rs`, but in a crowd.
    pub crowd: Option<Matter>,
}

/// Which policies functions and tenants have; each of them has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policies {
    /// Calls per second.
    Rates,
    /// Whatever bounds calls: per second, in workers' hands, per window, and how long an old one waits.
    Limits,
    /// Whatever protects a function that fails: breakers and retries.
    Guards,
    /// Second attempts.
    Hedges,
    /// How many instances there are follows the calls.
    Pools,
    /// None: such functions may be called past the router.
    None,
}

/// What happens in every scenario.
const WORK: [(Kind, u32); 8] = [
    (Kind::Pass, 200),
    (Kind::Submit, 100),
    (Kind::Cancel, 20),
    (Kind::LoseClient, 6),
    (Kind::Shim, 50),
    (Kind::Work, 220),
    (Kind::WorkOne, 130),
    (Kind::Turn, 270),
];

/// Workers that have nothing to do now and then, beside others that stand still.
const HEDGED: &[(Kind, u32)] = &[
    (Kind::Pass, 400),
    (Kind::Submit, 40),
    (Kind::Cancel, 6),
    (Kind::LoseClient, 2),
    (Kind::Shim, 30),
    (Kind::Work, 350),
    (Kind::WorkOne, 50),
    (Kind::Turn, 300),
    (Kind::Stall, 20),
    (Kind::KillWorker, 4),
    (Kind::CloseSocket, 1),
    (Kind::Jump, 1),
];

macro_rules! with_work {
    ($($kind:ident: $weight:literal),* $(,)?) => {
        &[WORK[0], WORK[1], WORK[2], WORK[3], WORK[4], WORK[5], WORK[6], WORK[7], $((Kind::$kind, $weight)),*]
    };
}

/// What a scenario is like that does not say otherwise.
const PLAIN: Scenario = Scenario {
    name: "",
    about: "",
    weights: &[],
    downstream_per_mille: 0,
    error_per_mille: 20,
    policies: Policies::Rates,
    parallel_per_mille: 300,
    nested_per_mille: 0,
    shard_count: 1,
    crowd: None,
};

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "everything",
        about: "all faults at once",
        weights: with_work![
            Flood: 4, Hostile: 6, KillWorker: 8, CloseSocket: 4, Stall: 6, Scribble: 5, KillRouter: 1, KillShim: 1,
            Jump: 3, Overload: 4, CrashLoop: 2,
        ],
        downstream_per_mille: 400,
        error_per_mille: 50,
        ..PLAIN
    },
    Scenario { name: "calm", about: "nothing goes wrong", weights: with_work![], ..PLAIN },
    Scenario {
        name: "crashes",
        about: "workers, shim and router are killed at any step",
        weights: with_work![KillWorker: 25, CloseSocket: 12, KillRouter: 4, KillShim: 4],
        ..PLAIN
    },
    Scenario {
        name: "broken",
        about: "programs that crash as soon as they are started, over and over",
        weights: with_work![CrashLoop: 10, Jump: 50],
        ..PLAIN
    },
    Scenario {
        name: "liars",
        about: "workers write what they must not into their rings, and die of it or not",
        weights: with_work![Scribble: 25, KillWorker: 10],
        ..PLAIN
    },
    Scenario {
        name: "stalls",
        about: "workers stand still and the clock jumps",
        weights: with_work![Stall: 25, Jump: 12],
        ..PLAIN
    },
    Scenario {
        name: "downstream",
        about: "what functions need is overloaded: they get slow, and fail",
        weights: with_work![Overload: 25],
        downstream_per_mille: 1_000,
        error_per_mille: 100,
        ..PLAIN
    },
    Scenario {
        name: "flood",
        about: "one client sends all it can, and some send what no client may",
        weights: with_work![Flood: 30, Hostile: 40],
        downstream_per_mille: 200,
        ..PLAIN
    },
    Scenario {
        name: "limits",
        about: "every bound on calls, with floods, crashes and other configurations while calls run",
        weights: with_work![Flood: 20, KillWorker: 8, CloseSocket: 4, Stall: 6, Jump: 3, Reload: 10, KillRouter: 1],
        policies: Policies::Limits,
        ..PLAIN
    },
    Scenario {
        name: "guards",
        about: "breakers, retries and their budgets, with what they are for",
        weights: with_work![Overload: 20, KillWorker: 20, CloseSocket: 4, Reload: 5, Jump: 3],
        downstream_per_mille: 500,
        error_per_mille: 200,
        policies: Policies::Guards,
        ..PLAIN
    },
    Scenario {
        name: "lanes",
        about: "clients are lent credits of workers, and give them back or not",
        weights: with_work![Lease: 60, EndLease: 30, KillWorker: 8, Scribble: 3, CloseSocket: 4, Reload: 4, Stall: 4],
        policies: Policies::None,
        ..PLAIN
    },
    crowd(
        "neighbours",
        "tenants beside one or two that call a thousand times their share",
        Matter::Neighbours,
    ),
    crowd("shards", "two shards share limits; workers are lost and limits changed", Matter::Shards),
    crowd(
        "queue-delay",
        "a queue bounded in time, at half to twenty times what its workers do",
        Matter::QueueDelay,
    ),
    Scenario {
        name: "ledger",
        about: "two shards with rings of their own share limits, and everything that limits do happens",
        weights: with_work![Flood: 20, KillWorker: 8, CloseSocket: 4, Stall: 6, Jump: 3, Reload: 10, KillRouter: 1],
        policies: Policies::Limits,
        shard_count: 2,
        ..PLAIN
    },
    Scenario {
        name: "nested",
        about: "functions call functions, also in circles, while workers die",
        weights: with_work![KillWorker: 6, CloseSocket: 3, Stall: 6, Jump: 2, KillRouter: 1],
        nested_per_mille: 600,
        parallel_per_mille: 0,
        ..PLAIN
    },
    Scenario {
        name: "hedges",
        about: "second attempts at what is slow, while workers stall and die",
        weights: HEDGED,
        policies: Policies::Hedges,
        ..PLAIN
    },
    Scenario {
        name: "herd",
        about: "many callers want the same, and some leave before they have it",
        weights: with_work![Herd: 60, KillWorker: 10, CloseSocket: 3, Stall: 8, Jump: 3, LoseClient: 10, KillRouter: 1],
        ..PLAIN
    },
    Scenario {
        name: "later",
        about: "calls that start later, beside others",
        weights: with_work![Later: 80, Flood: 3, KillWorker: 6, Jump: 3, KillRouter: 1],
        ..PLAIN
    },
    Scenario {
        name: "pool",
        about: "functions without a process until somebody calls, bursts, idle times, and programs that do not start",
        weights: with_work![Flood: 10, KillWorker: 6, CloseSocket: 3, Stall: 4, Jump: 3, CrashLoop: 1, KillRouter: 1, KillShim: 1],
        policies: Policies::Pools,
        ..PLAIN
    },
    crowd(
        "pushed-back",
        "what a function needs refuses everything for a while, again and again",
        Matter::Pressure,
    ),
];

const fn crowd(name: &'static str, about: &'static str, matter: Matter) -> Scenario {
    Scenario { name, about, error_per_mille: 0, policies: Policies::None, crowd: Some(matter), ..PLAIN }
}

/// The scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

/// The scenario of this seed.
pub fn of_seed(seed: u64) -> &'static Scenario {
    &SCENARIOS[(seed % SCENARIOS.len() as u64) as usize]
}

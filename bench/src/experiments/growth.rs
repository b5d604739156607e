//! What a call costs the router when something else has grown: functions, connections, calls that wait.
//!
//! Each compares two routers in the same run, of which one has thousands of times as much of one thing and the same calls.
//!
//! | experiment | one | many | not covered |
//! |---|---|---|---|
//! | functions | 1 configured | 4,096 configured, the last one called | more: a configuration names no more; a process for each |
//! | connections | 1 | 10,000, of which every hundredth calls | |
//! | queue | 8,192 outstanding on 16 connections | 1,000,000 outstanding on 16 connections | |

use super::{Bench, Experiment, NotMeasured};
use crate::caller::{self, Mix};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

/// The most that a configuration may name.
const FUNCTIONS_MANY: u32 = 4096;
const CONNECTIONS_MANY: u32 = 10_000;
const QUEUED_MANY: u32 = 1_000_000;
/// A connection may have 65,536 calls outstanding: sixteen carry a million.
const QUEUE_CONNECTIONS: u32 = 16;

pub const FUNCTIONS: Experiment = Experiment {
    name: "functions-growth",
    what: "one function called, of 1 and of 4,096 configured",
    seconds: |plan| 2.0 * plan.seconds + 2.0,
    run: |bench| {
        let many = (1..FUNCTIONS_MANY).fold(Config::new(&bench.plan.host), |config, number| {
            config.function(&format!("f{number}"), "echo", 0)
        });
        let one = Config::new(&bench.plan.host).function("called", "echo", 1);
        let many = many.function("called", "echo", 1);
        for (side, config) in [("one", one), ("many", many)] {
            measure(bench, side, &config, &called(bench, 1, 1, bench.plan.window))?;
        }
        Ok(())
    },
};

pub const CONNECTIONS: Experiment = Experiment {
    name: "connections-growth",
    what: "1 connection, and 10,000 of which every hundredth calls",
    seconds: |plan| 2.0 * plan.seconds + 3.0,
    run: |bench| {
        let config = Config::new(&bench.plan.host).function("called", "echo", 1);
        for (side, connections) in [("one", 1), ("many", CONNECTIONS_MANY)] {
            let mix = called(bench, connections, connections.div_ceil(100), bench.plan.window);
            measure(bench, side, &config, &mix)?;
        }
        Ok(())
    },
};

pub const QUEUE: Experiment = Experiment {
    name: "queue-growth",
    what: "16 connections with 8,192 and with a million calls outstanding",
    // A million calls are sent before the clock starts.
    seconds: |plan| 2.0 * plan.seconds + 5.0,
    run: |bench| {
        let config = Config::new(&bench.plan.host)
            .set("connection_credits = 65536\ninvocations_max = 2000000\npayload_memory_max = \"2GiB\"")
            .function_with("called", "echo", 1, "queue_count_max = 2000000");
        for (side, window) in [("one", bench.plan.window), ("many", QUEUED_MANY)] {
            let mix = called(bench, QUEUE_CONNECTIONS, QUEUE_CONNECTIONS, window);
            measure(bench, side, &config, &mix)?;
        }
        Ok(())
    },
};

fn called(bench: &Bench<'_>, connections: u32, active: u32, window: u32) -> Mix {
    Mix {
        functions: vec!["called".into()],
        has_all_criticalities: false,
        connections,
        active,
        window,
        seconds: bench.plan.seconds,
    }
}

fn measure(bench: &mut Bench<'_>, side: &str, config: &Config, mix: &Mix) -> Result<(), NotMeasured> {
    (bench.tell)(side);
    let router = Router::start(config)?;
    let measured = caller::run(&router, mix)?;
    bench.add(&format!("{side}/calls_per_s"), Unit::CallsPerS, measured.calls_per_s);
    bench.add(&format!("{side}/middle_cpu"), Unit::NsPerCall, measured.middle_cpu_ns_per_call);
    Ok(())
}

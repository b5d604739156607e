//! What a call costs the router when it is one of many kinds: a hundred functions, called as skewed as real ones are
//! (the n-th 1/n times as often as the first), by 64 connections, in all four criticalities.
//!
//! The other side of the ratio is one function, one connection, one criticality with the same generator. A hundred
//! processes share the cores with router and generator, so this also tells what waking many workers costs.

use super::{Bench, Experiment, NotMeasured};
use crate::caller::{self, Mix};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

const FUNCTIONS: u32 = 100;
const CONNECTIONS: u32 = 64;

pub const MIX: Experiment = Experiment {
    name: "mix",
    what: "100 functions in a Zipf mix, 64 connections, 4 criticalities, beside one of each",
    seconds: |plan| 2.0 * plan.seconds + 2.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    let single = Mix {
        functions: vec!["f0".into()],
        has_all_criticalities: false,
        connections: 1,
        active: 1,
        window: bench.plan.window,
        seconds: bench.plan.seconds,
    };
    let mixed = Mix {
        functions: (0..FUNCTIONS).map(|number| format!("f{number}")).collect(),
        has_all_criticalities: true,
        connections: CONNECTIONS,
        active: CONNECTIONS,
        ..single.clone()
    };
    for (side, mix) in [("single", single), ("mixed", mixed)] {
        (bench.tell)(side);
        let config = mix
            .functions
            .iter()
            .fold(Config::new(&bench.plan.host), |config, name| config.function(name, "echo", 1));
        let router = Router::start(&config)?;
        let measured = caller::run(&router, &mix)?;
        bench.add(&format!("{side}/calls_per_s"), Unit::CallsPerS, measured.calls_per_s);
        bench.add(&format!("{side}/middle_cpu"), Unit::NsPerCall, measured.middle_cpu_ns_per_call);
    }
    Ok(())
}

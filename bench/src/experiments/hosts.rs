//! What hosting a shard costs: a bare thread beside glommio's executor. Repeats docs/decisions/0001-hosting.md.

use super::throughput::echo;
use super::{Bench, Experiment, NotMeasured};
use crate::floor::Transport;
use crate::load::{self, Pace};
use crate::quickfire::{Config, Router};

pub const HOSTS: Experiment = Experiment {
    name: "hosts",
    what: "a shard on a bare thread beside one on glommio's executor",
    seconds: |plan| 4.0 * plan.seconds + 2.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    let (seconds, window) = (bench.plan.seconds, bench.plan.window);
    for host in ["bare", "glommio"] {
        (bench.tell)(host);
        let router = Router::start(&Config::echo(host))?;
        let pipelined = load::run(&router, echo(Transport::Tcp, Pace::Window(window), seconds))?;
        bench.add_load(&format!("{host}-pipelined"), &pipelined);
        let unloaded = load::run(&router, echo(Transport::Tcp, Pace::Window(1), seconds))?;
        bench.add_load(&format!("{host}-unloaded"), &unloaded);
    }
    Ok(())
}

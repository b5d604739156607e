//! What it costs a router that somebody records it: pipelined calls with `quickfire record` beside, and without.

use std::process::{Command, Stdio};

use super::throughput::echo;
use super::{Bench, Experiment, NotMeasured};
use crate::floor::Transport;
use crate::load::{self, Pace};
use crate::process;
use crate::quickfire::{self, Config, Router};

/// As in `policies`.
const WINDOW: u32 = 1_024;

pub const RECORDING: Experiment = Experiment {
    name: "recording",
    what: "echo over TCP, pipelined, while it is recorded, beside the same unrecorded",
    seconds: |plan| 2.0 * plan.seconds + 2.0,
    run,
};

fn run(bench: &mut Bench<'_>) -> Result<(), NotMeasured> {
    let calls = echo(Transport::Tcp, Pace::Window(WINDOW), bench.plan.seconds);
    (bench.tell)("off");
    bench.add_load("off", &load::run(&Router::start(&Config::echo(&bench.plan.host))?, calls)?);
    (bench.tell)("on");
    let router = Router::start(&Config::echo(&bench.plan.host))?;
    let recording = router.dir().join("calls.qfr");
    let mut recorder = Command::new(quickfire::binary()?)
        .args(["record", "--out"])
        .arg(&recording)
        .arg("--run-dir")
        .arg(router.dir())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let measured = load::run(&router, calls);
    process::end(&mut recorder);
    bench.add_load("on", &measured?);
    // A recorder that did not record would cost nothing.
    let size = std::fs::metadata(&recording).map_or(0, |file| file.len());
    if size < SIZE_MIN {
        return Err(NotMeasured::Failed(format!("the recording has {size} bytes")));
    }
    Ok(())
}

/// Less than this is a header and not the calls of even the shortest run.
const SIZE_MIN: u64 = 64 << 10;

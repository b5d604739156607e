//! How many bytes a second go through as large payloads, against the floor with messages of the same size.
//!
//! Each way counts once: a mebibyte sent and echoed is a mebibyte.

use super::{Bench, Experiment, NotMeasured, Plan};
use crate::floor::{Shape, Transport};
use crate::load::{self, Load, Pace};
use crate::quickfire::{Config, Router};
use crate::series::Unit;

/// Bytes outstanding: as much as a large window of small calls, and at least a few calls of the largest payload.
const OUTSTANDING_SIZE: u32 = 4 << 20;
const HEADER_SIZE: usize = 32;

pub const KIB_64: Experiment = Experiment {
    name: "payload-64k",
    what: "echo of 64 KiB over TCP, 64 calls outstanding",
    seconds,
    run: |bench| echoed(bench, 64 << 10),
};

pub const MIB_1: Experiment = Experiment {
    name: "payload-1m",
    what: "echo of 1 MiB over TCP, 4 calls outstanding",
    seconds,
    run: |bench| echoed(bench, 1 << 20),
};

fn seconds(plan: &Plan) -> f64 {
    2.0 * plan.seconds + 1.0
}

fn echoed(bench: &mut Bench<'_>, payload_size: u32) -> Result<(), NotMeasured> {
    let (seconds, window) = (bench.plan.seconds, OUTSTANDING_SIZE / payload_size);
    let message_size = payload_size as usize + HEADER_SIZE;
    let floor = bench.floor(Shape { transport: Transport::Tcp, window, message_size, seconds })?;
    bench.add("floor/bytes_per_s", Unit::BytesPerS, floor.calls_per_s * f64::from(payload_size));
    (bench.tell)("quickfire");
    let config = Config::echo(&bench.plan.host).set("output_size_max = \"64MiB\"");
    let router = Router::start(&config)?;
    let load = Load {
        function: "echo",
        transport: Transport::Tcp,
        connections: 1,
        pace: Pace::Window(window),
        payload_size,
        seconds,
        criticality: "normal",
        may_be_refused: false,
    };
    let measured = load::run(&router, load)?;
    bench.add_load("quickfire", &measured);
    bench.add("quickfire/bytes_per_s", Unit::BytesPerS, measured.calls_per_s * f64::from(payload_size));
    Ok(())
}

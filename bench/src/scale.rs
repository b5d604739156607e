//! How throughput and the router's cost change with one thing at a time: shards, connections, payload, window.
//!
//! Everything else stays the same: `echo`, 32 bytes, one connection, one shard, over TCP. The window is changed over shared
//! memory too, and for the floor, which has no shards.
//! In: the plan.  Out: a record named `sweep/value/quantity`, a table, a page with a line for each sweep.

use std::fmt::Write;

use protocol::HEADER_SIZE;

use crate::Ending;
use crate::arguments::Arguments;
use crate::experiments::{NotMeasured, Plan};
use crate::floor::{self, Shape, Transport};
use crate::load::{self, Load, Pace};
use crate::progress::Progress;
use crate::quickfire::{Config, Router};
use crate::record::Record;
use crate::report::plot::{Line, lines};
use crate::report::{html, text};
use crate::series::Unit;
use crate::{machine, quickfire, suite};

/// One thing that changes.
struct Sweep {
    name: &'static str,
    title: &'static str,
    values: fn() -> Vec<u32>,
    /// Shards, connections, payload, window for this value.
    point: fn(&Plan, u32) -> Point,
}

struct Point {
    side: Side,
    transport: Transport,
    shards: u32,
    connections: u32,
    payload_size: u32,
    window: u32,
}

enum Side {
    Quickfire,
    Floor,
}

impl Point {
    fn of(plan: &Plan) -> Self {
        let (side, transport) = (Side::Quickfire, Transport::Tcp);
        Self { side, transport, shards: 1, connections: 1, payload_size: 32, window: plan.window }
    }
}

const WINDOWS: [u32; 9] = [1, 8, 64, 512, 1024, 2048, 4096, 8192, 32_768];
/// A client's ring has no more slots.
const WINDOW_SHM_MAX: u32 = 4096;

/// Bytes outstanding in the sweep over payloads, so that large ones do not queue for seconds.
const OUTSTANDING_SIZE_MAX: u32 = 4 << 20;

const SWEEPS: [Sweep; 7] = [
    Sweep {
        name: "shards",
        title: "Shards (16 connections)",
        // Twice the cores shows what one too many costs.
        values: || {
            (0..).map(|power| 1 << power).take_while(|count| *count <= 2 * machine::cores() as u32).collect()
        },
        point: |plan, shards| Point { shards, connections: 16, ..Point::of(plan) },
    },
    Sweep {
        name: "connections",
        title: "Connections",
        values: || vec![1, 4, 16, 64, 256, 1024],
        point: |plan, connections| Point {
            connections,
            window: plan.window.max(connections),
            ..Point::of(plan)
        },
    },
    Sweep {
        name: "payload",
        title: "Payload in bytes",
        values: || vec![32, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576],
        point: |plan, payload_size| Point {
            payload_size,
            window: plan.window.min((OUTSTANDING_SIZE_MAX / payload_size).max(4)),
            ..Point::of(plan)
        },
    },
    Sweep {
        name: "window",
        title: "Window: calls outstanding",
        values: || WINDOWS.to_vec(),
        point: |plan, window| Point { window, ..Point::of(plan) },
    },
    Sweep {
        name: "window-shm",
        title: "Window over shared memory",
        values: || WINDOWS.into_iter().filter(|window| *window <= WINDOW_SHM_MAX).collect(),
        point: |plan, window| Point { window, transport: Transport::Shm, ..Point::of(plan) },
    },
    Sweep {
        name: "window-floor-tcp",
        title: "Window of the floor over TCP",
        values: || WINDOWS.to_vec(),
        point: |plan, window| Point { window, side: Side::Floor, ..Point::of(plan) },
    },
    Sweep {
        name: "window-floor-shm",
        title: "Window of the floor over shared memory",
        values: || WINDOWS.to_vec(),
        point: |plan, window| Point {
            window,
            side: Side::Floor,
            transport: Transport::Shm,
            ..Point::of(plan)
        },
    },
];

/// Measures, prints and keeps.
pub fn run(arguments: &Arguments) -> Result<Ending, String> {
    let selected: Vec<&Sweep> = SWEEPS.iter().filter(|sweep| arguments.is_selected(sweep.name)).collect();
    if selected.is_empty() {
        let names = SWEEPS.each_ref().map(|sweep| sweep.name).join(", ");
        return Err(format!("no sweep is named like {}; these are: {names}", arguments.only.join(", ")));
    }
    quickfire::build().map_err(|error| error.to_string())?;
    let record = measure(arguments, &selected);
    print!("{}", text::render(&record, &[]));
    for (name, error) in &record.failed {
        println!("{name}: failed: {error}");
    }
    suite::keep(arguments, "scale", &record, &page(&record, &selected)).map_err(|error| error.to_string())?;
    Ok(if record.failed.is_empty() { Ending::Ok } else { Ending::Failed })
}

fn measure(arguments: &Arguments, selected: &[&Sweep]) -> Record {
    let plan = arguments.plan();
    let mut record = Record::new(plan.seconds, plan.window);
    let count: usize = selected.iter().map(|sweep| (sweep.values)().len()).sum();
    let once_s = plan.seconds + 0.5;
    let progress = Progress::new(count as f64 * once_s * plan.runs as f64);
    for run in 1..=plan.runs {
        for sweep in selected {
            for value in (sweep.values)() {
                let name = name_of(sweep, value);
                progress.begin(run, plan.runs, &name);
                match one(&plan, &(sweep.point)(&plan, value)) {
                    Ok((calls_per_s, router_cpu)) => {
                        record.add(format!("{name}/calls_per_s"), Unit::CallsPerS, calls_per_s);
                        record.add(format!("{name}/router_cpu"), Unit::NsPerCall, router_cpu);
                    }
                    Err(NotMeasured::Absent(why) | NotMeasured::Failed(why)) => {
                        record.failed.insert(name, why);
                    }
                }
                progress.end(once_s);
            }
        }
    }
    progress.finish();
    record
}

/// Calls per second, and CPU time per call of the process in the middle.
fn one(plan: &Plan, point: &Point) -> Result<(f64, f64), NotMeasured> {
    let Point { transport, window, .. } = *point;
    if matches!(point.side, Side::Floor) {
        let message_size = point.payload_size as usize + HEADER_SIZE;
        let measured = floor::run(Shape { transport, window, message_size, seconds: plan.seconds })?;
        return Ok((measured.calls_per_s, measured.middle_cpu_ns_per_call));
    }
    let config =
        Config::echo(&plan.host).set(&format!("shards = {}\noutput_size_max = \"64MiB\"", point.shards));
    let router = Router::start(&config)?;
    let load = Load {
        function: "echo",
        transport,
        connections: point.connections,
        pace: Pace::Window(window),
        payload_size: point.payload_size,
        seconds: plan.seconds,
        criticality: "normal",
        may_be_refused: false,
    };
    let measured = load::run(&router, load)?;
    Ok((measured.calls_per_s, measured.middle_cpu_ns_per_call))
}

/// With leading zeros, so that names sort as numbers do.
fn name_of(sweep: &Sweep, value: u32) -> String {
    format!("{}/{value:07}", sweep.name)
}

fn page(record: &Record, selected: &[&Sweep]) -> String {
    let mut out = html::open("How Quickfire scales", record);
    for sweep in selected {
        for (quantity, unit, what) in [
            ("calls_per_s", Unit::CallsPerS, "calls per second"),
            ("router_cpu", Unit::NsPerCall, "router CPU per call"),
        ] {
            let values_at = |value| record.values(&format!("{}/{quantity}", name_of(sweep, value))).to_vec();
            let points =
                (sweep.values)().into_iter().map(|value| (f64::from(value), values_at(value))).collect();
            // Writing to a String cannot fail.
            let _infallible = writeln!(out, "<h2>{}: {what}</h2>", sweep.title)
                .and_then(|()| lines(&mut out, unit, &[Line { class: "a", points }]));
        }
    }
    out + "</body></html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_can_be_run_and_is_named_in_order() {
        let plan = Plan { seconds: 1.0, runs: 1, window: 8192, host: "bare".into() };
        for sweep in &SWEEPS {
            let values = (sweep.values)();
            assert!(values.is_sorted());
            for value in values {
                let point = (sweep.point)(&plan, value);
                assert!(point.window >= point.connections && point.shards >= 1);
            }
            assert!(name_of(sweep, 2) < name_of(sweep, 10));
        }
    }
}

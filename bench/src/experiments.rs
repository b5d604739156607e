//! The experiments: each measures its sides once per run and adds the raw values to the record.
//!
//! In: a [`Plan`].  Out: values named `experiment/side/quantity`.
//! Always: all sides of an experiment take turns within one run, each with freshly started processes, so that a slow
//! spell of the machine and a lucky placement meet both.
//! Never: judges. What the values must show is in `targets.rs`, what each row means in docs/performance.md.

mod fairness;
mod growth;
mod hosts;
mod idle;
mod lane;
mod latency;
mod mix;
mod nginx;
mod open_loop;
mod overload;
mod payload;
mod policies;
mod recording;
mod throughput;

use crate::record::Record;
use crate::series::Unit;
use crate::{floor, load};

/// How long and how often everything is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of each measurement.
    pub seconds: f64,
    /// Measurements of each side.
    pub runs: usize,
    /// Calls outstanding where many are and an experiment does not try several windows.
    pub window: u32,
    /// What shards are hosted by.
    pub host: String,
}

/// One experiment.
pub struct Experiment {
    /// Its name: what `--only` looks at, and the front of its values' names.
    pub name: &'static str,
    /// What it does, in a line.
    pub what: &'static str,
    /// How long one run takes, starting processes included.
    pub seconds: fn(&Plan) -> f64,
    /// Measures each side once.
    pub run: fn(&mut Bench<'_>) -> Result<(), NotMeasured>,
}

/// Why there are no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMeasured {
    /// Something it needs is not here. Nobody's fault.
    Absent(String),
    /// It went wrong.
    Failed(String),
}

impl From<std::io::Error> for NotMeasured {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// All of them, in the order in which they run.
pub const ALL: &[Experiment] = &[
    throughput::TCP,
    throughput::SHM,
    mix::MIX,
    latency::SHM,
    latency::UNIX,
    latency::TCP,
    lane::LANE,
    open_loop::SHM,
    open_loop::TCP,
    overload::OVERLOAD,
    policies::POLICIES,
    recording::RECORDING,
    fairness::FAIRNESS,
    nginx::NGINX,
    growth::FUNCTIONS,
    growth::CONNECTIONS,
    growth::QUEUE,
    payload::KIB_64,
    payload::MIB_1,
    idle::IDLE,
];

/// Not among the targets: the figures of docs/decisions/0001-hosting.md.
pub const HOSTS: Experiment = hosts::HOSTS;

/// What an experiment works with.
pub struct Bench<'a> {
    /// How long and how often.
    pub plan: &'a Plan,
    /// Whose values these are.
    pub experiment: &'static str,
    /// Where they go.
    pub record: &'a mut Record,
    /// Tells which side is being measured.
    pub tell: &'a dyn Fn(&str),
}

impl Bench<'_> {
    /// Adds one value.
    pub fn add(&mut self, name: &str, unit: Unit, value: f64) {
        self.record.add(format!("{}/{name}", self.experiment), unit, value);
    }

    /// Runs the floor and adds what it measured.
    pub fn floor(&mut self, shape: floor::Shape) -> Result<floor::Measured, NotMeasured> {
        (self.tell)("floor");
        let measured = floor::run(shape)?;
        self.add_floor(&measured);
        Ok(measured)
    }

    /// Adds what the floor measured.
    pub fn add_floor(&mut self, measured: &floor::Measured) {
        self.add("floor/calls_per_s", Unit::CallsPerS, measured.calls_per_s);
        self.add("floor/calls", Unit::Count, measured.calls as f64);
        self.add("floor/client_cpu", Unit::NsPerCall, measured.client_cpu_ns_per_call);
        self.add("floor/middle_cpu", Unit::NsPerCall, measured.middle_cpu_ns_per_call);
        self.add("floor/worker_cpu", Unit::NsPerCall, measured.worker_cpu_ns_per_call);
        for (name, value) in [
            ("floor/latency_p50", measured.latency_ns_p50),
            ("floor/latency_p99", measured.latency_ns_p99),
            ("floor/latency_max", measured.latency_ns_max),
        ] {
            if let Some(value) = value {
                self.add(name, Unit::Ns, value as f64);
            }
        }
    }

    /// Adds what `quickfire load` measured, as the values of `side`.
    pub fn add_load(&mut self, side: &str, measured: &load::Measured) {
        for (name, unit, value) in [
            ("calls_per_s", Unit::CallsPerS, measured.calls_per_s),
            ("calls", Unit::Count, measured.calls as f64),
            ("client_cpu", Unit::NsPerCall, measured.client_cpu_ns_per_call),
            ("middle_cpu", Unit::NsPerCall, measured.middle_cpu_ns_per_call),
            ("worker_cpu", Unit::NsPerCall, measured.worker_cpu_ns_per_call),
            ("latency_p50", Unit::Ns, measured.latency_ns_p50),
            ("latency_p99", Unit::Ns, measured.latency_ns_p99),
            ("latency_p999", Unit::Ns, measured.latency_ns_p999),
            ("latency_max", Unit::Ns, measured.latency_ns_max),
            ("late_sends", Unit::Percent, measured.late_percent),
        ] {
            self.add(&format!("{side}/{name}"), unit, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::TABLE;

    #[test]
    fn every_target_has_its_experiment_and_every_experiment_a_target() {
        for target in TABLE {
            assert!(
                ALL.iter().any(|it| it.name == target.experiment),
                "{} measures nothing",
                target.experiment
            );
        }
        for experiment in ALL {
            assert!(
                TABLE.iter().any(|it| it.experiment == experiment.name),
                "{} has no target",
                experiment.name
            );
        }
    }
}

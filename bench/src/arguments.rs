//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::experiments::Plan;
use crate::floor::Transport;

const AFTER_HELP: &str = "\
Exit codes: 0 every target is kept; 1 a target is missed, a figure became worse or the instruction gate is shut; \
2 the arguments or the machine do not allow it; 3 a measurement went wrong. Rows that are not available do not count.

Examples:
  cargo run --release -p bench                          everything, about a quarter of an hour
  cargo run --release -p bench -- --quick --only tcp    a first look at everything over TCP
  cargo run --release -p bench -- --save                keep the figures under bench/baselines/
  cargo run --release -p bench -- compare OLD NEW       two kept runs, row by row
  cargo run --release -p bench -- scale                 throughput over shards, connections, payload, window
  cargo run --release -p bench -- runtimes              a process in each runtime: start, call, memory
  cargo run --release -p bench -- instructions          instructions per call, against the numbers on record

What each row means: docs/performance.md";

/// Measures Quickfire against its targets, beside a floor that only forwards.
#[derive(Debug, Parser)]
#[command(name = "bench", version, after_help = AFTER_HELP, args_conflicts_with_subcommands = false)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Only experiments whose name contains this; give it again for more.
    #[arg(long, value_name = "PATTERN", global = true)]
    pub only: Vec<String>,
    /// Show the experiments and end.
    #[arg(long)]
    pub list: bool,
    /// Short runs: three of 0.4 s. For a look, not for figures.
    #[arg(long, global = true)]
    pub quick: bool,
    /// Length of each measurement, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = positive, global = true)]
    pub seconds: f64,
    /// Measurements of each side; median and spread are shown.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = at_least_one, global = true)]
    pub runs: usize,
    /// Calls outstanding in the experiments that keep many outstanding and do not try several windows.
    #[arg(long, value_name = "COUNT", default_value_t = 8192, global = true)]
    pub window: u32,
    /// What shards are hosted by: bare or glommio.
    #[arg(long, value_name = "HOST", default_value = "bare", value_parser = ["bare", "glommio"], global = true)]
    pub host: String,
    /// Compare the two hosts with each other instead.
    #[arg(long)]
    pub hosts: bool,
    /// Keep figures and page under `bench/baselines/<date>-<machine>/`.
    #[arg(long, global = true)]
    pub save: bool,
    /// Where the raw figures go [default: target/bench/].
    #[arg(long, value_name = "FILE", global = true)]
    pub json: Option<PathBuf>,
    /// Where the page with plots goes [default: target/bench/].
    #[arg(long, value_name = "FILE", global = true)]
    pub html: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare two kept runs row by row: folders under bench/baselines/, or files.
    Compare {
        /// The earlier run.
        before: PathBuf,
        /// The later run.
        after: PathBuf,
    },
    /// Measure throughput over shards, connections, payload and window, and plot it.
    Scale,
    /// Measure what a process costs in each runtime: cold start, warm call, memory.
    Runtimes,
    /// Count the instructions of one call under valgrind, against bench/instructions.json.
    Instructions {
        /// Put the numbers counted on record.
        #[arg(long)]
        record: bool,
        /// Show in which functions and files the instructions are, and keep the profiles in this folder.
        #[arg(long, value_name = "FOLDER")]
        explain: Option<PathBuf>,
    },
    /// One process of the floor; started by this program only.
    #[command(hide = true)]
    FloorRole {
        name: String,
        transport: Transport,
        dir: PathBuf,
        window: u32,
        message_size: usize,
        seconds: f64,
    },
    /// A function process; started by a router that this program configured.
    #[command(hide = true)]
    FunctionRole { run_us: u32 },
    /// The generator of mixed calls; started by this program only.
    #[command(hide = true)]
    CallerRole { address: String, mix: String },
}

impl Arguments {
    /// How long and how often, `--quick` considered.
    pub fn plan(&self) -> Plan {
        let (seconds, runs) = if self.quick { (0.4, 3) } else { (self.seconds, self.runs) };
        Plan { seconds, runs, window: self.window, host: self.host.clone() }
    }

    /// Whether `--only` lets this name through.
    pub fn is_selected(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|pattern| name.contains(pattern.as_str()))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.05 => Ok(seconds),
        _ => Err("expected seconds, at least 0.05".into()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("expected a number of runs, at least 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["bench"], words].concat())
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_selects_by_any_of_its_patterns() {
        let arguments = parse(&["--only", "tcp", "--only", "idle"]).unwrap();
        assert!(arguments.is_selected("tcp-latency") && arguments.is_selected("idle"));
        assert!(!arguments.is_selected("shm-latency"));
        assert!(parse(&[]).unwrap().is_selected("anything"));
    }

    #[test]
    fn quick_is_short_and_nonsense_is_refused() {
        let plan = parse(&["--quick"]).unwrap().plan();
        assert_eq!((plan.seconds, plan.runs), (0.4, 3));
        assert!(parse(&["--seconds", "0"]).is_err());
        assert!(parse(&["--runs", "0"]).is_err());
        assert!(parse(&["--host", "moon"]).is_err());
        assert!(parse(&["compare", "one"]).is_err());
        assert!(parse(&["scale", "--quick"]).unwrap().quick);
    }
}

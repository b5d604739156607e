//! `cargo run --release -p bench`: Quickfire against its targets, beside the floor, in one run.
//!
//! In: the release build of `quickfire` beside this program (built first).  Out: a table of targets, raw figures as
//! JSON, a page with plots; with `--save` the same under `bench/baselines/<date>-<machine>/`.
//! Always: floor and Quickfire take turns, so that a slow spell of the machine meets both; medians with spread.
//! Reading order: `targets` (what must hold), `experiments` (how it is measured), `floor` (against what), then
//! `record`, `report`, `compare`, `scale`, `runtimes`, `instructions`.
//! Guide: docs/performance.md.

#![forbid(unsafe_code)]

mod arguments;
mod caller;
mod compare;
mod experiments;
mod floor;
mod function;
mod instructions;
mod load;
mod machine;
mod process;
mod progress;
mod quickfire;
mod record;
mod report;
mod runtimes;
mod scale;
mod series;
mod suite;
mod targets;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::arguments::{Arguments, Command};

/// How the program ends; `--help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Everything asked for was done and kept its bounds.
    Ok = 0,
    /// A target was missed, a figure became worse, or the instruction gate is shut.
    Short = 1,
    /// The arguments or the machine do not allow it.
    Usage = 2,
    /// A measurement went wrong.
    Failed = 3,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        None if arguments.list => {
            print!("{}", suite::list());
            Ok(Ending::Ok)
        }
        None => suite::run(&arguments),
        Some(Command::Compare { before, after }) => compare::run(before, after),
        Some(Command::Scale) => scale::run(&arguments),
        Some(Command::Runtimes) => runtimes::run(&arguments),
        Some(Command::Instructions { record, explain }) => instructions::run(&instructions::Wish {
            is_recorded: *record,
            explain: explain.as_deref(),
            is_selected: &|name| arguments.is_selected(name),
        }),
        Some(Command::FloorRole { name, transport, dir, window, message_size, seconds }) => {
            let task = floor::roles::Task {
                dir,
                transport: *transport,
                window: *window,
                message_size: *message_size,
                duration: Duration::from_secs_f64(*seconds),
            };
            floor::roles::run(name, &task).map(|()| Ending::Ok).map_err(|error| error.to_string())
        }
        Some(Command::FunctionRole { run_us }) => function::role(*run_us).map(|()| Ending::Ok),
        Some(Command::CallerRole { address, mix }) => serde_json::from_str(mix)
            .map_err(std::io::Error::from)
            .and_then(|mix| caller::role(address, &mix))
            .map(|()| Ending::Ok)
            .map_err(|error| error.to_string()),
    };
    match result {
        Ok(ending) => ExitCode::from(ending as u8),
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(Ending::Usage as u8)
        }
    }
}

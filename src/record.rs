//! `quickfire record --out FILE`: what callers ask of a running router, when, and what becomes of it, in a file that
//! `quickfire load --replay` and the simulator run again.
//!
//! In: the shards' tapes in the run directory.  Out: a file as docs/spec/record.md has it.
//! Always: looks every 10 ms, and says at every look that it is still there; when it is gone, so is the cost.
//! Never: makes the router wait. What comes too fast is lost, counted, and said.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use protocol::recording::{encode_end, encode_file_header, encode_function, encode_lost};
use router::run_dir;
use router::tape::TapeReader;
use rustix::fs::{FlockOperation, flock};

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;
use crate::functions;
use crate::signals;
use crate::snapshots::{Snapshots, now_ns};

/// Between two looks at the tapes: a sixteenth of what fills one at ten million calls a second.
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// How long the router goes on for a recorder that says nothing more.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How often the router's own life is looked at.
const ROUTER_PERIOD: Duration = Duration::from_millis(500);

/// Arguments and help.
pub fn command() -> Command {
    Command::new("record")
        .about("Records the calls of a running router, to be run again")
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Where to; a file that is there is replaced"),
        )
        .arg(
            Arg::new("bodies")
                .long("bodies")
                .action(ArgAction::SetTrue)
                .help("Record the bytes of requests too, not only their sizes"),
        )
        .arg(
            Arg::new("duration")
                .long("duration")
                .value_name("DURATION")
                .value_parser(|text: &str| loadgen::parse_duration(text).map_err(|reason| reason.to_string()))
                .help("How long; without it, until Ctrl-C"),
        )
        .arg(flags::run_dir_flag())
        .after_help(format!(
            "Calls through direct lanes go past the router and are not recorded.\n\n\
             Examples:\n  quickfire record --out calls.qfr --duration 1m\n  \
             quickfire load --replay calls.qfr --speed 10\n\n{EXIT_CODES_HELP}"
        ))
}

/// Records until told to stop.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    let has_bodies = matches.get_flag("bodies");
    let Some(path) = matches.get_one::<PathBuf>("out") else {
        return Err(Failure::usage("--out is missing"));
    };
    let snapshots = Snapshots::read(&run_dir)?;
    if snapshots.router_state() != "running" {
        let state = snapshots.router_state();
        return Err(Failure::new(
            Ending::Unreachable,
            format!("the router in {} is {state}", run_dir.display()),
        ));
    }
    let _lock = claim(&run_dir)?;
    let mut tapes = open(&run_dir, snapshots.shards.len())?;
    let stop = signals::stop_flag()?;

    let cannot_write = |error| Failure::usage(format!("cannot write {}: {error}", path.display()));
    let mut file = File::create(path).map_err(cannot_write)?;
    let mut bytes = Vec::new();
    encode_file_header(has_bodies, unix_ns(), &mut bytes);
    let mut named_count = 0;
    name_functions(&snapshots, &mut named_count, &mut bytes);

    let duration = matches.get_one::<Duration>("duration").copied();
    let started = Instant::now();
    let mut router_seen = started;
    let mut call_count = 0;
    let mut is_router_gone = false;
    print(format!("recording {} to {}\n", run_dir.display(), path.display()))?;
    while !is_router_gone
        && !stop.load(Ordering::Relaxed)
        && duration.is_none_or(|max| started.elapsed() < max)
    {
        tapes.iter().for_each(|tape| tape.renew(now_ns() + PATIENCE_NS, has_bodies));
        std::thread::sleep(LOOK_PERIOD);
        call_count += drain(&mut tapes, &mut bytes)?;
        file.write_all(&bytes).map_err(cannot_write)?;
        bytes.clear();
        if router_seen.elapsed() >= ROUTER_PERIOD {
            router_seen = Instant::now();
            is_router_gone = !is_router_running(&run_dir);
        }
    }
    tapes.iter().for_each(|tape| tape.renew(0, false));
    // A turn that had begun before may have ended since.
    std::thread::sleep(LOOK_PERIOD);
    call_count += drain(&mut tapes, &mut bytes)?;
    // A reload may have brought more.
    name_functions(&Snapshots::read(&run_dir)?, &mut named_count, &mut bytes);
    let lost_count: u64 = tapes.iter().map(TapeReader::lost_count).sum();
    tapes.iter().for_each(|tape| encode_lost(tape.shard, tape.lost_count(), &mut bytes));
    encode_end(call_count, &mut bytes);
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(cannot_write)?;

    let gone = if is_router_gone { "; the router went away" } else { "" };
    let lost = if lost_count > 0 {
        format!("; {lost_count} more came too fast and are lost")
    } else {
        String::new()
    };
    print(format!("{call_count} calls in {:.1} s{lost}{gone}\n", started.elapsed().as_secs_f64()))?;
    Ok(Ending::Ok)
}

/// Names the functions that have no name yet, in the order of their numbers.
fn name_functions(snapshots: &Snapshots, named_count: &mut usize, bytes: &mut Vec<u8>) {
    let functions = functions::summed(snapshots);
    functions.iter().skip(*named_count).for_each(|function| encode_function(&function.name, bytes));
    *named_count = functions.len().max(*named_count);
}

/// One recorder at a time: two would take each other's records.
fn claim(run_dir: &Path) -> Result<File, Failure> {
    let path = run_dir.join("record.lock");
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot lock {}: {error}", path.display()));
    let file = File::create(&path).map_err(cannot)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Failure::new(Ending::Refused, "another `quickfire record` reads this router already"))
        }
        Err(errno) => Err(cannot(errno.into())),
    }
}

fn open(run_dir: &Path, shard_count: usize) -> Result<Vec<TapeReader>, Failure> {
    let tape = |shard: usize| {
        let path = run_dir::tape(run_dir, shard as u32);
        TapeReader::open(&path).map_err(|error| {
            Failure::new(Ending::Unreachable, format!("cannot record from {}: {error}", path.display()))
        })
    };
    (0..shard_count).map(tape).collect()
}

fn drain(tapes: &mut [TapeReader], bytes: &mut Vec<u8>) -> Result<u64, Failure> {
    let mut count = 0;
    for tape in tapes {
        count += tape.drain(bytes).map_err(|error| Failure::new(Ending::Unreachable, error.to_string()))?;
    }
    Ok(count)
}

fn is_router_running(run_dir: &Path) -> bool {
    run_dir::lock_holder(&run_dir.join("router.lock")).is_ok_and(|holder| holder.is_some())
}

fn unix_ns() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

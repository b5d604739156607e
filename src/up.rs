//! `quickfire up`: a router in this process, a shim beside it, functions below the shim.
//!
//! ```text
//!   quickfire up ── the shards' threads
//!        └─ quickfire shim (keeper.rs starts it again when it dies)
//!               └─ function processes
//! ```
//! Always: what was started is stopped, in the order router, shim, functions; a second signal stops it all at once.
//! A killed `up` leaves shim and functions warm for the next one, which finds them by `DIR/shim.lock`.

use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Command};
use router::admin::Admin;
use router::{StartOptions, counters};

use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags::{self, ConfigFile};
use keeper::Keeper;
use reload::Reloads;
use signals::{News, Signals};

mod admin;
mod io;
mod keeper;
mod kept;
mod reload;
mod signals;
mod welcome;

/// How often a router that stops is asked whether it has.
const STOP_POLL: Duration = Duration::from_millis(10);
/// A shard that died is noticed after this.
const IDLE_POLL: Duration = Duration::from_secs(1);

/// Arguments and help.
pub fn command() -> Command {
    let command = Command::new("up").about("Runs a router with its functions until SIGTERM or Ctrl-C").after_help(format!(
        "A flag wins over its environment variable, a variable over the file, the file over the default.\n\
         The first SIGTERM or SIGINT drains: accepted calls are finished. The second stops at once.\n\
         SIGHUP reads the configuration file again and takes what can change while calls run; the rest is named.\n\n\
         Examples:\n  \
         quickfire up\n  \
         quickfire up --config quickfire.toml --shards 2\n  \
         quickfire up --listen quickfire://127.0.0.1:7450 --listen unix:///run/q.sock\n\n\
         {EXIT_CODES_HELP}\n\
         `up` ends with 0 after a drain, 1 if it was cut short or its router failed, 2 if it could not start."
    ));
    flags::with_router_flags(command)
}

/// Runs until told to stop.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let file = ConfigFile::read(matches)?;
    let config = flags::config_of(matches, file.as_ref())?;
    reload::check(&config)?;
    // Before anything is started, so that an early signal is not lost.
    let mut signals =
        Signals::new().map_err(|error| Failure::usage(format!("cannot listen to signals: {error}")))?;
    let publish = counters::publishers(&config, |shard, error| {
        eprintln!("quickfire: shard {shard} runs without counters: {error}");
    });
    let options = StartOptions { publish: Some(publish), ..StartOptions::default() };
    let router = Arc::new(router::start_with(&config, options).map_err(Failure::usage)?);
    let backends: Vec<_> = router.io_backends().cloned().collect();
    if let Some(line) = io::fallback(&backends) {
        eprintln!("quickfire: {line}");
    }
    print(welcome::text(&config, router.bound(), &io::name(&backends)))?;

    let reloads = Arc::new(Reloads::new(matches, &router, file));
    let admin =
        Admin::start(&config.router.run_dir, admin::answers(&reloads, &router)).map_err(Failure::usage)?;
    let mut keeper = Keeper::new(&config);
    loop {
        let next_at = keeper.turn(router.shim().process_id());
        match signals.wait(next_at.min(IDLE_POLL)) {
            News::Stop => break,
            News::Reload => reload::tell(reloads.read_again()),
            News::Nothing if router.has_failed() => {
                // Half a router would lose half of the calls for as long as it runs: whoever keeps us starts a whole one.
                eprintln!("quickfire: a shard panicked; the others are drained");
                break;
            }
            News::Nothing => {}
        }
    }

    eprintln!("quickfire: draining; once more to stop at once");
    router.drain();
    drop(admin);
    while !router.has_ended() {
        if signals.wait(STOP_POLL) == News::Stop {
            keeper.kill();
            // The threads may hang; waiting for them is what the second signal is against.
            std::process::exit(1);
        }
    }
    keeper.stop(&mut signals);
    if router.join() { Ok(Ending::Ok) } else { Err(Failure::new(Ending::FunctionError, "a shard panicked")) }
}

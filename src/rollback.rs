//! `quickfire rollback`: a running router goes back to the configuration that was in force before.
//!
//! In: the router's answer.  Out: the difference, and what is still to come, as with `quickfire apply`.

use clap::{ArgMatches, Command};
use protocol::admin::Message;

use crate::apply::{change, change_flags};
use crate::ending::{EXIT_CODES_HELP, Ending, Failure};

/// Arguments and help.
pub fn command() -> Command {
    Command::new("rollback")
        .about("Makes a running router go back to the configuration before, without losing a call")
        .args(change_flags())
        .after_help(format!(
            "Undoes the last `quickfire apply` or SIGHUP that changed anything; given again, the one before it, and so on. The router \
             remembers 16 configurations, as their files were read, until it ends. To go forward again, apply the file.\n\n\
             Examples:\n  quickfire rollback --dry-run\n  quickfire rollback --wait 30s\n\n{EXIT_CODES_HELP}"
        ))
}

/// Asks for it and shows the difference.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    change(matches, &Message::Rollback { is_dry_run: matches.get_flag("dry-run") })
}

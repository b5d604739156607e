//! Stage 6 of 8: the end of a process that nobody asked for, or that there is none: to whom it is told.
//!
//! In: what failed, and of what.  Out: a line on the shim's stderr, the router's word where the function keeps failing, and what
//! `shim.json` says of the last end.

use std::io::{self, Write};
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::FunctionName;
use protocol::attach::Message;

use super::Shim;
use crate::life::Life;
use crate::status::LastExit;

/// A function is failing, and the router is told, when one of its places failed as often in a row and no other edition is kept
/// up. Fewer may be somebody who kills processes; with the waits between starts a broken program gets there within a second.
const FAILING_AFTER: u32 = 5;
/// The exit code told for a program that could not be started at all; a shell uses the same.
pub const CODE_CANNOT_START: u32 = 127;

/// A process that ended though nobody asked for it, or that there is none.
pub struct Failure {
    /// For people.
    pub who: String,
    pub function: usize,
    /// `None`: a template.
    pub place: Option<usize>,
    /// Which are without it.
    pub shards: Range<usize>,
    pub life: Life,
    /// No other edition is kept up.
    pub is_alone: bool,
    pub exit_code: u32,
    pub reason: String,
    pub stderr: Vec<String>,
}

impl Shim {
    /// Records the end of a process that nobody asked for, and says so. How often is bounded by the waits between
    /// starts.
    pub(super) fn tell_failure(&mut self, now_ns: u64, failure: Failure) {
        let Failure { who, function, place, shards, life, is_alone, exit_code, reason, stderr } = failure;
        let mut told = format!("{who}: {reason}");
        if let Life::BackingOff { retry_at_ns, failure_count } = life {
            let wait_ms = retry_at_ns.saturating_sub(now_ns) / 1_000_000;
            told.push_str(&format!("; next start in {wait_ms} ms (failure {failure_count} in a row)"));
        }
        if let Some(last_line) = stderr.last() {
            told.push_str(&format!("; its last word: {last_line}"));
        }
        // Code 0, once: its router told it to end, and will tell us. The log has it.
        let is_worth_a_word = exit_code != 0 || life.failure_count() > 1;
        if is_worth_a_word {
            let _ = writeln!(io::stderr(), "shim: {told}"); // a closed stderr is no reason to stop
        }
        let function = &mut self.functions[function];
        if let Ok(name) = FunctionName::new(&function.config.name)
            && life.failure_count() >= FAILING_AFTER
            && is_alone
        {
            let message = Message::FunctionFailing { name, exit_code };
            self.links[shards].iter_mut().for_each(|link| link.tell_failing(&message));
        }
        function.tally.last_exit = Some(LastExit { at_unix_ms: unix_ms(), place, reason, stderr });
    }

    pub(super) fn place_failure(
        &self,
        index: usize,
        exit_code: u32,
        reason: String,
        stderr: Vec<String>,
    ) -> Failure {
        let place = &self.places[index];
        let shard = place.shard as usize;
        Failure {
            who: format!("{}.{}", place.program.name, place.number),
            function: place.function,
            place: Some(place.number),
            shards: shard..shard + 1,
            life: place.life,
            is_alone: !self.is_another_kept(index),
            exit_code,
            reason,
            stderr,
        }
    }
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

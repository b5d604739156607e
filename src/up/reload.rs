//! The ways to another configuration while the router runs: `quickfire apply`, `quickfire rollback`, and SIGHUP, which reads the file of
//! the start again. Each with the flags and variables of the start.
//!
//! Owns: what was in force before, as it was read, so that one command goes back to it; the last [`EARLIER_MAX`] of them.
//! Always: one change at a time, and remembered in the order in which they came into force.
//! Always: a file with any mistake changes nothing, and every mistake is told, as `quickfire check` tells it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ArgMatches;
use router::reload::Difference;
use router::{Config, ReloadRefused, Router};

use crate::ending::Failure;
use crate::flags::{self, ConfigFile};
use crate::sandbox;

/// Configurations that can be gone back to: more than anybody means to undo, and at most as many files of 4 MiB.
const EARLIER_MAX: usize = 16;

/// See above.
pub struct Reloads {
    matches: ArgMatches,
    router: Arc<Router>,
    files: Mutex<Files>,
}

/// Configuration files, of which none may be there: then everything is as it comes.
struct Files {
    in_force: Option<ConfigFile>,
    /// The last one is gone back to first.
    earlier: VecDeque<Option<ConfigFile>>,
}

/// Why everything stays as it is.
#[derive(Debug)]
pub enum Refused {
    /// The router is going away.
    Stopping,
    /// A line for each reason.
    Reasons(String),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::Reasons(failure.message().to_owned())
    }
}

impl From<ReloadRefused> for Refused {
    fn from(refused: ReloadRefused) -> Refused {
        match refused {
            ReloadRefused::Stopping => Refused::Stopping,
            other => Refused::Reasons(other.to_string()),
        }
    }
}

impl Reloads {
    /// For a router that was started with this file.
    pub fn new(matches: &ArgMatches, router: &Arc<Router>, first: Option<ConfigFile>) -> Reloads {
        let files = Mutex::new(Files { in_force: first, earlier: VecDeque::new() });
        Reloads { matches: matches.clone(), router: router.clone(), files }
    }

    /// Takes a file, or says what that would change.
    pub fn apply(&self, file: ConfigFile, is_dry_run: bool) -> Result<Difference, Refused> {
        let mut files = self.files();
        let file = Some(file);
        let difference = self.take(file.as_ref(), is_dry_run)?;
        if !is_dry_run {
            files.enter(file);
        }
        Ok(difference)
    }

    /// Reads the file of the start again and takes it.
    pub fn read_again(&self) -> Result<Difference, Refused> {
        let mut files = self.files();
        let file = ConfigFile::read(&self.matches)?;
        let difference = self.take(file.as_ref(), false)?;
        files.enter(file);
        Ok(difference)
    }

    /// Goes back to what was in force before, or says what that would change.
    pub fn rollback(&self, is_dry_run: bool) -> Result<Difference, Refused> {
        let mut files = self.files();
        let Some(before) = files.earlier.back() else {
            let reason = "nothing was in force before this configuration since the router was started";
            return Err(Refused::Reasons(reason.into()));
        };
        let difference = self.take(before.as_ref(), is_dry_run)?;
        if !is_dry_run {
            files.go_back();
        }
        Ok(difference)
    }

    fn take(&self, file: Option<&ConfigFile>, is_dry_run: bool) -> Result<Difference, Refused> {
        let wanted = flags::config_of(&self.matches, file)?;
        check(&wanted)?;
        let difference =
            if is_dry_run { self.router.compare(&wanted) } else { self.router.reconfigure(&wanted) };
        Ok(difference?)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // Whoever panicked in between had changed nothing of it yet, or all.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// This is in force now. The same once more is no step to go back over.
    fn enter(&mut self, file: Option<ConfigFile>) {
        if file == self.in_force {
            return;
        }
        self.earlier.push_back(std::mem::replace(&mut self.in_force, file));
        if self.earlier.len() > EARLIER_MAX {
            self.earlier.pop_front();
        }
    }

    /// What was in force before is so again.
    fn go_back(&mut self) {
        if let Some(before) = self.earlier.pop_back() {
            self.in_force = before;
        }
    }
}

/// Whether what it starts can be started here, as far as can be known before.
pub fn check(wanted: &Config) -> Result<(), Failure> {
    wanted.check_programs(&example_functions::NAMES).map_err(Failure::usage)?;
    flags::check_processors(wanted)?;
    sandbox::check(wanted)
}

/// Says on standard error what became of reading the file again.
pub fn tell(outcome: Result<Difference, Refused>) {
    match outcome {
        Err(refused) => {
            let reasons = match &refused {
                Refused::Stopping => "the router is stopping",
                Refused::Reasons(reasons) => reasons,
            };
            for reason in reasons.lines() {
                eprintln!("quickfire: {reason}");
            }
            eprintln!("quickfire: the configuration was refused; the one before stays in force");
        }
        Ok(difference) => {
            for change in &difference.taken {
                eprintln!("quickfire: reload: {change}");
            }
            for change in &difference.needs_restart {
                eprintln!("quickfire: reload: {change} (needs a restart)");
            }
            let (taken, waiting) = (difference.taken.len(), difference.needs_restart.len());
            eprintln!("quickfire: reloaded: {taken} changes in force, {waiting} after a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Option<ConfigFile> {
        Some(ConfigFile { origin: "/q.toml".into(), text: text.into() })
    }

    #[test]
    fn going_back_undoes_one_change_after_the_other_and_no_change_is_none() {
        let mut files = Files { in_force: None, earlier: VecDeque::new() };
        for text in ["a", "b", "b", "c"] {
            files.enter(file(text));
        }
        for before in [file("b"), file("a"), None] {
            files.go_back();
            assert_eq!(files.in_force, before);
        }
        files.go_back();
        assert_eq!((files.in_force, files.earlier.len()), (None, 0));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut files = Files { in_force: file("0"), earlier: VecDeque::new() };
        for number in 1..=EARLIER_MAX + 5 {
            files.enter(file(&number.to_string()));
        }
        assert_eq!(files.earlier.len(), EARLIER_MAX);
        assert_eq!(files.earlier[0], file("5"));
    }
}

//! A report shown again and again: in place on a terminal, one below the other elsewhere.
//!
//! In: something that makes the report's text.  Out: the text, until `q`, Ctrl-C, the end of the reader or a failure.
//! Always: the terminal is given back as it was found, however this ends.
//! Never: asks the router. What is shown is read anew each time.

use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches};
use router::config::units;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::ending::{Ending, Failure, offer};

/// Shorter than the 10 ms between two publishings shows nothing newer.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Home, and clear what is below.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Ctrl-C as a byte, which it is while the terminal hands keys through.
const CTRL_C: u8 = 3;

/// `--interval` and `--once`.
pub fn flags() -> [Arg; 2] {
    [
        Arg::new("interval")
            .long("interval")
            .value_name("DURATION")
            .default_value("1s")
            .value_parser(interval)
            .help("Time from one showing to the next, at least 10ms"),
        Arg::new("once").long("once").action(ArgAction::SetTrue).help("Show it once and end"),
    ]
}

/// Shows what `report` makes until somebody has seen enough.
pub fn run(
    matches: &ArgMatches,
    mut report: impl FnMut() -> Result<String, Failure>,
) -> Result<Ending, Failure> {
    let interval = matches.get_one::<Duration>("interval").copied().unwrap_or(INTERVAL_MIN);
    let is_once = matches.get_flag("once");
    let is_terminal = io::stdout().is_terminal() && !is_once;
    let keys = if is_terminal { Keys::take() } else { None };
    loop {
        let text = report()?;
        let text = if is_terminal { format!("{CLEAR}{text}\nq to quit\n") } else { format!("{text}\n") };
        if !offer(&text)? || is_once {
            return Ok(Ending::Ok);
        }
        match &keys {
            Some(keys) if keys.quit_within(interval) => return Ok(Ending::Ok),
            Some(_) => {}
            None => std::thread::sleep(interval),
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = units::parse_duration(text).map_err(|reason| format!("`{text}` {reason}"))?;
    if interval < INTERVAL_MIN { Err("the shortest is 10ms".into()) } else { Ok(interval) }
}

/// The keyboard, key by key.
struct Keys {
    before: Termios,
}

impl Keys {
    /// None where standard input is no keyboard: then only signals end the showing.
    fn take() -> Option<Keys> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut now = before.clone();
        // Ctrl-C comes as a key too: as a signal it would leave the terminal without echo.
        now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Now, &now).ok()?;
        Some(Keys { before })
    }

    /// Waits for a key, at most this long. Other keys than those that quit show the next report sooner.
    fn quit_within(&self, length: Duration) -> bool {
        let stdin = io::stdin();
        let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
        let timeout =
            Timespec { tv_sec: length.as_secs().cast_signed(), tv_nsec: length.subsec_nanos().into() };
        if !matches!(poll(&mut polled, Some(&timeout)), Ok(1..)) {
            return false;
        }
        let mut key = [0];
        // The end of standard input is as good as a quit: no key will come any more.
        !matches!(stdin.lock().read(&mut key), Ok(1) if !matches!(key[0], b'q' | b'Q' | CTRL_C))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Fails only if the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

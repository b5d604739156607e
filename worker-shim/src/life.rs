//! Stage 6 of 8: the life of one place, that is, of one process the shim keeps warm. Pure.
//!
//! In: an [`Event`] and the time.  Out: the next [`Life`] and the one [`Action`] the shell must do.
//! Always: a process exists in exactly the states Starting, Warm, Leaving and Stopping. In Spawning it was asked for: it may be
//! there the next moment, or when a template has time to be copied (`snapshot`).
//! Never: reads a clock, draws a random number or touches a process; all three come in as arguments, so the
//! simulator runs these lives in virtual time.
//!
//! ```text
//!                   timer               started                stable
//!    ┌──────────────┐ spawn ┌──────────┐ ────▶ ┌──────────┐  timer  ┌────────┐
//!    │  BackingOff  │ ────▶ │ Spawning │       │ Starting │ ──────▶ │  Warm  │
//!    │ (no process) │ ◀──── │          │       │          │         │        │
//!    └──────────────┘ failed└──────────┘       └──────────┘         └────────┘
//!       │        ▲              │ stop:           │   │ exit         │     │
//!       │        └──────────────┼─────────────────┼───┴───── exit ───┼─────┘
//!  stop │ ◀── withdraw ─────────┘                 │ stop: SIGTERM    │ stop: SIGTERM
//!       ▼                                         ▼                  │
//!    ┌──────────────┐      exit          ┌──────────┐ ◀──────────────┘
//!    │     Gone     │ ◀───────────────── │ Stopping │ ──┐ timer: SIGKILL, once
//!    └──────────────┘                    └──────────┘ ◀─┘
//!           ▲            exit            ┌──────────┐ stop, or timer: SIGTERM
//!           └─────────────────────────── │ Leaving  │ ──────────────▶ Stopping
//!                         leave, ──────▶ │          │ ──────────────▶ Warm
//!               of Starting or Warm      └──────────┘ stay
//! ```
//!
//! A place that is to leave has a process whose calls end as they were promised: its router tells it to end when it has
//! answered what it holds. The time after which it is stopped all the same is for one that has no calls and never will.
//!
//! A process that dies while Starting counts as a failure, and each failure in a row doubles the wait. One that
//! has lived for `stable_after_ns` is Warm: its earlier failures are forgotten, and its own death is the first
//! of a new row. Why time and not "has attached": a program that attaches and crashes on its first call would
//! be restarted in a tight loop.  Tests: `life/tests.rs`, with every (state, event) pair in a snapshot.

#[cfg(test)]
mod tests;

/// How patient a place is. All lengths in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The wait after the first failure.
    pub delay_min_ns: u64,
    /// The wait after many failures in a row.
    pub delay_max_ns: u64,
    /// A process that has lived this long is Warm and its failures are forgotten.
    pub stable_after_ns: u64,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace_ns: u64,
}

impl Default for Patience {
    /// 20 ms is some ten times the cost of starting a small process, so even a program that dies at once takes
    /// less than a tenth of a core on its first retry; 10 s keeps a broken one to six starts a minute.
    fn default() -> Self {
        Self {
            delay_min_ns: 20_000_000,
            delay_max_ns: 10_000_000_000,
            stable_after_ns: 1_000_000_000,
            stop_grace_ns: 2_000_000_000,
        }
    }
}

impl Patience {
    /// The wait after `failure_count` failures in a row: `delay_min` doubled each time, at most `delay_max`, and
    /// of that between one half and the whole, as `jitter` says, so that places that died together do not all
    /// start together.
    pub fn delay_ns(&self, failure_count: u32, jitter: u32) -> u64 {
        let doublings = failure_count.saturating_sub(1).min(32);
        let whole_ns = self.delay_min_ns.saturating_mul(1 << doublings).min(self.delay_max_ns);
        let half_ns = whole_ns / 2;
        half_ns + (u128::from(half_ns) * u128::from(jitter) / u128::from(u32::MAX)) as u64
    }
}

/// Where one place is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// No process.
    BackingOff {
        /// When one is started.
        retry_at_ns: u64,
        /// Processes in a row that died young or could not be started.
        failure_count: u32,
    },
    /// A process was asked for, and is not there yet.
    Spawning {
        /// As above; one more if it never comes.
        failure_count: u32,
    },
    /// A process exists and has not yet lived long enough to be trusted.
    Starting {
        /// When it will have.
        stable_at_ns: u64,
        /// As above; one more if this one dies.
        failure_count: u32,
    },
    /// A process exists and has proved itself.
    Warm,
    /// A process exists that ends by itself when its calls are done, and is not replaced.
    Leaving {
        /// When no call of it can be left.
        terminate_at_ns: u64,
    },
    /// A process exists and was told to end.
    Stopping {
        /// When it is killed; `None` when it has been.
        kill_at_ns: Option<u64>,
    },
    /// No process, and there will be none.
    Gone,
}

/// What can happen to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time passed; something may be due.
    Time,
    /// The process that was asked for is there.
    Started,
    /// The program could not be started at all.
    SpawnFailed {
        /// Random bits, to spread the next starts.
        jitter: u32,
    },
    /// The process ended, for whatever reason.
    Exited {
        /// Random bits, to spread the next starts.
        jitter: u32,
    },
    /// The place is to be given up, its process not before its calls are done.
    LeaveAsked {
        /// The longest that may take.
        within_ns: u64,
    },
    /// The place is wanted again.
    StayAsked,
    /// The place is to be given up.
    StopAsked,
}

/// What the shell must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Start the process; answer with `Started`, at once or later, or with `SpawnFailed` if that is not possible.
    Spawn,
    /// Do not start it after all.
    Withdraw,
    /// Send SIGTERM to the process group.
    Terminate,
    /// Send SIGKILL to the process group.
    Kill,
}

/// An event that cannot happen in this state, such as the exit of a process that does not exist: our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impossible;

impl Life {
    /// A place whose process is due at once.
    pub fn new(now_ns: u64) -> Self {
        Life::BackingOff { retry_at_ns: now_ns, failure_count: 0 }
    }

    /// Takes one event: changes the state and says what to do.
    ///
    /// # Panics
    /// If the event is impossible in this state: the caller has lost track of its processes.
    #[must_use]
    pub fn on_event(&mut self, now_ns: u64, patience: &Patience, event: Event) -> Action {
        match self.next(now_ns, patience, event) {
            Ok((next, action)) => {
                *self = next;
                action
            }
            Err(Impossible) => panic!("impossible in the life of a place: {event:?} while {self:?}"),
        }
    }

    /// The transition table.
    pub fn next(self, now_ns: u64, patience: &Patience, event: Event) -> Result<(Life, Action), Impossible> {
        use Event::{Exited, LeaveAsked, SpawnFailed, Started, StayAsked, StopAsked, Time};
        use Life::{BackingOff, Gone, Leaving, Spawning, Starting, Stopping, Warm};

        let back_off = |failure_count: u32, jitter| {
            let retry_at_ns = now_ns.saturating_add(patience.delay_ns(failure_count, jitter));
            (BackingOff { retry_at_ns, failure_count }, Action::None)
        };
        let stop = || {
            let kill_at_ns = Some(now_ns.saturating_add(patience.stop_grace_ns));
            (Stopping { kill_at_ns }, Action::Terminate)
        };

        Ok(match (self, event) {
            (BackingOff { retry_at_ns, failure_count }, Time) if retry_at_ns <= now_ns => {
                (Spawning { failure_count }, Action::Spawn)
            }
            (BackingOff { .. }, StopAsked | LeaveAsked { .. }) => (Gone, Action::None),
            (BackingOff { .. }, SpawnFailed { .. } | Exited { .. }) => return Err(Impossible),

            (Spawning { failure_count }, Started) => {
                let stable_at_ns = now_ns.saturating_add(patience.stable_after_ns);
                (Starting { stable_at_ns, failure_count }, Action::None)
            }
            (Spawning { failure_count }, SpawnFailed { jitter } | Exited { jitter })
            | (Starting { failure_count, .. }, Exited { jitter }) => {
                back_off(failure_count.saturating_add(1), jitter)
            }
            (Spawning { .. }, StopAsked | LeaveAsked { .. }) => (Gone, Action::Withdraw),

            (Starting { stable_at_ns, .. }, Time) if stable_at_ns <= now_ns => (Warm, Action::None),
            (Starting { .. }, StopAsked) => stop(),
            (Starting { .. }, SpawnFailed { .. }) => return Err(Impossible),

            (Warm, Exited { jitter }) => back_off(1, jitter),
            (Warm, StopAsked) => stop(),
            (Warm, SpawnFailed { .. }) => return Err(Impossible),

            (Starting { .. } | Warm, LeaveAsked { within_ns }) => {
                (Leaving { terminate_at_ns: now_ns.saturating_add(within_ns) }, Action::None)
            }
            (Leaving { terminate_at_ns }, Time) if terminate_at_ns <= now_ns => stop(),
            (Leaving { .. }, StopAsked) => stop(),
            (Leaving { .. }, StayAsked) => (Warm, Action::None),
            (Leaving { .. }, Exited { .. }) => (Gone, Action::None),
            (Leaving { .. }, SpawnFailed { .. }) => return Err(Impossible),

            (Stopping { kill_at_ns: Some(at_ns) }, Time) if at_ns <= now_ns => {
                (Stopping { kill_at_ns: None }, Action::Kill)
            }
            (Stopping { .. }, Exited { .. }) => (Gone, Action::None),
            (Stopping { .. }, SpawnFailed { .. }) => return Err(Impossible),
            (Stopping { .. }, StopAsked) => (self, Action::None),

            (Gone, StopAsked) => (Gone, Action::None),
            (Gone, SpawnFailed { .. } | Exited { .. }) => return Err(Impossible),

            (_, Started) => return Err(Impossible),

            // Nothing is due yet, or it is so already, or it is too late.
            (_, Time | LeaveAsked { .. } | StayAsked) => (self, Action::None),
        })
    }

    /// When the place wants [`Event::Time`] next, if ever.
    pub fn due_at_ns(&self) -> Option<u64> {
        match *self {
            Life::BackingOff { retry_at_ns, .. } => Some(retry_at_ns),
            Life::Starting { stable_at_ns, .. } => Some(stable_at_ns),
            Life::Leaving { terminate_at_ns } => Some(terminate_at_ns),
            Life::Stopping { kill_at_ns } => kill_at_ns,
            Life::Spawning { .. } | Life::Warm | Life::Gone => None,
        }
    }

    /// True while the place has a process.
    pub fn has_process(&self) -> bool {
        matches!(self, Life::Starting { .. } | Life::Warm | Life::Leaving { .. } | Life::Stopping { .. })
    }

    /// True while the place is to have a process, now and later.
    pub fn is_to_stay(&self) -> bool {
        use Life::{BackingOff, Spawning, Starting, Warm};
        matches!(self, BackingOff { .. } | Spawning { .. } | Starting { .. } | Warm)
    }

    /// True when nothing more will happen here.
    pub fn is_gone(&self) -> bool {
        matches!(self, Life::Gone)
    }

    /// How many times in a row the process died young or could not be started.
    pub fn failure_count(&self) -> u32 {
        match *self {
            Life::BackingOff { failure_count, .. }
            | Life::Spawning { failure_count }
            | Life::Starting { failure_count, .. } => failure_count,
            Life::Warm | Life::Leaving { .. } | Life::Stopping { .. } | Life::Gone => 0,
        }
    }

    /// One word for people.
    pub fn name(&self) -> &'static str {
        match self {
            Life::BackingOff { .. } => "backing_off",
            Life::Spawning { .. } => "spawning",
            Life::Starting { .. } => "starting",
            Life::Warm => "warm",
            Life::Leaving { .. } => "leaving",
            Life::Stopping { .. } => "stopping",
            Life::Gone => "gone",
        }
    }
}

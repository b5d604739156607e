//! One instance of a program that lives longer than a call: ready before the first one, replaced when its conversation breaks.
//!
//! ```text
//!   none ── start ──▶ starting ── ready ──▶ idle ◀── answered ── runs a call
//!     ▲                  │ fault              │ found dead, or talking out of turn   │ fault, or given up
//!     └── killed ────────┴────────────────────┴──────────────────────────────────────┘
//! ```
//! Always: a call that finds the instance unfit was not begun, and is given to a fresh one; a call that breaks is answered with
//! the fault, and a fresh instance is being started by then.
//! Never: starts a program again and again that fails before its first answer, see `pause.rs`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use quickfire_client::serve::{FunctionError, eprintln, running_call};

use crate::fault::{Failed, Fault};
use crate::health::Health;
use crate::http::Address;
use crate::job::{IsEnded, Job};
use crate::limits::STOP_GRACE;
use crate::pause::Pause;
use crate::plan::Plan;
use crate::program::Program;
use crate::stopping::Stopping;

/// A program and the conversation with it: what a runtime is.
pub trait Instance: Sized {
    /// Starts it, and does not wait.
    fn spawn(plan: &Plan) -> Result<Self, Fault>;

    /// Waits until a call may be given to it; `Ok(false)` if the call ended before that, and it may still become ready.
    fn make_ready(&mut self, is_ended: &IsEnded<'_>) -> Result<bool, Fault>;

    /// Whether it is fit for a call by what can be seen without asking it.
    fn check_fit(&mut self) -> Result<(), Fault>;

    /// Has one call run.
    fn call(&mut self, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), Failed>;

    /// Its process.
    fn program(&mut self) -> &mut Program;

    /// Where it can be asked for its health.
    fn address(&self) -> Option<Address> {
        None
    }

    /// A file that has to go with it.
    fn file(&self) -> Option<PathBuf> {
        None
    }
}

/// The instance of one relay.
pub struct Keeper<'a, I> {
    plan: &'a Plan,
    kept: Option<Kept<I>>,
    pause: Pause,
    stopping: Arc<Stopping>,
    health: Arc<Health>,
    /// What broke the last time, and the end of its stderr: for calls during the pause.
    last: (String, String),
}

struct Kept<I> {
    instance: I,
    health: Arc<Health>,
    is_watched: bool,
    has_answered: bool,
}

impl<'a, I: Instance> Keeper<'a, I> {
    /// A keeper that has started nothing.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            kept: None,
            pause: Pause::default(),
            stopping: Arc::default(),
            health: Arc::default(),
            last: Default::default(),
        }
    }

    /// What ends the instance when the relay is told to end by a signal.
    pub fn stopping(&self) -> &Arc<Stopping> {
        &self.stopping
    }

    /// Who looks after the instance between calls.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Starts an instance, and waits until it is ready or has failed.
    pub fn start_ahead(&mut self) {
        if let Err(fault) = self.ready_instance(&|| None).map(drop) {
            self.break_off(&fault);
        }
    }

    /// Has one call run, by a fresh instance if there is none.
    pub fn answer(&mut self, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), FunctionError> {
        self.drop_unfit();
        if let Some(left) = self.pause.left(Instant::now()).filter(|_| self.kept.is_none()) {
            let (last, stderr) = &self.last;
            let paused = Fault::Paused { left_ms: left.as_millis() + 1, last: last.clone() };
            return Err(paused.answer(stderr, job.result_size_max));
        }
        let called = self.ready_instance(job.is_ended).map_err(Failed::Fault);
        match called.and_then(|kept| kept.call(job, reply)) {
            Ok(()) => {
                self.pause.note_answer();
                Ok(())
            }
            Err(Failed::Function(bytes)) => {
                self.pause.note_answer();
                Err(FunctionError::new(bytes))
            }
            Err(Failed::Fault(fault)) if fault.is_passing() => {
                let stderr = self.kept.as_mut().map(|kept| kept.instance.program().stderr_tail());
                Err(fault.answer(&stderr.unwrap_or_default(), job.result_size_max))
            }
            Err(Failed::Fault(fault)) => {
                self.break_off(&fault);
                let answer = fault.answer(&self.last.1, job.result_size_max);
                self.start_again();
                Err(answer)
            }
        }
    }

    /// Ends the instance politely.
    pub fn end(&mut self) {
        if let Some(mut kept) = self.kept.take() {
            kept.instance.program().stop(STOP_GRACE);
        }
    }

    #[cfg(test)]
    pub fn instance(&mut self) -> Option<&mut I> {
        self.kept.as_mut().map(|kept| &mut kept.instance)
    }

    /// The instance, started if there is none, once it is ready. One that has answered calls and does not become ready again is
    /// replaced: the call was not begun.
    fn ready_instance(&mut self, is_ended: &IsEnded<'_>) -> Result<&mut Kept<I>, Fault> {
        let known = self.kept.as_mut().filter(|kept| kept.has_answered);
        let known = known.map(|kept| kept.instance.make_ready(is_ended));
        if let Some(Err(fault)) = &known {
            self.kept = None;
            std::eprintln!("relay: between two calls: {fault}; it is started anew");
        }
        if self.kept.is_none() {
            self.spawn()?;
        }
        let Some(kept) = &mut self.kept else { unreachable!("it was started above") };
        let is_ready = match known {
            Some(Ok(is_ready)) => is_ready,
            Some(Err(_)) | None => kept.instance.make_ready(is_ended)?,
        };
        if !is_ready {
            return Err(Fault::Starting);
        }
        if !std::mem::replace(&mut kept.is_watched, true) {
            self.health.watch(kept.instance.address());
        }
        Ok(kept)
    }

    /// A call is not given to an instance that cannot answer it. It was not begun, so that a fresh one may have it.
    fn drop_unfit(&mut self) {
        if let Some(kept) = &mut self.kept
            && let Err(fault) = kept.instance.check_fit()
        {
            if !kept.has_answered {
                self.pause.note_failure(Instant::now());
            }
            self.kept = None;
            std::eprintln!("relay: between two calls: {fault}; it is started anew");
        }
    }

    fn break_off(&mut self, fault: &Fault) {
        let mut stderr = String::new();
        let has_answered = self.kept.take().is_some_and(|mut kept| {
            kept.instance.program().kill();
            stderr = kept.instance.program().stderr_tail();
            kept.has_answered
        });
        if !has_answered && !fault.is_of_the_call() {
            self.pause.note_failure(Instant::now());
        }
        self.last = (fault.to_string(), stderr);
        eprintln!("relay: {fault}");
    }

    /// Warm again before the next call comes, which then need not wait for all of the start.
    fn start_again(&mut self) {
        if self.pause.left(Instant::now()).is_some() {
            return;
        }
        if let Err(fault) = self.spawn() {
            self.break_off(&fault);
        }
    }

    fn spawn(&mut self) -> Result<(), Fault> {
        let mut instance = I::spawn(self.plan)?;
        let file = instance.file();
        self.stopping.note(instance.program().exit_fd(), file);
        let health = Arc::clone(&self.health);
        self.kept = Some(Kept { instance, health, is_watched: false, has_answered: false });
        Ok(())
    }
}

impl<I: Instance> Kept<I> {
    fn call(&mut self, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), Failed> {
        self.instance.program().set_call(running_call());
        self.health.note_call(true);
        let called = self.instance.call(job, reply);
        self.health.note_call(false);
        // What breaks its program is told with it: what that says while it dies is of the call too.
        if !matches!(&called, Err(Failed::Fault(fault)) if !fault.is_passing()) {
            self.instance.program().set_call(None);
        }
        self.has_answered |= !matches!(called, Err(Failed::Fault(_)));
        called
    }
}

impl<I> Drop for Kept<I> {
    fn drop(&mut self) {
        self.health.watch(None);
    }
}

#[cfg(test)]
pub mod tests {
    //! How tests of the runtimes ask.

    use super::*;

    /// What a call is answered, in words.
    pub fn ask<I: Instance>(keeper: &mut Keeper<'_, I>, job: &Job<'_>) -> Result<String, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut reply = Vec::new();
        match keeper.answer(job, &mut reply) {
            Ok(()) => Ok(text(&reply)),
            Err(error) => Err(text(error.bytes())),
        }
    }

    /// It is an error that begins so.
    pub fn check_answer(answer: Result<String, String>, expected: &str) {
        let told = answer.expect_err(expected);
        assert!(told.starts_with(expected), "{expected}: {told}");
    }
}

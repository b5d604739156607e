//! Sockets while a call is wanted: a tokio runtime on this very thread, which runs for as long as somebody waits in it.
//!
//! Never: anything between two calls. What a peer says meanwhile lies in the kernel until the next one.

use std::future::Future;
use std::pin::pin;
use std::process::ExitStatus;

use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::Fault;
use crate::job::{Ended, IsEnded};
use crate::limits::{EXIT_SETTLE, WANTED_POLL};
use crate::program::Program;

/// Where the sockets of one program live.
pub struct Reactor(Runtime);

/// How a wait ended.
#[derive(Debug)]
pub enum Waited<T> {
    /// What was waited for has come.
    Done(T),
    /// Nobody wants it any more.
    Ended(Ended),
    /// The program has ended, and what it said before is read.
    Exited(ExitStatus),
}

impl Reactor {
    /// A reactor without sockets.
    pub fn new() -> Result<Reactor, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        runtime.map(Reactor).map_err(Fault::CannotStart)
    }

    /// Runs `task` beside whatever is waited for.
    pub fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    /// Waits for `work`, whatever else happens.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.0.block_on(work)
    }

    /// Waits for `work`, for as long as the call is wanted and the program lives.
    pub fn wait<T>(
        &self,
        program: &mut Program,
        is_ended: &IsEnded<'_>,
        work: impl Future<Output = T>,
    ) -> Waited<T> {
        let waited = self.0.block_on(async {
            let mut work = pin!(work);
            loop {
                if let Some(ended) = is_ended() {
                    return Waited::Ended(ended);
                }
                if let Ok(done) = timeout(WANTED_POLL, &mut work).await {
                    return Waited::Done(done);
                }
                if let Some(exit) = program.poll_exit() {
                    // Its last words are in the sockets, or their end is.
                    let last = timeout(EXIT_SETTLE, &mut work).await;
                    return last.map_or(Waited::Exited(exit), Waited::Done);
                }
            }
        });
        // What the work let go of is closed now, and not when the next call comes.
        self.0.block_on(tokio::task::yield_now());
        waited
    }
}

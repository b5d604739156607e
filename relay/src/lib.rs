//! Stage 7 of 8: the relay. A function process for a program that was not written against our SDK.
//!
//! A relay is an ordinary native function process: it attaches to its ring with `quickfire_client::serve`. It owns one
//! instance of the program and speaks the contract that the program knows, its *runtime*. The shim starts a relay as it starts
//! any function, so that the shim, the router and the engine know nothing of runtimes, and a conversation that breaks costs its
//! own process only.
//!
//! In: a [`Plan`], and calls from the ring.  Out: for each call exactly one answer: a result, the program's own error, or a
//! [`Fault`] that names what broke, with the end of what the program said on stderr.
//! Always: the program runs in a process group of its own, dies with the relay, and is reaped by it; what it started in that
//! group ends with it. What it prints goes on to the relay's own stdout and stderr, marked with its call, and so into the log that
//! the shim keeps.
//! Always: an instance whose conversation broke, or whose call was given up, is killed and replaced (over HTTP,
//! where each call has a connection of its own, a broken one is closed): a late answer can reach no other call.
//! Never: trusts a byte of the program: every size is bounded, see `limits.rs`.
//!
//! | file | what it holds |
//! |---|---|
//! | `plan.rs` | what to run, and how |
//! | `job.rs` | one call as a runtime sees it: payload, attributes, whether it is still wanted |
//! | `fault.rs` | what can break, in words |
//! | `program.rs`, `tail.rs` | the foreign process; what it prints |
//! | `talk.rs` | bytes in and out of its pipes, while a call is wanted |
//! | `keeper.rs`, `pause.rs` | one instance, kept ready across calls; how soon a failed one is started again |
//! | `health.rs` | whether a server that has nothing to do still answers |
//! | `stopping.rs` | SIGTERM, passed on |
//! | `exec.rs` | runtime `exec`: a process for each call |
//! | `stdio.rs` | runtime `stdio`: a line of JSON for each call |
//! | `reactor.rs`, `owner.rs` | sockets, while a call is wanted; whose process is at their other end |
//! | `http.rs` | runtime `http`: a request for each call |
//! | `lambda.rs` | runtime `lambda`: the Runtime API of AWS Lambda, which the program asks for each call |
//!
//! Contracts: docs/coding/runtimes.md.  Why so: docs/decisions/0029.  Tests: below each file, with hostile programs; with a
//! router: `tests/runtimes.rs` of the workspace.

#![forbid(unsafe_code)]

mod exec;
mod fault;
mod health;
mod http;
mod job;
mod keeper;
mod lambda;
pub mod limits;
mod owner;
mod pause;
mod plan;
mod program;
mod reactor;
mod stdio;
mod stopping;
mod tail;
mod talk;

use std::sync::Arc;

use quickfire_client::serve::{ServeFailed, Stop, serve_into, serve_until};

use health::Health;
use http::{Address, Http};
use job::Job;
use keeper::Keeper;
use lambda::Lambda;
use reactor::Reactor;
use stdio::Stdio;

pub use exec::VARIABLES as EXEC_VARIABLES;
pub use fault::Fault;
pub use http::VARIABLES as HTTP_VARIABLES;
pub use lambda::VARIABLES as LAMBDA_VARIABLES;
pub use plan::{HealthPlan, HttpListen, HttpPlan, Plan, Runtime};

/// Why a relay ended that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its router said stop.
    Stopped,
    /// Its program was not healthy, as was told on stderr: another relay is to start another.
    Unhealthy,
}

/// Serves calls with the program of the plan until the router says stop.
pub fn run(plan: &Plan) -> Result<Ended, ServeFailed> {
    match &plan.runtime {
        Runtime::Exec => serve_into(|call, reply| {
            let ended = job::ending_of(call);
            exec::answer(plan, &Job::new(plan, call, &ended), reply.bytes_mut())
        })
        .map(|()| Ended::Stopped),
        Runtime::Stdio => serve_kept::<Stdio>(plan),
        Runtime::Http(_) => serve_kept::<Http>(plan),
        Runtime::Lambda => serve_kept::<Lambda>(plan),
    }
}

/// The same for a runtime whose programs live longer than a call.
fn serve_kept<I: keeper::Instance>(plan: &Plan) -> Result<Ended, ServeFailed> {
    let mut keeper = Keeper::<I>::new(plan);
    if let Err(error) = keeper.stopping().listen() {
        // It ends all the same, only without its grace.
        eprintln!("relay: cannot listen to signals: {error}");
    }
    // Before there can be a call, so that the first one finds it warm.
    keeper.start_ahead();
    let (stop, health) = (Stop::new(), Arc::clone(keeper.health()));
    watch(plan, &health, &stop);
    let served = serve_until(&stop, |call, reply| {
        let ended = job::ending_of(call);
        keeper.answer(&Job::new(plan, call, &ended), reply.bytes_mut())
    });
    keeper.end();
    served.map(|()| if health.is_condemned() { Ended::Unhealthy } else { Ended::Stopped })
}

/// Has the program's health looked after, where that is wanted.
fn watch(plan: &Plan, health: &Arc<Health>, stop: &Stop) {
    let Runtime::Http(http) = &plan.runtime else { return };
    let Some(wanted) = http.health else { return };
    let http = http.clone();
    let ask = move |reactor: &Reactor, address: &Address, timeout| {
        http::ask_health(reactor, address, &http, timeout)
    };
    if let Err(error) = health.start(wanted, stop.clone(), ask) {
        // Calls are answered all the same.
        eprintln!("relay: cannot look after the program's health: {error}");
    }
}

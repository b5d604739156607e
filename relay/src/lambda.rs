//! Runtime `lambda`: a program that asks for its calls, as functions on AWS Lambda do: the Runtime API of version 2018-06-01.
//!
//! In: a call.  Out: the answer to the program's `GET .../invocation/next`.
//! Back: `POST .../invocation/ID/response` or `/error`; before the first call perhaps `POST .../init/error`.
//! Always: one call at a time, and the program is ready when it asks for the next one. What it asks meanwhile lies in the kernel
//! until there is a call (`reactor.rs`), as a program on Lambda is frozen until there is one.
//! Never: gives a call to a process of another user (`owner.rs`), and takes an answer to any call but the one that runs.
//!
//! | file | what it holds |
//! |---|---|
//! | `lambda/exchange.rs` | where the conversation stands, as a table: no sockets |
//! | `lambda/api.rs` | the HTTP of it |

mod api;
mod exchange;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fault::{Failed, Fault};
use crate::job::{Attributes, IsEnded, Job};
use crate::keeper::Instance;
use crate::plan::{Plan, Runtime};
use crate::program::{Program, Streams};
use crate::reactor::{Reactor, Waited};

use exchange::{Event, Shared};

/// The variable that tells the program where the API is. A function's `env` cannot set it; it can set all the others.
pub const VARIABLES: [&str; 1] = ["AWS_LAMBDA_RUNTIME_API"];
/// The longest a function on Lambda may run: for a call without an end.
const DEADLINE_DEFAULT_MS: u64 = 15 * 60 * 1000;

/// One program, and the API it talks to.
pub struct Lambda {
    program: Program,
    reactor: Reactor,
    shared: Arc<Shared>,
    /// The place of the function as far as it is on Lambda.
    region: String,
    start_timeout: Duration,
    /// How long calls have waited for it since it was started, or answered one. Not how long that is ago: between calls nobody listens
    /// to what it asks.
    waited: Duration,
}

impl Instance for Lambda {
    fn spawn(plan: &Plan) -> Result<Self, Fault> {
        debug_assert_eq!(plan.runtime, Runtime::Lambda);
        let reactor = Reactor::new()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Fault::CannotStart)?;
        let address = listener.local_addr().map_err(Fault::CannotStart)?;
        let shared = Arc::new(Shared::default());
        reactor.run(api::serve(listener, address, Arc::clone(&shared)));

        let variables = variables(&plan.function, address);
        let variables: Vec<_> = variables.iter().map(|(name, text)| (*name, text.as_str())).collect();
        Ok(Lambda {
            program: Program::spawn(&plan.command, &variables, Streams::Log, None)?,
            reactor,
            shared,
            region: std::env::var("AWS_REGION").unwrap_or_else(|_| "local".into()),
            start_timeout: plan.start_timeout,
            waited: Duration::ZERO,
        })
    }

    fn make_ready(&mut self, is_ended: &IsEnded<'_>) -> Result<bool, Fault> {
        let Lambda { program, reactor, shared, start_timeout, waited, .. } = self;
        let begun = Instant::now();
        let left = start_timeout.saturating_sub(*waited);
        let asked = async { tokio::time::timeout(left, shared.asked_for_a_call()).await };
        let asked = reactor.wait(program, is_ended, asked);
        *waited += begun.elapsed();
        match asked {
            Waited::Done(Ok(Ok(()))) => Ok(true),
            Waited::Done(Ok(Err(fault))) => Err(fault),
            Waited::Done(Err(_)) => {
                let last = "it did not ask for a call".to_owned();
                Err(Fault::StartTimeout { limit: self.start_timeout, last })
            }
            Waited::Ended(_) => Ok(false),
            Waited::Exited(exit) => Err(Fault::DiedAtStart(exit)),
        }
    }

    fn check_fit(&mut self) -> Result<(), Fault> {
        match self.program.poll_exit() {
            Some(exit) => Err(Fault::Died(exit)),
            None => self.shared.check_fit(),
        }
    }

    fn call(&mut self, job: &Job<'_>, reply: &mut Vec<u8>) -> Result<(), Failed> {
        let event = event(&self.region, job);
        let Lambda { program, reactor, shared, .. } = self;
        let answer = match reactor.wait(program, job.is_ended, shared.run(event, job.result_size_max)) {
            Waited::Done(answer) => answer,
            Waited::Ended(ended) => Err(Fault::Stopped(ended).into()),
            Waited::Exited(exit) => Err(Fault::Died(exit).into()),
        };
        self.waited = Duration::ZERO;
        *reply = answer?;
        Ok(())
    }

    fn program(&mut self) -> &mut Program {
        &mut self.program
    }
}

fn event(region: &str, job: &Job<'_>) -> Event {
    let attributes = &job.attributes;
    let deadline_ms =
        attributes.deadline_ms.unwrap_or_else(|| attributes.begun_ns / 1_000_000 + DEADLINE_DEFAULT_MS);
    Event {
        id: attributes.unique_id(),
        deadline_ms,
        trace: attributes.trace.is_some().then(|| xray(attributes)),
        function_arn: format!("arn:aws:lambda:{region}:000000000000:function:{}", attributes.function),
        payload: job.payload.to_vec(),
    }
}

/// The trace as AWS X-Ray writes it.
fn xray(attributes: &Attributes<'_>) -> String {
    let trace = attributes.traceparent().unwrap_or_default();
    let mut parts = trace.split('-').skip(1);
    let (id, parent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (time, unique) = id.split_at_checked(8).unwrap_or_default();
    let sampled = attributes.trace.map_or(0, |trace| trace.trace_flags & 1);
    format!("Root=1-{time}-{unique};Parent={parent};Sampled={sampled}")
}

/// What programs on Lambda find in their environment. What a function's `env` says stands, but for the address.
fn variables(function: &str, address: SocketAddr) -> Vec<(&'static str, String)> {
    let folder = std::env::current_dir().unwrap_or_default();
    let given = [
        ("AWS_LAMBDA_FUNCTION_NAME", function.to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{function}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("quickfire/{}", std::process::id())),
        ("LAMBDA_TASK_ROOT", folder.to_string_lossy().into_owned()),
    ];
    let [api] = VARIABLES;
    let unsaid = given.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    unsaid.chain([(api, address.to_string())]).collect()
}

#[cfg(test)]
mod tests;

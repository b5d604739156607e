//! Stage 7 of 8: the function process. Makes a Rust program a Quickfire function.
//!
//! ```no_run
//! use quickfire_client::serve::{Call, serve};
//!
//! fn main() -> Result<(), quickfire_client::serve::ServeFailed> {
//!     serve(|call: &Call<'_>| Ok(call.payload().to_ascii_uppercase()))
//! }
//! ```
//!
//! [`serve_into`] is the same with a [`Reply`] to write into, which is used again for every call: a function written so
//! allocates nothing. [`serve_instance`] is the same for a function whose processes are copied, and which has something to do in
//! each copy.
//!
//! In: requests from this process's ring.  Out: one answer for each.
//! Always: calls run one after the other, on the thread that called `serve`; what the handler keeps between them stays
//! warm, across the death of a router too. A panic answers its call with a function error, and the process goes on.
//! Never: runs a call whose deadline has passed or that was cancelled; makes a system call for a call while calls keep
//! coming, except to ring a router that sleeps.
//!
//! ```text
//!   started by the shim ─▶ begin ─▶ attach ─▶ serve calls ── Stop ──▶ finish what was sent, return Ok
//!              │             ▲        ▲            │
//!              ▼             │        └────────────┘ end of the socket: the router is dead
//!          template ── copy ─┘  every 50 ms, for QUICKFIRE_REATTACH_MS; then return an error
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `environment.rs` | what the shim tells the process |
//! | `template.rs` | a process that is copied: orders, and what a copy does first |
//! | `attachment.rs` | socket, ring and bell: how they are had from the router |
//! | `call.rs` | what a function sees: `Call`, `Reply`, `FunctionError` |
//! | `calls.rs` | the loop over the ring |
//! | `nested.rs` | calls that a function makes while it runs one |
//! | `log.rs` | what a function prints, with the call that prints it |
//! | `lanes.rs` | calls that clients bring straight to this process |
//! | `watcher.rs` | the thread that waits for Stop and for the router's death |
//! | `stop.rs` | ending it from within the process |
//!
//! Guides: docs/coding/rust-functions.md, docs/coding/snapshots.md.  The ring: docs/spec/shm.md.  Tests: `serve/tests.rs`.

mod attachment;
mod call;
mod calls;
mod environment;
mod lanes;
mod log;
mod nested;
mod stop;
mod template;
#[cfg(test)]
mod tests;
mod watcher;

use std::io;
use std::time::{Duration, Instant};

use protocol::attach::AttachRefused;

use attachment::{AttachFailed, Attachment};
use calls::{End, serve_attachment};
use environment::Environment;

pub use call::{Call, FunctionError, Reply};
pub use log::{Marked, print_line, running_call, stderr, stdout};
#[doc(hidden)] // for relays, which mark what others print
pub use protocol::log_mark::mark_lines;
pub use shm_ring::fork::{ForkRefused, Side, fork_orphan};
pub use stop::Stop;
#[doc(inline)]
pub use {crate::__serve_eprintln as eprintln, crate::__serve_println as println};

/// Time between two tries to attach.
const ATTACH_RETRY: Duration = Duration::from_millis(50);

/// Why a function process cannot serve, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeFailed {
    /// The environment is not that of a function process.
    #[error(
        "this program is a Quickfire function ({reason}): it is started by the router's shim, not by hand. \
         Name it in a configuration file and run it with `quickfire up --config FILE`"
    )]
    NotAFunctionProcess {
        /// What is missing or wrong.
        reason: String,
    },
    /// The router does not take this process, and will not.
    #[error("the router refused this process: {0}")]
    Refused(AttachRefused),
    /// No router answered for the whole time in which one might have come back.
    #[error("no router for {} ms: {last}", waited.as_millis())]
    RouterGone {
        /// How long this process stayed warm for it.
        waited: Duration,
        /// What the last try said.
        last: io::Error,
    },
    /// The system gave no thread.
    #[error("cannot watch the router: {0}")]
    NoThread(io::Error),
    /// The system gave no random number.
    #[error("cannot draw a secret: {0}")]
    NoSecret(io::Error),
    /// With `snapshot = true`: the process would be copied, and cannot be.
    #[error(
        "this process cannot be copied (snapshot = true): it has {count} threads, and only one with a single thread can. \
         Start threads, and connections that have them, in each copy (docs/coding/snapshots.md)"
    )]
    Threads {
        /// How many, the one that called `serve` included.
        count: u32,
    },
    /// With `snapshot = true`: the shim and this process cannot talk.
    #[error("cannot be copied: {0}")]
    Template(io::Error),
    /// The closure of [`serve_instance`] failed.
    #[error("this process cannot begin: {0}")]
    Begin(BeginFailed),
}

/// Why a process cannot begin, in the words of its author.
pub type BeginFailed = Box<dyn std::error::Error + Send + Sync>;

/// Serves calls with `handler`, which gives the result of each call, until the router says stop. Does not return
/// before: it is the main loop of a function process.
pub fn serve<R: AsRef<[u8]>>(
    mut handler: impl FnMut(&Call<'_>) -> Result<R, FunctionError>,
) -> Result<(), ServeFailed> {
    serve_into(move |call, reply| {
        reply.write(handler(call)?.as_ref());
        Ok(())
    })
}

/// Like [`serve`], for a handler that writes its result into a buffer that is used again for each call.
pub fn serve_into(
    handler: impl FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
) -> Result<(), ServeFailed> {
    serve_until(&Stop::new(), handler)
}

/// Like [`serve_into`], until the router or [`Stop::stop`] says stop. A process that catches SIGTERM ends so.
pub fn serve_until(
    stop: &Stop,
    handler: impl FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
) -> Result<(), ServeFailed> {
    serve_forked(stop, fork_orphan, move || Ok(handler))
}

/// Like [`serve_into`], for a function that has something to do in each of its processes before it serves: `begin` makes the handler.
///
/// With `snapshot = true`, what the program does before it calls this is done once; then the process is copied, and `begin` runs in
/// each copy. What copies must not have in common belongs there: random numbers, connections, threads, what tells one process from
/// another. Without snapshots it is the same, in a process that was not copied.
///
/// ```no_run
/// use quickfire_client::serve::{Call, Reply, ServeFailed, serve_instance};
///
/// fn main() -> Result<(), ServeFailed> {
///     let squares: Vec<u64> = (0..1_000_000).map(|n| n * n).collect(); // once; its memory is shared
///     serve_instance(move || {
///         let log = std::net::UdpSocket::bind("127.0.0.1:0")?; // in each process
///         Ok(move |call: &Call<'_>, reply: &mut Reply| {
///             let square = squares.get(call.payload().len()).copied().unwrap_or_default();
///             log.send_to(b"called", "127.0.0.1:9999")?;
///             reply.write(&square.to_le_bytes());
///             Ok(())
///         })
///     })
/// }
/// ```
///
/// Guide: docs/coding/snapshots.md.
pub fn serve_instance<H>(begin: impl FnOnce() -> Result<H, BeginFailed>) -> Result<(), ServeFailed>
where
    H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
{
    serve_forked(&Stop::new(), fork_orphan, begin)
}

/// Like [`serve_instance`], until `stop`, and copied by `fork`: for the runtimes of other languages, which have to be told of a copy before
/// and after it is made. `fork` makes it by [`fork_orphan`].
pub fn serve_forked<H>(
    stop: &Stop,
    fork: impl FnMut() -> Result<Side, ForkRefused>,
    begin: impl FnOnce() -> Result<H, BeginFailed>,
) -> Result<(), ServeFailed>
where
    H: FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
{
    let variable = |name: &str| std::env::var(name).ok();
    let environment = if variable(template::VARIABLE).is_some() {
        let Some(attach_socket) = template::wait_to_be_copied(fork)? else { return Ok(()) };
        Environment::read_with(Some(attach_socket), variable)?
    } else {
        Environment::read(variable)?
    };
    let mut handler = begin().map_err(ServeFailed::Begin)?;
    serve_environment(&environment, stop, &mut handler)
}

/// The life of a process that serves, but for where its environment comes from.
fn serve_environment(
    environment: &Environment,
    stop: &Stop,
    handler: &mut impl FnMut(&Call<'_>, &mut Reply) -> Result<(), FunctionError>,
) -> Result<(), ServeFailed> {
    // For `quickfire inspect`, see `Attachment::memory_fd`. Replaced only when the next ring is there.
    let mut _ring_to_inspect = None;
    loop {
        let Some(mut attachment) = attach(environment, stop)? else { return Ok(()) };
        _ring_to_inspect = attachment.memory_fd.take();
        match serve_attachment(attachment, environment.spin_count_max, stop, handler)? {
            End::Stopped => return Ok(()),
            // Both mean that this ring is no more. What the handler keeps in memory stays, and the next router (or this
            // one, with a new ring) finds it warm.
            End::RouterGone => {}
            End::RingDamaged(damage) => eprintln!("{}: {damage}; attaching anew", environment.function),
        }
    }
}

/// Attaches, with patience: the router may be starting, or being replaced. `None`: this process is to end.
fn attach(environment: &Environment, stop: &Stop) -> Result<Option<Attachment>, ServeFailed> {
    let begun = Instant::now();
    loop {
        if stop.is_asked() {
            return Ok(None);
        }
        let last = match Attachment::new(environment) {
            Ok(attachment) => return Ok(Some(attachment)),
            Err(AttachFailed::Refused(reason)) if !passes(reason) => {
                return Err(ServeFailed::Refused(reason));
            }
            Err(AttachFailed::Refused(reason)) => io::Error::other(reason),
            Err(AttachFailed::System(error)) => error,
        };
        let waited = begun.elapsed();
        if waited >= environment.reattach_timeout {
            return Err(ServeFailed::RouterGone { waited, last });
        }
        std::thread::sleep(ATTACH_RETRY);
    }
}

/// True for a refusal that may be over at the next try: an old router on its way out, or a place in its table that a
/// dead predecessor of this process still holds.
fn passes(reason: AttachRefused) -> bool {
    use AttachRefused::{Draining, RingUnavailable, TooManyWorkers};
    matches!(reason, Draining | RingUnavailable | TooManyWorkers)
}

//! The C client: `include/quickfire.h` over the Rust client. What users see is the header.
//!
//! In: pointers and numbers of a C program.  Out: what the Rust client says, in structs that C can read.
//! Owns: what it gives out, until its `_free` function gets it back.
//! Always: what can be checked is checked, and a wrong argument is an outcome that names it (`argument.rs`). What cannot be checked, that
//! a pointer which is not NULL points to what the header says, is what the `unsafe` of every function here asks of its caller.
//! Always: a panic ends here: as an outcome where one is returned (`outcome.rs`), else by ending the process, as Rust does where a panic
//! would leave an `extern "C"` function.
//! Never: decides anything. Ends, faults and retries are the Rust client's.
//!
//! | file | what it holds |
//! |---|---|
//! | `outcome.rs` | how something ended, and panics |
//! | `argument.rs` | what C hands in, checked |
//! | `caller.rs` | connections, functions, calls that are waited for |
//! | `queue.rs` | calls that are not waited for one by one |
//! | `function.rs` | `qf_serve` and what a handler may do |
//!
//! Guide: docs/coding/c.md.  Tests: `tests/header.rs` (the header says what is here), `tests/c.rs` of the workspace (C programs).

// What each item is, and what its caller has to keep, is said by the header, once: here it would be a second copy.
#![allow(missing_docs, clippy::missing_safety_doc)]

mod argument;
mod caller;
mod function;
mod outcome;
mod queue;

pub use argument::{CallOptions, ConnectOptions, FLAGS};
pub use caller::{Client, Function, qf_call, qf_client_free, qf_connect, qf_find, qf_function_free};
pub use function::{
    Handler, Invocation, Reply, qf_fail, qf_invocation_criticality, qf_invocation_id,
    qf_invocation_idempotency_key, qf_invocation_is_cancelled, qf_invocation_payload,
    qf_invocation_result_size_max, qf_invocation_time_left_ns, qf_invocation_trace, qf_nested, qf_push_back,
    qf_reply_space, qf_reply_truncate, qf_reply_write, qf_serve, qf_serve_main, qf_stop_serving,
};
pub use outcome::{
    Bytes, KINDS, Outcome, Timings, Trace, qf_outcome_free, qf_status_explain, qf_status_name,
};
pub use queue::{
    Queue, qf_cancel, qf_next, qf_outstanding, qf_queue_fd, qf_queue_free, qf_queue_new, qf_submit,
};

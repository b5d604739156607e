//! The native part of the Python package `quickfire`: a thin layer between Python objects and the Rust client. What users see is the
//! Python beside it (`python/quickfire`), which imports this module as `quickfire._native`.
//!
//! In: calls of Python.  Out: calls of `quickfire_client`; what they end with, as Python objects.
//! Always: the interpreter is released while something is waited for: an answer, a connection, or the next call of a function.
//! Always: what a process made is left alone by a process that was forked from it (`owned.rs`).
//! Never: starts a thread or opens a descriptor before a client connects or a function serves, so that a process may fork after it
//! has imported everything.
//! Never: has unsafe code of its own, but for what Python cannot express: one lifetime, and that a process is copied (`serve.rs`).
//!
//! | file | what it holds |
//! |---|---|
//! | `client.rs` | a connection, and calls that are waited for at once |
//! | `pending.rs` | calls that are waited for later |
//! | `options.rs` | what a call says beside its payload |
//! | `outcome.rs` | answers and errors as Python has them |
//! | `serve.rs` | functions |
//! | `owned.rs` | which process something belongs to |
//!
//! Guide: docs/coding/python.md.  Tests: `tests/`.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![warn(missing_docs)]

mod client;
mod options;
mod outcome;
mod owned;
mod pending;
mod serve;

use pyo3::prelude::*;

/// See the crate's documentation.
#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::outcome::status_table;
    #[pymodule_export]
    use crate::pending::Pending;
    #[pymodule_export]
    use crate::serve::{LiveCall, Server, running_call};
}

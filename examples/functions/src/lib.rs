//! Stage 7 of 8: function processes. Four functions that do something, each a process of its own.
//!
//! | name | takes | gives | what it shows |
//! |---|---|---|---|
//! | `echo` | anything | the same bytes | the cost of a call with no function in it |
//! | `noop` | anything | nothing | the same, without the result's bytes |
//! | `thumbnail` | a JPEG or PNG | the same format, at most 128 x 128 | milliseconds of work, bounded memory |
//! | `moderate` | UTF-8 text | JSON: flagged or not, and why | text in, structure out |
//!
//! Each module has the function itself, free of Quickfire and tested alone, and `handle`, which ties it to a call.
//! The programs in `src/bin` call [`run`]; so does the `quickfire` command, which carries all four.
//! How to write one: `docs/coding/rust-functions.md`.

#![forbid(unsafe_code)]

pub mod echo;
pub mod moderate;
pub mod noop;
pub mod thumbnail;

use std::process::ExitCode;

use quickfire_client::serve::{ServeFailed, serve_into};

/// The functions, by name.
pub const NAMES: [&str; 4] = ["echo", "moderate", "noop", "thumbnail"];

/// Runs one function until the router says stop. The exit code is the process's: 0 for a clean end, 1 if the router
/// was lost or refused this process, 2 if it was not started as a function or there is no function of this name.
pub fn run(name: &str) -> ExitCode {
    let outcome = match name {
        "echo" => serve_into(echo::handle),
        "moderate" => serve_into(moderate::handle),
        "noop" => serve_into(noop::handle),
        "thumbnail" => serve_into(thumbnail::handle),
        unknown => {
            eprintln!("there is no bundled function {unknown:?}; there are {}", NAMES.join(", "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeFailed::NotAFunctionProcess { .. }) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The guide's programs are compiled, and its test is run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/coding/rust-functions.md")]
struct Guide;

/// The program of the page on snapshots is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/coding/snapshots.md")]
struct Snapshots;

/// The README's program is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

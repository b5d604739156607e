//! Stage 6 of 8: the shim. Keeps function processes warm, so that a call finds one already waiting.
//!
//! For each function and shard the shim holds a number of *places*; each place has one process, or is about to
//! have one. While a function is given another program, places of both stand beside each other. Native functions attach to the router by themselves (`quickfire_client::serve`) and are the other
//! end of their ring; the shim only supervises, so no call ever passes through it.
//!
//! In: a [`ShimConfig`], exits, output, signals, and the router's word to stop.
//! Out: processes with their environment, `DIR/logs/<function>.<place>.log`, and the status file `DIR/shim.json`.
//! Always: every process it started is in a place, and every child that dies is reaped.
//! Never: leaves an orphan behind when it stops, restarts a failing program without waiting, or runs two shims
//! in one run directory.
//!
//! | file | what it holds | may do |
//! |---|---|---|
//! | `config.rs` | what to keep warm | nothing |
//! | `life.rs` | the life of one place, as a table | nothing: no clock, no I/O; the simulator runs it too |
//! | `function.rs` | which editions of a function are kept up | nothing |
//! | `shim.rs`, `shim/` | the loop | everything below |
//! | `place.rs` | a place with its process and its log | what process and log may |
//! | `template.rs` | a process that is initialised once and then copied; the order for a copy | one socket and what process and log may |
//! | `process.rs` | spawn, adopt, signal, reap | system calls |
//! | `cgroup.rs` | what bounds memory, processor time and processes of a place | files of the kernel |
//! | `sandbox.rs` | what stands between the host and a program that is not trusted | system calls |
//! | `logs.rs`, `logs/` | captured output, bounded | files |
//! | `orphanage.rs` | the end of what a shim that was killed has left | `/proc`, signals |
//! | `link.rs` | the connection to a shard of the router | one socket |
//! | `signals.rs`, `run_lock.rs`, `jitter.rs` | one small thing each | what their name says |
//! | `status.rs` | `shim.json` for `quickfire functions` | one file |
//!
//! Why a process of its own: the router may then die, or be replaced, while every function stays warm.
//! Tests: at the bottom of each file; with real processes in `tests/supervision.rs`.

#![deny(unsafe_code)] // allowed in process.rs and sandbox/kernel.rs alone

pub mod cgroup;
mod config;
mod function;
mod jitter;
pub mod life;
mod link;
pub mod logs;
mod orphanage;
mod place;
mod process;
mod run_lock;
pub mod sandbox;
mod shim;
mod signals;
mod status;
mod template;

pub use config::{ConfigRefused, FunctionConfig, ShimConfig};
pub use process::die_with_parent;
pub use shim::{ShimFailed, Stopped, run};

//! The shell around the engine: shards, io_uring, sockets, configuration. The library front-ends are built on.

pub mod config;
pub use config::Config;
pub mod counters;
pub mod options;
pub mod reload;
pub mod run_dir;

pub mod admin;
pub mod clock;
pub mod drain;
pub mod frontend;
pub mod host;
pub mod idle;
pub mod io;
pub mod kept;
pub mod lanes;
pub mod names;
pub mod net;
pub mod payloads;
pub mod placement;
pub mod processors;
pub mod shard;
pub mod shm_clients;
pub mod start;
pub mod stats;
pub mod tape;

pub mod workers;

pub use engine::{InvocationId, State};
pub use start::{ReloadRefused, Router, StartError, StartOptions, start, start_with};

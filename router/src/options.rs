//! The option table: the one place where an option's name, type, unit, default, range and meaning are written.
//!
//! From it come the keys of the file, the environment variables, the flags of `quickfire up`, `--help`,
//! `quickfire print-config` and `docs/operating/configuration.md` (a test holds that page to this table).
//! The lines themselves: `options/router.rs`, `options/tenant.rs`, `options/function.rs`.
//! Always: every default is readable and inside its own range (tested).
//! Never: a second default elsewhere. Whoever adds an option adds a line here and a field in `config.rs`.
#![forbid(unsafe_code)]

use crate::config::value::Kind;

mod function;
mod reference;
mod router;
mod tenant;

pub use function::FUNCTION_OPTIONS;
pub use reference::reference_page;
pub use router::ROUTER_OPTIONS;
pub use tenant::TENANT_OPTIONS;

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The key inside its table of the file: `shards` of `[router]`, `warm` of `[functions.NAME]` and of `[defaults]`.
    pub key: &'static str,
    /// The flag of `quickfire up`, without dashes. Options of functions have none: a flag could not say which function.
    pub flag: Option<&'static str>,
    /// The environment variable.
    pub env: Option<&'static str>,
    /// Type, unit and range.
    pub kind: Kind,
    /// The default as an operator would write it; `None` where a value must be given.
    pub default: Option<&'static str>,
    /// What it does, for help and reference.
    pub meaning: &'static str,
    /// The version that brought it.
    pub since: &'static str,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The largest payload that can be configured: two regions of this size for each slot are address space only,
/// but 64 MiB x 2 x 4096 slots is already half a TiB of it.
const PAYLOAD_SIZE_MAX: u64 = 64 * MIB;

/// A row of each shard's counters file is kept for each: 16,384 of them are 8 MiB of address space, and memory as they are used.
const FUNCTIONS_MAX: u64 = 16_384;

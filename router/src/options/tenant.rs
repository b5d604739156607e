//! The lines of the option table below `[tenants.NAME]`.
#![forbid(unsafe_code)]

use super::OptionSpec;
use crate::config::value::Kind;

/// The options of a tenant, `[tenants.NAME]` in the file.
pub const TENANT_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "weight",
        flag: None,
        env: None,
        kind: Kind::count(1, 1000),
        default: Some("1"),
        meaning: "The tenant's share of worker time, in proportion to the weights of the others that want some, where `running_max` makes \
                  them compete for it.",
        since: "0.1",
    },
    OptionSpec {
        key: "rate",
        flag: None,
        env: None,
        kind: Kind::count(0, 10_000_000),
        default: Some("0"),
        meaning: "Calls a second over all functions of the tenant, on each shard; 0 for no bound. One more is refused as rate_limited and \
                  told when to come again.",
        since: "0.1",
    },
    OptionSpec {
        key: "rate_burst",
        flag: None,
        env: None,
        kind: Kind::count(1, 1_000_000),
        default: Some("100"),
        meaning: "Calls that may come at once where `rate` bounds them.",
        since: "0.1",
    },
    OptionSpec {
        key: "concurrency_max",
        flag: None,
        env: None,
        kind: Kind::count(0, 1_000_000),
        default: Some("0"),
        meaning: "Calls in the hands of processes at once, over all functions of the tenant and all shards; 0 for no bound. More wait.",
        since: "0.1",
    },
];

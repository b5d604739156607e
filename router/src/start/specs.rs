//! What the engines and the attach sockets are told of a configuration.
//!
//! In: a checked [`Config`] and the ids of its names.  Out: tables by id, for the start and for each reload.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use engine::{CanarySpec, FunctionSpec, Limits, Policy, PoolSpec, Rate, SlowStart, TenantSpec};
use protocol::FunctionId;

use crate::clock::nanos;
use crate::config::{self, Config, FunctionConfig, TenantConfig};
use crate::names::Names;
use crate::processors::Processors;
use crate::workers::FunctionRing;

pub fn limits(config: &Config, shard: u32) -> Limits {
    let router = &config.router;
    Limits {
        invocations_max: router.invocations_max,
        start_after_max: nanos(router.start_after_max),
        functions_max: router.functions_max,
        running_max: bound(router.running_max).map(|total| part_of(total, shard, router.shards)),
        processor_count: part_of(Processors::of_this_process().count(), shard, router.shards),
        ..Limits::default()
    }
}

pub fn tenant_specs(config: &Config) -> Vec<TenantSpec> {
    let spec = |tenant: &TenantConfig| TenantSpec {
        name: tenant.name.clone(),
        weight: tenant.weight,
        rate: rate(tenant.rate, tenant.rate_burst),
        concurrency_max: bound(tenant.concurrency_max),
    };
    config.tenants.iter().map(spec).collect()
}

/// Names and ids at the start.
pub fn names_of(config: &Config) -> Names {
    Names::new(config.functions.iter().map(|function| function.name.as_str()))
}

/// Every function by id; none where it was removed.
pub fn function_specs(config: &Config, names: &Names) -> Vec<Option<FunctionSpec>> {
    let spec = |function: &FunctionConfig| FunctionSpec {
        timeout: nanos(function.timeout),
        queue_count_max: function.queue_count_max,
        payload_size_max: function.payload_size_max,
        idempotent: function.idempotent,
        tenant: config.tenant_index(&function.tenant),
        policy: policy(function, names),
        edition: function.edition(),
        pool: function.is_elastic().then(|| PoolSpec {
            min: function.warm,
            max: function.warm_count_max(),
            idle_timeout: nanos(function.idle_timeout),
            is_predictive: function.is_predictive,
        }),
        ..FunctionSpec::named(&function.name)
    };
    let by_name: BTreeMap<_, _> = by_name(config).collect();
    names.by_id().map(|name| by_name.get(name?).copied().map(spec)).collect()
}

/// What the workers of each function are given.
pub fn function_rings(config: &Config, names: &Names) -> Vec<FunctionRing> {
    let ids: BTreeMap<_, _> =
        names.by_id().zip(0..).filter_map(|(name, id)| Some((name?, FunctionId(id)))).collect();
    let ring = |(name, function): (&str, &FunctionConfig)| {
        Some(FunctionRing {
            function: *ids.get(name)?,
            slots: function.slots,
            payload_size_max: function.payload_size_max,
            edition: function.edition(),
            workers_wanted: function.warm,
        })
    };
    by_name(config).filter_map(ring).collect()
}

fn by_name(config: &Config) -> impl Iterator<Item = (&str, &FunctionConfig)> {
    config.functions.iter().map(|function| (function.name.as_str(), function))
}

/// The functions of a configuration that takes the place of another. A function that is to have fewer processes sends away
/// those that are too many, and takes none beyond; as long as nothing else is applied. The same holds for one that comes back:
/// its processes may not all have gone.
pub fn respecified(
    running: &Config,
    wanted: &Config,
    names: &Names,
    names_after: &Names,
) -> Vec<Option<FunctionSpec>> {
    let before: BTreeMap<_, _> = by_name(running).collect();
    let after: BTreeMap<_, _> = by_name(wanted).collect();
    let mut specs = function_specs(wanted, names_after);
    for spec in specs.iter_mut().take(names.count()).flatten() {
        let [before, after] = [&before, &after].map(|table| table.get(spec.name.as_str()));
        if let Some(after) = after
            && before.is_none_or(|before| after.warm_count_max() < before.warm_count_max())
        {
            spec.workers_max = after.warm_count_max();
        }
    }
    specs
}

fn rate(per_second: u32, burst: u32) -> Option<Rate> {
    bound(per_second).map(|per_second| Rate { per_second, burst })
}

/// In the configuration 0 stands for no bound.
fn bound(max: u32) -> Option<u32> {
    (max > 0).then_some(max)
}

/// A shard's part of a number for all of them: at least one.
fn part_of(total: u32, shard: u32, shards: u32) -> u32 {
    (total / shards + u32::from(shard < total % shards)).max(1)
}

/// What the engine is asked to do for the calls of a function, beyond its bounds.
fn policy(function: &FunctionConfig, names: &Names) -> Policy {
    Policy {
        ageing: Some(nanos(function.ageing)),
        refuse_infeasible: function.refuse_infeasible,
        retry: function.retry,
        hedge: function.hedge,
        backpressure: function.backpressure,
        breaker: function.breaker,
        fallback: fallback(&function.fallback, names),
        canary: function.canary.as_ref().and_then(|canary| {
            // As for a fallback.
            names.id(&canary.function).map(|function| CanarySpec { function, percent: canary.percent })
        }),
        rate: rate(function.rate, function.rate_burst),
        quota: function.quota,
        caller_rate: rate(function.caller_rate, function.caller_burst),
        concurrency_max: bound(function.concurrency_max),
        nested_reserve: function.nested_reserve,
        // As long as calls may take, or longer: what waits that long is over anyway.
        queue_delay_max: (function.queue_delay_max < function.timeout)
            .then(|| nanos(function.queue_delay_max)),
        slow_start: function.slow_start.map(|slow_start| SlowStart {
            window: nanos(slow_start.window),
            calls_min: slow_start.calls,
            growth_percent: slow_start.growth,
        }),
    }
}

fn fallback(fallback: &config::Fallback, names: &Names) -> Option<engine::Fallback> {
    match fallback {
        config::Fallback::None => None,
        config::Fallback::Answer(text) => Some(engine::Fallback::Answer(text.as_bytes().into())),
        // The configuration was checked: the name is there.
        config::Fallback::Function(name) => names.id(name).map(engine::Fallback::Function),
    }
}

//! A tenant: whose functions they are, and how large a share of the host they may have.
//!
//! Always: tenant 0 is the default one, [`DEFAULT_NAME`], to which a function belongs that names no other.
//! Always: the engine's list of tenants is not empty, its names differ, and every function's index is inside it.

use crate::rate::Rate;

/// The tenant of functions that name none.
pub const DEFAULT_NAME: &str = "default";

/// A tenant by its place in the list the engine was made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantIndex(pub u16);

impl TenantIndex {
    /// The tenant of functions that name none.
    pub const DEFAULT: TenantIndex = TenantIndex(0);
}

/// What the configuration says about a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSpec {
    /// Functions name it.
    pub name: String,
    /// Its share of worker time, in proportion to the weights of the other tenants that want some.
    pub weight: u32,
    /// Calls admitted per second, over all its functions. More: `RateLimited`.
    pub rate: Option<Rate>,
    /// Calls in the hands of workers at once, over all its functions and all shards of the host. More wait.
    pub concurrency_max: Option<u32>,
}

impl TenantSpec {
    /// A tenant with every option at its default.
    pub fn named(name: impl Into<String>) -> TenantSpec {
        TenantSpec { name: name.into(), weight: 1, rate: None, concurrency_max: None }
    }

    /// The list of a configuration that names no tenant: the default one.
    pub fn only_default() -> Vec<TenantSpec> {
        vec![TenantSpec::named(DEFAULT_NAME)]
    }
}

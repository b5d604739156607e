//! The tables of a configuration file, and which options each takes.

use std::fmt;

use crate::options::{FUNCTION_OPTIONS, OptionSpec, ROUTER_OPTIONS, TENANT_OPTIONS};

/// A table of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `[router]`
    Router,
    /// `[defaults]`: the options of every function that does not say otherwise.
    Defaults,
    /// `[tenants.NAME]`
    Tenant(String),
    /// `[functions.NAME]`
    Function(String),
}

impl Section {
    /// The options this table takes.
    pub fn options(&self) -> impl Iterator<Item = &'static OptionSpec> + use<> {
        let table = match self {
            Section::Router => ROUTER_OPTIONS,
            Section::Defaults | Section::Function(_) => FUNCTION_OPTIONS,
            Section::Tenant(_) => TENANT_OPTIONS,
        };
        // What has no default is what makes a function the one it is, so that it cannot be shared.
        let is_shared_only = *self == Section::Defaults;
        table.iter().filter(move |spec| !is_shared_only || spec.default.is_some())
    }

    /// The key as errors name it: `functions.echo.warm`.
    pub fn full_key(&self, key: &str) -> String {
        format!("{self}.{key}")
    }

    /// The table's header in a file.
    pub fn header(&self) -> String {
        let named = |tables: &str, name: &str| match name.contains('.') {
            // A dot would start another table.
            true => format!("[{tables}.\"{name}\"]"),
            false => format!("[{tables}.{name}]"),
        };
        match self {
            Section::Router => "[router]".into(),
            Section::Defaults => "[defaults]".into(),
            Section::Tenant(name) => named("tenants", name),
            Section::Function(name) => named("functions", name),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Section::Router => f.write_str("router"),
            Section::Defaults => f.write_str("defaults"),
            Section::Tenant(name) => write!(f, "tenants.{name}"),
            Section::Function(name) => write!(f, "functions.{name}"),
        }
    }
}

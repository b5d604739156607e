//! Another configuration for a running router: what of it is taken while calls run, and what needs a restart.
//!
//! In: the configuration in force and the one wanted, both checked.  Out: the one that will be in force, and the
//! [`Difference`] in words an operator reads.
//! Always: what needs other processes, other rings or other sockets waits for a restart and is said so; everything else is
//! taken. A new option of a function is therefore taken unless it is added to `COLD`.
//! Always: a tenant keeps its place in the list, also when no file names it any more: engines know it by its place.
//! Why not refuse a file that also changes what cannot be taken: the operator would have to undo half of an edit to get the
//! other half.  Tests: below; with processes and under load: `tests/reload.rs`.
#![forbid(unsafe_code)]

use std::fmt;

use crate::config::{Config, ConfigError, FunctionConfig, Section, Setting};

/// Options of a function from which each of its processes and their rings are made.
const COLD: [&str; 11] = [
    "command",
    "runtime",
    "start_timeout",
    "http_listen",
    "http_path",
    "http_content_type",
    "http_ready_path",
    "slots",
    "payload_size_max",
    "processors",
    "env",
];

/// What a reload changes, and what it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In force from now on.
    pub taken: Vec<Change>,
    /// In force after a restart.
    pub needs_restart: Vec<Change>,
}

/// One line of a [`Difference`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A function or tenant that was not there.
    Added(String),
    /// One that is not there any more.
    Removed(String),
    /// Another value.
    Option {
        /// `functions.echo.timeout`.
        key: String,
        /// As in force before.
        from: String,
        /// As wanted.
        to: String,
    },
}

impl Difference {
    /// Nothing to take and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.needs_restart.is_empty()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Added(name) => write!(f, "{name}: added"),
            Change::Removed(name) => write!(f, "{name}: removed"),
            Change::Option { key, from, to } => write!(f, "{key}: {from} -> {to}"),
        }
    }
}

/// The configuration that a router in force with `running` takes from `wanted`.
pub fn merge(running: &Config, wanted: &Config) -> Result<(Config, Difference), ConfigError> {
    let mut difference = Difference::default();
    let mut settings = Vec::new();
    for setting in &running.settings {
        let new = find(&wanted.settings, setting);
        let is_hot = is_hot(setting);
        if let Some(new) = new.filter(|new| new.value != setting.value) {
            let key = setting.section.full_key(setting.key);
            let change = Change::Option { key, from: setting.value.to_toml(), to: new.value.to_toml() };
            let list = if is_hot { &mut difference.taken } else { &mut difference.needs_restart };
            list.push(change);
        }
        settings.push(new.filter(|_| is_hot).unwrap_or(setting).clone());
    }

    let mut tenants = running.tenants.clone();
    for tenant in &wanted.tenants {
        match tenants.iter_mut().find(|known| known.name == tenant.name) {
            Some(known) => *known = tenant.clone(),
            None => {
                let section = Section::Tenant(tenant.name.clone());
                difference.taken.push(Change::Added(section.to_string()));
                settings.extend(wanted.settings.iter().filter(|it| it.section == section).cloned());
                tenants.push(tenant.clone());
            }
        }
    }

    let mut functions = Vec::new();
    for function in &running.functions {
        let section = Section::Function(function.name.clone());
        match wanted.functions.iter().find(|new| new.name == function.name) {
            Some(new) => functions.push(with_processes_of(new, function)),
            None => {
                difference.needs_restart.push(Change::Removed(section.to_string()));
                functions.push(function.clone());
            }
        }
    }
    for new in &wanted.functions {
        if running.functions.iter().all(|function| function.name != new.name) {
            let section = Section::Function(new.name.clone());
            difference.needs_restart.push(Change::Added(section.to_string()));
        }
    }

    let merged = Config { router: running.router.clone(), tenants, functions, settings };
    merged.check_again()?;
    Ok((merged, difference))
}

fn is_hot(setting: &Setting) -> bool {
    match setting.section {
        Section::Router | Section::Defaults => false,
        Section::Tenant(_) => true,
        Section::Function(_) => !COLD.contains(&setting.key),
    }
}

/// The new function, run by the processes that there are.
fn with_processes_of(new: &FunctionConfig, running: &FunctionConfig) -> FunctionConfig {
    FunctionConfig {
        command: running.command.clone(),
        runtime: running.runtime,
        start_timeout: running.start_timeout,
        http: running.http.clone(),
        slots: running.slots,
        payload_size_max: running.payload_size_max,
        processors: running.processors.clone(),
        env: running.env.clone(),
        ..new.clone()
    }
}

fn find<'a>(settings: &'a [Setting], like: &Setting) -> Option<&'a Setting> {
    settings.iter().find(|it| it.section == like.section && it.key == like.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "[router]\nrun_dir = \"/r\"\n[tenants.zoo]\nweight = 2\n\
                           [functions.a]\ncommand = [\"builtin:echo\"]\ntenant = \"zoo\"\n\
                           [functions.b]\ncommand = [\"builtin:echo\"]\n";

    fn config(text: &str) -> Config {
        Config::parse(text, "q.toml").unwrap()
    }

    fn check(wanted: &str, taken: &[&str], needs_restart: &[&str]) -> Config {
        let (merged, difference) = merge(&config(RUNNING), &config(wanted)).unwrap();
        let lines = |changes: &[Change]| changes.iter().map(Change::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&difference.taken), taken, "taken");
        assert_eq!(lines(&difference.needs_restart), needs_restart, "needs a restart");
        assert_eq!(difference.is_empty(), taken.is_empty() && needs_restart.is_empty());
        merged
    }

    #[test]
    fn the_same_file_changes_nothing() {
        assert_eq!(check(RUNNING, &[], &[]), config(RUNNING));
    }

    #[test]
    fn policy_is_taken_and_what_processes_are_made_from_waits_for_a_restart() {
        let wanted = RUNNING.replace(
            "[functions.b]\n",
            "[functions.b]\ntimeout = \"5s\"\nqueue_count_max = 7\nidempotent = true\nwarm = 3\nslots = 8\n\
             payload_size_max = \"1KiB\"\nprocessors = \"0\"\nenv = { A = \"1\" }\n",
        );
        let merged = check(
            &wanted,
            &[
                "functions.b.warm: 1 -> 3",
                "functions.b.timeout: \"30s\" -> \"5s\"",
                "functions.b.queue_count_max: 100000 -> 7",
                "functions.b.idempotent: false -> true",
            ],
            &[
                "functions.b.slots: 1024 -> 8",
                "functions.b.payload_size_max: \"1MiB\" -> \"1KiB\"",
                "functions.b.processors: \"none\" -> \"0\"",
                "functions.b.env: {} -> { \"A\" = \"1\" }",
            ],
        );
        let b = &merged.functions[1];
        assert_eq!((b.queue_count_max, b.idempotent), (7, true));
        assert_eq!((b.warm, b.slots, b.payload_size_max, b.env.len()), (3, 1024, 1 << 20, 0));
        // Taken once; what waits is told again.
        let (_, again) = merge(&merged, &config(&wanted)).unwrap();
        assert_eq!((again.taken.len(), again.needs_restart.len()), (0, 4));
    }

    #[test]
    fn options_of_the_router_wait_for_a_restart() {
        let wanted = RUNNING.replace("[router]\n", "[router]\nshards = 2\nspin = \"1ms\"\n");
        let merged = check(&wanted, &[], &["router.shards: 1 -> 2", "router.spin: \"50us\" -> \"1ms\""]);
        assert_eq!(merged.router.shards, 1);
    }

    #[test]
    fn functions_that_come_and_go_wait_for_a_restart() {
        let wanted = RUNNING.replace("functions.b", "functions.c");
        let merged = check(&wanted, &[], &["functions.b: removed", "functions.c: added"]);
        assert_eq!(merged.functions, config(RUNNING).functions);
    }

    #[test]
    fn a_tenant_keeps_its_place_whatever_the_names_of_others_are() {
        let wanted = "[router]\nrun_dir = \"/r\"\n[tenants.art]\nweight = 5\n\
                      [functions.a]\ncommand = [\"builtin:echo\"]\ntenant = \"art\"\n\
                      [functions.b]\ncommand = [\"builtin:echo\"]\n";
        let merged = check(wanted, &["functions.a.tenant: \"zoo\" -> \"art\"", "tenants.art: added"], &[]);
        let names: Vec<_> = merged.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        assert_eq!(names, ["default", "zoo", "art"]);
        assert_eq!(merged.tenant_index(&merged.functions[0].tenant).0, 2);
    }

    #[test]
    fn tenants_that_are_too_many_together_are_refused_whole() {
        let tenants = |letter: &str| -> String {
            (0..600).map(|number| format!("[tenants.{letter}{number}]\n")).collect()
        };
        let with = |letter| config(&format!("{RUNNING}{}", tenants(letter)));
        let error = merge(&with("x"), &with("y")).unwrap_err();
        assert!(error.to_string().contains("1202 tenants"), "{error}");
    }
}

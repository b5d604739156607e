//! Another configuration for a running router: what of it is taken while calls run, and what needs a restart.
//!
//! In: the configuration in force and the one wanted, both checked.  Out: the one that will be in force, and the
//! [`Difference`] in words an operator reads.
//! Always: the router's own options wait for a restart and are said so; everything else is taken. What the processes of a
//! function are made from (`EDITION`) is in force when the first process made from it serves.
//! Always: a tenant keeps its place in the list, also when no file names it any more: engines know it by its place. So does
//! the name of a function (`names.rs`).
//! Why not refuse a file that also changes what cannot be taken: the operator would have to undo half of an edit to get the
//! other half.  Tests: below; with processes and under load: `tests/reload.rs`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use crate::config::{Config, ConfigError, Place, Section, Setting};
use crate::names::Names;

/// Options of a function from which each of its processes and their rings are made: those that `FunctionConfig::edition` names.
const EDITION: [&str; 24] = [
    "command",
    "runtime",
    "start_timeout",
    "snapshot",
    "http_listen",
    "http_path",
    "http_content_type",
    "http_ready_path",
    "health_interval",
    "health_timeout",
    "health_failures",
    "containment",
    "containment_missing",
    "network",
    "read",
    "write",
    "tmp_size_max",
    "processes_max",
    "memory_max",
    "cpu_max",
    "slots",
    "payload_size_max",
    "processors",
    "env",
];

/// What a reload changes, and what it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// In force from now on, or as soon as processes for it serve.
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
    /// The same for what processes are made from.
    Edition {
        /// `functions.echo.command`.
        key: String,
        /// As in force until the first process of the new edition serves.
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
            Change::Edition { key, from, to } => {
                write!(f, "{key}: {from} -> {to} (as soon as a process with it serves)")
            }
        }
    }
}

/// The configuration that a router in force with `running`, which knows these names, takes from `wanted`.
pub fn merge(running: &Config, wanted: &Config, names: &Names) -> Result<(Config, Difference), ConfigError> {
    let (before, asked) = (by_section(running), by_section(wanted));
    let mut settings: Vec<Setting> = of_section(&before, &Section::Router).cloned().collect();

    let mut tenants = running.tenants.clone();
    for tenant in &wanted.tenants {
        match tenants.iter_mut().find(|known| known.name == tenant.name) {
            Some(known) => *known = tenant.clone(),
            None => tenants.push(tenant.clone()),
        }
    }
    for tenant in &tenants {
        let section = Section::Tenant(tenant.name.clone());
        let source = if asked.contains_key(&section) { &asked } else { &before };
        settings.extend(of_section(source, &section).cloned());
    }

    let place_of = |name: &str| running.functions.iter().position(|known| known.name == name);
    let mut functions = wanted.functions.clone();
    functions.sort_by_cached_key(|function| place_of(&function.name).unwrap_or(usize::MAX));
    for function in &mut functions {
        let section = Section::Function(function.name.clone());
        for setting in of_section(&asked, &section) {
            // A default that follows an option of the router follows the one in force.
            let is_derived = setting.key == "payload_size_max" && setting.place == Place::Default;
            let kept = of_section(&before, &section)
                .find(|known| is_derived && known.key == setting.key && known.place == Place::Default);
            if let (Some(_), Some(place)) = (kept, place_of(&function.name)) {
                function.payload_size_max = running.functions[place].payload_size_max;
            }
            settings.push(kept.unwrap_or(setting).clone());
        }
    }

    let mut merged = Config { router: running.router.clone(), tenants, functions, settings };
    merged.fit_derived_defaults();
    merged.write_back();
    merged.check_again(running, &names.after(&merged.functions))?;
    let difference = difference(running, &merged, wanted);
    Ok((merged, difference))
}

fn difference(running: &Config, merged: &Config, wanted: &Config) -> Difference {
    let (now, asked) = (by_section(merged), by_section(wanted));
    let mut difference = Difference::default();
    for setting in &running.settings {
        let is_routers = setting.section == Section::Router;
        let new = of_section(if is_routers { &asked } else { &now }, &setting.section)
            .find(|new| new.key == setting.key && new.value != setting.value);
        let Some(new) = new else { continue };
        let key = setting.section.full_key(setting.key);
        let (from, to) = (setting.value.to_toml(), new.value.to_toml());
        let is_of_function = matches!(setting.section, Section::Function(_));
        if is_routers {
            difference.needs_restart.push(Change::Option { key, from, to });
        } else if is_of_function && EDITION.contains(&setting.key) {
            difference.taken.push(Change::Edition { key, from, to });
        } else {
            difference.taken.push(Change::Option { key, from, to });
        }
    }
    let tenants = |config: &Config| config.tenants.iter().map(|tenant| tenant.name.clone()).collect();
    let functions = |config: &Config| config.functions.iter().map(|function| function.name.clone()).collect();
    let added = missing(tenants(merged), tenants(running)).into_iter().map(Section::Tenant);
    difference.taken.extend(added.map(|section| Change::Added(section.to_string())));
    let removed = missing(functions(running), functions(merged)).into_iter().map(Section::Function);
    difference.taken.extend(removed.map(|section| Change::Removed(section.to_string())));
    let added = missing(functions(merged), functions(running)).into_iter().map(Section::Function);
    difference.taken.extend(added.map(|section| Change::Added(section.to_string())));
    difference
}

/// Those of the first list that the second has not.
fn missing(mut names: Vec<String>, others: Vec<String>) -> Vec<String> {
    names.retain(|name| !others.contains(name));
    names
}

type Settings<'a> = BTreeMap<&'a Section, Vec<&'a Setting>>;

fn by_section(config: &Config) -> Settings<'_> {
    let mut by_section = Settings::new();
    config.settings.iter().for_each(|it| by_section.entry(&it.section).or_default().push(it));
    by_section
}

fn of_section<'a>(settings: &Settings<'a>, section: &Section) -> impl Iterator<Item = &'a Setting> + use<'a> {
    settings.get(section).cloned().unwrap_or_default().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fallback;

    const RUNNING: &str = "[router]\nrun_dir = \"/r\"\n[tenants.zoo]\nweight = 2\n\
                           [functions.a]\ncommand = [\"builtin:echo\"]\ntenant = \"zoo\"\n\
                           [functions.b]\ncommand = [\"builtin:echo\"]\n";

    fn config(text: &str) -> Config {
        Config::parse(text, "q.toml").unwrap()
    }

    fn names(config: &Config) -> Names {
        Names::new(config.functions.iter().map(|function| function.name.as_str()))
    }

    fn take(running: &str, wanted: &str) -> Result<(Config, Difference), ConfigError> {
        let running = config(running);
        merge(&running, &config(wanted), &names(&running))
    }

    fn check(wanted: &str, taken: &[&str], needs_restart: &[&str]) -> Config {
        let (merged, difference) = take(RUNNING, wanted).unwrap();
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
    fn policy_is_taken_at_once_and_what_processes_are_made_from_when_one_serves() {
        let wanted = RUNNING.replace(
            "[functions.b]\n",
            "[functions.b]\ntimeout = \"5s\"\nqueue_count_max = 7\nidempotent = true\nwarm = 3\nnested_reserve = 2\nslots = 8\n\
             payload_size_max = \"1KiB\"\nprocessors = \"0\"\nenv = { A = \"1\" }\n",
        );
        let later = |change: &str| format!("{change} (as soon as a process with it serves)");
        let merged = check(
            &wanted,
            &[
                "functions.b.warm: 1 -> 3",
                &later("functions.b.slots: 1024 -> 8"),
                "functions.b.timeout: \"30s\" -> \"5s\"",
                "functions.b.queue_count_max: 100000 -> 7",
                &later("functions.b.payload_size_max: \"1MiB\" -> \"1KiB\""),
                "functions.b.idempotent: false -> true",
                "functions.b.nested_reserve: 0 -> 2",
                &later("functions.b.processors: \"none\" -> \"0\""),
                &later("functions.b.env: {} -> { \"A\" = \"1\" }"),
            ],
            &[],
        );
        assert_eq!(merged.functions, config(&wanted).functions);
        assert_eq!(config(&merged.to_toml()).functions, merged.functions, "the shim reads the same");
        // Taken once.
        let (_, again) = merge(&merged, &config(&wanted), &names(&merged)).unwrap();
        assert!(again.is_empty(), "{again:?}");
    }

    #[test]
    fn an_option_is_of_the_edition_if_the_edition_names_it() {
        let values = [
            ("slots", "8"),
            ("payload_size_max", "\"1KiB\""),
            ("processors", "\"0\""),
            ("env", "{ A = \"1\" }"),
            ("snapshot", "true"),
            ("memory_max", "\"1GiB\""),
            ("cpu_max", "50"),
            ("warm", "3"),
            ("timeout", "\"5s\""),
            ("tenant", "\"zoo\""),
            ("retries", "0"),
            ("log_size_max", "\"1MiB\""),
        ];
        let edition = |text: &str| config(text).functions[1].edition();
        for (key, value) in values {
            let other = RUNNING.replace("[functions.b]\n", &format!("[functions.b]\n{key} = {value}\n"));
            assert_eq!(edition(&other) != edition(RUNNING), EDITION.contains(&key), "{key}");
        }
        let other = RUNNING
            .replace("functions.b]\ncommand = [\"builtin:echo\"", "functions.b]\ncommand = [\"./echo\"");
        assert_ne!(edition(&other), edition(RUNNING));
        let http = format!("{other}runtime = \"http\"\n");
        assert_ne!(edition(&http), edition(&format!("{other}runtime = \"exec\"\n")));
        for (key, value) in [
            ("start_timeout", "1s"),
            ("http_listen", "socket"),
            ("http_path", "/a"),
            ("http_ready_path", "/a"),
            ("http_content_type", "a/b"),
        ] {
            let option = format!("{key} = {value:?}\n");
            assert_ne!(edition(&(http.clone() + &option)), edition(&http), "{option}");
            assert_eq!(
                edition(&(other.clone() + &option)),
                edition(&other),
                "nothing to a native one: {option}"
            );
            assert!(EDITION.contains(&key));
        }
        let asked = format!("{http}http_ready_path = \"/a\"\nhealth_interval = \"5s\"\n");
        for option in ["health_interval = \"6s\"", "health_timeout = \"2s\"", "health_failures = 4"] {
            let (key, _) = option.split_once(' ').unwrap();
            let mut lines: Vec<_> = asked.lines().filter(|line| !line.starts_with(key)).collect();
            lines.push(option);
            assert_ne!(edition(&lines.join("\n")), edition(&asked), "{option}");
            assert!(EDITION.contains(&key));
        }
        let contained = format!("{other}containment = \"process\"\n");
        assert_ne!(edition(&contained), edition(&other));
        for (key, value) in [
            ("containment_missing", "\"best-effort\""),
            ("network", "\"host\""),
            ("read", "[\"./a\"]"),
            ("write", "[\"./a\"]"),
            ("tmp_size_max", "\"1MiB\""),
            ("processes_max", "7"),
        ] {
            let option = format!("{key} = {value}\n");
            assert_ne!(edition(&(contained.clone() + &option)), edition(&contained), "{option}");
            assert_eq!(edition(&(other.clone() + &option)), edition(&other), "without a sandbox: {option}");
            assert!(EDITION.contains(&key));
        }
        assert_ne!(edition(&other.replace("./echo", "./echo\", \"-v")), edition(&other));
        assert_ne!(config(RUNNING).functions[0].edition(), edition(RUNNING), "two functions of one program");
    }

    #[test]
    fn options_of_the_router_wait_for_a_restart() {
        let wanted = RUNNING.replace("[router]\n", "[router]\nshards = 2\nspin = \"1ms\"\n");
        let merged = check(&wanted, &[], &["router.shards: 1 -> 2", "router.spin: \"50us\" -> \"1ms\""]);
        assert_eq!(merged.router.shards, 1);
    }

    #[test]
    fn a_default_that_follows_an_option_of_the_router_follows_the_one_in_force() {
        let wanted = RUNNING.replace("[router]\n", "[router]\nframe_size_max = \"64KiB\"\n");
        let merged = check(&wanted, &[], &["router.frame_size_max: \"1028KiB\" -> \"64KiB\""]);
        assert_eq!(merged.functions, config(RUNNING).functions, "no process is replaced for it");
        // The other way round: what is added fits into the frames that there are.
        let added = format!("{RUNNING}[functions.c]\ncommand = [\"builtin:echo\"]\n");
        let (merged, _) = take(&wanted, &added).unwrap();
        assert_eq!(merged.functions.iter().map(|it| it.payload_size_max).collect::<Vec<_>>(), [60 << 10; 3]);
    }

    #[test]
    fn functions_come_and_go_and_those_that_stay_keep_their_order() {
        let wanted = RUNNING.replace("functions.a", "functions.0");
        let merged = check(&wanted, &["functions.a: removed", "functions.0: added"], &[]);
        assert_eq!(merged.functions.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["b", "0"]);
        assert_eq!(merged.functions[1].tenant, "zoo");
        // A fallback may be another one from then on.
        let needy = RUNNING.replace("[functions.b]\n", "[functions.b]\nfallback = \"function:a\"\n");
        let (merged, _) = take(&needy, &needy.replace(".a]", ".0]").replace(":a", ":0")).unwrap();
        assert_eq!(merged.functions[0].fallback, Fallback::Function("0".to_owned()));
    }

    #[test]
    fn more_functions_than_there_is_room_for_are_refused_whole() {
        let running = RUNNING.replace("[router]\n", "[router]\nfunctions_max = 3\n");
        let (third, fourth) =
            (running.replace("functions.b", "functions.c"), running.replace("functions.b", "functions.d"));
        let (merged, _) = take(&running, &third).unwrap();
        let names = names(&config(&running)).after(&merged.functions);
        let error = merge(&merged, &config(&fourth), &names).unwrap_err();
        let told = "q.toml:10:1: `functions.d.command`: makes 4 functions since the router started, which has room for 3 \
                    (router.functions_max); needs a restart";
        assert_eq!(error.to_string(), told);
        // One that was there before has its place.
        merge(&merged, &config(&running), &names).unwrap();
        let error = Config::parse(&running.replace("= 3", "= 1"), "q.toml").unwrap_err();
        assert!(error.to_string().contains("leaves no room for 2 functions"), "{error}");
    }

    #[test]
    fn processes_that_find_no_room_beside_those_that_run_are_refused_whole() {
        let running = RUNNING.replace("[functions.b]\n", "[functions.b]\nwarm = 1024\n")
            + "[functions.c]\ncommand = [\"builtin:echo\"]\nwarm = 1024\n[functions.d]\ncommand = [\"builtin:echo\"]\nwarm = 1024\n";
        let wanted = format!("{running}[defaults]\nslots = 8\n");
        let error = take(&running, &wanted).unwrap_err().to_string();
        assert!(error.contains("6146 in all; a shard has at most 4096: apply it in parts"), "{error}");
        take(&running, &running.replace("[functions.b]\n", "[functions.b]\nslots = 8\n")).unwrap_err();
        take(&running, &running.replace("[functions.a]\n", "[functions.a]\nslots = 8\n")).unwrap();
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
        let error = merge(&with("x"), &with("y"), &names(&with("x"))).unwrap_err();
        assert!(error.to_string().contains("1202 tenants"), "{error}");
    }
}

//! What no single value can tell: values that do not fit together, and programs that do not exist.

use std::path::{Path, PathBuf};

use engine::Limits;
use protocol::FunctionId;
use protocol::limits::FRAME_ROOM;
use rustix::fs::{Access, access};

use super::problem::{ConfigError, Problem, ProblemKind};
use super::section::Section;
use super::{Command, Config, Fallback, FunctionConfig, Runtime, nearest};
use crate::names::Names;

impl Config {
    /// Asks the file system whether each function can be started at all. `builtins` are the names behind `builtin:`.
    pub fn check_programs(&self, builtins: &[&str]) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for function in &self.functions {
            let (program, reason) = match &function.command {
                Command::Builtin(name) if builtins.contains(&name.as_str()) => continue,
                Command::Builtin(name) => {
                    let nearest = nearest(name, builtins.iter().copied());
                    let guess =
                        nearest.map(|name| format!("; did you mean `builtin:{name}`?")).unwrap_or_default();
                    (
                        format!("builtin:{name}"),
                        format!("the bundled functions are {}{guess}", builtins.join(", ")),
                    )
                }
                Command::Program { program, .. } => match startable(program) {
                    Ok(()) => continue,
                    Err(reason) => (program.display().to_string(), reason),
                },
            };
            let kind = ProblemKind::NoSuchProgram { program, reason };
            problems.push(self.problem(&Section::Function(function.name.clone()), "command", kind));
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// Tells which processors of `pin` and of functions are not among those that this process may use.
    pub fn check_processors(&self, allowed: &[u32]) -> Result<(), ConfigError> {
        let router = (Section::Router, "pin", &self.router.pin);
        let functions = self
            .functions
            .iter()
            .map(|function| (Section::Function(function.name.clone()), "processors", &function.processors));
        let mut problems = Vec::new();
        for (section, key, named) in std::iter::once(router).chain(functions) {
            let impossible: Vec<_> = named.iter().copied().filter(|index| !allowed.contains(index)).collect();
            if !impossible.is_empty() {
                let kind = ProblemKind::ProcessorsNotOurs { impossible, allowed: allowed.to_vec() };
                problems.push(self.problem(&section, key, kind));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// Whether values that were taken from two configurations fit together, beside what `running` has and what is known by
    /// `names` since the start.
    pub(crate) fn check_again(&self, running: &Config, names: &Names) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        check_together(self, &mut problems);
        let functions_max = self.router.functions_max as usize;
        if let Some(name) = names.name(FunctionId(self.router.functions_max)) {
            let text = format!(
                "makes {} functions since the router started, which has room for {functions_max} (router.functions_max); \
                 needs a restart",
                names.count()
            );
            problems.push(self.problem(
                &Section::Function(name.to_owned()),
                "command",
                ProblemKind::Contradiction(text),
            ));
        }
        check_room_for_both(running, self, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// A problem with a value, told at the place where it was written.
    fn problem(&self, section: &Section, key: &str, kind: ProblemKind) -> Problem {
        let mut settings = self.settings.iter();
        let setting = settings.find(|setting| setting.section == *section && setting.key == key);
        let place = setting.map(|setting| setting.place.clone()).unwrap_or_default();
        Problem { place, key: section.full_key(key), kind }
    }
}

/// Values that are each allowed and contradict each other.
pub(super) fn check_together(config: &Config, problems: &mut Vec<Problem>) {
    let mut contradiction = |section: Section, key: &str, text: String| {
        problems.push(config.problem(&section, key, ProblemKind::Contradiction(text)));
    };
    let router = &config.router;
    if !router.pin.is_empty() && router.pin.len() < router.shards as usize {
        let text = format!(
            "names {} processors for {} shards; one is needed for each",
            router.pin.len(),
            router.shards
        );
        contradiction(Section::Router, "pin", text);
    }
    if router.output_size_max < router.frame_size_max {
        let text = format!(
            "{} bytes cannot hold one frame of frame_size_max, {} bytes",
            router.output_size_max, router.frame_size_max
        );
        contradiction(Section::Router, "output_size_max", text);
    }
    if router.payload_memory_max < u64::from(router.frame_size_max) {
        let text = format!(
            "{} bytes cannot hold one frame of frame_size_max, {} bytes",
            router.payload_memory_max, router.frame_size_max
        );
        contradiction(Section::Router, "payload_memory_max", text);
    }
    for (index, listen) in router.listen.iter().enumerate() {
        if router.listen.iter().take(index).any(|earlier| earlier == listen && !listen.is_any_free_port()) {
            contradiction(Section::Router, "listen", format!("names {listen} twice"));
        }
    }
    let payload_room = router.frame_size_max - FRAME_ROOM;
    for function in &config.functions {
        if function.http.health.is_some()
            && (function.runtime != Runtime::Http || function.http.ready_path.is_none())
        {
            let text = "needs runtime = \"http\" and http_ready_path: nothing else can be asked for its health without a call";
            contradiction(Section::Function(function.name.clone()), "health_interval", text.into());
        }
        if function.payload_size_max > payload_room {
            let text = format!(
                "{} bytes do not fit into a frame; router.frame_size_max leaves room for {payload_room}",
                function.payload_size_max
            );
            contradiction(Section::Function(function.name.clone()), "payload_size_max", text);
        }
        if function.runtime != Runtime::Native && matches!(function.command, Command::Builtin(_)) {
            let text = format!("is `{}`, and the bundled functions are native", function.runtime.name());
            contradiction(Section::Function(function.name.clone()), "runtime", text);
        }
        if let Some(name) = function.runtime.variables().iter().find(|name| function.env.contains_key(**name))
        {
            let text = format!("sets {name}, which runtime `{}` sets itself", function.runtime.name());
            contradiction(Section::Function(function.name.clone()), "env", text);
        }
        let is_bounded = function.limits.memory_max.is_some() || function.limits.cpu_max.is_some();
        if function.snapshot && is_bounded {
            let text = "copies a process, and a copy would share the bounds (memory_max, cpu_max) of what it is copied from".to_owned();
            contradiction(Section::Function(function.name.clone()), "snapshot", text);
        }
        if function.snapshot && function.containment.is_some() {
            let text =
                "is `process`, and copies of a process (snapshot) cannot be made out of a sandbox".to_owned();
            contradiction(Section::Function(function.name.clone()), "containment", text);
        }
        if function.snapshot && function.runtime != Runtime::Native {
            let text = format!(
                "copies the program itself, and with runtime `{}` it runs behind a relay",
                function.runtime.name()
            );
            contradiction(Section::Function(function.name.clone()), "snapshot", text);
        }
        if function.hedge.is_some() && !function.idempotent {
            let text = "runs calls twice, which needs `idempotent = true`".to_owned();
            contradiction(Section::Function(function.name.clone()), "hedge", text);
        }
        if function.nested_reserve > 0 && function.nested_reserve >= function.warm {
            let text =
                format!("leaves none of {} warm processes for calls that are not nested", function.warm);
            contradiction(Section::Function(function.name.clone()), "nested_reserve", text);
        }
        if function.warm_max > 0 && function.warm_max < function.warm {
            let text = format!("is less than `warm`, which is {}", function.warm);
            contradiction(Section::Function(function.name.clone()), "warm_max", text);
        }
        if let Fallback::Function(name) = &function.fallback
            && let Err(text) = stand_in(config, function, name)
        {
            contradiction(Section::Function(function.name.clone()), "fallback", text);
        }
        if let Some(canary) = &function.canary {
            let text = match stand_in(config, function, &canary.function) {
                Err(text) => text,
                Ok(next) if next.canary.is_some() => {
                    format!("names {}, which has a canary itself", next.name)
                }
                Ok(_) => continue,
            };
            contradiction(Section::Function(function.name.clone()), "canary", text);
        }
    }
    let workers_count: u64 =
        config.functions.iter().map(|function| u64::from(function.warm_count_max())).sum();
    let workers_count_max = Limits::default().workers_max;
    if workers_count > u64::from(workers_count_max)
        && let Some(largest) = config.functions.iter().max_by_key(|function| function.warm_count_max())
    {
        let text = format!(
            "makes {workers_count} warm processes with the other functions; a shard has at most {workers_count_max}"
        );
        let key = if largest.is_elastic() { "warm_max" } else { "warm" };
        contradiction(Section::Function(largest.name.clone()), key, text);
    }
    check_tenants(config, problems);
}

/// The function of this name, which may get calls of another one.
fn stand_in<'a>(
    config: &'a Config,
    function: &FunctionConfig,
    name: &str,
) -> Result<&'a FunctionConfig, String> {
    match config.functions.iter().find(|other| other.name == *name) {
        None => Err(format!("names {name}, and there is no such function")),
        Some(other) if other.name == function.name => Err("names the function itself".to_owned()),
        Some(other) if other.payload_size_max < function.payload_size_max => {
            Err(format!("names {name}, which takes smaller payloads (payload_size_max)"))
        }
        Some(other) => Ok(other),
    }
}

/// More functions than a router started with this has room for.
pub(super) fn check_functions_max(config: &Config, problems: &mut Vec<Problem>) {
    if config.functions.len() > config.router.functions_max as usize {
        let text = format!("leaves no room for {} functions", config.functions.len());
        problems.push(config.problem(&Section::Router, "functions_max", ProblemKind::Contradiction(text)));
    }
}

/// Processes of which there will be two editions beside each other for a while.
fn check_room_for_both(running: &Config, merged: &Config, problems: &mut Vec<Problem>) {
    let is_started = |function: &&FunctionConfig| {
        let before = running.functions.iter().find(|before| before.name == function.name);
        before.is_none_or(|before| before.edition() != function.edition())
    };
    let count = |functions: &mut dyn Iterator<Item = &FunctionConfig>| -> u64 {
        functions.map(|function| u64::from(function.warm_count_max())).sum()
    };
    let started = count(&mut merged.functions.iter().filter(is_started));
    let workers_count = count(&mut running.functions.iter()) + started;
    let workers_count_max = Limits::default().workers_max;
    if workers_count > u64::from(workers_count_max)
        && let Some(largest) =
            merged.functions.iter().filter(is_started).max_by_key(|function| function.warm_count_max())
    {
        let text = format!(
            "starts {started} processes with other functions beside those that run, {workers_count} in all; a shard has at \
             most {workers_count_max}: apply it in parts, or restart"
        );
        let kind = ProblemKind::Contradiction(text);
        problems.push(merged.problem(&Section::Function(largest.name.clone()), "command", kind));
    }
}

/// Functions whose tenant is not there, and tenants that are too many.
fn check_tenants(config: &Config, problems: &mut Vec<Problem>) {
    let count_max = Limits::default().tenants_max;
    if let Some(last) = config.tenants.get(usize::from(count_max)) {
        let text = format!(
            "makes {} tenants since the router started, which may know {count_max}; restart it",
            config.tenants.len()
        );
        let kind = ProblemKind::Contradiction(text);
        problems.push(config.problem(&Section::Tenant(last.name.clone()), "weight", kind));
    }
    for function in &config.functions {
        if config.tenants.iter().all(|tenant| tenant.name != function.tenant) {
            let nearest = nearest(&function.tenant, config.tenants.iter().map(|tenant| tenant.name.as_str()));
            let kind = ProblemKind::NoSuchTenant { tenant: function.tenant.clone(), nearest };
            problems.push(config.problem(&Section::Function(function.name.clone()), "tenant", kind));
        }
    }
}

/// Whether a program exists and may be run; what is wrong with it otherwise.
fn startable(program: &Path) -> Result<(), String> {
    let candidates: Vec<PathBuf> = if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        vec![program.to_owned()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|directory| directory.join(program))
            .filter(|path| path.is_file())
            .collect()
    };
    let Some(candidate) = candidates.first() else { return Err("no such program in PATH".into()) };
    match candidate.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("no such file".into()),
        Err(error) => Err(error.to_string()),
        Ok(metadata) if metadata.is_dir() => Err("it is a directory".into()),
        Ok(_) if access(candidate, Access::EXEC_OK).is_err() => Err("it may not be executed".into()),
        Ok(_) => Ok(()),
    }
}

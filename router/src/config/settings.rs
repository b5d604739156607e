//! The layers put over each other: for every option one value and the place it came from.
//!
//! In: [`Sources`].  Out: a [`Setting`] for each option of the router, of each tenant and of each function, and every
//! problem on the way. What `[defaults]` says stands, with its place, in every function that does not say otherwise.
//! Always: a value that another one hides is still read, so that a mistake in it is told today and not on the day
//! the other one goes away.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::Quota;
use engine::tenant::DEFAULT_NAME;
use engine::{BackpressureSpec, BreakerSpec, HedgeAfter, HedgeSpec, Nanos, RetrySpec};
use protocol::limits::FRAME_ROOM;

use super::containment::{Containment, ContainmentConfig, LimitsConfig};
use super::file::{Entry, File};
use super::problem::{Place, Problem, ProblemKind};
use super::section::Section;
use super::value::{Raw, Value};
use super::{
    CanaryConfig, Command, Config, Fallback, FunctionConfig, HealthConfig, Host, HttpConfig, HttpListen,
    IoChoice, Listen, LogConfig, RouterConfig, Runtime, SlowStartConfig, Sources, TenantConfig, auto,
    nearest,
};
use crate::clock::nanos;
use crate::idle::IdleStrategy;
use crate::options::{FUNCTION_OPTIONS, OptionSpec, ROUTER_OPTIONS, TENANT_OPTIONS};
use crate::run_dir;

/// An effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The table it belongs to; never [`Section::Defaults`], which is spread over the functions.
    pub section: Section,
    /// The key inside its table; a line of the option table.
    pub key: &'static str,
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub place: Place,
    /// Where that says `auto`: what the value was chosen from.
    pub chosen_from: Option<String>,
}

impl Setting {
    /// Whether whoever reads the rest with the same program comes to this value without being told. What the router itself runs
    /// with may come from an environment that others do not have, and a function without a command is none.
    pub(super) fn goes_without_saying(&self) -> bool {
        let is_of_a_function = matches!(self.section, Section::Function(_));
        is_of_a_function && self.place == Place::Default && self.key != "command"
    }
}

/// The functions that run where a configuration names none.
const BUNDLED_FUNCTIONS: [&str; 4] = ["echo", "moderate", "noop", "thumbnail"];

/// What the layers come to.
pub(super) struct Collected {
    pub settings: Vec<Setting>,
    /// The default tenant, then the others in the order of their names.
    pub tenants: Vec<String>,
    /// In the order of their names.
    pub functions: Vec<String>,
    pub problems: Vec<Problem>,
}

/// Puts the layers over each other.
pub(super) fn collect(sources: &Sources<'_>) -> Collected {
    let mut file = sources.file.map(|file| File::read(file.text, file.origin)).unwrap_or_default();
    let mut problems = std::mem::take(&mut file.problems);
    if file.functions.is_empty() && problems.is_empty() {
        add_bundled_functions(&mut file);
    }
    put_default_tenant_first(&mut file);
    unknown_keys(&file.entries, &mut problems);
    let mut written: HashMap<&Section, Vec<&Entry>> = HashMap::new();
    file.entries.iter().for_each(|entry| written.entry(&entry.section).or_default().push(entry));

    let mut settings = Vec::new();
    for spec in ROUTER_OPTIONS {
        let mut layers = default_layer(spec, sources);
        layers.extend(file_layer(&written, &Section::Router, spec));
        if let Some(name) = spec.env
            && let Some(text) = (sources.env)(name)
        {
            layers.push((Raw::Text(text), Place::Environment(name)));
        }
        if let Some(name) = spec.flag {
            let mut texts: Vec<_> = (sources.flags)(name).into_iter().map(Raw::Text).collect();
            match texts.len() {
                0 => {}
                1 => layers.push((texts.remove(0), Place::Flag(name))),
                _ => layers.push((Raw::List(texts), Place::Flag(name))),
            }
        }
        settings.extend(topmost(&Section::Router, spec, layers, None, &mut problems));
    }
    for (name, _) in &file.tenants {
        let section = Section::Tenant(name.clone());
        for spec in TENANT_OPTIONS {
            let mut layers = default_layer(spec, sources);
            layers.extend(file_layer(&written, &section, spec));
            settings.extend(topmost(&section, spec, layers, None, &mut problems));
        }
    }
    // Read once, so that a mistake among them is told once and not by every function.
    let mut shared = Vec::new();
    for spec in Section::Defaults.options() {
        let layers: Vec<_> = file_layer(&written, &Section::Defaults, spec).into_iter().collect();
        if !layers.is_empty() {
            shared.extend(topmost(&Section::Defaults, spec, layers, None, &mut problems));
        }
    }
    for (name, place) in &file.functions {
        let section = Section::Function(name.clone());
        for spec in FUNCTION_OPTIONS {
            let below = shared.iter().find(|setting: &&Setting| setting.key == spec.key);
            let below = below.map(|setting| Setting { section: section.clone(), ..setting.clone() });
            let mut layers = if below.is_some() { Vec::new() } else { default_layer(spec, sources) };
            layers.extend(file_layer(&written, &section, spec));
            if below.is_none() && layers.is_empty() {
                problems.push(missing(&section, spec, place.clone()));
            }
            settings.extend(topmost(&section, spec, layers, below, &mut problems));
        }
    }
    let names = |tables: Vec<(String, Place)>| tables.into_iter().map(|(name, _)| name).collect();
    Collected { settings, tenants: names(file.tenants), functions: names(file.functions), problems }
}

/// The settings as a file, each with the place of its value as a comment.
pub(super) fn to_toml<'a>(settings: impl IntoIterator<Item = &'a Setting>) -> String {
    let mut out = String::new();
    let mut table = None;
    for setting in settings {
        if table != Some(&setting.section) {
            let gap = if table.is_none() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", setting.section.header());
            table = Some(&setting.section);
        }
        let assignment = format!("{} = {}", setting.key, setting.value.to_toml());
        let chosen = setting.chosen_from.as_ref().map(|from| format!(": auto, {from}")).unwrap_or_default();
        let _ = writeln!(out, "{assignment:<48} # {}{chosen}", setting.place);
    }
    out
}

impl Config {
    /// Fills the fields everybody reads. Says so where two values do not fit together on the way, and gives nothing where
    /// one could not be chosen.
    pub(super) fn assemble(
        collected: Collected,
        sources: &Sources<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<Config> {
        let Collected { mut settings, tenants, functions, .. } = collected;
        let problem_count = problems.len();
        auto::choose(&mut settings, sources.machine, problems);
        if problems.len() > problem_count {
            return None;
        }
        // Of every section the settings lie together.
        let of_one_section = settings.chunk_by(|one, next| one.section == next.section);
        let tables: HashMap<&Section, Table<'_>> =
            of_one_section.map(|settings| (&settings[0].section, Table { settings })).collect();
        let table = |section| &tables[&section];
        let mut config = Config {
            router: router_config(table(Section::Router), problems),
            tenants: tenants
                .iter()
                .map(|name| tenant_config(name, table(Section::Tenant(name.clone()))))
                .collect(),
            functions: functions
                .iter()
                .map(|name| function_config(name, table(Section::Function(name.clone())), sources))
                .collect(),
            settings: Vec::new(),
        };
        config.settings = settings;
        config.fit_derived_defaults();
        config.write_back();
        Some(config)
    }

    /// A default follows the value it depends on; a value that was given does not, and is checked instead.
    pub(crate) fn fit_derived_defaults(&mut self) {
        let payload_room = self.router.frame_size_max - FRAME_ROOM;
        let follow: HashSet<&str> = self
            .settings
            .iter()
            .filter(|setting| setting.key == "payload_size_max" && setting.place == Place::Default)
            .filter_map(|setting| match &setting.section {
                Section::Function(name) => Some(&**name),
                _ => None,
            })
            .collect();
        for function in &mut self.functions {
            if follow.contains(&*function.name) {
                function.payload_size_max = function.payload_size_max.min(payload_room);
            }
        }
        let output_size_max = self.settings.iter_mut().find(|setting| setting.key == "output_size_max");
        if output_size_max.is_some_and(|setting| setting.place == Place::Default) {
            self.router.output_size_max = self.router.output_size_max.max(2 * self.router.frame_size_max);
        }
    }

    /// The printed values are those in use: the run directory put in, derived defaults fitted.
    pub(crate) fn write_back(&mut self) {
        let functions: HashMap<&str, &FunctionConfig> =
            self.functions.iter().map(|function| (&*function.name, function)).collect();
        for setting in &mut self.settings {
            match (&setting.section, setting.key) {
                (Section::Router, "listen") => setting.value = Value::Listeners(self.router.listen.clone()),
                (Section::Router, "output_size_max") => {
                    setting.value = Value::Size(self.router.output_size_max.into())
                }
                (Section::Function(name), key) => {
                    let Some(function) = functions.get(&**name) else { continue };
                    match key {
                        "command" => setting.value = Value::Command(function.command.clone()),
                        "payload_size_max" => setting.value = Value::Size(function.payload_size_max.into()),
                        "read" | "write" => {
                            let Some(sandbox) = &function.containment else { continue };
                            let paths = if key == "read" { &sandbox.read } else { &sandbox.write };
                            setting.value = Value::Paths(paths.clone());
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
}

fn router_config(table: &Table<'_>, problems: &mut Vec<Problem>) -> RouterConfig {
    let run_dir = table.path("run_dir");
    let mut listen = Vec::new();
    for one in table.listeners("listen") {
        match one.clone().resolve(&run_dir) {
            Ok(resolved) => listen.push(resolved),
            Err(reason) => problems.push(Problem {
                place: table.setting("listen").place.clone(),
                key: "router.listen".into(),
                kind: ProblemKind::Unreadable { found: one.to_string(), reason: reason.to_string() },
            }),
        }
    }
    RouterConfig {
        listen,
        run_dir,
        shards: table.count("shards"),
        frame_size_max: table.size("frame_size_max"),
        connection_credits: table.count("connection_credits"),
        connections_max: table.count("connections_max"),
        shm_clients_max: table.count("shm_clients_max"),
        shm_memory_max: table.size_u64("shm_memory_max"),
        direct_lanes: table.switch("direct_lanes"),
        output_size_max: table.size("output_size_max"),
        invocations_max: table.count("invocations_max"),
        start_after_max: table.duration("start_after_max"),
        functions_max: table.count("functions_max"),
        running_max: table.count("running_max"),
        payload_memory_max: table.size_u64("payload_memory_max"),
        kept_calls_max: table.count("kept_calls_max"),
        kept_calls_size_max: table.size_u64("kept_calls_size_max"),
        idle: match table.choice("idle") {
            "spin" => IdleStrategy::Spin,
            "park" => IdleStrategy::Park,
            _ => IdleStrategy::Adaptive,
        },
        spin: table.duration("spin"),
        host: if table.choice("host") == "glommio" { Host::Glommio } else { Host::Bare },
        io: match table.choice("io") {
            "uring" => IoChoice::Uring,
            "epoll" => IoChoice::Epoll,
            _ => IoChoice::Auto,
        },
        pin: table.processors("pin"),
        hello_timeout: table.duration("hello_timeout"),
        drain_timeout: table.duration("drain_timeout"),
        reattach_timeout: table.duration("reattach_timeout"),
    }
}

fn tenant_config(name: &str, table: &Table<'_>) -> TenantConfig {
    TenantConfig {
        name: name.to_owned(),
        weight: table.count("weight"),
        rate: table.count("rate"),
        rate_burst: table.count("rate_burst"),
        concurrency_max: table.count("concurrency_max"),
    }
}

fn function_config(name: &str, table: &Table<'_>, sources: &Sources<'_>) -> FunctionConfig {
    let directory = sources.file.and_then(|file| Path::new(file.origin).parent()).unwrap_or(Path::new(""));
    // Whole: the shim reads the effective values from a file elsewhere.
    let directory = std::path::absolute(directory.join(".")).unwrap_or_else(|_| directory.to_owned());
    FunctionConfig {
        name: name.to_owned(),
        command: match table.command("command") {
            Command::Program { program, arguments }
                if program.as_os_str().as_encoded_bytes().contains(&b'/') =>
            {
                Command::Program { program: directory.join(program), arguments }
            }
            other => other,
        },
        // The kind of the option admits no other name.
        runtime: Runtime::from_name(table.choice("runtime")).unwrap_or(Runtime::Native),
        start_timeout: table.duration("start_timeout"),
        snapshot: table.switch("snapshot"),
        http: HttpConfig {
            listen: if table.choice("http_listen") == "socket" {
                HttpListen::Socket
            } else {
                HttpListen::Port
            },
            path: table.text("http_path"),
            content_type: table.text("http_content_type"),
            ready_path: Some(table.text("http_ready_path")).filter(|path| path != "none"),
            health: Some(HealthConfig {
                interval: table.duration("health_interval"),
                timeout: table.duration("health_timeout"),
                failures_max: table.count("health_failures"),
            })
            .filter(|health| !health.interval.is_zero()),
        },
        containment: containment(table, &directory),
        limits: LimitsConfig {
            memory_max: Some(table.size_u64("memory_max")).filter(|size| *size > 0),
            cpu_max: Some(table.count("cpu_max")).filter(|percent| *percent > 0),
            is_best_effort: table.choice("containment_missing") == "best-effort",
        },
        tenant: table.name("tenant"),
        warm: table.count("warm"),
        warm_max: table.count("warm_max"),
        idle_timeout: table.duration("idle_timeout"),
        is_predictive: table.choice("warming") == "predictive",
        slots: table.count("slots"),
        timeout: table.duration("timeout"),
        queue_count_max: table.count("queue_count_max"),
        payload_size_max: table.size("payload_size_max"),
        idempotent: table.switch("idempotent"),
        ageing: table.duration("ageing"),
        refuse_infeasible: table.switch("refuse_infeasible"),
        rate: table.count("rate"),
        rate_burst: table.count("rate_burst"),
        quota: match table.choice("quota") {
            "opportunistic" => Quota::Opportunistic,
            _ => Quota::Reserved,
        },
        caller_rate: table.count("caller_rate"),
        caller_burst: table.count("caller_burst"),
        concurrency_max: table.count("concurrency_max"),
        nested_reserve: table.count("nested_reserve"),
        queue_delay_max: table.duration("queue_delay_max"),
        slow_start: table.switch("slow_start").then(|| SlowStartConfig {
            window: table.duration("slow_start_window"),
            calls: table.count("slow_start_calls"),
            growth: table.count("slow_start_growth"),
        }),
        retry: retry(table),
        hedge: hedge(table),
        backpressure: backpressure(table),
        breaker: breaker(table),
        fallback: table.fallback("fallback"),
        canary: canary(table),
        processors: table.processors("processors"),
        log: LogConfig {
            size_max: table.size_u64("log_size_max"),
            age_max: table.duration("log_age_max"),
            rate_max: table.size_u64("log_rate_max"),
        },
        env: table.environment("env"),
    }
}

fn canary(table: &Table<'_>) -> Option<CanaryConfig> {
    let function = table.text("canary");
    let percent = table.count("canary_percent") as u8;
    (function != "none").then_some(CanaryConfig { function, percent })
}

fn containment(table: &Table<'_>, directory: &Path) -> Option<ContainmentConfig> {
    let absolute = |key| table.paths(key).into_iter().map(|path| directory.join(path)).collect();
    match Containment::from_name(table.choice("containment")) {
        Some(Containment::Process) => Some(ContainmentConfig {
            is_best_effort: table.choice("containment_missing") == "best-effort",
            has_host_network: table.choice("network") == "host",
            read: absolute("read"),
            write: absolute("write"),
            tmp_size_max: table.size_u64("tmp_size_max"),
            processes_max: table.count("processes_max"),
        }),
        // The kind of the option admits no other name.
        Some(Containment::None) | None => None,
    }
}

fn retry(table: &Table<'_>) -> RetrySpec {
    RetrySpec {
        retries_max: table.count("retries") as u8,
        budget_percent: table.count("retry_budget_percent") as u8,
        backoff: nanos(table.duration("retry_backoff")),
        backoff_max: nanos(table.duration("retry_backoff_max")),
        on_error: table.switch("retry_errors"),
    }
}

fn hedge(table: &Table<'_>) -> Option<HedgeSpec> {
    let delay = nanos(table.duration("hedge_after"));
    let percentile = HedgeAfter::Percentile(table.count("hedge_percentile") as u8);
    table.switch("hedge").then(|| HedgeSpec {
        after: if delay == Nanos::ZERO { percentile } else { HedgeAfter::Delay(delay) },
        load_percent: table.count("hedge_budget_percent") as u8,
    })
}

fn backpressure(table: &Table<'_>) -> Option<BackpressureSpec> {
    table.switch("backpressure").then(|| BackpressureSpec {
        window: nanos(table.duration("backpressure_window")),
        threshold: table.count("backpressure_threshold"),
        decrease_percent: table.count("backpressure_decrease") as u8,
        increase_percent: table.count("backpressure_increase") as u8,
    })
}

fn breaker(table: &Table<'_>) -> Option<BreakerSpec> {
    let failure_percent = table.count("breaker_failure_percent") as u8;
    (failure_percent > 0).then(|| BreakerSpec {
        failure_percent,
        calls_min: table.count("breaker_calls_min"),
        window: nanos(table.duration("breaker_window")),
        open_for: nanos(table.duration("breaker_open")),
        probes_max: table.count("breaker_probes"),
    })
}

/// The settings of one table, by key and type. A key or type that is not in the option table is our bug.
struct Table<'a> {
    settings: &'a [Setting],
}

/// One accessor for each kind of value; they differ only in the variant they expect.
macro_rules! accessors {
    ($($name:ident -> $kind:ident: $type:ty,)*) => {
        impl Table<'_> {
            $(fn $name(&self, key: &str) -> $type {
                match &self.setting(key).value {
                    Value::$kind(value) => value.clone(),
                    other => unreachable!("the option table gives `{key}` another type: {other:?}"),
                }
            })*
        }
    };
}

accessors! {
    count_u64 -> Count: u64,
    size_u64 -> Size: u64,
    duration -> Duration: Duration,
    choice -> Choice: &'static str,
    switch -> Switch: bool,
    name -> Name: String,
    path -> Path: PathBuf,
    listeners -> Listeners: Vec<Listen>,
    paths -> Paths: Vec<PathBuf>,
    processors -> Processors: Vec<u32>,
    command -> Command: Command,
    environment -> Environment: std::collections::BTreeMap<String, String>,
    fallback -> Fallback: Fallback,
    text -> Text: String,
}

impl Table<'_> {
    fn setting(&self, key: &str) -> &Setting {
        let found = self.settings.iter().find(|setting| setting.key == key);
        found.unwrap_or_else(|| unreachable!("`{key}` is not in the option table"))
    }

    /// Counts whose range in the option table ends within 32 bits.
    fn count(&self, key: &str) -> u32 {
        u32::try_from(self.count_u64(key))
            .unwrap_or_else(|_| unreachable!("the range of `{key}` exceeds 32 bits"))
    }

    /// Sizes whose range in the option table ends within 32 bits.
    fn size(&self, key: &str) -> u32 {
        u32::try_from(self.size_u64(key))
            .unwrap_or_else(|_| unreachable!("the range of `{key}` exceeds 32 bits"))
    }
}

fn default_layer(spec: &OptionSpec, sources: &Sources<'_>) -> Vec<(Raw, Place)> {
    let text = match spec.key {
        // The one default that depends on who runs the router: the table holds its description.
        "run_dir" => Some(run_dir::usual_place(sources.env).to_string_lossy().into_owned()),
        _ => spec.default.map(str::to_owned),
    };
    let raw = text.map(|text| match text.as_str() {
        "{}" => Raw::Table(Vec::new()),
        _ => Raw::Text(text),
    });
    raw.into_iter().map(|raw| (raw, Place::Default)).collect()
}

fn file_layer(
    written: &HashMap<&Section, Vec<&Entry>>,
    section: &Section,
    spec: &OptionSpec,
) -> Option<(Raw, Place)> {
    let entry = written.get(section)?.iter().find(|entry| entry.key == spec.key)?;
    Some((entry.raw.clone(), entry.place.clone()))
}

/// Reads every layer and keeps the last; what lies `below` them was read before.
fn topmost(
    section: &Section,
    spec: &OptionSpec,
    layers: Vec<(Raw, Place)>,
    below: Option<Setting>,
    problems: &mut Vec<Problem>,
) -> Option<Setting> {
    let mut top = below;
    for (raw, place) in layers {
        match spec.kind.read(&raw) {
            Ok(value) => {
                top =
                    Some(Setting { section: section.clone(), key: spec.key, value, place, chosen_from: None })
            }
            Err(kind) => problems.push(Problem { place, key: section.full_key(spec.key), kind }),
        }
    }
    top
}

fn missing(section: &Section, spec: &OptionSpec, place: Place) -> Problem {
    let needed = "write [\"./program\", \"argument\"] or [\"builtin:NAME\"]";
    Problem { place, key: section.full_key(spec.key), kind: ProblemKind::Missing { needed } }
}

/// The default tenant is there whether it has a table or not, and is the first.
fn put_default_tenant_first(file: &mut File) {
    let written = file.tenants.iter().position(|(name, _)| name == DEFAULT_NAME);
    let default = written.map(|position| file.tenants.remove(position));
    file.tenants.insert(0, default.unwrap_or_else(|| (DEFAULT_NAME.to_owned(), Place::Default)));
}

fn unknown_keys(entries: &[Entry], problems: &mut Vec<Problem>) {
    for entry in entries {
        if entry.section.options().all(|spec| spec.key != entry.key) {
            let nearest = nearest(&entry.key, entry.section.options().map(|spec| spec.key));
            let key = entry.section.full_key(&entry.key);
            problems.push(Problem {
                place: entry.place.clone(),
                key,
                kind: ProblemKind::UnknownKey { nearest },
            });
        }
    }
}

fn add_bundled_functions(file: &mut File) {
    for name in BUNDLED_FUNCTIONS {
        file.functions.push((name.to_owned(), Place::Default));
        file.entries.push(Entry {
            section: Section::Function(name.to_owned()),
            key: "command".into(),
            raw: Raw::List(vec![Raw::Text(format!("builtin:{name}"))]),
            place: Place::Default,
        });
    }
}

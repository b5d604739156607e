//! A configuration is data in, data out: text and variables on one side, values or the exact words of every
//! problem on the other.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Quota;
use engine::{BackpressureSpec, BreakerSpec, HedgeAfter, HedgeSpec, Nanos, RetrySpec};
use proptest::prelude::*;

use super::file::{FUNCTIONS_COUNT_MAX, TEXT_SIZE_MAX};
use super::value::{Kind, Raw, Value};
use super::*;
use crate::options::{FUNCTION_OPTIONS, OptionSpec, ROUTER_OPTIONS, TENANT_OPTIONS};
use crate::processors::{Processors, Topology, TopologyUnknown};

/// The words of every problem of a file, one for each line.
fn problems(text: &str) -> String {
    Config::parse(text, "q.toml").map(|_| "no problem".to_owned()).unwrap_or_else(|error| error.to_string())
}

fn check(text: &str, expected: &[&str]) {
    assert_eq!(problems(text), expected.join("\n"), "{text}");
}

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &[&str])]) -> Result<Config, ConfigError> {
    load_on(&|| unreachable!("nothing says auto"), file, env, flags)
}

fn load_on(
    machine: &dyn Fn() -> Machine,
    file: &str,
    env: &[(&str, &str)],
    flags: &[(&str, &[&str])],
) -> Result<Config, ConfigError> {
    let env: BTreeMap<_, _> = env.iter().copied().collect();
    let flags: BTreeMap<_, _> = flags.iter().copied().collect();
    Config::load(&Sources {
        file: Some(FileText { text: file, origin: "q.toml" }),
        env: &|name| env.get(name).map(|text| (*text).to_owned()),
        flags: &|name| {
            flags
                .get(name)
                .map(|texts| texts.iter().map(|text| (*text).to_owned()).collect())
                .unwrap_or_default()
        },
        machine,
    })
}

/// Eight processors, each two of them neighbours on one core; as many of them in the affinity mask as said.
fn eight_processors(allowed: &[u32]) -> Machine {
    let system = tempfile::tempdir().unwrap();
    for processor in 0..8 {
        let directory = system.path().join(format!("cpu/cpu{processor}/topology"));
        std::fs::create_dir_all(&directory).unwrap();
        let first = processor / 2 * 2;
        std::fs::write(directory.join("thread_siblings_list"), format!("{first}-{}\n", first + 1)).unwrap();
    }
    let affinity_count = allowed.len() as u32;
    Machine {
        processors: Processors { affinity_count, quota: None },
        topology: Topology::read(system.path(), allowed),
    }
}

#[test]
fn auto_is_replaced_by_what_the_machine_has_and_says_what_it_was_chosen_from() {
    // Given
    let file =
        "[router]\nshards = \"auto\"\n[functions.a]\ncommand = [\"builtin:echo\"]\nprocessors = \"0-1\"";
    let all = || eight_processors(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let config = load_on(&all, file, &[], &[("pin", &["auto"])]).unwrap();
    // Expect: a core for each shard, and none that a function was given.
    assert_eq!((config.router.shards, &config.router.pin[..]), (2, &[2, 4][..]));
    assert_eq!(config.functions[0].processors, [0, 1]);
    let printed = config.to_toml();
    let line = |key: &str| {
        let line = printed.lines().find(|line| line.starts_with(&format!("{key} ="))).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("shards"), "shards = 2 # q.toml:2:1: auto, processors 8 (affinity 8, no cgroup quota)");
    assert_eq!(line("pin"), "pin = \"2,4\" # --pin: auto, separate cores of one node where there are");
    assert_eq!(line("processors"), "processors = \"0-1\" # q.toml:5:1");
    // What is printed reads back as the same numbers, on whatever machine.
    let again = load(&printed, &[], &[]).unwrap();
    assert_eq!((again.router, again.functions), (config.router, config.functions));
}

#[test]
fn automatic_shards_are_no_more_than_the_processors_that_are_named_for_them() {
    let all = || eight_processors(&[0, 1, 2, 3, 4, 5, 6, 7]);
    let config = load_on(&all, "[router]\nshards = \"auto\"\npin = \"7\"", &[], &[]).unwrap();
    assert_eq!((config.router.shards, &config.router.pin[..]), (1, &[7][..]));
}

#[test]
fn shards_without_a_processor_each_are_told_what_there_is() {
    let three = || eight_processors(&[1, 2, 3]);
    let error = load_on(&three, "[router]\npin = \"auto\"\nshards = 4", &[], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "q.toml:2:1: `router.pin`: cannot give each of 4 shards a processor of its own; this process may use 1-3"
    );
}

#[test]
fn a_machine_that_does_not_tell_its_topology_refuses_only_what_needs_it() {
    let silent = || Machine {
        processors: Processors { affinity_count: 16, quota: Some(9.5) },
        topology: Err(TopologyUnknown::NoMask),
    };
    assert_eq!(load_on(&silent, "[router]\nshards = \"auto\"", &[], &[]).unwrap().router.shards, 2);
    let error = load_on(&silent, "[router]\npin = \"auto\"", &[], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "q.toml:2:1: `router.pin`: cannot be chosen automatically: the kernel does not say which processors this process may use"
    );
}

#[test]
fn every_default_of_the_table_is_allowed_by_its_own_range() {
    let config = Config::bundled();
    let names: Vec<_> = config.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["echo", "moderate", "noop", "thumbnail"]);
    assert_eq!(config.functions[0].command, Command::Builtin("echo".into()));
    assert_eq!(config.functions[0].payload_size_max, 1 << 20);
    assert_eq!(config.router.connection_credits, 32768);
    assert!(config.router.listen.contains(&Listen::Unix(config.router.run_dir.join("router.sock"))));
}

#[test]
fn keys_flags_and_variables_are_unique_and_follow_from_each_other() {
    for (index, spec) in ROUTER_OPTIONS.iter().enumerate() {
        assert_eq!(spec.flag, Some(spec.key.replace('_', "-").as_str()));
        let usual = format!("QUICKFIRE_{}", spec.key.to_uppercase());
        assert!(spec.env == Some(&usual) || spec.env == Some("QUICKFIRE_DIR"), "{}", spec.key);
        assert!(ROUTER_OPTIONS.iter().skip(index + 1).all(|other| other.key != spec.key));
    }
    for table in [FUNCTION_OPTIONS, TENANT_OPTIONS] {
        for (index, spec) in table.iter().enumerate() {
            assert!(spec.flag.is_none() && spec.env.is_none(), "{}", spec.key);
            assert!(table.iter().skip(index + 1).all(|other| other.key != spec.key));
        }
    }
}

#[test]
fn the_later_source_wins_and_is_named() {
    // Given
    let file = "[router]\nshards = 2\ndrain_timeout = \"1ms\"\nhost = \"glommio\"";
    // Expect
    let config =
        load(file, &[("QUICKFIRE_SHARDS", "3"), ("QUICKFIRE_DRAIN_TIMEOUT", "2ms")], &[("shards", &["4"])])
            .unwrap();
    assert_eq!(config.router.shards, 4);
    assert_eq!(config.router.drain_timeout, Duration::from_millis(2));
    assert_eq!(config.router.host, Host::Glommio);
    let place = |key| {
        config
            .settings
            .iter()
            .find(|s| s.section == Section::Router && s.key == key)
            .unwrap()
            .place
            .to_string()
    };
    assert_eq!(place("shards"), "--shards");
    assert_eq!(place("drain_timeout"), "environment variable QUICKFIRE_DRAIN_TIMEOUT");
    assert_eq!(place("host"), "q.toml:4:1");
    assert_eq!(place("pin"), "default");
}

#[test]
fn a_processor_that_is_not_ours_is_named_with_those_that_are() {
    let text = "[router]\nshards = 2\npin = \"1,7-8\"\n\
                [functions.a]\ncommand = [\"builtin:echo\"]\nprocessors = \"2,8\"";
    let config = Config::parse(text, "q.toml").unwrap();
    assert_eq!(config.check_processors(&[1, 2, 7, 8]), Ok(()));
    assert_eq!(
        config.check_processors(&[0, 1, 2]).unwrap_err().to_string(),
        "q.toml:3:1: `router.pin`: names processors that this process may not use: 7-8; it may use 0-2\n\
         q.toml:6:1: `functions.a.processors`: names processors that this process may not use: 8; it may use 0-2"
    );
    // A processor named twice is refused by its type already.
    assert!(problems("[router]\npin = \"1,0-2\"").contains("`router.pin`: 1,0-2 is not allowed"));
}

#[test]
fn the_edge_to_the_kernel_is_chosen_by_name() {
    let chosen = |text: &str| Config::parse(text, "q.toml").unwrap().router.io;
    assert_eq!(chosen(""), IoChoice::Auto);
    assert_eq!(chosen("[router]\nio = \"auto\""), IoChoice::Auto);
    assert_eq!(chosen("[router]\nio = \"uring\""), IoChoice::Uring);
    assert_eq!(chosen("[router]\nio = \"epoll\""), IoChoice::Epoll);
    check(
        "[router]\nio = \"poll\"",
        &["q.toml:2:1: `router.io`: poll is not allowed; allowed: auto or uring or epoll"],
    );
}

#[test]
fn listeners_come_as_a_list_or_between_commas_and_the_run_directory_is_put_in() {
    let from_file = load("[router]\nlisten = [\"unix://DIR/a\"]\nrun_dir = \"/run/q\"", &[], &[]).unwrap();
    assert_eq!(from_file.router.listen, [Listen::Unix("/run/q/a".into())]);
    let from_env = load("", &[("QUICKFIRE_LISTEN", "quickfire://127.0.0.1:1, unix:///b")], &[]).unwrap();
    assert_eq!(from_env.router.listen.len(), 2);
    let from_flags = load("", &[], &[("listen", &["unix:///b", "unix:///c", "unix:///d"])]).unwrap();
    assert_eq!(from_flags.router.listen.len(), 3);
}

#[test]
fn a_function_gets_its_table_and_the_defaults() {
    let text = r#"
        [functions.resize]
        command = ["./bin/resize", "--fast"]
        runtime = "stdio"
        http_path = "/call"
        warm = 2
        slots = 16
        timeout = "250ms"
        queue_count_max = "10k"
        payload_size_max = "64KiB"
        idempotent = true
        ageing = "100ms"
        warming = "predictive"
        refuse_infeasible = false
        rate = 500
        rate_burst = 5
        quota = "opportunistic"
        caller_rate = 20
        concurrency_max = 3
        nested_reserve = 1
        queue_delay_max = "20ms"
        slow_start = true
        slow_start_growth = 50
        retries = 3
        retry_errors = true
        hedge = true
        hedge_percentile = 90
        backpressure_threshold = 7
        breaker_failure_percent = 40
        fallback = "answer:later"
        canary_percent = 3
        processors = "4-5,7"
        log_age_max = "24h"
        env = { LEVEL = "3" }
        containment = "process"
        network = "host"
        read = ["./model", "/srv/data"]
        processes_max = 9
        memory_max = "96MiB"
    "#;
    let config = Config::parse(text, "/etc/quickfire/q.toml").unwrap();
    let expected = FunctionConfig {
        name: "resize".into(),
        command: Command::Program {
            program: "/etc/quickfire/./bin/resize".into(),
            arguments: vec!["--fast".into()],
        },
        runtime: Runtime::Stdio,
        start_timeout: Duration::from_secs(10),
        snapshot: false,
        http: HttpConfig {
            listen: HttpListen::Port,
            path: "/call".into(),
            content_type: "application/octet-stream".into(),
            ready_path: None,
            health: None,
        },
        containment: Some(ContainmentConfig {
            is_best_effort: false,
            has_host_network: true,
            read: vec!["/etc/quickfire/./model".into(), "/srv/data".into()],
            write: Vec::new(),
            tmp_size_max: 64 << 20,
            processes_max: 9,
        }),
        limits: LimitsConfig { memory_max: Some(96 << 20), cpu_max: None, is_best_effort: false },
        tenant: "default".into(),
        warm: 2,
        warm_max: 0,
        idle_timeout: Duration::from_secs(600),
        is_predictive: true,
        slots: 16,
        timeout: Duration::from_millis(250),
        queue_count_max: 10_000,
        payload_size_max: 64 << 10,
        idempotent: true,
        ageing: Duration::from_millis(100),
        refuse_infeasible: false,
        rate: 500,
        rate_burst: 5,
        quota: Quota::Opportunistic,
        caller_rate: 20,
        caller_burst: 100,
        concurrency_max: 3,
        nested_reserve: 1,
        queue_delay_max: Duration::from_millis(20),
        slow_start: Some(SlowStartConfig { window: Duration::from_secs(60), calls: 100, growth: 50 }),
        retry: RetrySpec { retries_max: 3, on_error: true, ..RetrySpec::default() },
        hedge: Some(HedgeSpec { after: HedgeAfter::Percentile(90), load_percent: 5 }),
        backpressure: Some(BackpressureSpec {
            window: Nanos::from_secs(10),
            threshold: 7,
            decrease_percent: 50,
            increase_percent: 10,
        }),
        breaker: Some(BreakerSpec {
            failure_percent: 40,
            calls_min: 20,
            window: Nanos::from_secs(10),
            open_for: Nanos::from_secs(5),
            probes_max: 3,
        }),
        fallback: Fallback::Answer("later".into()),
        canary: None,
        processors: vec![4, 5, 7],
        log: LogConfig { size_max: 2 << 20, age_max: Duration::from_secs(24 * 3600), rate_max: 1 << 20 },
        env: [("LEVEL".to_owned(), "3".to_owned())].into(),
    };
    assert_eq!(config.functions, [expected]);
}

#[test]
fn a_program_beside_its_file_is_found_wherever_the_shim_reads_of_it() {
    // Given: a file by a relative path, which names a program by another.
    let config = Config::parse("[functions.f]\ncommand = [\"./bin/f\", \"./x\"]", "some/q.toml").unwrap();
    let [FunctionConfig { command: Command::Program { program, .. }, .. }] = &config.functions[..] else {
        panic!("{:?}", config.functions)
    };
    // Expect
    assert!(program.is_absolute() && program.ends_with("some/bin/f"), "{program:?}");
    let of_the_shim = Config::parse(&config.to_short_toml(), "/run/quickfire/shim.toml").unwrap();
    assert_eq!(of_the_shim.functions, config.functions);
}

#[test]
fn as_many_functions_as_there_may_be_fit_into_what_the_shim_is_told() {
    // Given: functions that differ in a name, a tenant and a number, and some that leave a number to `[defaults]`.
    let mut text = "[defaults]\nwarm = 0\n[tenants.quiet]\n".to_owned();
    for number in 0..FUNCTIONS_COUNT_MAX {
        let more = if number % 2 == 0 { "warm = 1\ntenant = \"quiet\"\nslots = 64" } else { "" };
        text.push_str(&format!("[functions.f{number}]\ncommand = [\"builtin:echo\"]\n{more}\n"));
    }
    let config = Config::parse(&text, "q.toml").unwrap();
    // Expect
    let short = config.to_short_toml();
    assert!(short.len() < TEXT_SIZE_MAX / 2, "{} bytes", short.len());
    let again = Config::parse(&short, "again").unwrap();
    assert_eq!((again.router, again.tenants), (config.router, config.tenants));
    assert_eq!(again.functions, config.functions);
}

#[test]
fn what_defaults_say_holds_for_every_function_that_does_not_say_otherwise() {
    // Given
    let text = "[defaults]\nwarm = 3\ntimeout = \"1s\"\nenv = { A = \"1\", B = \"2\" }\n\
                [functions.plain]\ncommand = [\"builtin:echo\"]\n\
                [functions.special]\ncommand = [\"builtin:echo\"]\nwarm = 1\nenv = { A = \"9\" }";
    let config = Config::parse(text, "q.toml").unwrap();
    // Expect
    let [plain, special] = &config.functions[..] else { panic!("{:?}", config.functions) };
    assert_eq!((plain.warm, plain.timeout, plain.env.len()), (3, Duration::from_secs(1), 2));
    assert_eq!((special.warm, special.timeout), (1, Duration::from_secs(1)));
    assert_eq!(special.env, [("A".to_owned(), "9".to_owned())].into(), "a table is replaced whole");
    let printed = config.to_toml();
    assert!(printed.contains("timeout = \"1s\"                                   # q.toml:3:1"), "{printed}");
    assert!(!printed.contains("[defaults]"), "they are printed where they hold: {printed}");
}

#[test]
fn defaults_hold_for_the_bundled_functions_too() {
    let config = Config::parse("[defaults]\nwarm = 2", "q.toml").unwrap();
    assert_eq!(config.functions.iter().map(|function| function.warm).collect::<Vec<_>>(), [2; 4]);
}

#[test]
fn a_mistake_among_the_defaults_is_told_once_and_as_theirs() {
    check(
        "[defaults]\nwarm = 9999\ncommand = [\"builtin:echo\"]\ntimeuot = \"1s\"\n\
         [functions.a]\ncommand = [\"builtin:echo\"]\n[functions.b]\ncommand = [\"builtin:echo\"]",
        &[
            "q.toml:3:1: `defaults.command`: no such key",
            "q.toml:4:1: `defaults.timeuot`: no such key; did you mean `timeout`?",
            "q.toml:2:1: `defaults.warm`: 9999 is not allowed; allowed: a whole number from 0 to 1024",
        ],
    );
}

#[test]
fn the_default_tenant_is_there_and_the_first_whether_it_has_a_table_or_not() {
    let tenants = |text: &str| {
        let config = Config::parse(text, "q.toml").unwrap();
        config.tenants.into_iter().map(|tenant| (tenant.name, tenant.weight)).collect::<Vec<_>>()
    };
    assert_eq!(tenants(""), [("default".to_owned(), 1)]);
    assert_eq!(
        tenants("[tenants.audio]\n[tenants.zoo]\nweight = 3\n[tenants.default]\nweight = 2"),
        [("default".to_owned(), 2), ("audio".to_owned(), 1), ("zoo".to_owned(), 3)]
    );
}

#[test]
fn a_function_belongs_to_the_tenant_it_names_or_defaults_name() {
    let text = "[defaults]\ntenant = \"zoo\"\n[tenants.zoo]\n[tenants.audio]\n\
                [functions.a]\ncommand = [\"builtin:echo\"]\n\
                [functions.b]\ncommand = [\"builtin:echo\"]\ntenant = \"audio\"\n\
                [functions.c]\ncommand = [\"builtin:echo\"]\ntenant = \"default\"";
    let config = Config::parse(text, "q.toml").unwrap();
    let indexes: Vec<_> =
        config.functions.iter().map(|function| config.tenant_index(&function.tenant).0).collect();
    assert_eq!(indexes, [2, 1, 0]);
}

#[test]
fn a_tenant_that_is_not_there_is_told_with_the_nearest() {
    check(
        "[tenants.images]\nweight = 0\n[functions.a]\ncommand = [\"builtin:echo\"]\ntenant = \"a b\"",
        &[
            "q.toml:2:1: `tenants.images.weight`: 0 is not allowed; allowed: a whole number from 1 to 1000",
            "q.toml:5:1: `functions.a.tenant`: `a b` is not allowed; allowed: a name of 1 to 128 letters, digits, `.`, `_` or `-` that starts with a letter or digit",
        ],
    );
    check(
        "[tenants.images]\n[functions.a]\ncommand = [\"builtin:echo\"]\ntenant = \"image\"",
        &["q.toml:4:1: `functions.a.tenant`: there is no table [tenants.image]; did you mean `images`?"],
    );
}

#[test]
fn a_runtime_and_its_command_have_to_fit() {
    check(
        "[functions.a]\ncommand = [\"builtin:echo\"]\nruntime = \"exec\"",
        &["q.toml:3:1: `functions.a.runtime`: is `exec`, and the bundled functions are native"],
    );
    check(
        "[functions.a]\ncommand = [\"./a\"]\nruntime = \"exec\"\nenv = { TRACEPARENT = \"x\" }",
        &["q.toml:4:1: `functions.a.env`: sets TRACEPARENT, which runtime `exec` sets itself"],
    );
    check(
        "[functions.a]\ncommand = [\"./a\"]\nruntime = \"cgi\"",
        &[
            "q.toml:3:1: `functions.a.runtime`: cgi is not allowed; allowed: native or exec or stdio or http or lambda",
        ],
    );
}

#[test]
fn only_a_server_with_a_readiness_path_can_be_asked_for_its_health() {
    let told = "`functions.a.health_interval`: needs runtime = \"http\" and http_ready_path: nothing else can be asked for its \
                health without a call";
    let with =
        |options: &str| format!("[functions.a]\ncommand = [\"./a\"]\nhealth_interval = \"5s\"\n{options}");
    check(&with(""), &[&format!("q.toml:3:1: {told}")]);
    check(&with("runtime = \"http\""), &[&format!("q.toml:3:1: {told}")]);
    check(&with("runtime = \"stdio\"\nhttp_ready_path = \"/a\""), &[&format!("q.toml:3:1: {told}")]);
    let config = Config::parse(&with("runtime = \"http\"\nhttp_ready_path = \"/a\""), "q.toml").unwrap();
    let expected =
        HealthConfig { interval: Duration::from_secs(5), timeout: Duration::from_secs(1), failures_max: 3 };
    assert_eq!(config.functions[0].http.health, Some(expected));
}

#[test]
fn paths_and_headers_hold_what_a_request_can_carry() {
    let with = |option: &str, text: &str| {
        format!("[functions.a]\ncommand = [\"./a\"]\nruntime = \"http\"\n{option} = {text:?}")
    };
    let config = Config::parse(&with("http_ready_path", "/ready?a=1"), "q.toml").unwrap();
    assert_eq!(config.functions[0].http.ready_path.as_deref(), Some("/ready?a=1"));
    assert_eq!(Config::parse(&config.to_toml(), "q.toml").unwrap().functions, config.functions);
    let long = format!("/{}", "x".repeat(1024));
    for (option, text) in [
        ("http_path", "none"),
        ("http_path", "call"),
        ("http_path", "/a b"),
        ("http_path", "/a#b"),
        ("http_path", "/ü"),
        ("http_path", &long),
        ("http_ready_path", ""),
        ("http_content_type", ""),
        ("http_content_type", "text/plain "),
        ("http_content_type", "text/plain\r\nx: y"),
    ] {
        let told = problems(&with(option, text));
        assert!(told.starts_with(&format!("q.toml:4:1: `functions.a.{option}`: ")), "{text}: {told}");
    }
}

#[test]
fn a_reserve_leaves_a_process_for_calls_that_are_not_nested() {
    let text =
        |warm, kept| format!("[functions.a]\ncommand = [\"x\"]\nwarm = {warm}\nnested_reserve = {kept}");
    for (warm, kept) in [(2, 2), (1, 5), (0, 1)] {
        let told = format!(
            "q.toml:4:1: `functions.a.nested_reserve`: leaves none of {warm} warm processes for calls that are not nested"
        );
        check(&text(warm, kept), &[&told]);
    }
    assert!(Config::parse(&text(3, 2), "q.toml").is_ok());
    assert!(Config::parse(&text(0, 0), "q.toml").is_ok());
}

#[test]
fn only_a_program_that_attaches_by_itself_is_copied() {
    for runtime in ["exec", "stdio", "http", "lambda"] {
        let text = format!(
            "q.toml:4:1: `functions.a.snapshot`: copies the program itself, and with runtime `{runtime}` it runs behind a relay"
        );
        check(
            &format!("[functions.a]\ncommand = [\"x\"]\nruntime = \"{runtime}\"\nsnapshot = true"),
            &[&text],
        );
    }
    for function in ["command = [\"x\"]", "command = [\"builtin:echo\"]"] {
        let config = Config::parse(&format!("[functions.a]\n{function}\nsnapshot = true"), "q.toml").unwrap();
        assert!(config.functions[0].snapshot);
    }
}

#[test]
fn copies_are_not_made_out_of_a_sandbox() {
    check(
        "[functions.a]\ncommand = [\"x\"]\ncontainment = \"process\"\nsnapshot = true",
        &[
            "q.toml:3:1: `functions.a.containment`: is `process`, and copies of a process (snapshot) cannot be made out of a sandbox",
        ],
    );
    check(
        "[functions.a]\ncommand = [\"x\"]\ncpu_max = 50\nsnapshot = true",
        &[
            "q.toml:4:1: `functions.a.snapshot`: copies a process, and a copy would share the bounds (memory_max, cpu_max) \
           of what it is copied from",
        ],
    );
}

#[test]
fn only_what_may_run_twice_is_hedged() {
    check(
        "[functions.a]\ncommand = [\"x\"]\nhedge = true",
        &["q.toml:3:1: `functions.a.hedge`: runs calls twice, which needs `idempotent = true`"],
    );
    let text = |after: &str| {
        format!(
            "[functions.a]\ncommand = [\"x\"]\nidempotent = true\nhedge = true\nhedge_after = \"{after}\""
        )
    };
    for (after, expected) in
        [("0s", HedgeAfter::Percentile(95)), ("20ms", HedgeAfter::Delay(Nanos::from_ms(20)))]
    {
        let config = Config::parse(&text(after), "q.toml").unwrap();
        assert_eq!(config.functions[0].hedge, Some(HedgeSpec { after: expected, load_percent: 5 }));
    }
}

#[test]
fn a_fallback_names_another_function_that_takes_the_same_payloads() {
    let functions = |fallback: &str| {
        format!(
            "[functions.a]\ncommand = [\"x\"]\nfallback = \"{fallback}\"\n[functions.b]\ncommand = [\"x\"]\n\
             [functions.small]\ncommand = [\"x\"]\npayload_size_max = 10\n"
        )
    };
    assert!(Config::parse(&functions("function:b"), "q.toml").is_ok());
    check(
        &functions("function:c"),
        &["q.toml:3:1: `functions.a.fallback`: names c, and there is no such function"],
    );
    check(&functions("function:a"), &["q.toml:3:1: `functions.a.fallback`: names the function itself"]);
    check(
        &functions("function:small"),
        &["q.toml:3:1: `functions.a.fallback`: names small, which takes smaller payloads (payload_size_max)"],
    );
}

#[test]
fn a_canary_is_another_function_without_one_that_takes_the_same_payloads() {
    let functions = |canary: &str| {
        format!(
            "[functions.a]\ncommand = [\"x\"]\ncanary = \"{canary}\"\ncanary_percent = 3\n[functions.b]\n\
             command = [\"x\"]\n[functions.small]\ncommand = [\"x\"]\npayload_size_max = 10\n[functions.last]\n\
             command = [\"x\"]\ncanary = \"b\"\n"
        )
    };
    let config = Config::parse(&functions("b"), "q.toml").unwrap();
    assert_eq!(config.functions[0].canary, Some(CanaryConfig { function: "b".into(), percent: 3 }));
    let refused = |canary: &str, why: &str| {
        check(&functions(canary), &[&format!("q.toml:3:1: `functions.a.canary`: {why}")]);
    };
    refused("c", "names c, and there is no such function");
    refused("a", "names the function itself");
    refused("small", "names small, which takes smaller payloads (payload_size_max)");
    refused("last", "names last, which has a canary itself");
}

#[test]
fn more_tenants_than_an_engine_holds_are_told() {
    let text: String = (0..1024).map(|index| format!("[tenants.t{index}]\n")).collect();
    let told = problems(&text);
    assert!(told.contains("`tenants`: 1024 is not allowed; allowed: at most 1023 tenants"), "{told}");
    assert_eq!(super::file::TENANTS_COUNT_MAX + 1, usize::from(engine::Limits::default().tenants_max));
}

#[test]
fn several_problems_are_told_at_once_with_line_and_column() {
    check(
        "[router]\nshardz = 2\n  drain_timeout = \"50\"\n\n[functions.echo]\nwarm = -1\n",
        &[
            "q.toml:2:1: `router.shardz`: no such key; did you mean `shards`?",
            "q.toml:3:3: `router.drain_timeout`: `50` needs a unit: ns, us, ms, s, m or h",
            "q.toml:5:12: `functions.echo.command`: is missing; write [\"./program\", \"argument\"] or [\"builtin:NAME\"]",
            "q.toml:6:1: `functions.echo.warm`: `-1` is not a whole number",
        ],
    );
}

#[test]
fn a_bad_limit_is_told_with_its_range() {
    check(
        "[router]\nshards = 0\nframe_size_max = \"1GiB\"\nhost = \"tokio\"\n\
         [functions.echo]\ncommand = [\"builtin:echo\"]\nslots = 65\ntimeout = \"0s\"",
        &[
            "q.toml:2:1: `router.shards`: 0 is not allowed; allowed: auto, or a whole number from 1 to 256",
            "q.toml:3:1: `router.frame_size_max`: 1GiB is not allowed; allowed: a size from 8KiB to 65540KiB, a multiple of 16",
            "q.toml:4:1: `router.host`: tokio is not allowed; allowed: bare or glommio",
            "q.toml:7:1: `functions.echo.slots`: 65 is not allowed; allowed: a power of two from 1 to 4096",
            "q.toml:8:1: `functions.echo.timeout`: 0s is not allowed; allowed: a duration from 1ms to 86400s",
        ],
    );
}

#[test]
fn a_wrong_type_is_told_with_the_right_one() {
    check(
        "[router]\nshards = 1.5\npin = 3\n[functions.echo]\ncommand = \"echo\"\nenv = { A = 1 }\nidempotent = 1",
        &[
            "q.toml:2:1: `router.shards`: is a fraction, expected auto, or a whole number from 1 to 256",
            "q.toml:3:1: `router.pin`: is a number, expected auto, none, or a list of processors like \"2,4-6\"",
            "q.toml:5:1: `functions.echo.command`: is a text, expected a list of texts like [\"./program\", \"argument\"] or [\"builtin:echo\"]",
            "q.toml:7:1: `functions.echo.idempotent`: is a number, expected true or false",
            "q.toml:6:1: `functions.echo.env`: is a number, expected a table of texts like { NAME = \"value\" }",
        ],
    );
}

#[test]
fn a_function_written_twice_is_named() {
    check(
        "[functions.echo]\ncommand = [\"builtin:echo\"]\n[functions.echo]\ncommand = [\"builtin:noop\"]",
        &["q.toml:3:1: `functions.echo`: is written twice"],
    );
}

#[test]
fn a_key_written_twice_is_named() {
    check("[router]\nshards = 1\nshards = 2", &["q.toml:3:1: `shards`: is written twice"]);
}

#[test]
fn an_unknown_table_and_a_bad_name_are_told() {
    check("[ruoter]\nshards = 1", &["q.toml:1:2: `ruoter`: no such key; did you mean `router`?"]);
    let told = problems("[functions.\"a b\"]\ncommand = [\"builtin:echo\"]");
    assert!(
        told.starts_with("q.toml:1:12: `functions.a b`: `a b` is not allowed; allowed: a name of 1 to 128"),
        "{told}"
    );
}

#[test]
fn a_text_that_is_no_toml_is_told_with_its_place() {
    let told = problems("[router]\nshards = = 2\n");
    assert!(told.starts_with("q.toml:2:"), "{told}");
}

#[test]
fn values_that_do_not_fit_together_are_told() {
    check(
        "[router]\npin = \"1\"\nshards = 2\nframe_size_max = \"64KiB\"\nlisten = [\"unix:///a\", \"unix:///a\"]\n\
         [functions.echo]\ncommand = [\"builtin:echo\"]\npayload_size_max = \"64KiB\"",
        &[
            "q.toml:2:1: `router.pin`: names 1 processors for 2 shards; one is needed for each",
            "q.toml:5:1: `router.listen`: names unix:///a twice",
            "q.toml:8:1: `functions.echo.payload_size_max`: 65536 bytes do not fit into a frame; router.frame_size_max leaves room for 61440",
        ],
    );
}

#[test]
fn more_warm_processes_than_a_shard_can_hold_are_told() {
    let function = |index: u32| format!("[functions.f{index}]\ncommand = [\"builtin:echo\"]\nwarm = 1024\n");
    let text: String = (0..5).map(function).collect();
    let told = problems(&text);
    assert!(
        told.contains("makes 5120 warm processes with the other functions; a shard has at most 4096"),
        "{told}"
    );
}

#[test]
fn a_default_follows_the_value_it_depends_on() {
    let small = Config::parse("[router]\nframe_size_max = \"64KiB\"", "q.toml").unwrap();
    assert_eq!(small.functions[0].payload_size_max, 60 << 10);
    let large = Config::parse("[router]\nframe_size_max = \"64MiB\"", "q.toml").unwrap();
    assert_eq!(large.router.output_size_max, 128 << 20);
}

#[test]
fn problems_in_variables_and_flags_name_them() {
    let error = load("", &[("QUICKFIRE_SHARDS", "many")], &[("pin", &["2-1"])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable QUICKFIRE_SHARDS: `router.shards`: `many` is not a whole number\n\
         --pin: `router.pin`: 2-1 is not allowed; allowed: auto, none, or a list of processors like \"2,4-6\""
    );
}

#[test]
fn a_missing_program_and_a_mistyped_builtin_are_told_with_their_keys() {
    let text = "[functions.a]\ncommand = [\"/nowhere/a\"]\n[functions.b]\ncommand = [\"builtin:ecco\"]\n\
                [functions.c]\ncommand = [\"/tmp\"]\n[functions.d]\ncommand = [\"/etc/passwd\"]\n\
                [functions.e]\ncommand = [\"sh\"]\n[functions.f]\ncommand = [\"no-such-program-anywhere\"]";
    let error = Config::parse(text, "q.toml").unwrap().check_programs(&["echo", "noop"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "q.toml:2:1: `functions.a.command`: cannot start `/nowhere/a`: no such file\n\
         q.toml:4:1: `functions.b.command`: cannot start `builtin:ecco`: the bundled functions are echo, noop; did you mean `builtin:echo`?\n\
         q.toml:6:1: `functions.c.command`: cannot start `/tmp`: it is a directory\n\
         q.toml:8:1: `functions.d.command`: cannot start `/etc/passwd`: it may not be executed\n\
         q.toml:12:1: `functions.f.command`: cannot start `no-such-program-anywhere`: no such program in PATH"
    );
}

#[test]
fn what_is_printed_reads_back_as_the_same_configuration() {
    let text = "[router]\nshards = 3\npin = \"0,2-4\"\ndrain_timeout = \"1500ns\"\nlisten = [\"quickfire://[::1]:0\"]\n\
                [tenants.\"t.1\"]\nweight = 7\n[defaults]\nwarm = 2\ntenant = \"t.1\"\n\
                [functions.\"a.b\"]\ncommand = [\"./x\", \"quote\\\" back\\\\ tab\\t é\"]\nenv = { \"A B\" = \"1\\n2\" }";
    for config in [Config::bundled(), Config::parse(text, "/etc/q.toml").unwrap()] {
        let again = Config::parse(&config.to_toml(), "printed").unwrap();
        assert_eq!(again.router, config.router);
        assert_eq!(again.tenants, config.tenants);
        assert_eq!(again.functions, config.functions);
        assert_eq!(again.digest(), config.digest());
    }
}

#[test]
fn the_digest_changes_with_what_a_shim_cannot_change_and_with_nothing_else() {
    let digest = |text: &str| Config::parse(text, "q.toml").unwrap().digest();
    let of = |router: &str, echo: &str| {
        digest(&format!(
            "[router]\nrun_dir = \"/r\"\n{router}\n[functions.echo]\ncommand = [\"builtin:echo\"]\n{echo}"
        ))
    };
    // The number itself: a router of the next version must come to the same one.
    assert_eq!(of("", ""), 0xdbe8_49a6_f9b3_baa8);
    assert_ne!(of("shards = 2", ""), of("", ""));
    assert_ne!(of("reattach_timeout = \"1s\"", ""), of("", ""));
    let others = ["drain_timeout = \"1ms\"", "functions_max = 7"].map(|router| of(router, ""));
    assert_eq!(others, [of("", ""); 2]);
    // Which functions there are a shim is told.
    assert_eq!(of("", "warm = 2\nprocessors = \"1\"\nenv = { A = \"1\" }"), of("", ""));
}

#[test]
fn an_edition_is_the_same_number_in_the_next_version() {
    let text = "[functions.echo]\ncommand = [\"/bin/echo\", \"-v\"]\nprocessors = \"1\"\nenv = { A = \"1\" }";
    assert_eq!(Config::parse(text, "q.toml").unwrap().functions[0].edition(), 0x2c4a_0186_b0eb_385e);
}

#[test]
fn a_changed_default_shows() {
    let text = |table: &str, options: &[OptionSpec]| {
        let line = |spec: &OptionSpec| format!("{table}.{} = {}", spec.key, spec.default.unwrap_or("(none)"));
        options.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    let tables =
        [("router", ROUTER_OPTIONS), ("tenants.NAME", TENANT_OPTIONS), ("functions.NAME", FUNCTION_OPTIONS)];
    let defaults: String = tables.iter().map(|(table, options)| text(table, options) + "\n").collect();
    let snapshot = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/defaults.snapshot");
    bless_or_compare(snapshot, &defaults);
}

#[test]
fn the_reference_page_is_the_option_table() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating/configuration.md");
    bless_or_compare(page, &crate::options::reference_page());
}

/// A file that follows from the code: compared, or written anew with QUICKFIRE_BLESS=1.
fn bless_or_compare(path: &str, text: &str) {
    if std::env::var_os("QUICKFIRE_BLESS").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        written, text,
        "{path} is not what the code says; QUICKFIRE_BLESS=1 cargo test -p router writes it anew"
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = Config::parse(&text, "fuzz");
    }

    #[test]
    fn no_toml_makes_the_parser_panic(lines in proptest::collection::vec(toml_line(), 0..12)) {
        if let Ok(config) = Config::parse(&lines.join("\n"), "fuzz") {
            prop_assert!(Config::parse(&config.to_toml(), "again").is_ok());
        }
    }

    #[test]
    fn what_is_allowed_reads_back_as_written(size in 0u64..=1 << 20, ns in 0u64..=u64::MAX / 2) {
        let kind = Kind::size(0, 1 << 20);
        let value = kind.read(&Raw::Integer(size.to_string())).unwrap();
        prop_assert_eq!(value, Value::Size(size));
        let kind = Kind::duration(Duration::ZERO, Duration::MAX);
        let text = super::units::format_duration(Duration::from_nanos(ns));
        prop_assert_eq!(kind.read(&Raw::Text(text)).unwrap(), Value::Duration(Duration::from_nanos(ns)));
    }
}

/// Lines that are nearly right, so that the deeper checks are reached.
fn toml_line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> =
        ROUTER_OPTIONS.iter().chain(FUNCTION_OPTIONS).chain(TENANT_OPTIONS).map(|spec| spec.key).collect();
    let values = vec![
        "1",
        "0",
        "-3",
        "4096",
        "\"1MiB\"",
        "\"50ms\"",
        "\"none\"",
        "\"1-3\"",
        "[]",
        "[\"builtin:echo\"]",
        "{}",
        "{ A = \"b\" }",
        "true",
        "1.5",
        "\"quickfire://127.0.0.1:0\"",
        "\"/x\"",
        "[[[[1]]]]",
        "0x10",
        "1979-05-27",
    ];
    prop_oneof![
        Just("[router]".to_owned()),
        Just("[defaults]".to_owned()),
        "\\[tenants\\.[a-c\"é ]{1,3}\\]",
        "\\[functions\\.[a-c\"é ]{1,3}\\]",
        (proptest::sample::select(keys), proptest::sample::select(values))
            .prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

//! `bench -- runtimes`: what a process of a function costs in each runtime: its start when a call waits for it, a call when it is
//! warm, and its memory.
//!
//! In: the plan.  Out: a record named `runtime/quantity`, and a table with a line for each runtime.
//! Always: a cold start is the time of a call that finds no process, from its sending to its answer: the decision to start one, start,
//! initialisation, attaching, and the call itself. A template, where there is one, is ready before.
//! Always: memory is the kernel's proportional share (PSS) of everything that makes up one process of the function, a relay and its
//! program included, with [`INSTANCES`] of them beside each other; a template's own share is a row of its own.
//! Never: fails for what a machine does not have. Such a runtime is told as not available, and why.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::arguments::Arguments;
use crate::experiments::{NotMeasured, Plan};
use crate::floor::Transport;
use crate::load::{self, Load, Pace};
use crate::progress::Progress;
use crate::quickfire::{Config, Router};
use crate::record::Record;
use crate::report::plot::escape;
use crate::report::{html, text};
use crate::series::{Summary, Unit, ratios};
use crate::wire::Conversation;
use crate::{Ending, process, quickfire, suite};

/// Processes beside each other when their memory is looked at: enough that what they share weighs little in each.
const INSTANCES: u32 = 8;
/// Calls outstanding where throughput is measured: enough to keep one process busy.
const WINDOW: u32 = 16;
/// How long a process may take to come or go.
const GIVE_UP: Duration = Duration::from_secs(60);
/// Calls that find no process, in one run.
const COLD_STARTS: usize = 5;
/// The function under each name.
const NAME: &str = "measured";

/// One line of the table.
struct Runtime {
    name: &'static str,
    command: fn() -> Result<Vec<String>, String>,
    lines: &'static str,
}

const RUNTIMES: [Runtime; 10] = [
    Runtime { name: "rust", command: bundled, lines: "" },
    Runtime { name: "rust-snapshot", command: bundled, lines: "snapshot = true\n" },
    Runtime { name: "python", command: || native_python("import quickfire", echo("native")), lines: "" },
    Runtime {
        name: "python-snapshot",
        command: || native_python("import quickfire", echo("native")),
        lines: "snapshot = true\n",
    },
    Runtime { name: "python-table", command: table, lines: "" },
    Runtime { name: "python-table-snapshot", command: table, lines: "snapshot = true\n" },
    Runtime { name: "exec", command: || Ok(vec!["cat".into()]), lines: "runtime = \"exec\"\n" },
    Runtime { name: "stdio", command: || foreign_python("stdio"), lines: "runtime = \"stdio\"\n" },
    Runtime { name: "http", command: || foreign_python("http"), lines: "runtime = \"http\"\n" },
    Runtime { name: "lambda", command: || foreign_python("lambda"), lines: "runtime = \"lambda\"\n" },
];

/// Which of them are the same program, started and copied.
const PAIRS: [(&str, &str); 3] =
    [("rust", "rust-snapshot"), ("python", "python-snapshot"), ("python-table", "python-table-snapshot")];

/// Measures, prints and keeps.
pub fn run(arguments: &Arguments) -> Result<Ending, String> {
    let selected: Vec<&Runtime> = RUNTIMES.iter().filter(|it| arguments.is_selected(it.name)).collect();
    if selected.is_empty() {
        let names = RUNTIMES.each_ref().map(|it| it.name).join(", ");
        return Err(format!("no runtime is named like {}; these are: {names}", arguments.only.join(", ")));
    }
    quickfire::build().map_err(|error| error.to_string())?;
    let record = measure(arguments, &selected);
    let shown = render(&record);
    print!("{}{shown}", text::render(&record, &[]));
    let page = html::open("What a process costs in each runtime", &record)
        + &format!("<pre>{}</pre></body></html>\n", escape(&shown));
    suite::keep(arguments, "runtimes", &record, &page).map_err(|error| error.to_string())?;
    Ok(if record.failed.is_empty() { Ending::Ok } else { Ending::Failed })
}

fn measure(arguments: &Arguments, selected: &[&Runtime]) -> Record {
    let plan = arguments.plan();
    let mut record = Record::new(plan.seconds, WINDOW);
    let once_s = 2.0 * plan.seconds + 3.0;
    let progress = Progress::new(once_s * (selected.len() * plan.runs) as f64);
    for run in 1..=plan.runs {
        for runtime in selected {
            progress.begin(run, plan.runs, runtime.name);
            if !record.absent.contains_key(runtime.name) {
                match one(&plan, runtime) {
                    Ok(values) => values.into_iter().for_each(|(quantity, unit, value)| {
                        record.add(format!("{}/{quantity}", runtime.name), unit, value);
                    }),
                    Err(NotMeasured::Absent(why)) => drop(record.absent.insert(runtime.name.into(), why)),
                    Err(NotMeasured::Failed(why)) => drop(record.failed.insert(runtime.name.into(), why)),
                }
            }
            progress.end(once_s);
        }
    }
    progress.finish();
    record
}

type Values = Vec<(&'static str, Unit, f64)>;

fn one(plan: &Plan, runtime: &Runtime) -> Result<Values, NotMeasured> {
    let command = (runtime.command)().map_err(NotMeasured::Absent)?;
    // The second function answers when the router is ready.
    let config = |lines: &str| {
        let lines = format!("{}timeout = \"30s\"\n{lines}", runtime.lines);
        Config::new(&plan.host).program(NAME, &command, &lines).function("ready", "noop", 1)
    };
    let cold_ns = cold_start_ns(&config("warm = 0\nwarm_max = 1\nidle_timeout = \"100ms\"\n"))?;

    let router = Router::start(&config("warm = 1\n"))?;
    if !Conversation::open(router.address(), 0)?.answers(NAME)? {
        return Err(NotMeasured::Failed("its first call did not end well".into()));
    }
    let load = |window| Load {
        function: NAME,
        transport: Transport::Shm,
        connections: 1,
        pace: Pace::Window(window),
        payload_size: 32,
        seconds: plan.seconds,
        criticality: "normal",
        may_be_refused: false,
    };
    let unloaded = load::run(&router, load(1))?;
    let loaded = load::run(&router, load(WINDOW))?;
    drop(router);

    let memory = memory(&config(&format!("warm = {INSTANCES}\n")))?;
    let mut values = vec![
        ("cold_start", Unit::Ns, cold_ns),
        ("latency_p50", Unit::Ns, unloaded.latency_ns_p50),
        ("calls_per_s", Unit::CallsPerS, loaded.calls_per_s),
        ("memory", Unit::Bytes, memory.instance),
    ];
    values.extend(memory.template.map(|template| ("template_memory", Unit::Bytes, template)));
    Ok(values)
}

/// A call of a function that keeps no process without calls, from its sending to its answer: the median of a few.
fn cold_start_ns(config: &Config) -> Result<f64, NotMeasured> {
    let router = Router::start(config)?;
    let mut conversation = Conversation::open(router.address(), 0)?;
    let function =
        conversation.resolve(NAME)?.ok_or_else(|| NotMeasured::Failed("no such function".into()))?;
    let mut times = Vec::new();
    // Once for nothing: what is read for the first time comes from the disk.
    for _ in 0..=COLD_STARTS {
        wait_until(&router, "it has no process, and a template that is ready", |status| {
            let mut templates = status["templates"].as_array().into_iter().flatten();
            pids(status, "places").is_empty() && templates.all(|template| template["state"] == "ready")
        })?;
        let sent_at = Instant::now();
        if !conversation.call(function)? {
            return Err(NotMeasured::Failed("a first call did not end well".into()));
        }
        times.push(sent_at.elapsed().as_nanos() as f64);
    }
    let counted = Summary::of(&times[1..]);
    Ok(counted.expect("more than none").median)
}

/// Bytes, in proportion to who else has them.
struct Memory {
    /// Of one process of the function, and what belongs to it.
    instance: f64,
    template: Option<f64>,
}

fn memory(config: &Config) -> Result<Memory, NotMeasured> {
    let router = Router::start(config)?;
    let status = wait_until(&router, "all processes are there", |status| {
        pids(status, "places").len() == INSTANCES as usize
    })?;
    let mut conversation = Conversation::open(router.address(), 0)?;
    // They have touched what a call touches: more calls than processes, and each process has had some time to start.
    for _ in 0..4 * INSTANCES {
        conversation.answers(NAME)?;
    }
    let share = |pid: u32| -> u64 {
        std::iter::once(pid).chain(process::descendants(pid)).map(process::proportional_size).sum()
    };
    let of_all: u64 = pids(&status, "places").into_iter().map(share).sum();
    let template = pids(&status, "templates").first().map(|pid| process::proportional_size(*pid) as f64);
    Ok(Memory { instance: of_all as f64 / f64::from(INSTANCES), template })
}

/// What the shim says of the function, when it is as wanted.
fn wait_until(router: &Router, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value, NotMeasured> {
    let give_up_at = Instant::now() + GIVE_UP;
    loop {
        let text = std::fs::read(router.dir().join("shim.json")).unwrap_or_default();
        let mut status: Value = serde_json::from_slice(&text).unwrap_or_default();
        let functions = status["functions"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let function = functions.into_iter().find(|function| function["name"] == NAME).unwrap_or_default();
        if !function.is_null() && is_so(&function) {
            return Ok(function);
        }
        if Instant::now() > give_up_at {
            return Err(NotMeasured::Failed(format!(
                "gave up waiting until {what}: {}",
                function["last_exit"]
            )));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pids(status: &Value, of: &str) -> Vec<u32> {
    let all = status[of].as_array().into_iter().flatten();
    all.filter_map(|each| u32::try_from(each["pid"].as_u64()?).ok()).collect()
}

fn bundled() -> Result<Vec<String>, String> {
    Ok(vec!["builtin:echo".into()])
}

/// The example that imports numpy and builds a table.
fn table() -> Result<Vec<String>, String> {
    native_python(
        "import quickfire, numpy",
        vec![root().join("examples/functions/native/similar.py").display().to_string()],
    )
}

fn echo(runtime: &str) -> Vec<String> {
    vec![root().join("bench/functions/echo.py").display().to_string(), runtime.into()]
}

/// The interpreter that has the package, with these words.
fn native_python(needs: &str, words: Vec<String>) -> Result<Vec<String>, String> {
    let chosen = std::env::var("QUICKFIRE_BENCH_PYTHON").ok();
    let built = root().join("target/python/bin/python");
    let python =
        chosen.unwrap_or_else(|| if built.exists() { built.display().to_string() } else { "python3".into() });
    let asked =
        Command::new(&python).args(["-c", needs]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !asked.is_ok_and(|status| status.success()) {
        return Err(format!(
            "{python} cannot `{needs}`: python3 -m pip install ./clients/python numpy, or name another interpreter in \
             QUICKFIRE_BENCH_PYTHON"
        ));
    }
    Ok(std::iter::once(python).chain(words).collect())
}

fn foreign_python(runtime: &str) -> Result<Vec<String>, String> {
    let python = process::installed("python3").ok_or("python3 is not installed")?;
    Ok(std::iter::once(python.display().to_string()).chain(echo(runtime)).collect())
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_default()
}

/// The table, and what copying gives over starting.
fn render(record: &Record) -> String {
    let mut out = String::from("\n");
    let header = ["runtime", "cold start", "warm call, p50", "calls", "memory of a process"];
    let mut rows = vec![header.map(String::from)];
    for runtime in &RUNTIMES {
        let show = |quantity: &str| {
            let series = record.series.get(&format!("{}/{quantity}", runtime.name));
            let shown = series.and_then(|series| Some(series.unit.show(Summary::of(&series.values)?.median)));
            shown.unwrap_or_else(|| "-".into())
        };
        let cells = ["cold_start", "latency_p50", "calls_per_s", "memory"].map(show);
        if cells.iter().any(|cell| cell != "-") {
            let [cold, warm, calls, memory] = cells;
            rows.push([runtime.name.into(), cold, warm, calls, memory]);
        }
    }
    // Writing to a String cannot fail.
    let _ = text::write_columns(&mut out, &rows);
    for (started, copied) in PAIRS {
        let gain = |quantity: &str, of: &str, to: &str| {
            let values = |name: &str| record.values(&format!("{name}/{quantity}"));
            Summary::of(&ratios(values(of), values(to))).map(|it| it.median)
        };
        if let (Some(faster), Some(memory)) =
            (gain("cold_start", started, copied), gain("memory", copied, started))
        {
            let _ = writeln!(
                out,
                "{started}: a copy is there {} as fast, with {} the memory",
                Unit::Times.show(faster),
                Unit::Times.show(memory)
            );
        }
    }
    let missing: BTreeMap<_, _> = record.absent.iter().chain(&record.failed).collect();
    for (name, why) in missing {
        let word = if record.absent.contains_key(name) { "not available" } else { "failed" };
        let _ = writeln!(out, "{name}: {word}: {why}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_was_measured_what_copying_gives_and_what_is_not_here() {
        let mut record = Record::new(1.0, 1);
        for (name, cold_ms, mib) in [("python-table", 400.0, 60.0), ("python-table-snapshot", 4.0, 12.0)] {
            record.add(format!("{name}/cold_start"), Unit::Ns, cold_ms * 1e6);
            record.add(format!("{name}/memory"), Unit::Bytes, mib * f64::from(1 << 20));
        }
        record.absent.insert("lambda".into(), "python3 is not installed".into());
        let shown = render(&record);
        assert!(shown.contains("400.00 ms"), "{shown}");
        assert!(
            shown.contains("python-table: a copy is there 100.00 x as fast, with 0.20 x the memory"),
            "{shown}"
        );
        assert!(shown.contains("lambda: not available: python3 is not installed"), "{shown}");
        assert!(!shown.contains("\nrust "), "a line without a value says nothing: {shown}");
    }

    #[test]
    fn each_pair_is_one_program_started_and_copied() {
        for (started, copied) in PAIRS {
            let find = |name: &str| RUNTIMES.iter().find(|it| it.name == name).unwrap();
            assert!(
                !find(started).lines.contains("snapshot") && find(copied).lines.contains("snapshot = true")
            );
        }
    }
}

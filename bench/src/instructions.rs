//! The instruction gate: how many instructions the router's own work for a call takes, against the number on record.
//!
//! In: the program `turn`, built here with the release profile as it stands in Cargo.toml.  Out: instructions per call
//! and stage; `Short` when the call costs more than the record and its tolerance.
//! How: `turn` runs under `valgrind --tool=callgrind` for two numbers of turns; the difference divided by the calls
//! between them leaves start-up and the growth of tables out.
//! Always: the same on every x86-64 machine with the same toolchain. What could differ is glibc choosing its memcpy by
//! processor, so the choice is turned off; the tolerance is for the rest.
//! Why instructions and not time: a shared machine moves the time of a call by half, and its instructions not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::process;
use crate::report::text::write_columns;

/// Enough that tables have grown and the worker's pace is known.
const TURNS_FEW: u64 = 500;
/// Far enough from the few that a difference of one instruction per call is 32,000 in the count.
const TURNS_MANY: u64 = 1_000;
const CALLS_PER_TURN: u64 = 64;
/// Above this much more than the record, the gate is shut.
const TOLERANCE_PERCENT: f64 = 2.0;
/// In the order of the request path.
const STAGES: [&str; 7] = ["decode", "admit", "dispatch", "push", "work", "reap", "reply"];
/// Processor features from which glibc chooses its copies. Without them it takes the ones every x86-64 machine has.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-RTM,-BMI2,\
                              -AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER";

/// What is kept in `bench/instructions.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// With what it was compiled: another compiler makes another number.
    toolchain: String,
    /// The number the gate holds.
    instructions_per_call: f64,
    /// By stage of the request path, as far as a stage is a function of `turn`.
    stages: BTreeMap<String, f64>,
    /// What this is, for who finds the file.
    note: String,
}

const NOTE: &str = "Written by `cargo run --release -p bench -- instructions --record`. The gate fails 2 % above \
                    instructions_per_call; see docs/performance.md.";

/// Counts, prints, and compares with the record or replaces it.
pub fn run(is_recorded: bool) -> Result<Ending, String> {
    let valgrind =
        process::installed("valgrind").ok_or("valgrind is needed to count instructions: install valgrind")?;
    let program = build()?;
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let few = count(&valgrind, &program, TURNS_FEW, &dir.path().join("few"))?;
    let many = count(&valgrind, &program, TURNS_MANY, &dir.path().join("many"))?;
    let counted = per_call(&few, &many);
    let path = kept_path();
    let kept = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Kept>(&text).ok());
    print!("{}", render(&counted, kept.as_ref()));
    if is_recorded {
        let text = serde_json::to_string_pretty(&counted).map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        println!("recorded in {}", path.display());
        return Ok(Ending::Ok);
    }
    let kept = kept.ok_or("there is no number on record: run this with --record")?;
    let (is_open, verdict) = judge(&counted, &kept);
    println!("{verdict}");
    Ok(if is_open { Ending::Ok } else { Ending::Short })
}

fn kept_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// Builds `turn` as the release profile says, whatever the environment says: another profile makes another number.
fn build() -> Result<PathBuf, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args([
        "build",
        "--release",
        "-p",
        "bench",
        "--example",
        "turn",
        "--message-format",
        "json-render-diagnostics",
    ]);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PROFILE_RELEASE_")
            || text == "RUSTFLAGS"
            || text == "CARGO_ENCODED_RUSTFLAGS"
        {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.stderr(Stdio::inherit()).output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err("the program to be counted could not be built".into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == "turn")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| "cargo did not say where it put `turn`".into())
}

/// Instructions in all, and by stage.
#[derive(Debug, PartialEq)]
struct Counts {
    total: u64,
    stages: BTreeMap<String, u64>,
}

fn count(valgrind: &Path, program: &Path, turns: u64, profile: &Path) -> Result<Counts, String> {
    let output = Command::new(valgrind)
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .arg(turns.to_string())
        .env("GLIBC_TUNABLES", GLIBC_TUNABLES)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the counted program ended badly: {}", said.lines().last().unwrap_or_default()));
    }
    let text = std::fs::read_to_string(profile).map_err(|error| format!("{}: {error}", profile.display()))?;
    parse(&text).ok_or_else(|| "valgrind's profile has no total".into())
}

/// Reads a profile: the cost of a stage is every cost line below its function, calls it makes included.
fn parse(profile: &str) -> Option<Counts> {
    let mut names = BTreeMap::new();
    let mut stage: Option<&str> = None;
    let mut stages: BTreeMap<String, u64> = BTreeMap::new();
    let mut total = None;
    for line in profile.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            // Names are written out once and then only by number: `(12) turn::decode`, `(12)`.
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(number.to_string(), name.to_string());
            }
            let name = names.get(number).map_or("", String::as_str);
            stage = STAGES.into_iter().find(|stage| is_stage(name, stage));
        } else if let Some(callee) = line.strip_prefix("cfn=") {
            if let Some((number, name)) = callee.split_once(' ') {
                names.insert(number.to_string(), name.to_string());
            }
        } else if let Some(count) = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")) {
            total = total.or(count.trim().parse().ok());
        } else if let Some(stage) =
            stage.filter(|_| line.starts_with(|first: char| "+-*0123456789".contains(first)))
        {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            *stages.entry(stage.into()).or_default() += cost.unwrap_or(0);
        }
    }
    Some(Counts { total: total?, stages })
}

/// `turn::decode`, with or without the hash that the compiler adds.
fn is_stage(name: &str, stage: &str) -> bool {
    name.strip_prefix("turn::")
        .and_then(|rest| rest.strip_prefix(stage))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::h"))
}

fn per_call(few: &Counts, many: &Counts) -> Kept {
    let calls = ((TURNS_MANY - TURNS_FEW) * CALLS_PER_TURN) as f64;
    let difference = |many: u64, few: u64| (many as f64 - few as f64) / calls;
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let stages = many.stages.iter().map(|(name, count)| {
        let few = few.stages.get(name).copied().unwrap_or(0);
        (name.clone(), rounded(difference(*count, few)))
    });
    Kept {
        toolchain: toolchain(),
        instructions_per_call: rounded(difference(many.total, few.total)),
        stages: stages.collect(),
        note: NOTE.into(),
    }
}

fn toolchain() -> String {
    let output = Command::new("rustc").current_dir(env!("CARGO_MANIFEST_DIR")).arg("--version").output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}

fn render(counted: &Kept, kept: Option<&Kept>) -> String {
    let show = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    let mut rows = vec![["instructions per call", "counted", "on record"].map(String::from)];
    for stage in STAGES {
        let of = |kept: &Kept| kept.stages.get(stage).copied();
        rows.push([stage.into(), show(of(counted)), show(kept.and_then(of))]);
    }
    let total = |kept: &Kept| kept.instructions_per_call;
    rows.push(["all".into(), show(Some(total(counted))), show(kept.map(total))]);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write_columns(&mut out, &rows);
    out
}

/// Whether the gate is open, and in words why.
fn judge(counted: &Kept, kept: &Kept) -> (bool, String) {
    let change = 100.0 * (counted.instructions_per_call / kept.instructions_per_call - 1.0);
    let is_open = change <= TOLERANCE_PERCENT;
    let mut text =
        format!("{change:+.2} % against the record; up to +{TOLERANCE_PERCENT} % is let through: ");
    text += if is_open { "pass" } else { "short" };
    if counted.toolchain != kept.toolchain {
        text += &format!(
            "\nrecorded with {}, counted with {}: part of this may be the compiler's",
            kept.toolchain, counted.toolchain
        );
    }
    if !is_open {
        text += "\nIf the cost is worth it, say why in the commit and put the new number on record:\n  \
                 cargo run --release -p bench -- instructions --record";
    } else if change < -TOLERANCE_PERCENT {
        text += "\nCheaper than the record: keep it so with `cargo run --release -p bench -- instructions --record`";
    }
    (is_open, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "events: Ir\n\nfn=(1) turn::main\n10 5\ncfn=(2) turn::decode\ncalls=2 20\n11 700\n\n\
                           fn=(2)\n20 300\n+1 100\ncfn=(3) memcpy\ncalls=4 0\n* 50\n\nfn=(3)\n0 50\n\n\
                           fn=(4) turn::reply::h0123456789abcdef\n30 7\n\nfn=(5) turn::decoder\n9 9\n\n\
                           totals: 1221\n";

    fn kept(instructions_per_call: f64) -> Kept {
        Kept { toolchain: "x".into(), instructions_per_call, stages: BTreeMap::new(), note: String::new() }
    }

    #[test]
    fn a_stage_has_its_own_cost_and_that_of_its_calls() {
        let counts = parse(PROFILE).unwrap();
        assert_eq!(counts.total, 1221);
        assert_eq!(counts.stages, BTreeMap::from([("decode".into(), 450), ("reply".into(), 7)]));
        assert_eq!(parse("events: Ir\n"), None);
    }

    #[test]
    fn start_up_cancels_out() {
        let counts = |total, decode| Counts { total, stages: BTreeMap::from([("decode".into(), decode)]) };
        // 32,000 calls lie between the two.
        let counted = per_call(&counts(1_000_000, 5_000), &counts(33_000_000, 325_000));
        assert_eq!(counted.instructions_per_call, 1000.0);
        assert_eq!(counted.stages["decode"], 10.0);
    }

    #[test]
    fn the_gate_shuts_above_two_percent_and_says_how_to_open_it() {
        assert!(judge(&kept(1019.0), &kept(1000.0)).0);
        let (is_open, text) = judge(&kept(1021.0), &kept(1000.0));
        assert!(!is_open && text.contains("--record"), "{text}");
        let (is_open, text) = judge(&kept(900.0), &kept(1000.0));
        assert!(is_open && text.contains("Cheaper"), "{text}");
    }

    #[test]
    fn the_number_on_record_can_be_read() {
        let text = std::fs::read_to_string(kept_path()).unwrap();
        assert!(serde_json::from_str::<Kept>(&text).unwrap().instructions_per_call > 0.0);
    }
}

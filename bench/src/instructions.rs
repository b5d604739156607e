//! The instruction gate: how many instructions a call takes, against the numbers on record.
//!
//! In: the programs of `programs.rs`, built here with the release profile as it stands in Cargo.toml.  Out: instructions
//! per call and stage; `Short` when a call costs more than the record and its tolerance.
//! How: a program runs under `valgrind --tool=callgrind` for two numbers of calls; the difference divided by the calls
//! between them leaves start-up and the growth of tables out.
//! Always: the same on every x86-64 machine with the same toolchain. What could differ is glibc choosing its memcpy by
//! processor, so the choice is turned off; the tolerance is for the rest.
//! Why instructions and not time: a shared machine moves the time of a call by half, and its instructions not at all.
//! Reading order: `programs` (what is counted), this file, `profile` (how the count is read).

mod profile;
mod programs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Ending;
use crate::process;
use crate::report::text::write_columns;

use profile::Counts;
use programs::{PROGRAMS, Program};

/// Above this much more than the record, the gate is shut.
const TOLERANCE_PERCENT: f64 = 2.0;
/// Functions and files shown of a program that is explained; the others are one line.
const PLACES_SHOWN: usize = 25;
/// Processor features from which glibc chooses its copies. Without them it takes the ones every x86-64 machine has.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,-RTM,-BMI2,\
                              -AVX_Fast_Unaligned_Load,-Prefer_No_VZEROUPPER";

/// What is asked for.
pub struct Wish<'a> {
    /// Puts the numbers counted on record.
    pub is_recorded: bool,
    /// Shows in which functions and files the gated instructions are, and keeps the profiles here.
    pub explain: Option<&'a Path>,
    /// Which programs.
    pub is_selected: &'a dyn Fn(&str) -> bool,
}

/// What is kept in `bench/instructions.json`.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// With what it was compiled: another compiler makes other numbers.
    toolchain: String,
    /// By name of the program.
    programs: BTreeMap<String, PerCall>,
    /// What this is, for who finds the file.
    note: String,
}

/// Instructions per call of one program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PerCall {
    /// The number the gate holds.
    gated: f64,
    /// By stage, as far as a stage is a function of the program.
    stages: BTreeMap<String, f64>,
}

const NOTE: &str = "Instructions per call. Written by `cargo run --release -p bench -- instructions --record`. The \
                    gate fails 2 % above `gated`; see docs/performance.md.";

/// Counts, prints, and compares with the record or replaces it.
pub fn run(wish: &Wish<'_>) -> Result<Ending, String> {
    let valgrind =
        process::installed("valgrind").ok_or("valgrind is needed to count instructions: install valgrind")?;
    let selected: Vec<&Program> =
        PROGRAMS.iter().filter(|program| (wish.is_selected)(program.name)).collect();
    let Some(_) = selected.first() else {
        return Err("no program is selected; there are turn, shard-shm and shard-tcp".into());
    };
    let examples = build(&selected)?;
    let path = kept_path();
    let mut kept = read_kept(&path).unwrap_or_default();
    let toolchain = toolchain();
    let mut is_open = true;
    for program in selected {
        let binary = &examples[program.example];
        let counted = count_per_call(&valgrind, binary, program)?;
        let before = kept.programs.insert(program.name.into(), counted.clone());
        print!("{}", render(program, &counted, before.as_ref()));
        if let Some(dir) = wish.explain {
            print!("{}", explain(&valgrind, binary, program, dir)?);
        }
        if !wish.is_recorded {
            let before = before.ok_or("there is no number on record: run this with --record")?;
            let (is_kept, verdict) = judge(counted.gated, before.gated);
            println!("{verdict}\n");
            is_open &= is_kept;
        }
    }
    if wish.is_recorded {
        let text = serde_json::to_string_pretty(&Kept { toolchain, note: NOTE.into(), ..kept });
        let text = text.map_err(|error| error.to_string())?;
        std::fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
        println!("recorded in {}", path.display());
    } else if kept.toolchain != toolchain {
        println!(
            "recorded with {}, counted with {toolchain}: part of a change may be the compiler's",
            kept.toolchain
        );
    }
    Ok(if is_open { Ending::Ok } else { Ending::Short })
}

fn kept_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

fn read_kept(path: &Path) -> Option<Kept> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Builds the examples as the release profile says, whatever the environment says: another profile makes other numbers.
fn build(programs: &[&Program]) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--release", "-p", "bench", "--message-format", "json-render-diagnostics"]);
    for program in programs {
        cargo.args(["--example", program.example]);
    }
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
        return Err("the programs to be counted could not be built".into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let built = messages.filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_string();
        Some((name, PathBuf::from(message["executable"].as_str()?)))
    });
    let built: BTreeMap<String, PathBuf> = built.collect();
    match programs.iter().find(|program| !built.contains_key(program.example)) {
        Some(program) => Err(format!("cargo did not say where it put `{}`", program.example)),
        None => Ok(built),
    }
}

fn count_per_call(valgrind: &Path, binary: &Path, program: &Program) -> Result<PerCall, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let few = count(valgrind, binary, program, program.calls_few, None, &dir.path().join("few"))?;
    let many = count(valgrind, binary, program, program.calls_many, None, &dir.path().join("many"))?;
    per_call(program, &few, &many)
}

/// Runs a program under callgrind, which looks only at what is below the function `within`, if there is one.
fn count(
    valgrind: &Path,
    binary: &Path,
    program: &Program,
    calls: u64,
    within: Option<&str>,
    profile: &Path,
) -> Result<Counts, String> {
    let mut command = Command::new(valgrind);
    command
        .arg("--tool=callgrind")
        .arg("--dump-instr=yes")
        .arg("--dump-line=yes")
        .arg(format!("--callgrind-out-file={}", profile.display()));
    if let Some(within) = within {
        command.arg(format!("--toggle-collect={}::{within}*", program.example));
    }
    command.arg(binary).args(program.arguments).arg(calls.to_string()).env("GLIBC_TUNABLES", GLIBC_TUNABLES);
    let output = command.output().map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the counted program ended badly: {}", said.lines().last().unwrap_or_default()));
    }
    let text = std::fs::read_to_string(profile).map_err(|error| format!("{}: {error}", profile.display()))?;
    profile::parse(&text, program).ok_or_else(|| "valgrind's profile has no total".into())
}

fn per_call(program: &Program, few: &Counts, many: &Counts) -> Result<PerCall, String> {
    let stages = differences(program, &few.stages, &many.stages);
    let gated = match program.gated {
        None => difference(program, few.total, many.total),
        Some(stage) => *stages.get(stage).ok_or_else(|| format!("the profile names no `{stage}`"))?,
    };
    Ok(PerCall { gated, stages })
}

fn differences(
    program: &Program,
    few: &BTreeMap<String, u64>,
    many: &BTreeMap<String, u64>,
) -> BTreeMap<String, f64> {
    let before = |name: &str| few.get(name).copied().unwrap_or(0);
    many.iter().map(|(name, count)| (name.clone(), difference(program, before(name), *count))).collect()
}

fn difference(program: &Program, few: u64, many: u64) -> f64 {
    let calls = (program.calls_many - program.calls_few) as f64;
    let per_call = (many as f64 - few as f64) / calls;
    (per_call * 100.0).round() / 100.0
}

fn toolchain() -> String {
    let output = Command::new("rustc").current_dir(env!("CARGO_MANIFEST_DIR")).arg("--version").output();
    output.map_or_else(|_| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().into())
}

fn render(program: &Program, counted: &PerCall, kept: Option<&PerCall>) -> String {
    let show = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
    let title = format!("{}: instructions per call", program.name);
    let mut rows = vec![[title, "counted".into(), "on record".into()]];
    for stage in program.stages {
        let of = |per_call: &PerCall| per_call.stages.get(*stage).copied();
        rows.push([(*stage).into(), show(of(counted)), show(kept.and_then(of))]);
    }
    let gated = match program.gated {
        None => "all, held by the gate".into(),
        Some(stage) => format!("held by the gate: {stage}"),
    };
    rows.push([gated, show(Some(counted.gated)), show(kept.map(|kept| kept.gated))]);
    table(&rows)
}

fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _infallible = write_columns(&mut out, rows);
    out
}

/// In which functions and source files the gated instructions are, and where the profile with every line is.
fn explain(valgrind: &Path, binary: &Path, program: &Program, dir: &Path) -> Result<String, String> {
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let profile = |kind: &str| dir.join(format!("{}.{kind}.callgrind", program.name));
    let counted = |calls, kind: &str| count(valgrind, binary, program, calls, program.gated, &profile(kind));
    let (few, many) = (counted(program.calls_few, "few")?, counted(program.calls_many, "many")?);
    let mut text = String::new();
    for (kind, few, many) in [
        ("function, what is inlined into it included", &few.functions, &many.functions),
        ("source file, wherever it is inlined", &few.files, &many.files),
    ] {
        let mut places: Vec<(String, f64)> =
            differences(program, few, many).into_iter().filter(|(_, count)| *count > 0.0).collect();
        places.sort_by(|one, other| other.1.total_cmp(&one.1));
        let rest: f64 = places.iter().skip(PLACES_SHOWN).map(|(_, count)| count).sum();
        let mut rows = vec![["counted".to_string(), format!("by {kind}")]];
        let shown = places.iter().take(PLACES_SHOWN);
        rows.extend(shown.map(|(place, count)| [format!("{count:.1}"), shorten(place).into()]));
        rows.push([format!("{rest:.1}"), "all others".into()]);
        text += &format!("\n{}", table(&rows));
    }
    Ok(format!("{text}\nevery line: callgrind_annotate {}\n", profile("many").display()))
}

/// Of a file's path, what is the same on every machine.
fn shorten(place: &str) -> &str {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::to_str).unwrap_or_default();
    let ours = place.strip_prefix(workspace).map(|path| path.trim_start_matches('/'));
    // `/rustc/<commit>/library/...`
    let standard = place.strip_prefix("/rustc/").and_then(|path| path.split_once('/')).map(|(_, path)| path);
    ours.or(standard).unwrap_or(place)
}

/// Whether the gate is open, and in words why.
fn judge(counted: f64, kept: f64) -> (bool, String) {
    let change = 100.0 * (counted / kept - 1.0);
    let is_open = change <= TOLERANCE_PERCENT;
    let mut text =
        format!("{change:+.2} % against the record; up to +{TOLERANCE_PERCENT} % is let through: ");
    text += if is_open { "pass" } else { "short" };
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

    fn counts(total: u64, stage: &str, count: u64) -> Counts {
        Counts { total, stages: BTreeMap::from([(stage.into(), count)]), ..Counts::default() }
    }

    #[test]
    fn start_up_cancels_out() {
        // 32,000 calls lie between the two.
        let (few, many) = (counts(1_000_000, "decode", 5_000), counts(33_000_000, "decode", 325_000));
        let counted = per_call(&PROGRAMS[0], &few, &many).unwrap();
        assert_eq!((counted.gated, counted.stages["decode"]), (1000.0, 10.0));
    }

    #[test]
    fn of_a_whole_shard_the_gate_holds_neither_the_client_nor_the_worker() {
        let shard = &PROGRAMS[1];
        let calls = shard.calls_many - shard.calls_few;
        let (few, many) = (counts(0, "shard_turn", 0), counts(9_000 * calls, "shard_turn", 1_000 * calls));
        assert_eq!(per_call(shard, &few, &many).unwrap().gated, 1000.0);
        let nameless = counts(9_000 * calls, "client_turn", 1_000 * calls);
        assert!(per_call(shard, &few, &nameless).unwrap_err().contains("shard_turn"));
    }

    #[test]
    fn places_are_named_without_the_machine() {
        assert_eq!(shorten(concat!(env!("CARGO_MANIFEST_DIR"), "/src/main.rs")), "bench/src/main.rs");
        assert_eq!(shorten("/rustc/5980/library/core/src/cmp.rs"), "library/core/src/cmp.rs");
        assert_eq!(shorten("router::workers::Workers::reap_one"), "router::workers::Workers::reap_one");
    }

    #[test]
    fn the_gate_shuts_above_two_percent_and_says_how_to_open_it() {
        assert!(judge(1019.0, 1000.0).0);
        let (is_open, text) = judge(1021.0, 1000.0);
        assert!(!is_open && text.contains("--record"), "{text}");
        let (is_open, text) = judge(900.0, 1000.0);
        assert!(is_open && text.contains("Cheaper"), "{text}");
    }

    #[test]
    fn every_program_has_a_number_on_record() {
        let kept = read_kept(&kept_path()).unwrap();
        for program in PROGRAMS {
            assert!(kept.programs[program.name].gated > 0.0, "{}", program.name);
        }
    }
}

//! `quickfire sandbox ... -- PROGRAM ARGUMENTS`: a sandbox, as the process the shim starts for a function with containment = process.
//! What the shim writes ([`around`]) and what the process reads ([`run`]) stand in one file.

use std::path::{Component, Path, PathBuf};
use std::process::{Command as Process, ExitCode, Stdio};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use router::config::{Command as FunctionCommand, ContainmentConfig, FunctionConfig, Runtime};
use router::{Config, run_dir};
use worker_shim::cgroup::Limits;
use worker_shim::sandbox::{EXIT_NO_SANDBOX, Plan};

use crate::ending::{Ending, Failure};
use crate::shim::own_program;

const BEST_EFFORT: &str = "to run with what there is: containment_missing = \"best-effort\"";

/// Not in the help: nobody makes a sandbox by hand.
pub fn command() -> Command {
    let path = |name| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
    let number = |name| Arg::new(name).long(name).value_parser(value_parser!(u64));
    let switch = |name| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("sandbox")
        .hide(true)
        .about("Runs a function's program in a sandbox; started by the shim")
        .arg(Arg::new("function").long("function").required(true))
        .args(["run-dir", "attach-dir"].map(|name| path(name).required(true)))
        .args(["read", "write"].map(|name| path(name).action(ArgAction::Append)))
        .args(["tmp-size-max", "processes-max"].map(|name| number(name).required(true)))
        .args(["host-network", "best-effort"].map(switch))
        .arg(Arg::new("command").action(ArgAction::Append).last(true))
}

/// The command that runs `command` as the function wants to be contained.
pub fn around(
    function: &FunctionConfig,
    run_dir: &Path,
    mut command: Vec<String>,
) -> Result<Vec<String>, Failure> {
    let Some(containment) = &function.containment else { return Ok(command) };
    let own_program = own_program()?;
    let ContainmentConfig { read, write, .. } = containment;
    let mut read: Vec<PathBuf> = read.iter().map(|path| straight(path)).collect();
    match &function.command {
        FunctionCommand::Builtin(_) => {}
        FunctionCommand::Program { program, .. } => {
            let program = straight(program);
            // Of a relay's command the program is the first word behind its own.
            let place = command.len() - function.command.words().len();
            if program.components().count() > 1 {
                command[place] = program.to_string_lossy().into_owned();
            }
            read.extend(folders(&program));
        }
    }
    if function.runtime != Runtime::Native || matches!(function.command, FunctionCommand::Builtin(_)) {
        read.push(PathBuf::from(&own_program));
    }
    let plan = Plan {
        command: Some(command),
        read,
        write: write.iter().map(|path| straight(path)).collect(),
        ..plan_of(function, containment, run_dir)
    };
    Ok(std::iter::once(own_program).chain(words(&plan)).collect())
}

/// What a function in a sandbox finds in its environment beside its own variables.
pub fn variables(function: &FunctionConfig) -> Vec<(String, String)> {
    let is_unset = |name: &&str| function.containment.is_some() && !function.env.contains_key(*name);
    let homes = ["HOME", "TMPDIR"].into_iter().filter(is_unset);
    homes.map(|name| (name.to_owned(), "/tmp".to_owned())).collect()
}

/// What one of its instances may use.
pub fn limits(function: &FunctionConfig) -> Limits {
    Limits {
        memory_max: function.limits.memory_max,
        cpu_max: function.limits.cpu_max,
        processes_max: function.containment.as_ref().map(|it| it.processes_max.into()),
    }
}

/// Whether this host has what the functions of a configuration are to be contained with. What is missing and can be done without
/// is told.
pub fn check(config: &Config) -> Result<(), Failure> {
    let contained =
        config.functions.iter().filter_map(|function| Some((function, function.containment.as_ref()?)));
    for (function, containment) in contained.clone() {
        for (key, paths) in [("read", &containment.read), ("write", &containment.write)] {
            if let Some(absent) = paths.iter().find(|path| !path.exists()) {
                let (name, absent) = (&function.name, absent.display());
                return Err(Failure::usage(format!("`functions.{name}.{key}`: {absent} does not exist")));
            }
        }
    }
    for is_best_effort in [false, true] {
        let mut those = config.functions.iter().filter(|function| limits(function).need_group());
        let Some(function) = those.find(|function| function.limits.is_best_effort == is_best_effort) else {
            continue;
        };
        match worker_shim::cgroup::check() {
            Err(missing) if is_best_effort => {
                eprintln!("quickfire: {missing}; goes on without, as containment_missing says")
            }
            Err(missing) => {
                let name = &function.name;
                return Err(Failure::usage(format!("`functions.{name}`: {missing}\n{BEST_EFFORT}")));
            }
            Ok(()) => {}
        }
    }
    for is_best_effort in [false, true] {
        let mut those =
            contained.clone().filter(|(_, containment)| containment.is_best_effort == is_best_effort);
        let Some((function, containment)) = those.next() else { continue };
        // The run directory may not be there yet, and which paths are shown says nothing of the host.
        let plan =
            Plan { attach_dir: "/dev".into(), ..plan_of(function, containment, Path::new("/run/quickfire")) };
        let tried = Process::new(own_program()?).args(words(&plan)).stdin(Stdio::null()).output();
        let tried = tried.map_err(|error| Failure::usage(format!("cannot try a sandbox: {error}")))?;
        let told = String::from_utf8_lossy(&tried.stderr);
        if !tried.status.success() {
            let name = &function.name;
            return Err(Failure::usage(format!(
                "`functions.{name}.containment`: {}\n{BEST_EFFORT}",
                told.trim_end().trim_start_matches("quickfire: ")
            )));
        }
        told.lines().for_each(|line| eprintln!("quickfire: {line}"));
    }
    Ok(())
}

/// Without program, and with nothing to see that is not for all.
fn plan_of(function: &FunctionConfig, containment: &ContainmentConfig, run_dir: &Path) -> Plan {
    Plan {
        function: function.name.clone(),
        command: None,
        run_dir: run_dir.to_owned(),
        attach_dir: run_dir::attach_dir(run_dir),
        read: Vec::new(),
        write: Vec::new(),
        has_host_network: containment.has_host_network,
        tmp_size_max: containment.tmp_size_max,
        processes_max: containment.processes_max.into(),
        is_best_effort: containment.is_best_effort,
    }
}

/// What follows the name of our own program.
fn words(plan: &Plan) -> Vec<String> {
    let mut words = vec!["sandbox".to_owned(), format!("--function={}", plan.function)];
    words.push(format!("--run-dir={}", plan.run_dir.display()));
    words.push(format!("--attach-dir={}", plan.attach_dir.display()));
    words.extend(plan.read.iter().map(|path| format!("--read={}", path.display())));
    words.extend(plan.write.iter().map(|path| format!("--write={}", path.display())));
    words.push(format!("--tmp-size-max={}", plan.tmp_size_max));
    words.push(format!("--processes-max={}", plan.processes_max));
    words.extend(plan.has_host_network.then(|| "--host-network".to_owned()));
    words.extend(plan.is_best_effort.then(|| "--best-effort".to_owned()));
    if let Some(command) = &plan.command {
        words.push("--".to_owned());
        words.extend(command.iter().cloned());
    }
    words
}

/// Becomes the program.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    match worker_shim::sandbox::run(&plan(matches)) {
        Ok(code) => Ok(Ending::Process(code)),
        Err(failed) => Err(Failure::new(Ending::Process(ExitCode::from(EXIT_NO_SANDBOX)), failed)),
    }
}

fn plan(matches: &ArgMatches) -> Plan {
    let path = |name| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let paths = |name| matches.get_many::<PathBuf>(name).unwrap_or_default().cloned().collect();
    let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default();
    Plan {
        function: matches.get_one::<String>("function").cloned().unwrap_or_default(),
        command: matches.get_many::<String>("command").map(|words| words.cloned().collect()),
        run_dir: path("run-dir"),
        attach_dir: path("attach-dir"),
        read: paths("read"),
        write: paths("write"),
        has_host_network: matches.get_flag("host-network"),
        tmp_size_max: number("tmp-size-max"),
        processes_max: number("processes-max"),
        is_best_effort: matches.get_flag("best-effort"),
    }
}

/// A path that names a folder by way of another (`..`) means something else where that one is not shown.
fn straight(path: &Path) -> PathBuf {
    let is_straight = path.components().all(|part| part != Component::ParentDir);
    if is_straight { path.to_owned() } else { path.canonicalize().unwrap_or_else(|_| path.to_owned()) }
}

/// The folders of a program: where it is found, and where the link leads that is found there. Of one that lies in the home
/// directory of its user, or above it, only the program itself.
fn folders(program: &Path) -> Vec<PathBuf> {
    let found = match program.parent() {
        Some(parent) if parent != Path::new("") => Some(program.to_owned()),
        _ => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
        }
    };
    let Some(found) = found else { return Vec::new() };
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let places = [found.canonicalize().ok(), Some(found)];
    let folder = |place: PathBuf| match place.parent() {
        Some(parent) if parent != Path::new("/") && !home.starts_with(parent) => parent.to_owned(),
        _ => place,
    };
    places.into_iter().flatten().map(folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[functions.f]\ncommand = [\"/opt/f/./bin/run\", \"--read\", \"x\", \"\"]\ncontainment = \"process\"\n";

    fn plan_for(more: &str) -> Plan {
        let manifest = format!("{MANIFEST}{more}");
        let config = Config::parse(&manifest, "/opt/f/q.toml").unwrap();
        let function = &config.functions[0];
        let command = match crate::relay::words(function, Path::new("/r")) {
            Some(words) => std::iter::once("quickfire".to_owned()).chain(words).collect(),
            None => function.command.words(),
        };
        let words = around(function, Path::new("/r"), command).unwrap();
        plan(&command_matches(&words))
    }

    fn command_matches(words: &[String]) -> ArgMatches {
        command().get_matches_from(&words[1..])
    }

    #[test]
    fn what_the_shim_writes_is_what_the_sandbox_reads() {
        let expected = Plan {
            function: "f".into(),
            command: Some(["/opt/f/./bin/run", "--read", "x", ""].map(String::from).to_vec()),
            run_dir: "/r".into(),
            attach_dir: "/r/attach".into(),
            read: vec!["/opt/f/bin".into()],
            write: vec![],
            has_host_network: false,
            tmp_size_max: 64 << 20,
            processes_max: 512,
            is_best_effort: false,
        };
        assert_eq!(plan_for(""), expected);
        let more = "containment_missing = \"best-effort\"\nnetwork = \"host\"\nread = [\"./m\"]\nwrite = [\"/a b\", \"/c\"]\n\
                    tmp_size_max = \"4KiB\"\nprocesses_max = 9\n";
        let given = Plan {
            read: vec!["/opt/f/m".into(), "/opt/f/bin".into()],
            write: vec!["/a b".into(), "/c".into()],
            has_host_network: true,
            tmp_size_max: 4096,
            processes_max: 9,
            is_best_effort: true,
            ..expected
        };
        assert_eq!(plan_for(more), given);
    }

    #[test]
    fn a_relay_is_in_the_sandbox_of_its_program_and_has_its_sockets_there() {
        let plan = plan_for("runtime = \"http\"\nhttp_listen = \"socket\"\n");
        let command = plan.command.unwrap();
        assert!(command.contains(&"--http-sockets=/tmp".to_owned()), "{command:?}");
        assert!(plan.read.contains(&std::env::current_exe().unwrap()));
    }

    #[test]
    fn a_program_found_in_path_shows_its_folder_and_one_at_home_only_itself() {
        let shell = folders(Path::new("sh"));
        assert!(shell.iter().all(|folder| folder.is_dir()) && !shell.is_empty(), "{shell:?}");
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into()));
        assert_eq!(folders(&home.join("x")), [home.join("x")]);
        assert_eq!(folders(Path::new("/x")), [PathBuf::from("/x")]);
    }
}

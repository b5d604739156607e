//! The router's flags from the option table, and the configuration from all its sources.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use router::config::value::Kind;
use router::config::{FileText, Sources};
use router::options::{OptionSpec, ROUTER_OPTIONS};
use router::processors::{self, Machine};
use router::{Config, run_dir};

use crate::ending::Failure;

/// The variable that stands for `--config`.
const CONFIG_VARIABLE: &str = "QUICKFIRE_CONFIG";

/// Adds `--config` and a flag for every option of the router.
pub fn with_router_flags(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("The configuration file. Without one, the bundled functions run. [env: QUICKFIRE_CONFIG]");
    command
        .arg(config)
        .next_help_heading("Options of the router")
        .args(ROUTER_OPTIONS.iter().filter_map(router_flag))
}

/// `--run-dir` for commands that look into a run directory without configuring a router.
pub fn run_dir_flag() -> Arg {
    Arg::new("run-dir")
        .long("run-dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("The router's run directory. [env: QUICKFIRE_DIR] [default: $XDG_RUNTIME_DIR/quickfire, else /tmp/quickfire-UID]")
}

/// The run directory as given, else as the environment says.
pub fn run_dir(given: Option<&PathBuf>) -> PathBuf {
    let from_environment = || variable("QUICKFIRE_DIR").map(PathBuf::from);
    given.cloned().or_else(from_environment).unwrap_or_else(|| run_dir::usual_place(&variable))
}

/// A configuration file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its path.
    pub origin: String,
    /// What stood in it.
    pub text: String,
}

impl ConfigFile {
    /// Reads the file that the flag or the variable names, if one does.
    pub fn read(matches: &ArgMatches) -> Result<Option<ConfigFile>, Failure> {
        let path = matches.get_one::<String>("config").cloned().or_else(|| variable(CONFIG_VARIABLE));
        path.map(|origin| Ok(ConfigFile { text: read_file(&origin)?, origin })).transpose()
    }

    fn as_source(&self) -> FileText<'_> {
        FileText { text: &self.text, origin: &self.origin }
    }
}

/// The effective configuration: file, environment and flags.
pub fn load_config(matches: &ArgMatches) -> Result<Config, Failure> {
    config_of(matches, ConfigFile::read(matches)?.as_ref())
}

/// The same with the file already read.
pub fn config_of(matches: &ArgMatches, file: Option<&ConfigFile>) -> Result<Config, Failure> {
    let flags = |name: &str| {
        let values = matches.get_many::<String>(name).unwrap_or_default();
        values.map(|value| absolute_if_path(name, value)).collect()
    };
    let env = |name: &str| variable(name).map(|value| absolute_if_path(name, &value));
    let sources = Sources {
        file: file.map(ConfigFile::as_source),
        env: &env,
        flags: &flags,
        machine: &Machine::of_this_process,
    };
    Config::load(&sources).map_err(Failure::usage)
}

/// Refuses processors, of shards or functions, that we may not use. Where the kernel does not say, pinning stays best effort.
pub fn check_processors(config: &Config) -> Result<(), Failure> {
    match processors::allowed() {
        Some(allowed) => config.check_processors(&allowed).map_err(Failure::usage),
        None => Ok(()),
    }
}

/// Reads a configuration file.
pub fn read_file(path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("cannot read {path}: {error}")))
}

/// A variable that is set and not empty: `QUICKFIRE_PIN= quickfire up` takes the value back.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

fn router_flag(spec: &OptionSpec) -> Option<Arg> {
    let (flag, env) = (spec.flag?, spec.env?);
    let default = spec.default.map(|text| format!(" [default: {text}]")).unwrap_or_default();
    let action = if spec.kind == Kind::Listeners { ArgAction::Append } else { ArgAction::Set };
    let help = format!("{} [env: {env}]{default}", spec.meaning);
    Some(Arg::new(flag).long(flag).value_name(spec.kind.value_name()).action(action).help(help))
}

/// A relative directory is meant from here, and must stay the same for the shim and its processes.
fn absolute_if_path(name: &str, value: &str) -> String {
    if !["run-dir", "QUICKFIRE_DIR"].contains(&name) {
        return value.to_owned();
    }
    std::path::absolute(Path::new(value))
        .map_or_else(|_| value.to_owned(), |path| path.to_string_lossy().into_owned())
}

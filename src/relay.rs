//! `quickfire relay --runtime NAME -- PROGRAM ARGUMENTS`: a relay, as the process the shim starts for a function whose program
//! does not attach by itself. What the shim writes ([`words`]) and what the process reads ([`run`]) stand in one file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use quickfire_client::serve::ServeFailed;
use relay::{Ended, HealthPlan, HttpListen, HttpPlan, Plan};
use router::config::{FunctionConfig, HealthConfig, HttpConfig, HttpListen as Listen, Runtime};

use crate::ending::{Ending, Failure};

/// Not in the help: nobody starts a relay by hand.
pub fn command() -> Command {
    Command::new("relay")
        .hide(true)
        .about("Speaks another runtime's contract with a program; started by the shim")
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .required(true)
                .value_parser(PossibleValuesParser::new(Runtime::NAMES)),
        )
        .args(["http-path", "http-content-type", "http-ready-path"].map(|name| Arg::new(name).long(name)))
        .args(
            ["health-interval-ms", "health-timeout-ms", "health-failures"]
                .map(|name| Arg::new(name).long(name).value_parser(value_parser!(u64))),
        )
        .arg(Arg::new("http-sockets").long("http-sockets").value_parser(value_parser!(PathBuf)))
        .arg(Arg::new("start-timeout-ms").long("start-timeout-ms").value_parser(value_parser!(u64)))
        .arg(Arg::new("command").action(ArgAction::Append).required(true).last(true))
}

/// What follows the name of our own program when a function's program is run by a relay; nothing for one that is run as it is.
pub fn words(function: &FunctionConfig, run_dir: &Path) -> Option<Vec<String>> {
    if function.runtime == Runtime::Native {
        return None;
    }
    let mut words = vec!["relay".into(), "--runtime".into(), function.runtime.name().into()];
    if matches!(function.runtime, Runtime::Http | Runtime::Lambda) {
        words.push(format!("--start-timeout-ms={}", function.start_timeout.as_millis()));
    }
    if function.runtime == Runtime::Http {
        let HttpConfig { listen, path, content_type, ready_path, health } = &function.http;
        words.push(format!("--http-path={path}"));
        words.push(format!("--http-content-type={content_type}"));
        words.extend(ready_path.as_ref().map(|path| format!("--http-ready-path={path}")));
        if let Some(HealthConfig { interval, timeout, failures_max }) = health {
            words.push(format!("--health-interval-ms={}", interval.as_millis()));
            words.push(format!("--health-timeout-ms={}", timeout.as_millis()));
            words.push(format!("--health-failures={failures_max}"));
        }
        if *listen == Listen::Socket {
            // In a sandbox nothing but /tmp may be written, and nobody else sees it.
            let folder = if function.containment.is_some() { Path::new("/tmp") } else { run_dir };
            words.push(format!("--http-sockets={}", folder.display()));
        }
    }
    words.push("--".into());
    words.extend(function.command.words());
    Some(words)
}

/// Serves until the router says stop.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let function = std::env::var("QUICKFIRE_FUNCTION").unwrap_or_default();
    let code = match relay::run(&plan(matches, function)?) {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Unhealthy) => ExitCode::FAILURE,
        Err(error @ ServeFailed::NotAFunctionProcess { .. }) => return Err(Failure::usage(error)),
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    };
    Ok(Ending::Process(code))
}

fn plan(matches: &ArgMatches, function: String) -> Result<Plan, Failure> {
    let name = matches.get_one::<String>("runtime").map(String::as_str).unwrap_or_default();
    let runtime = match Runtime::from_name(name) {
        Some(Runtime::Exec) => relay::Runtime::Exec,
        Some(Runtime::Stdio) => relay::Runtime::Stdio,
        Some(Runtime::Http) => relay::Runtime::Http(http_plan(matches)),
        Some(Runtime::Lambda) => relay::Runtime::Lambda,
        Some(Runtime::Native) | None => {
            return Err(Failure::usage(format!("runtime {name:?} needs no relay")));
        }
    };
    let command = matches.get_many::<String>("command").unwrap_or_default().cloned().collect();
    let start_timeout = matches.get_one("start-timeout-ms").copied().unwrap_or_default();
    Ok(Plan { function, command, runtime, start_timeout: Duration::from_millis(start_timeout) })
}

fn http_plan(matches: &ArgMatches) -> HttpPlan {
    let text = |name| matches.get_one::<String>(name).cloned();
    let folder = matches.get_one::<PathBuf>("http-sockets").cloned();
    HttpPlan {
        listen: folder.map_or(HttpListen::Port, |folder| HttpListen::Socket { folder }),
        path: text("http-path").unwrap_or_default(),
        content_type: text("http-content-type").unwrap_or_default(),
        ready_path: text("http-ready-path"),
        health: health_plan(matches),
    }
}

fn health_plan(matches: &ArgMatches) -> Option<HealthPlan> {
    let number = |name| matches.get_one::<u64>(name).copied();
    Some(HealthPlan {
        interval: Duration::from_millis(number("health-interval-ms")?),
        timeout: Duration::from_millis(number("health-timeout-ms")?),
        failures_max: u32::try_from(number("health-failures")?).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use router::Config;

    use super::*;

    fn words_of(manifest: &str) -> Option<Vec<String>> {
        words(&Config::parse(manifest, "q.toml").unwrap().functions[0], Path::new("/r"))
    }

    #[test]
    fn what_the_shim_writes_is_what_the_relay_reads() {
        let manifest = "[functions.f]\ncommand = [\"x\", \"--runtime\", \"-- y\", \"\"]\nruntime = ";
        let http = HttpPlan {
            listen: HttpListen::Port,
            path: "/".into(),
            content_type: "application/octet-stream".into(),
            ready_path: None,
            health: None,
        };
        let given = HttpPlan {
            listen: HttpListen::Socket { folder: "/r".into() },
            path: "/-a=b".into(),
            content_type: "a/b; c=d".into(),
            ready_path: Some("/ready".into()),
            health: Some(HealthPlan {
                interval: Duration::from_secs(5),
                timeout: Duration::from_millis(40),
                failures_max: 7,
            }),
        };
        let options = "\"http\"\nhttp_listen = \"socket\"\nhttp_path = \"/-a=b\"\nhttp_content_type = \"a/b; c=d\"\n\
                       http_ready_path = \"/ready\"\nhealth_interval = \"5s\"\nhealth_timeout = \"40ms\"\nhealth_failures = 7\nstart_timeout = \"70ms\"";
        for (text, runtime, start_ms) in [
            ("\"exec\"", relay::Runtime::Exec, 0),
            ("\"stdio\"", relay::Runtime::Stdio, 0),
            ("\"http\"", relay::Runtime::Http(http), 10_000),
            (options, relay::Runtime::Http(given), 70),
            ("\"lambda\"", relay::Runtime::Lambda, 10_000),
        ] {
            let words = words_of(&format!("{manifest}{text}")).unwrap();
            let matches = command().get_matches_from(words.iter().map(String::as_str));
            let plan = plan(&matches, "f".into()).unwrap();
            let command = ["x", "--runtime", "-- y", ""].map(String::from).to_vec();
            let start_timeout = Duration::from_millis(start_ms);
            assert_eq!(plan, Plan { function: "f".into(), command, runtime, start_timeout });
        }
        assert_eq!(words_of(&format!("{manifest}\"native\"")), None);
    }

    #[test]
    fn what_a_runtime_sets_is_refused_in_the_environment_of_a_function() {
        let check = |runtime: Runtime, set: &[&'static str]| {
            let mut unreserved = set.to_vec();
            unreserved.retain(|name| !name.starts_with("QUICKFIRE_"));
            assert_eq!(unreserved, runtime.variables(), "{}", runtime.name());
        };
        check(Runtime::Exec, &relay::EXEC_VARIABLES);
        check(Runtime::Stdio, &[]);
        check(Runtime::Http, &relay::HTTP_VARIABLES);
        check(Runtime::Lambda, &relay::LAMBDA_VARIABLES);
    }
}

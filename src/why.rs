//! `quickfire why ID`: where one call is, what it waits for, and behind how many others. The router is asked.

use clap::{Arg, ArgMatches, Command};
use protocol::Criticality;
use protocol::admin::{CallReport, Message};
use router::counters::BlockedOn;

use crate::apply::{ask, unexpected};
use crate::ending::{EXIT_CODES_HELP, Ending, Failure, print};
use crate::flags;
use crate::table;

/// Arguments and help.
pub fn command() -> Command {
    Command::new("why")
        .about("Tells why one call is not answered yet")
        .arg(
            Arg::new("id")
                .value_name("ID")
                .required(true)
                .value_parser(|text: &str| {
                    u64::from_str_radix(text, 16)
                        .map_err(|_| "an id is hexadecimal, as `quickfire inspect` shows it")
                })
                .help("The call, as `quickfire inspect` or the function's own log names it"),
        )
        .arg(flags::run_dir_flag())
        .after_help(format!("Example:\n  quickfire why 100000300\n\n{EXIT_CODES_HELP}"))
}

/// Asks, and tells the chain of causes.
pub fn run(matches: &ArgMatches) -> Result<Ending, Failure> {
    let invocation_id = matches.get_one::<u64>("id").copied().unwrap_or_default();
    let run_dir = flags::run_dir(matches.get_one("run-dir"));
    match ask(&run_dir, &Message::Why { invocation_id })? {
        Message::Call { report, function } => {
            print(tell(&report, &function))?;
            Ok(Ending::Ok)
        }
        Message::NoSuchCall => {
            let text = format!("no call has the id {invocation_id:x}; it was answered, or never was");
            Err(Failure::new(Ending::Refused, text))
        }
        other => Err(unexpected(&other)),
    }
}

fn tell(report: &CallReport, function: &str) -> String {
    let ago = |at_ns: u64| table::length(report.looked_at_ns.saturating_sub(at_ns));
    let criticality = Criticality::try_from(report.criticality).map_or("?", |known| known.name());
    let mut out = format!(
        "call {:x} of {function}, {criticality}, received {} ago\n",
        report.invocation_id,
        ago(report.received_at_ns)
    );
    match report.stage {
        0 if report.waits_for != 0 => {
            out.push_str(&format!("  waits for call {:x}, which is run for both\n", report.waits_for));
        }
        0 => {
            out.push_str(&format!("  waits; {} go before it\n", table::count(report.ahead.into())));
            match BlockedOn::from_number(report.blocked_on.into()) {
                Some(BlockedOn::Nothing) => out.push_str("  its function is not blocked\n"),
                cause => out.push_str(&format!(
                    "  its function waits for: {}, for {}\n",
                    cause.map_or_else(|| format!("cause {}", report.blocked_on), |cause| cause.name().into()),
                    ago(report.blocked_since_ns)
                )),
            }
        }
        1 | 2 => {
            out.push_str(&format!(
                "  with process {} since {}\n",
                report.process_id,
                ago(report.pushed_at_ns)
            ));
            if report.stage == 2 {
                out.push_str("  past its deadline; whether it had started is being found out\n");
            }
        }
        4 => {
            let left_ns = report.pushed_at_ns.saturating_sub(report.looked_at_ns);
            out.push_str(&format!("  not due yet; it joins its queue in {}\n", table::length(left_ns)));
        }
        _ => out.push_str("  answered; its place is about to be free\n"),
    }
    if report.attempts > 1 {
        out.push_str(&format!("  attempt {}: an earlier process was lost\n", report.attempts));
    }
    match report.deadline_at_ns.checked_sub(report.looked_at_ns) {
        Some(left_ns) => out.push_str(&format!("  deadline in {}\n", table::length(left_ns))),
        None => out.push_str(&format!("  deadline passed {} ago\n", ago(report.deadline_at_ns))),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_causes_is_told_from_the_call_to_its_function() {
        let waiting = CallReport {
            invocation_id: 0x1_0000_0300,
            looked_at_ns: 10_000_000_000,
            received_at_ns: 8_000_000_000,
            deadline_at_ns: 12_500_000_000,
            blocked_since_ns: 9_000_000_000,
            ahead: 3,
            criticality: 2,
            blocked_on: BlockedOn::WorkersBusy as u8,
            ..CallReport::default()
        };
        assert_eq!(
            tell(&waiting, "echo"),
            "call 100000300 of echo, high, received 2.00s ago\n  waits; 3 go before it\n  \
             its function waits for: workers busy, for 1.00s\n  deadline in 2.50s\n"
        );
        let later = CallReport { stage: 4, pushed_at_ns: 12_000_000_000, ..waiting };
        assert_eq!(
            tell(&later, "echo"),
            "call 100000300 of echo, high, received 2.00s ago\n  not due yet; it joins its queue in 2.00s\n  \
             deadline in 2.50s\n"
        );
        let joined = CallReport { waits_for: 0x1_0000_0200, ..waiting };
        assert_eq!(
            tell(&joined, "echo"),
            "call 100000300 of echo, high, received 2.00s ago\n  waits for call 100000200, which is run for both\n  \
             deadline in 2.50s\n"
        );
        let running =
            CallReport { stage: 1, attempts: 2, process_id: 42, pushed_at_ns: 9_500_000_000, ..waiting };
        assert_eq!(
            tell(&running, "echo"),
            "call 100000300 of echo, high, received 2.00s ago\n  with process 42 since 500ms\n  \
             attempt 2: an earlier process was lost\n  deadline in 2.50s\n"
        );
    }
}

//! What the shim tells a function process, in its environment.

use std::path::PathBuf;
use std::time::Duration;

use protocol::FunctionName;

use super::ServeFailed;

/// Thirty seconds: the shim's own default.
const REATTACH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// About twice the cost of waking a core (30 us): a worker that spins this long has wasted no more than the wake-up it
/// hoped to avoid would have cost both sides.
const SPIN_US_DEFAULT: u32 = 50;
/// One round of the ring's spinning: see `shm_ring::WorkerEnd::wait`.
const SPIN_ROUND_NS: u32 = 15;
/// A second. Longer spinning is a mistake in the unit.
const SPIN_US_MAX: u32 = 1_000_000;

/// The environment, read and checked.
#[derive(Debug, PartialEq, Eq)]
pub struct Environment {
    /// QUICKFIRE_ATTACH: the socket of the router's shard.
    pub attach_socket: PathBuf,
    /// QUICKFIRE_FUNCTION.
    pub function: FunctionName,
    /// QUICKFIRE_TOKEN.
    pub token: u64,
    /// QUICKFIRE_REATTACH_MS.
    pub reattach_timeout: Duration,
    /// QUICKFIRE_SPIN_US, as rounds of the ring's spinning.
    pub spin_count_max: u32,
}

impl Environment {
    /// Reads the variables through `variable`.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ServeFailed> {
        Self::read_with(None, variable)
    }

    /// The same, of a copy, which is told its socket when it is made.
    pub fn read_with(
        attach_socket: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ServeFailed> {
        let refused = |reason: String| ServeFailed::NotAFunctionProcess { reason };
        let required = |name: &str| variable(name).ok_or_else(|| refused(format!("{name} is not set")));
        let number = |name: &str, text: String| {
            text.parse::<u64>().map_err(|_| refused(format!("{name} is {text:?}, not a number")))
        };
        let optional_number = |name: &str| variable(name).map(|text| number(name, text)).transpose();

        let function = FunctionName::new(&required("QUICKFIRE_FUNCTION")?)
            .map_err(|invalid| refused(format!("QUICKFIRE_FUNCTION: {invalid}")))?;
        let token = number("QUICKFIRE_TOKEN", required("QUICKFIRE_TOKEN")?)?;
        let reattach_timeout =
            optional_number("QUICKFIRE_REATTACH_MS")?.map_or(REATTACH_TIMEOUT_DEFAULT, Duration::from_millis);
        let spin_us = optional_number("QUICKFIRE_SPIN_US")?.unwrap_or(SPIN_US_DEFAULT.into());
        let spin_us = u32::try_from(spin_us).unwrap_or(SPIN_US_MAX).min(SPIN_US_MAX);
        let attach_socket = match attach_socket {
            Some(path) => path,
            None => required("QUICKFIRE_ATTACH")?.into(),
        };
        Ok(Self {
            attach_socket,
            function,
            token,
            reattach_timeout,
            spin_count_max: spin_us * (1_000 / SPIN_ROUND_NS),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let lookup = |name: &str| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        Environment::read(lookup).map_err(|error| error.to_string())
    }

    const COMPLETE: [(&str, &str); 3] =
        [("QUICKFIRE_ATTACH", "/run/x.sock"), ("QUICKFIRE_FUNCTION", "echo"), ("QUICKFIRE_TOKEN", "7")];

    #[test]
    fn what_the_shim_sets_is_enough() {
        let environment = read(&COMPLETE).unwrap();
        assert_eq!(environment.function.as_str(), "echo");
        assert_eq!(environment.token, 7);
        assert_eq!(environment.reattach_timeout, REATTACH_TIMEOUT_DEFAULT);
        assert_eq!(environment.spin_count_max, 3_300);
    }

    #[test]
    fn a_program_started_by_hand_says_how_to_start_it() {
        let told = read(&[]).unwrap_err();
        assert!(told.contains("is a Quickfire function"), "{told}");
        assert!(told.contains("QUICKFIRE_FUNCTION is not set"), "{told}");
        assert!(told.contains("quickfire up"), "{told}");
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (name, value) in
            [("QUICKFIRE_TOKEN", "x"), ("QUICKFIRE_SPIN_US", "-1"), ("QUICKFIRE_REATTACH_MS", "")]
        {
            let mut variables = COMPLETE.to_vec();
            variables.retain(|(variable, _)| *variable != name);
            variables.push((name, value));
            assert!(read(&variables).unwrap_err().contains(name), "{name}");
        }
    }
}

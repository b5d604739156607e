//! The one call of `quickfire invoke` through a ring in shared memory.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use quickfire_client::shm::{Call, Options, ShmClient, now_ns};

use super::{CONNECT_TIMEOUT, Reached, call_failed, cannot_connect, cannot_resolve, criticality, options};
use crate::ending::Failure;

/// The largest result, where the request is not larger: what a function may return unless configured otherwise.
const RESULT_SIZE_USUAL: u32 = 1 << 20;

/// Attaches, makes the call and waits for its end.
pub fn call(matches: &ArgMatches, run_dir: &Path, name: &str, request: &[u8]) -> Result<Reached, Failure> {
    let begun = Instant::now();
    let request_size = u32::try_from(request.len()).unwrap_or(u32::MAX);
    let ring = Options {
        slot_count: 1,
        payload_size_max: request_size.max(RESULT_SIZE_USUAL),
        timeout: CONNECT_TIMEOUT,
        ..Options::default()
    };
    let mut client = ShmClient::attach(run_dir, &ring).map_err(cannot_connect)?;
    let connected = begun.elapsed();
    let function = client.resolve(name).map_err(cannot_resolve)?;
    let deadline_at_ns = matches
        .get_one::<Duration>("deadline")
        .map(|budget| now_ns().saturating_add(u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX)));
    let flags = options(matches);
    let call = Call { criticality: criticality(matches), deadline_at_ns, flags, ..Call::of(function) };
    let begun = Instant::now();
    let answer = client.call(&call, request).map_err(|error| call_failed(name, &error))?;
    Ok(Reached { answer, connected, round_trip: begun.elapsed() })
}

//! A function whose calls take a known time and no processor: it waits, as one that asks a database does, and returns
//! what it was given.

use std::time::Duration;

use quickfire_client::serve::serve;

/// The process; `bench function-role MICROSECONDS` in a router's configuration.
pub fn role(run_us: u32) -> Result<(), String> {
    serve(|call| {
        std::thread::sleep(Duration::from_micros(u64::from(run_us)));
        Ok(call.payload().to_vec())
    })
    .map_err(|error| error.to_string())
}

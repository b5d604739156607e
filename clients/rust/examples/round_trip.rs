//! How long one call takes on the way that an address chooses: `cargo run --release -p quickfire-client --example round_trip --
//! shm:///RUN_DIR [ring]`. With `ring`, by `ShmClient` instead of `Client`.

use std::time::Instant;

use quickfire_client::Client;
use quickfire_client::shm::{Call, Options, ShmClient};

const WARM_UP: usize = 20_000;
const CALLS: usize = 200_000;
const PAYLOAD: [u8; 32] = [7; 32];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .ok_or("an address is needed: shm:///RUN_DIR, unix:///PATH or quickfire://HOST:PORT")?;
    let mut lengths_ns = if arguments.next().as_deref() == Some("ring") {
        let mut client = ShmClient::connect(&url, &Options::default())?;
        let call = Call::of(client.resolve("echo")?);
        measure(|| {
            Ok(client.call(&call, &PAYLOAD).map(|answer| assert_eq!(answer.payload, &PAYLOAD[..]))?)
        })?
    } else {
        let client = Client::connect(&url)?;
        let echo = client.function("echo")?;
        measure(|| Ok(echo.call(&PAYLOAD).wait().map(|answer| assert_eq!(answer.payload, &PAYLOAD[..]))?))?
    };
    lengths_ns.sort_unstable();
    for (name, share) in [("p50", 50), ("p99", 99)] {
        println!("{name} {:.2} us", lengths_ns[lengths_ns.len() * share / 100] as f64 / 1e3);
    }
    Ok(())
}

fn measure(
    mut call: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let mut lengths_ns = Vec::with_capacity(CALLS);
    for number in 0..WARM_UP + CALLS {
        let begun = Instant::now();
        call()?;
        if number >= WARM_UP {
            lengths_ns.push(u64::try_from(begun.elapsed().as_nanos())?);
        }
    }
    Ok(lengths_ns)
}

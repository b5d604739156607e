//! A router inside a program of your own: starts one, feeds its shard in-process, and calls a function that runs in a
//! process of its own. `cargo run -p router --example embedded`
//!
//! The function's process is this program again (`serve` below), started by hand where `quickfire up` would have the
//! shim keep it warm.

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use protocol::{Criticality, Status};
use quickfire_client::serve::serve;
use router::frontend::Request;
use router::{Config, start};

const CONFIG: &str = r#"
[router]
listen = ["quickfire://127.0.0.1:0"]
[functions.shout]
command = ["this example itself"]
"#;

fn main() -> Result<(), Box<dyn Error>> {
    // Who starts a function process tells it so in its environment.
    if std::env::var_os("QUICKFIRE_FUNCTION").is_some() {
        return Ok(serve(|call| Ok(call.payload().to_ascii_uppercase()))?);
    }

    let directory = tempfile::tempdir()?;
    let mut config = Config::parse(CONFIG, "embedded.rs")?;
    config.router.run_dir = directory.path().join("run");
    let router = start(&config)?;
    println!("listening at {}", router.bound()[0]);

    let mut function = Command::new(std::env::current_exe()?)
        .env("QUICKFIRE_FUNCTION", "shout")
        .env("QUICKFIRE_ATTACH", router.run_dir().attach_socket(0))
        .env("QUICKFIRE_TOKEN", config.functions[0].edition().to_string())
        .spawn()?;

    // The front-end: a handle that any thread may clone and call through. Calls wait until the process has attached.
    let local = router.local(0).ok_or("shard 0 runs")?;
    let shout = local.resolve("shout").ok_or("shout is configured")?;
    for word in ["ready", "quick", "fire"] {
        let ticket = local.submit(Request {
            function: shout,
            payload: Bytes::from(word),
            criticality: Criticality::High,
            budget: Some(Duration::from_secs(5)),
        })?;
        // Also a future: `ticket.await` in any runtime.
        let answer = ticket.wait();
        assert_eq!(answer.status, Status::Ok);
        let total_us = answer.timings.map_or(0, |timings| timings.answered_ns / 1000);
        println!("{word} -> {} in {total_us} us", String::from_utf8_lossy(&answer.payload));
    }

    // Ends gracefully: the function process is told to stop, and does.
    router.drain();
    router.join();
    println!("the function process ended: {}", function.wait()?);
    Ok(())
}

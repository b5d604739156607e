//! Calls that start later, through a real router: not before their time, and not at all if nobody wants them any more.

mod support;

use std::time::{Duration, Instant};

use quickfire_client::{CallError, Client, Status};
use support::{Router, echo_manifest, eventually};

/// As far in the future as these tests ask for; none of them waits for so long.
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_call_starts_at_its_time_and_its_deadline_counts_from_there() {
    let router = Router::start(&echo_manifest(1));
    let sent_at = Instant::now();
    let arguments = ["echo", "--data", "hello", "--start-after", "2s", "--deadline", "1500ms"];
    let output = router.invoke(&arguments);
    assert!(sent_at.elapsed() >= Duration::from_secs(2), "started after {:?}", sent_at.elapsed());
    assert_eq!(output.stdout, b"hello", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_call_that_is_not_due_says_so_and_can_be_cancelled() {
    let router = Router::start(&echo_manifest(1));
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let call = echo.call("hello").start_after(HOUR).start().unwrap();
    let functions = || {
        let output = router.command("functions").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    eventually("the function waits for the time of its call", || functions().contains("not due yet"));

    // Expect: it is told of the one call, too. Its id is that of a place in the table that few calls had before.
    let why = |id: u64| {
        let output = router.command("why").arg(format!("{id:x}")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told: Vec<_> = (1..=8u64).map(|generation| why(generation << 32)).collect();
    assert!(told.iter().any(|text| text.contains("not due yet; it joins its queue in")), "{told:?}");

    call.cancel();
    assert_eq!(call.wait(), Err(CallError::Cancelled { started: false }));
    eventually("nothing is waited for", || !functions().contains("not due yet"));
}

#[test]
fn a_lost_client_takes_its_calls_along() {
    let router = Router::start(&echo_manifest(1));
    let invoke =
        || router.command("invoke").args(["echo", "--start-after", "1h", "--connect", &router.url]).spawn();
    let mut callers: Vec<_> = (0..3).map(|_| invoke().unwrap()).collect();
    eventually("their calls are admitted", || router.counter("engine.calls_scheduled") == 3);
    for caller in &mut callers {
        caller.kill().unwrap();
        caller.wait().unwrap();
    }
    eventually("they are forgotten", || router.counter("engine.calls_forgotten") == 3);
}

#[test]
fn a_start_beyond_the_bound_is_refused() {
    let manifest = format!("[router]\nstart_after_max = \"1m\"\n{}", echo_manifest(1));
    let router = Router::start(&manifest);
    let client = Client::connect(&router.url).unwrap();
    let echo = client.function("echo").unwrap();
    let refused = echo.call("hello").start_after(HOUR).wait().map(|answer| answer.payload);
    assert_eq!(refused, Err(CallError::Refused { status: Status::StartTooLate, retry_after: None }));
    assert!(echo.call("hello").start_after(Duration::from_nanos(1)).wait().is_ok());
}

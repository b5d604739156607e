//! What becomes of a process whose call runs past its time, with real processes: told, and killed if it does not listen.

mod support;

use std::time::Duration;

use quickfire_client::serve::{Call, serve};
use support::{Router, echo_manifest, eventually};

/// The functions `listener` and `deaf`, each a single process.
fn manifest() -> String {
    let program = std::env::current_exe().unwrap();
    let arguments = r#""loiterer", "--exact", "--ignored", "--nocapture", "--test-threads=1""#;
    let mut manifest = echo_manifest(1);
    for name in ["listener", "deaf"] {
        manifest.push_str(&format!("[functions.{name}]\ncommand = [{program:?}, {arguments}]\n"));
    }
    manifest
}

/// The function of the tests below: an empty payload is answered at once, any other after the call was cancelled, or never if
/// the payload says so.
#[test]
#[ignore = "a function process, started by the shims of other tests"]
fn loiterer() {
    if std::env::var_os("QUICKFIRE_FUNCTION").is_none() {
        return; // somebody runs all ignored tests
    }
    let loiter = |call: &Call<'_>| {
        let is_deaf = call.payload() == b"never";
        while !call.payload().is_empty() && (is_deaf || !call.is_cancelled()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok("done")
    };
    serve(loiter).unwrap();
}

/// Calls it with a deadline that it does not keep.
fn overrun(router: &Router, name: &str, payload: &str) {
    let output = router.invoke(&[name, "--data", payload, "--deadline", "300ms"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    let is_told = text.contains("the function was stopped") || text.contains("did not answer in time");
    assert!(is_told, "{text}");
}

fn serves(router: &Router, name: &str) -> bool {
    router.invoke(&[name, "--data", "", "--deadline", "5s"]).status.success()
}

#[test]
fn a_function_that_listens_is_stopped_and_its_process_goes_on() {
    let router = Router::start(&manifest());
    eventually("it serves", || serves(&router, "listener"));
    let before = router.workers("listener");
    for _ in 0..3 {
        overrun(&router, "listener", "until cancelled");
        assert!(serves(&router, "listener"));
    }
    assert_eq!(router.workers("listener"), before, "nobody was killed");
}

#[test]
fn a_function_that_does_not_listen_is_killed_and_replaced() {
    let router = Router::start(&manifest());
    eventually("it serves", || serves(&router, "deaf"));
    let before = router.workers("deaf");
    overrun(&router, "deaf", "never");
    eventually("another process serves", || router.workers("deaf") != before && serves(&router, "deaf"));

    // Expect: others do not notice.
    assert!(serves(&router, "listener"));
    assert!(router.invoke(&["echo", "--data", "x"]).status.success());
}
